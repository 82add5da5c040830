"""Packs: what goes in comes out, and what cannot be is refused without a trace."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.datasets.packs import (
    BYTES_PER_BATCH,
    RECORDS_PER_BATCH,
    open_pack,
    validation_split,
    write_pack,
)
from pipeline.datasets.reader import ImageRecord
from pipeline.views.evaluation import image_tensor
from tests.made_training import made_pack, picture, records


def test_round_trip_across_batches(tmp_path: Path) -> None:
    given = list(records(10, 15, train_classes=6, px=8))
    assert len(given) == 150 > 2 * RECORDS_PER_BATCH
    path = tmp_path / "deep" / "pack.arrow"
    write_pack(path, iter(given))
    pack = open_pack(path)
    assert len(pack) == 150
    assert pack.names == [record.name for record in given]
    assert pack.class_names == [f"class {label}" for label in range(10)]
    assert pack.labels.tolist() == [label for label in range(10) for _ in range(15)]
    assert pack.labels.dtype == np.int64
    assert [pack.encoded(row) for row in range(150)] == [record.encoded for record in given]
    assert pack.encoded(1) == given[1].encoded  # and backwards


def test_large_images_are_written_in_batches_of_few(tmp_path: Path) -> None:
    """The writer's memory is bounded by bytes and not by a number of images alone."""
    path = tmp_path / "pack.arrow"
    size_bytes = BYTES_PER_BATCH // 4 + 1
    given = [
        replace(record, encoded=bytes([number]) * size_bytes)
        for number, record in enumerate(records(2, 4, px=4))
    ]
    held: list[int] = []

    def counted() -> Iterator[ImageRecord]:
        for record in given:
            held.append(written_bytes(tmp_path))
            yield record

    write_pack(path, counted())
    assert held[4] >= 3 * size_bytes  # the first three were written before the fifth was asked for
    pack = open_pack(path)
    assert [pack.encoded(row) for row in range(8)] == [record.encoded for record in given]


def written_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_an_image_larger_than_a_batch_is_written_alone(tmp_path: Path) -> None:
    small, large, last = records(1, 3, px=4)
    large = replace(large, encoded=b"x" * (BYTES_PER_BATCH + 1))
    path = tmp_path / "pack.arrow"
    two_classes = [small, large, replace(last, class_name="other", split="test")]
    write_pack(path, iter(two_classes))
    assert open_pack(path).encoded(1) == large.encoded


def test_pictures_are_decoded_exactly(tmp_path: Path) -> None:
    pack = made_pack(tmp_path, 2, 40, px=12)
    for row, seed in ((0, 0), (39, 39), (70, 1030)):
        expected = picture(seed, 12, 12)
        np.testing.assert_array_equal(np.array(pack.image(row)), expected)
        decoded = image_tensor(pack.image(row))
        assert decoded.dtype == torch.uint8
        np.testing.assert_array_equal(decoded.permute(1, 2, 0).numpy(), expected)


def test_a_tensor_owns_its_memory() -> None:
    image = Image.fromarray(picture(0, 4, 5))
    tensor = image_tensor(image)
    assert tensor.shape == (3, 4, 5)
    tensor.zero_()
    np.testing.assert_array_equal(np.array(image), picture(0, 4, 5))


def test_sizes_and_splits(tmp_path: Path) -> None:
    given = [
        replace(record, width=20 + number, height=30 + number)
        for number, record in enumerate(records(4, 2, train_classes=1, px=4))
    ]
    write_pack(tmp_path / "pack.arrow", given)
    pack = open_pack(tmp_path / "pack.arrow")
    assert pack.widths.tolist() == list(range(20, 28))
    assert pack.heights.tolist() == list(range(30, 38))
    assert pack.rows("train").tolist() == [0, 1]
    assert pack.rows("test").tolist() == [2, 3, 4, 5, 6, 7]


def test_labels_are_numbered_by_first_appearance(tmp_path: Path) -> None:
    mixed = sorted(records(3, 2, px=4), key=lambda record: record.name[::-1])
    mixed.reverse()
    write_pack(tmp_path / "pack.arrow", mixed)
    pack = open_pack(tmp_path / "pack.arrow")
    assert [pack.class_names[label] for label in pack.labels] == [r.class_name for r in mixed]
    assert pack.labels[0] == 0
    first_seen = [pack.labels.tolist().index(label) for label in range(3)]
    assert first_seen == sorted(first_seen)


def test_labels_are_numbered_in_the_official_order(tmp_path: Path) -> None:
    """The class of no image is passed over, one that is not in the order comes last."""
    path = tmp_path / "pack.arrow"
    in_order = list(records(4, 2, px=4))
    mixed = [*in_order[4:6], *in_order[:4], *in_order[6:]]
    order = [f"class {label}" for label in (3, 7, 0, 1)]
    write_pack(path, mixed, {"subset": "no"}, order)
    pack = open_pack(path)
    assert not pack.is_subset
    assert pack.class_names == ["class 3", "class 0", "class 1", "class 2"]
    assert [pack.class_names[label] for label in pack.labels] == [r.class_name for r in mixed]
    assert pack.names == [record.name for record in mixed]


def twice() -> Iterator[ImageRecord]:
    """The same name again, a whole batch of records later."""
    yield from records(2, RECORDS_PER_BATCH, px=4)
    yield next(records(1, 1, px=4))


def both_splits() -> Iterator[ImageRecord]:
    yield from records(2, 2, px=4)
    yield replace(next(records(1, 1, px=4)), name="other.png", split="test")


def broken() -> Iterator[ImageRecord]:
    yield from records(2, RECORDS_PER_BATCH, px=4)
    raise OSError("the archive ends here")


REFUSED = {
    "twice": (twice, ValueError, r"^0/0\.png: this name occurs twice$"),
    "both": (both_splits, ValueError, "class 'class 0' is in both splits"),
    "empty": (lambda: iter(()), ValueError, "no image"),
    "broken": (broken, OSError, "the archive ends here"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_refusals_leave_nothing_behind_and_replace_nothing(tmp_path: Path, fault: str) -> None:
    source, kind, message = REFUSED[fault]
    path = tmp_path / "pack.arrow"
    with pytest.raises(kind, match=message):
        write_pack(path, source())
    assert list(tmp_path.iterdir()) == []
    write_pack(path, records(2, 2, px=4))
    before = path.read_bytes()
    with pytest.raises(kind, match=message):
        write_pack(path, source())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_pack(tmp_path / name, records(3, 30, px=4))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_papers_validation_classes(tmp_path: Path) -> None:
    """METHOD section 7: the second half of CUB's training classes, 51 to 100 of 1 to 100."""
    pack = made_pack(tmp_path, 120, 1, train_classes=100, px=4)
    fitting, validating = validation_split(pack, 0.5)
    assert [pack.class_names[label] for label in pack.labels[validating]] == [
        f"class {label - 1}" for label in range(51, 101)
    ]
    assert fitting.tolist() == list(range(50))


@pytest.mark.parametrize(("classes", "held_out"), [(98, 49), (20, 10), (60, 30)])
def test_halves_of_even_numbers_of_classes(tmp_path: Path, classes: int, held_out: int) -> None:
    pack = made_pack(tmp_path, classes, 2, px=4)
    fitting, validating = validation_split(pack, 0.5)
    assert len(np.unique(pack.labels[validating])) == held_out
    assert not set(pack.labels[fitting]) & set(pack.labels[validating])
    assert sorted([*fitting, *validating]) == list(range(2 * classes))


def test_no_share_is_no_validation_and_test_rows_never_validate(tmp_path: Path) -> None:
    pack = made_pack(tmp_path, 8, 2, train_classes=5, px=4)
    fitting, validating = validation_split(pack, 0.0)
    assert fitting.tolist() == list(range(10))
    assert len(validating) == 0
    fitting, validating = validation_split(pack, 0.4)
    assert fitting.tolist() == list(range(6))
    assert validating.tolist() == [6, 7, 8, 9]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.8, 0.99])
def test_a_side_of_fewer_than_two_classes_is_refused(tmp_path: Path, share: float) -> None:
    pack = made_pack(tmp_path, 5, 2, px=4)
    with pytest.raises(
        ValueError, match=rf"validation_share = {share}: \d of 5 .* both sides need two"
    ):
        validation_split(pack, share)


def test_a_row_past_the_end_is_no_image(tmp_path: Path) -> None:
    pack = made_pack(tmp_path, 2, 2, px=4)
    with pytest.raises(IndexError):
        pack.encoded(4)
