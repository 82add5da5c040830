"""The loss of a search and its parts, against plain loops; they add up."""

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.cli import __main__ as cli
from pipeline.datasets.vector_batches import VectorBatch, VectorsError
from pipeline.datasets.vectors import Vectors, read_vectors, write_vectors
from pipeline.evaluation.confidence import bootstrap_interval
from pipeline.search.audit import PARTS, Audit, _interval, audit_index
from pipeline.search.faiss_index import FaissIndex
from pipeline.search.upkeep import build_index, open_index
from pipeline.search.vector_index import Kind, sample_rows, share_found

ROWS, DIM, K = 700, 16, 10
IDS = [f"{number}.jpg" for number in range(ROWS)]


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


SOURCE = np.random.default_rng(0)
TEACHER = unit(SOURCE.normal(size=(ROWS, DIM)))
STUDENT = unit(TEACHER + 0.1 * SOURCE.normal(size=(ROWS, DIM)))


def batches(ids: list[str], vectors: np.ndarray) -> Iterator[VectorBatch]:
    for start in range(0, len(ids), 90):
        some = slice(start, start + 90)
        yield VectorBatch(ids[some], vectors[some], [""] * len(ids[some]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("audit")
    write_vectors(made / "teacher", batches(IDS, TEACHER), network="t")
    write_vectors(made / "student", batches(IDS, STUDENT), network="s")
    for kind in ("exact", "hnsw", "ivfpq"):
        build_index(made / kind, made / "teacher", kind)
    return made


def audited(folder: Path, kind: Kind, student: Vectors | None, sample: int = ROWS) -> Audit:
    with open_index(folder / kind) as index:
        return audit_index(index, read_vectors(folder / "teacher"), student, sample=sample, k=K)


def nearest(query: np.ndarray, row: int) -> set[int]:
    """The K most similar others, by sorting all."""
    order = np.argsort(-(TEACHER @ query)).tolist()
    return {*[one for one in order if one != row][:K]}


def test_the_student_part_of_an_exact_index_is_its_whole_loss(folder: Path) -> None:
    found = audited(folder, "exact", read_vectors(folder / "student"))
    lost = [
        1 - len(nearest(TEACHER[row], row) & nearest(STUDENT[row], row)) / K for row in range(ROWS)
    ]
    assert (found.queries, found.vectors, found.missing) == (ROWS, ROWS, 0)
    assert found.parts["student"].mean == pytest.approx(np.mean(lost), abs=1e-9)
    assert 0.05 < found.loss.mean < 0.95
    assert found.loss == found.parts["student"]
    assert [found.parts[name].mean for name in PARTS[1:]] == [0, 0]
    assert found.found.mean == 1


def test_the_teachers_own_queries_lose_nothing_in_an_exact_index(folder: Path) -> None:
    found = audited(folder, "exact", None)
    assert [found.loss.mean, *(part.mean for part in found.parts.values())] == [0, 0, 0, 0]


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
@pytest.mark.parametrize("sample", [40, ROWS])
def test_the_parts_add_up(folder: Path, kind: Kind, sample: int) -> None:
    found = audited(folder, kind, read_vectors(folder / "student"), sample)
    assert found.queries == sample
    total = sum(part.mean for part in found.parts.values())
    assert total == pytest.approx(found.loss.mean, abs=1e-12)
    for one in (found.loss, *found.parts.values()):
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.mean <= one.high


def test_approximation_is_what_the_lists_that_are_not_looked_into_lose(folder: Path) -> None:
    with open_index(folder / "ivfpq") as index:
        assert isinstance(index, FaissIndex)
        assert index.structure is not None
        index.structure.nprobe = 2  # of 16
        found = audit_index(index, read_vectors(folder / "teacher"), None, sample=ROWS, k=K)
        lists = index.search(TEACHER, K + 1).ids
        through_all = index.search(TEACHER, K + 1, exhaustive=True).ids
    overlaps = [
        [
            len(nearest(TEACHER[row], row) & {int(one[:-4]) for one in ids if one != IDS[row]}) / K
            for row, ids in enumerate(side)
        ]
        for side in (through_all, lists)
    ]
    codes, probed = (float(np.mean(one)) for one in overlaps)
    assert found.parts["quantisation"].mean == pytest.approx(1 - codes, abs=1e-9)
    assert found.parts["approximation"].mean == pytest.approx(codes - probed, abs=1e-9)
    assert found.parts["approximation"].mean > 0.1
    assert found.found.mean == pytest.approx(probed, abs=1e-9)


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivfpq", "lancedb"])
def test_which_of_equally_near_images_is_found_is_no_loss(tmp_path: Path, kind: Kind) -> None:
    """Every image twice and a placeholder a hundred times, in an index in another order."""
    if kind == "lancedb":
        pytest.importorskip("lancedb")
    vectors = np.concatenate([np.repeat(TEACHER[:300], 2, axis=0), TEACHER[[300] * 100]])
    order = np.random.default_rng(3).permutation(ROWS)
    write_vectors(tmp_path / "teacher", batches(IDS, vectors))
    write_vectors(tmp_path / "student", batches(IDS, unit(vectors + 1e-9)))
    write_vectors(tmp_path / "shuffled", batches([IDS[row] for row in order], vectors[order]))
    build_index(tmp_path / "i", tmp_path / "shuffled", kind)
    for student in (None, read_vectors(tmp_path / "student")):
        with open_index(tmp_path / "i") as index:
            found = audit_index(index, read_vectors(tmp_path / "teacher"), student, sample=ROWS)
        means = [found.loss.mean, *(part.mean for part in found.parts.values())]
        assert means == pytest.approx([0, 0, 0, 0], abs=0.05 if kind == "ivfpq" else 1e-12)
        assert found.found.mean == pytest.approx(1 - found.loss.mean)


@pytest.mark.parametrize(
    ("found", "share"),
    [
        ([0.99, *[0.5] * 9], 1),
        ([0.5] * 10, 0.9),  # none of those as near as the last stands for the nearer one
        ([0.99, *[0.5] * 20], 1),
        ([*[0.5] * 160], 0.9),
        ([0.99, *[0.5 + 2e-7] * 8, 0.4], 0.9),
        ([0.99, *[0.5] * 4, *[np.nan] * 5], 0.5),
        ([np.nan] * 10, 0),
    ],
)
def test_equally_near_images_stand_for_one_another_and_for_no_nearer_one(
    found: list[float], share: float
) -> None:
    nearest = np.array([[0.99, *[0.5] * 9]])
    assert share_found(np.array([found]), nearest).tolist() == [share]


def test_few_losses_tell_no_less_than_none() -> None:
    unseen = 1 - 0.025 ** (1 / 1000)
    for losses in (1, 3, 9):
        values = np.zeros(1000)
        values[:losses] = 0.1
        found = _interval(values, 0, 0)
        assert (found.low, found.high) == (0, pytest.approx(found.mean + unseen))
    values[:12] = 0.1
    assert _interval(values, 0, 0) == bootstrap_interval(values, np.arange(1000), seed=0)
    values[:] = np.where(np.arange(1000) % 2, 1.0 - 0.9, 0.8 - 0.7)  # equal but for rounding
    high = _interval(values, 0, 0).high
    assert high == pytest.approx(0.1 + unseen)


def test_a_loss_that_no_query_met_has_an_interval(folder: Path) -> None:
    found = audited(folder, "hnsw", None, sample=100)
    unseen = 1 - 0.025 ** (1 / 100)
    assert (found.loss.low, found.loss.mean, found.loss.high) == (0, 0, unseen)
    quantisation = found.parts["quantisation"]
    assert (quantisation.low, quantisation.high) == (-unseen, unseen)
    assert found.parts["student"].high == 0  # there is no student
    assert found.found.low == 1 - unseen


def test_what_the_index_lacks_and_has_more_is_counted(folder: Path, tmp_path: Path) -> None:
    build_index(tmp_path / "i", folder / "teacher", "exact")
    with open_index(tmp_path / "i") as index:
        index.delete(IDS[:100])
        index.upsert(batches([f"other {one}" for one in IDS[:70]], TEACHER[:70]))
        found = audit_index(index, read_vectors(folder / "teacher"), sample=50, k=K)
    assert (found.missing, found.surplus) == (100, 70)
    assert found.parts["quantisation"].mean > 0.05


def test_vectors_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    write_vectors(tmp_path / "short", batches(IDS, TEACHER[:, :8]))
    short = read_vectors(tmp_path / "short")
    teacher = read_vectors(folder / "teacher")
    with open_index(folder / "exact") as index:
        with pytest.raises(ValueError, match=r"of 8 numbers and .* of 16: a student's are of"):
            audit_index(index, teacher, short)
        with pytest.raises(ValueError, match=r"of 16 numbers and .* of 8: audit it with the vect"):
            audit_index(index, short)
        with pytest.raises(ValueError, match="700 vectors have no 700 nearest others"):
            audit_index(index, teacher, k=700)
        write_vectors(tmp_path / "others", batches(["other"], TEACHER[:1]))
        with pytest.raises(VectorsError, match="1 of 1 images have no vector"):
            audit_index(index, teacher, read_vectors(tmp_path / "others"))


def test_vectors_of_another_network_than_the_index_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    write_vectors(tmp_path / "other", batches(IDS, TEACHER), network="other")
    with (
        open_index(folder / "exact") as index,
        pytest.raises(ValueError, match="are of different networks: audit it with the vectors"),
    ):
        audit_index(index, read_vectors(tmp_path / "other"))


def test_a_query_whose_name_has_another_form_of_accents_is_not_its_own_neighbour(
    tmp_path: Path,
) -> None:
    names = [f"caf\u00e9-{row}" for row in range(ROWS)]
    write_vectors(tmp_path / "teacher", batches(names, TEACHER))
    other = [unicodedata.normalize("NFD", one) for one in names]
    write_vectors(tmp_path / "student", batches(other, STUDENT))
    write_vectors(tmp_path / "same", batches(names, STUDENT))
    build_index(tmp_path / "i", tmp_path / "teacher", "exact")
    with open_index(tmp_path / "i") as index:
        teacher = read_vectors(tmp_path / "teacher")
        found, expected = (
            audit_index(index, teacher, read_vectors(tmp_path / student), sample=ROWS, k=1)
            for student in ("student", "same")
        )
    assert found == expected


def test_a_sample_is_drawn_evenly() -> None:
    seen = np.zeros(ROWS)
    for seed in range(400):
        rows, drawn = sample_rows(batches(IDS, TEACHER), 35, seed)
        assert (rows, len({*drawn.ids})) == (ROWS, 35)
        places = [int(one[:-4]) for one in drawn.ids]
        np.testing.assert_array_equal(drawn.vectors, TEACHER[places])
        seen[places] += 1
    # Each row 20 times, with a deviation of 4.4; halves of the rows 7000 times, of 59.
    assert abs(seen[: ROWS // 2].sum() - 7000) < 5 * 59
    assert seen.max() < 20 + 6 * 4.4
    assert len(sample_rows(batches(IDS, TEACHER), 1000, 0)[1].ids) == ROWS


def test_the_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    command = ["audit", "ivfpq", "--vectors", "teacher", "--queries", "student", "--sample", "60"]
    said = CliRunner().invoke(cli.app, command)
    assert said.exit_code == 0, said.output
    assert "60 queries among 700 vectors" in said.stdout
    assert [name for name in PARTS if f"by {name}" in said.stdout] == list(PARTS)
    told = json.loads(CliRunner().invoke(cli.app, [*command, "--json"]).stdout)
    assert sum(part["mean"] for part in told["parts"].values()) == pytest.approx(
        told["loss"]["mean"], abs=1e-12
    )
    assert CliRunner().invoke(cli.app, ["audit", "teacher", "--vectors", "teacher"]).exit_code == 2
    assert CliRunner().invoke(cli.app, [*command, "--seed", "-1"]).exit_code == 2
