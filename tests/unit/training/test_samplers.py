"""Batches: every row once, classes kept apart, and an order that only seed and epoch decide."""

import numpy as np
import pytest
import torch

from pipeline.training.samplers import class_balanced_batches, seeded_generator, shuffled_batches


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_generator_depends_on_its_keys_alone() -> None:
    def numbers(*keys: int | str) -> list[float]:
        return torch.rand(4, generator=seeded_generator(*keys)).tolist()

    torch.manual_seed(1)
    first = numbers(0, "order", 3)
    torch.manual_seed(2)
    assert numbers(0, "order", 3) == first
    keys = [(0, "order", 4), (1, "order", 3), (0, "views", 3), (0, "order"), (0, "order", 3, 0)]
    assert all(numbers(*other) != first for other in keys)


def test_streams_of_neighbouring_keys_are_unrelated() -> None:
    first = [torch.rand((), generator=seeded_generator(0, "views", n)).item() for n in range(400)]
    assert len(set(first)) == 400
    # 400 uniform numbers: mean 1/2 with standard error 0.0144; neighbours correlate within 3/20.
    assert np.mean(first) == pytest.approx(0.5, abs=0.05)
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.15


def test_shuffled_batches_hold_every_row_once() -> None:
    rows = np.arange(100, 123)
    batches = shuffled_batches(rows, 5, generator())
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    order = np.concatenate(batches)
    assert sorted(order) == rows.tolist()
    assert order.tolist() != rows.tolist()


def test_a_limit_takes_a_random_part() -> None:
    rows = np.arange(50)
    batches = shuffled_batches(rows, 4, generator(), limit=10)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    taken = np.concatenate(batches)
    assert len(set(taken)) == 10
    others = np.concatenate(shuffled_batches(rows, 4, generator(1), limit=10))
    assert set(taken) != set(others)
    assert len(np.concatenate(shuffled_batches(rows, 4, generator(), limit=500))) == 50


def test_a_last_batch_that_is_too_small_joins_the_one_before() -> None:
    rows = np.arange(23)
    for least, sizes in ((3, [5, 5, 5, 5, 3]), (4, [5, 5, 5, 8])):
        batches = shuffled_batches(rows, 5, generator(), least=least)
        assert [len(batch) for batch in batches] == sizes
        order = np.concatenate(shuffled_batches(rows, 5, generator()))
        assert np.concatenate(batches).tolist() == order.tolist()
    assert [len(batch) for batch in shuffled_batches(rows, 30, generator(), least=23)] == [23]
    with pytest.raises(ValueError, match="10 training images: the loss compares 11 or more"):
        shuffled_batches(rows, 5, generator(), limit=10, least=11)


def test_the_order_follows_the_generator() -> None:
    rows = np.arange(40)
    orders = [np.concatenate(shuffled_batches(rows, 8, generator(seed))) for seed in (0, 0, 1)]
    assert orders[0].tolist() == orders[1].tolist() != orders[2].tolist()


def balanced(sizes: list[int], classes: int, images: int, seed: int = 0) -> tuple:
    """Labels of the rows, class after class, and the batches of all of them."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.arange(len(labels))
    return labels, class_balanced_batches(labels, rows, classes, images, generator(seed))


def test_batches_are_classes_times_images() -> None:
    labels, batches = balanced([8] * 12, classes=3, images=4)
    sizes = []
    for batch in batches:
        found, counts = np.unique(labels[batch], return_counts=True)
        assert counts.tolist() == [4] * len(found)
        sizes.append(len(found))
    assert sorted(np.concatenate(batches)) == list(range(96))
    assert sizes[:6] == [3] * 6  # only the last ones may find too few different classes
    assert min(sizes) >= 2


def test_uneven_classes_are_filled_and_none_is_lost() -> None:
    sizes = [2, 3, 4, 5, 7, 9]
    cases = 0
    for seed in range(10):
        labels, batches = balanced(sizes, classes=4, images=4, seed=seed)
        drawn = np.concatenate(batches)
        groups = [batch.reshape(-1, 4) for batch in batches]
        for batch in groups:
            kinds = labels[batch]
            assert (kinds == kinds[:, :1]).all()
            assert 2 <= len(set(kinds[:, 0])) == len(batch) <= 4
            cases += 1
        # A class fills up its last group, no more; a group left alone at the end is dropped.
        counts = np.bincount(drawn, minlength=sum(sizes))
        assert len(drawn) <= sum(-(-size // 4) * 4 for size in sizes)
        assert (counts > 0).sum() >= sum(sizes) - 9
    assert cases > 20


def test_every_image_comes_when_the_classes_are_alike() -> None:
    for seed in range(5):
        labels, batches = balanced([7] * 8, classes=4, images=4, seed=seed)
        counts = np.bincount(np.concatenate(batches), minlength=56)
        assert counts.sum() == 64
        assert counts.min() == 1
        assert all(np.bincount(counts[labels == label])[1:].sum() == 7 for label in range(8))


def test_singletons_are_left_out() -> None:
    labels, batches = balanced([1, 4, 1, 4, 1], classes=2, images=2)
    assert sorted(set(labels[np.concatenate(batches)])) == [1, 3]
    assert len(batches) == 2


def test_only_the_given_rows_come() -> None:
    labels = np.array([5, 5, 9, 9, 5, 5, 9, 9, 2, 2])
    rows = np.array([1, 3, 4, 6, 7])
    batches = class_balanced_batches(labels, rows, 2, 2, generator())
    assert set(np.concatenate(batches)) <= set(rows)


@pytest.mark.parametrize("sizes", [[8], [8, 1], [1, 1, 1], [5, 1, 1]])
def test_fewer_than_two_classes_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="two classes or more with two images or more"):
        balanced(sizes, classes=2, images=2)


def test_batches_depend_on_the_generator_alone() -> None:
    orders = [np.concatenate(balanced([8] * 6, 3, 4, seed)[1]).tolist() for seed in (3, 3, 4)]
    assert orders[0] == orders[1] != orders[2]
