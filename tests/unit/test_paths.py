"""Where things lie."""

from pathlib import Path

import pytest

from pipeline.paths import (
    DatasetPaths,
    further_seeds,
    history_path,
    locked_dependencies,
    locked_outputs,
    study_folder,
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_paths_of_a_data_set_are_its_own() -> None:
    first, second = DatasetPaths("a"), DatasetPaths("b")
    for kind in ("source", "pack", "teacher", "database", "index", "results"):
        assert getattr(first, kind) != getattr(second, kind)
    assert first.student("x") != first.baseline("x")
    assert history_path(first.student("x-32")) == Path("models/a/students/x-32.csv")


def test_further_seeds_lie_in_a_folder_beside_the_output_of_the_first() -> None:
    first, other = DatasetPaths("a"), DatasetPaths("a", seed=7, teacher_seed=8)
    assert other.teacher == Path("models/a/teacher.seeds/8.safetensors")
    assert other.database == Path("embeddings/a/database.seeds/8.npy")
    assert other.student("x-32") == Path("models/a/students/x-32.seeds/7.safetensors")
    assert other.baseline("x-32") == Path("models/a/baselines/x-32.seeds/7.safetensors")
    assert history_path(other.student("x")) == Path("models/a/students/x.seeds/7.csv")
    for output in ("teacher", "database"):
        assert getattr(other, output).parent == further_seeds(getattr(first, output))
    assert (other.pack, other.results) == (first.pack, first.results)


def test_a_half_written_lock_is_read_or_is_a_value_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC writes it in pieces, while another stage of the study looks into it."""
    monkeypatch.chdir(tmp_path)
    text = "schema: '2.0'\nstages:\n  prepare@a:\n    cmd: p\n"
    text += "".join(
        f"    {kind}:\n    - path: {kind}\n      md5: '1'\n" for kind in ("deps", "outs")
    )
    refused = 0
    for length in range(len(text)):
        Path("dvc.lock").write_text(text[:length])
        for read in (locked_outputs, locked_dependencies):
            try:
                read()
            except ValueError:
                refused += 1
    assert refused > 100
    Path("dvc.lock").write_text(text)
    assert locked_outputs() == {"prepare@a": {"outs": "1"}}


@pytest.mark.parametrize("place", ["tmpa", "standalone/tmpb", "tmpa/part", "standalone/tmpb/part"])
def test_an_experiment_in_a_folder_of_its_own_knows_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folder = tmp_path / ".dvc/tmp/exps" / place
    folder.mkdir(parents=True)
    copy = folder.parent if folder.name == "part" else folder
    (copy / ".dvc").mkdir()
    monkeypatch.chdir(folder)
    assert study_folder() == Path()
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert study_folder() == tmp_path / folder.relative_to(copy)
    monkeypatch.chdir(tmp_path)  # as for a plain `dvc repro`
    assert study_folder() == Path()
