"""What keeps two networks from a comparison is read from their cards, and nothing else does."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.evaluation import compare as module
from pipeline.evaluation.cells import Bootstrap
from pipeline.evaluation.compare import (
    Comparison,
    Incompatible,
    Unfit,
    compare_networks,
    find_fault,
)
from pipeline.models.weights import NetworkCard, build_embedder, load_network, save_network
from pipeline.paths import DatasetPaths
from tests.made_study import BACKBONE, CPU, DIM, STUDENT, STUDENT_PX, make_finished_study

PATHS = DatasetPaths("emblems")
CHAMPION = PATHS.teacher


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = make_finished_study(tmp_path / "study")
    monkeypatch.chdir(folder)
    return folder


def outcome(
    candidate: Path, champion: Path | None = CHAMPION, *, same_teacher: bool = True
) -> Comparison | Incompatible | Unfit | None:
    return compare_networks(
        PATHS, candidate, champion, Bootstrap(100, 0.95, 0), CPU, same_teacher=same_teacher
    )


def candidate_of(dim: int = DIM, *, fill: float | None = None) -> Path:
    """A network of that dimension; all parameters of its projection are `fill`, if given."""
    path = Path("candidate.safetensors")
    network = build_embedder(BACKBONE, dim, weights="random", seed=0)
    if fill is not None:
        for values in network.projection.parameters():
            values.data.fill_(fill)
    save_network(path, network, NetworkCard(BACKBONE, dim, STUDENT_PX))
    return path


@pytest.fixture
def nothing_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    def embed(*_: object, **__: object) -> None:
        pytest.fail("an image was embedded")

    monkeypatch.setattr(module, "embed_views", embed)


@pytest.mark.usefixtures("study")
def test_two_networks_of_one_space_are_compared() -> None:
    found = outcome(PATHS.student(STUDENT))
    assert isinstance(found, Comparison)
    assert found.queries == 30
    assert outcome(PATHS.student(STUDENT), None) is None


@pytest.mark.usefixtures("study", "nothing_embedded")
@pytest.mark.parametrize("champion", [CHAMPION, None])
def test_a_candidate_of_another_dimension_is_refused(champion: Path | None) -> None:
    found = outcome(candidate_of(DIM // 2), champion)
    assert found == Unfit("its embeddings have dimension 8, those of the database 16")


@pytest.mark.usefixtures("study")
@pytest.mark.parametrize("champion", [CHAMPION, None])
@pytest.mark.parametrize(
    ("fill", "words"),
    [(float("nan"), "holds numbers that are not finite"), (0.5, "all 30 embeddings are the same")],
)
def test_a_candidate_that_ranks_nothing_is_refused(
    champion: Path | None, fill: float, words: str
) -> None:
    for same_teacher in (True, False):
        found = outcome(candidate_of(fill=fill), champion, same_teacher=same_teacher)
        assert isinstance(found, Unfit)
        assert words in found.reason


@pytest.mark.usefixtures("study")
def test_a_champion_of_another_space_gives_way() -> None:
    champion = candidate_of(DIM // 2)
    assert outcome(PATHS.student(STUDENT), champion) == Incompatible(
        "its embeddings have dimension 8, those of the database 16"
    )
    found = outcome(PATHS.student(STUDENT), same_teacher=False)
    assert isinstance(found, Incompatible)
    assert "another teacher" in found.reason


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1])


def _shorten(path: Path) -> None:
    np.save(path, np.load(path)[:-1])


@pytest.mark.usefixtures("study", "without_shape_checks")
@pytest.mark.parametrize(
    ("damage", "path"),
    [
        (_cut, PATHS.database),
        (_cut, PATHS.pack),
        (_shorten, PATHS.database),
        (Path.unlink, CHAMPION),
    ],
)
def test_what_cannot_be_read_is_an_error(damage: Callable[[Path], None], path: Path) -> None:
    damage(path)
    with pytest.raises((ValueError, OSError)):
        outcome(PATHS.student(STUDENT))


@pytest.mark.usefixtures("study")
def test_a_champion_of_nan_is_an_error() -> None:
    broken = candidate_of(fill=float("nan"))
    with pytest.raises(ValueError, match="holds numbers that are not finite"):
        outcome(PATHS.student(STUDENT), broken)


def test_embeddings_that_all_but_agree_have_a_fault() -> None:
    line = torch.zeros(4, 3, dtype=torch.float64)
    line[:, 0] = 1
    line[0, 1], line[1, 1] = 0.02, -0.02  # root mean square of 0.02, 0.02, 0, 0: 0.0141
    assert find_fault(line) == ""
    assert "spread 0.007" in find_fault(line * torch.tensor([1, 0.5, 1]))
    line[2, 2] = torch.inf
    assert find_fault(line).startswith("1 of 4 embeddings hold NaN or infinite")


@pytest.mark.usefixtures("study")
def test_untrained_networks_spread_far_more_than_the_least() -> None:
    network, _ = load_network(PATHS.teacher, CPU)
    views = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert find_fault(network(views)) == ""
