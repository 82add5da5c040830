"""What `l2s gc` takes: studies by their names and their own texts, and nothing of the user's."""

from pathlib import Path

import pytest

from pipeline.config.params import Params, load_params
from pipeline.config.studies import preset_text, with_inactive
from pipeline.embedding.shards import vectors_digest
from pipeline.flows import garbage
from pipeline.flows.garbage import find_garbage
from pipeline.paths import DatasetPaths
from pipeline.search.vector_index import VectorIndexCard

ACTIVE, INACTIVE = "cub200", "emblems"


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Of two studies, in whose texts a student has the same name; the networks are there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(garbage, "_unused_copies", lambda *_: [])
    Path("params.yaml").write_text(preset_text(ACTIVE))
    active = load_params()
    shared = next(iter(active.students))
    saved = preset_text(INACTIVE).replace("emblems-64:", f"{shared}:")
    Path("studies").mkdir()
    Path("studies", f"{INACTIVE}.yaml").write_text(saved)
    paths = DatasetPaths(INACTIVE)
    for file in (paths.teacher, paths.student(shared), paths.student("gone")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return with_inactive(active)


def lost(params: Params, *keep: str) -> dict[str, list[str]]:
    found = find_garbage(params, [ACTIVE], keep)
    return {what: [path.stem for path in paths] for what, paths in found.paths.items()}


def test_students_of_one_name_in_two_studies_are_two(params: Params) -> None:
    assert lost(params, INACTIVE) == {f"lost cells of {INACTIVE}": ["gone"]}


def test_what_is_no_study_stays(params: Params) -> None:
    for folder in ("data/photos", "models/clip"):
        Path(folder).mkdir(parents=True)
    assert lost(params) == {f"study {INACTIVE}": [INACTIVE]}


def test_a_link_and_what_a_study_names_stay(params: Params, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    Path("data").mkdir()
    Path("data", INACTIVE).symlink_to(tmp_path / "disk")
    assert find_garbage(params, [ACTIVE], []).kept == {INACTIVE: f"data/{INACTIVE} is a link"}
    Path("data", INACTIVE).unlink()
    text = preset_text(ACTIVE).replace("inputs: {}", f"inputs: {{{ACTIVE}: models/{INACTIVE}/a}}")
    assert text != preset_text(ACTIVE)
    Path("params.yaml").write_text(text)
    told = f"models/{INACTIVE} holds what a study names"
    assert find_garbage(params, [ACTIVE], []).kept == {INACTIVE: told}


def test_what_was_fetched_for_no_study_goes(params: Params) -> None:
    for name in ("emblems-1", "emblems-2"):
        Path("remote", name).mkdir(parents=True)
        Path("remote", name, ".address.json").touch()
    text = preset_text(ACTIVE).replace("inputs: {}", f"inputs: {{{ACTIVE}: remote/emblems-2}}")
    Path("params.yaml").write_text(text)
    assert lost(params, INACTIVE)["fetched for no study"] == ["emblems-1"]


def test_what_an_interrupted_search_left_goes_with_its_student(params: Params) -> None:
    for key in (next(iter(params.students)), "gone"):
        Path(".work/tune", key).mkdir(parents=True)
    assert lost(params, INACTIVE)["interrupted trainings"] == ["gone"]


def test_the_network_of_an_index_of_vectors_stays(params: Params) -> None:
    student = next(Path(f"models/{INACTIVE}/students").glob("*.safetensors"))
    student.write_bytes(b"network")
    digest = vectors_digest(student, "float16", is_reduced=False)
    card = VectorIndexCard(kind="exact", dim=4, network=digest, sources=())
    Path("indexes/birds").mkdir(parents=True)
    card.write(Path("indexes/birds"))
    assert find_garbage(params, [ACTIVE], []).kept == {INACTIVE: "index birds needs it"}
