"""Losses of labels by name: their formulas, what they learn, and that a training resumes."""

import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.config.losses import LabelLoss
from pipeline.datasets.packs import Pack
from pipeline.training.label_losses import label_loss
from pipeline.training.loop import train
from pipeline.training.schedule import Proxies
from tests.made_training import (
    equal_states,
    labelled_objective,
    made_pack,
    schedule,
    tiny_embedder,
)

VALUES = {
    "normalised_softmax": {"temperature": 0.2},
    "proxy_anchor": {"margin": 0.1, "alpha": 8.0},
    "multi_similarity": {"alpha": 2.0, "beta": 10.0, "base": 0.4},
}
LABELS = torch.tensor([0, 0, 2, 2, 1, 1, 0])
CLASSES = 4  # of one of which the batch has no image


def units(rows: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, 5, generator=generator, dtype=torch.float64), dim=1)


def softplus_sum(exponents: list[float]) -> float:
    return math.log1p(sum(map(math.exp, exponents)))


def test_every_loss_of_the_configuration_is_there_with_its_values() -> None:
    kinds = {
        get_args(model.model_fields["kind"].annotation)[0]: set(model.model_fields)
        for model in get_args(LabelLoss)
    }
    assert kinds.keys() == VALUES.keys()
    for kind, fields in kinds.items():
        assert fields - {"kind", "proxy_rate"} == set(VALUES[kind])
        learns = any(True for _ in label_loss(kind, VALUES[kind], 4, 5, 0).parameters())
        assert learns == ("proxy_rate" in fields)
    with pytest.raises(ValueError, match=r"loss.kind = 'arcface'"):
        label_loss("arcface", {}, 4, 5, 0)


def test_normalised_softmax_by_loops() -> None:
    rows, module = units(7), label_loss("normalised_softmax", {"temperature": 0.2}, CLASSES, 5, 3)
    proxies = normalize(next(module.parameters()).detach().double(), dim=0)
    total = 0.0
    for row, label in zip(rows, LABELS.tolist(), strict=True):
        logits = [(row @ proxies[:, one]).item() / 0.2 for one in range(CLASSES)]
        total += math.log(sum(map(math.exp, logits))) - logits[label]
    assert module(rows, LABELS).item() == pytest.approx(total / 7, rel=1e-6)


def test_proxy_anchor_by_loops() -> None:
    rows, module = units(7), label_loss("proxy_anchor", VALUES["proxy_anchor"], CLASSES, 5, 3)
    proxies = normalize(next(module.parameters()).detach().double(), dim=1)
    positive = negative = 0.0
    for one in range(CLASSES):
        cosines = (rows @ proxies[one]).tolist()
        of_class = [c for c, label in zip(cosines, LABELS.tolist(), strict=True) if label == one]
        others = [c for c, label in zip(cosines, LABELS.tolist(), strict=True) if label != one]
        positive += softplus_sum([-8 * (c - 0.1) for c in of_class]) if of_class else 0.0
        negative += softplus_sum([8 * (c + 0.1) for c in others])
    expected = positive / 3 + negative / 4  # classes in the batch, and all of them
    assert module(rows, LABELS).item() == pytest.approx(expected, rel=1e-6)


def test_multi_similarity_by_loops() -> None:
    rows = units(7)
    total = 0.0
    for i in range(7):
        others = [j for j in range(7) if j != i]
        same = [(rows[i] @ rows[j]).item() for j in others if LABELS[j] == LABELS[i]]
        apart = [(rows[i] @ rows[j]).item() for j in others if LABELS[j] != LABELS[i]]
        total += softplus_sum([-2 * (c - 0.4) for c in same]) / 2
        total += softplus_sum([10 * (c - 0.4) for c in apart]) / 10
    module = label_loss("multi_similarity", VALUES["multi_similarity"], CLASSES, 5, 0)
    assert module(rows, LABELS).item() == pytest.approx(total / 7, rel=1e-6)


def test_proxies_follow_the_seed_and_nothing_else() -> None:
    state = torch.get_rng_state()
    drawn = [label_loss("proxy_anchor", VALUES["proxy_anchor"], 4, 5, seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert equal_states(drawn[0], drawn[1])
    assert not equal_states(drawn[0], drawn[2])


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return made_pack(tmp_path_factory.mktemp("pack"), 4, 4, train_classes=3)


@pytest.mark.parametrize("kind", VALUES)
def test_a_network_learns_and_resumes_with_its_proxies(
    pack: Pack, tmp_path: Path, kind: str
) -> None:
    def run(folder: str, stop_after: int | None = None) -> tuple:
        network, module = tiny_embedder(), label_loss(kind, VALUES[kind], 3, 8, 0)
        before = [parameter.clone() for parameter in module.parameters()]

        def stop(row: dict[str, float]) -> None:
            if row["epoch"] == stop_after:
                raise KeyboardInterrupt

        history = train(
            network,
            labelled_objective(pack, kind, module),
            schedule(epochs=6),
            folder=tmp_path / folder,
            validate=lambda _: {},
            on_epoch=stop,
            proxies=Proxies(module, 5.0) if before else None,
        )
        moved = [not torch.equal(*pair) for pair in zip(before, module.parameters(), strict=True)]
        assert all(moved)
        return history, network, module

    history, network, module = run("straight")
    assert history[-1][kind] < history[0][kind]
    with pytest.raises(KeyboardInterrupt):
        run("stopped", 3)
    again, resumed, proxies = run("stopped")
    assert again == history
    assert equal_states(resumed, network)
    assert kind == "multi_similarity" or equal_states(proxies, module)


def test_labels_are_numbered_without_a_gap(pack: Pack) -> None:
    rows = pack.rows("train")[4:]  # without the first class
    objective = labelled_objective(pack, "none", torch.nn.Identity(), rows=rows)
    seen = {
        label
        for number, batch in enumerate(objective.batches(0))
        for label in objective.load(0, number, batch).labels.tolist()
    }
    assert seen == {0, 1}
