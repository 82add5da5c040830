"""The labelled objective with a tiny network, from both pools of negatives."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.datasets.packs import Pack
from pipeline.training.loop import train
from pipeline.training.metric_learning import TripletObjective
from pipeline.training.triplet import form_triplets, triplet_loss
from tests.made_training import (
    AUGMENTED,
    equal_states,
    made_pack,
    schedule,
    tiny_embedder,
    triplet_objective,
)

POOLS = ("dataset", "batch")
CROPS = replace(AUGMENTED, views=1, mixup_alpha=0.0)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Three training classes and one for testing."""
    return made_pack(tmp_path_factory.mktemp("pack"), 4, 4, train_classes=3)


def run(
    network: nn.Module, objective: TripletObjective, folder: Path, **changes: object
) -> list[dict]:
    options = {"validate": lambda _: {}, "on_epoch": lambda _: None, "loading_threads": 1}
    options |= {name: changes.pop(name) for name in list(changes) if name in options}
    return train(network, objective, schedule(**changes), folder=folder, **options)


def test_negatives_of_the_pool_are_training_images_of_other_classes(pack: Pack) -> None:
    objective = triplet_objective(pack, negatives_per_anchor=4)
    network = tiny_embedder()
    objective.begin_epoch(0, network)
    seen, cases = set(), 0
    for number, rows in enumerate(objective.batches(0) + objective.batches(1)):
        loaded = objective.load(0, number, rows)
        assert loaded.anchors == len(rows) == 4
        assert loaded.negative is not None
        assert loaded.negative.min() >= loaded.anchors
        assert loaded.labels[: len(rows)].tolist() == pack.labels[rows].tolist()
        chosen = loaded.labels[loaded.negative]
        assert (chosen != loaded.labels[: len(rows), None]).all()
        assert len(loaded.views) == len(loaded.labels) == loaded.negative.max() + 1
        seen |= set(chosen.flatten().tolist())
        cases += chosen.numel()
    assert cases >= 80
    assert seen == {0, 1, 2}  # never the test class


def test_the_views_are_those_of_the_rows_that_the_labels_name(pack: Pack) -> None:
    """Flat images, whose grey is their row: anchors first, then their negatives."""

    def decode(row: int) -> torch.Tensor:
        return torch.full((3, 24, 24), 10 * row, dtype=torch.uint8)

    objective = triplet_objective(pack, decode=decode)
    objective.begin_epoch(0, tiny_embedder())
    cases = 0
    for rows in objective.batches(0):
        loaded = objective.load(0, cases, rows)
        found = (255 * loaded.views.mean((1, 2, 3)) / 10).round().long()
        assert found[: loaded.anchors].tolist() == rows.tolist()
        assert pack.labels[found].tolist() == loaded.labels.tolist()
        cases += 1
    assert cases == 3


@pytest.mark.parametrize("pool", POOLS)
def test_the_loss_is_that_of_the_triplets(pack: Pack, pool: str) -> None:
    objective = triplet_objective(pack, negative_pool=pool, views=CROPS)
    network = tiny_embedder()
    objective.begin_epoch(0, network)
    loaded = objective.load(0, 0, objective.batches(0)[0])
    state = loaded.generator.get_state()
    loss = objective.terms(network, loaded)
    assert loss.keys() == {"triplet"}
    loss["triplet"].backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    if pool == "dataset":
        embedded = network(loaded.views)
        triplets = form_triplets(loaded.labels, loaded.anchors, loaded.negative)
        assert loss["triplet"].item() == triplet_loss(embedded, *triplets, 0.7).item()
        assert len(triplets[0]) == 2 * 2 * 1 * 2  # classes x anchors x positives x negatives
    else:
        assert loaded.negative is None
        loaded.generator.set_state(state)
        assert objective.terms(network, loaded)["triplet"].item() == loss["triplet"].item()


def test_the_pool_is_embedded_anew_each_epoch_and_only_where_it_is_used(pack: Pack) -> None:
    calls: list[bool] = []

    def embed_pool(network: nn.Module) -> torch.Tensor:
        calls.append(network.training)
        return torch.nn.functional.normalize(torch.randn(12, 8), dim=1)

    objective = triplet_objective(pack, embed_pool=embed_pool)
    objective.begin_epoch(0, tiny_embedder().train())
    objective.begin_epoch(1, tiny_embedder().train())
    assert calls == [False, False]  # in eval mode
    triplet_objective(pack, embed_pool=embed_pool, negative_pool="batch").begin_epoch(
        0, tiny_embedder()
    )
    assert len(calls) == 2


@pytest.mark.parametrize("pool", POOLS)
def test_it_overfits_eight_images(pack: Pack, tmp_path: Path, pool: str) -> None:
    """Pictures of a class share nothing but their label: that can only be learned by heart."""
    objective = triplet_objective(pack, negative_pool=pool, rows=np.arange(8), margin=0.3)
    history = run(tiny_embedder(seed=1), objective, tmp_path, epochs=100, learning_rate=3e-2)
    first = np.mean([row["loss"] for row in history[:5]])
    last = np.mean([row["loss"] for row in history[-5:]])
    assert last < first / 10


@pytest.mark.parametrize("pool", POOLS)
def test_two_runs_and_any_number_of_loading_threads_are_bit_equal(
    pack: Pack, tmp_path: Path, pool: str
) -> None:
    networks = []
    for number, threads in enumerate((1, 1, 3, 0)):
        torch.manual_seed(number)
        network = tiny_embedder(seed=1, batch_norm=True)
        objective = triplet_objective(pack, negative_pool=pool, views=CROPS)
        run(network, objective, tmp_path / str(number), loading_threads=threads)
        networks.append(network)
    assert equal_states(networks[0], networks[1])
    assert equal_states(networks[0], networks[2])
    assert equal_states(networks[0], networks[3])
    assert not equal_states(networks[0], tiny_embedder(seed=1, batch_norm=True))


@pytest.mark.parametrize("pool", POOLS)
def test_resumed_is_uninterrupted(pack: Pack, tmp_path: Path, pool: str) -> None:
    def objective() -> TripletObjective:
        return triplet_objective(pack, negative_pool=pool, views=CROPS)

    straight = tiny_embedder(seed=1, batch_norm=True)
    expected = run(straight, objective(), tmp_path / "a", epochs=4)

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(
            tiny_embedder(seed=1, batch_norm=True),
            objective(),
            tmp_path / "b",
            epochs=4,
            on_epoch=stop,
        )
    resumed = tiny_embedder(seed=5, batch_norm=True)
    assert run(resumed, objective(), tmp_path / "b", epochs=4) == expected
    assert equal_states(resumed, straight)


def test_one_class_is_refused(pack: Pack, tmp_path: Path) -> None:
    objective = triplet_objective(pack, rows=np.arange(4))
    with pytest.raises(ValueError, match="two classes or more"):
        run(tiny_embedder(), objective, tmp_path)
