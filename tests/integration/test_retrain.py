"""Retraining on new images: who leads afterwards, and what the record says of it."""

import shutil
import sqlite3
from pathlib import Path

import pytest
import torch

from pipeline.config import load_params
from pipeline.flows.champions import judge_dataset, roll_back_champion
from pipeline.flows.retrain import retrain
from pipeline.flows.retraining import Request, kept_teacher_line, teacher_origin
from pipeline.retrieval.search import choose_network, open_network
from pipeline.tracking_registry import RegistryError, champions, find_champion
from pipeline.tracking_store import open_store
from tests.quick_study import NAME, STUDENT, environment, make_quick_study, put_images

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own
MODEL = f"{NAME}-16px"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "study"
    return make_quick_study(folder, {5: "bad", 6: "good", 7: "bad"})


def answer_of(student: str, *, newest: bool = False) -> str | None:
    """The version of the champion that a search with the student uses; None for its newest."""
    named = choose_network(load_params(), student, None, newest=newest)
    return open_network(named, torch.device("cpu")).version


@pytest.fixture
def workspace(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "study"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    for name in ("PATH", "PYTHONPATH", "L2S_DEVICE"):
        monkeypatch.setenv(name, environment()[name])
    return folder


def test_new_images_retrain_students_and_only_the_better_one_leads(workspace: Path) -> None:
    first = retrain(Request())
    assert first.lines[0] == f"{NAME}: no image is new or changed"
    (verdict,) = first.verdicts[NAME]  # the study's own student leads before anything is retrained
    assert verdict.decision.result == "unchanged"
    assert "judged before, as version 1: first" in verdict.decision.reason
    assert answer_of(STUDENT) == "1"
    assert kept_teacher_line(NAME) is None
    teacher = Path("models/own/teacher.safetensors").read_bytes()

    put_images(workspace, 6)
    second = retrain(Request())
    assert second.is_success
    assert second.lines[0] == f"{NAME}: 12 new images, 0 changed, 0 gone"
    assert set(second.retrainings[0].outcomes) == {
        "survey@own",
        "prepare@own",
        "embed_database@own",
        "distill@own-16",
    }
    assert Path("models/own/teacher.safetensors").read_bytes() == teacher
    assert teacher_origin(NAME)["teacher_of_this_pack"] == "no"
    assert f"{NAME}: the teacher learned from an older pack and stays" in second.lines
    assert "stay stale until `l2s study`" in (kept_teacher_line(NAME) or "")
    (verdict,) = second.verdicts[NAME]
    assert verdict.decision.result == "promoted"
    assert verdict.champion == "2"
    assert verdict.comparison is not None
    assert verdict.comparison.low > 0

    Path(f"champions/{NAME}/16px.json").write_text("{}")
    again = retrain(Request())
    assert answer_of(STUDENT) == "2"  # the damaged card is written anew
    assert again.lines[0] == f"{NAME}: no image is new or changed"
    assert "judged before, as version 2: promoted" in again.lines[1]

    put_images(workspace, 7)
    third = retrain(Request())
    (verdict,) = third.verdicts[NAME]
    assert verdict.decision.result == "refused"
    assert "worse by more than 0.5 points" in verdict.decision.reason
    assert verdict.champion == "2"
    assert answer_of(STUDENT) == "2"  # the refused one answers no query
    assert answer_of(STUDENT, newest=True) is None

    store = open_store()
    assert [(name, one.version) for name, one in champions(store)] == [(MODEL, "2")]
    runs = store.runs("tags.role = 'decision'")
    told = {run.data.tags["candidate_version"]: run.data for run in runs}
    assert {number: one.tags["decision"] for number, one in told.items()} == {
        "1": "first",
        "2": "promoted",
        "3": "refused",
    }
    assert told["3"].metrics["map_gain_high"] < 0
    assert told["3"].tags["network"] == STUDENT
    assert told["3"].params["teacher_of_this_pack"] == "no"

    now, before = roll_back_champion(NAME, 16)
    assert (now.version, before.version) == ("2", "1")
    champion = find_champion(store, MODEL)
    assert champion is not None
    assert champion.version == "1"
    assert answer_of(STUDENT) == "1"
    Path(f"models/own/students/{STUDENT}.safetensors").unlink()  # as while it is retrained
    assert answer_of(STUDENT) == "1"
    with pytest.raises(RegistryError, match="version 1 is the first champion"):
        roll_back_champion(NAME, 16)
    with pytest.raises(RegistryError, match=f"own-64px: has no champion; champions: {MODEL}"):
        roll_back_champion(NAME, 64)

    # The refused one may lead where it is asked again with more patience.
    shutil.copy("made/72/student.safetensors", "models/own/students/own-16.safetensors")
    (verdict,) = judge_dataset(load_params(), NAME, tolerance_points=0.5, again=True)
    assert verdict.decision.result == "promoted"
    assert verdict.champion == "2"


def test_a_champion_that_does_not_fit_the_index_gives_way(workspace: Path) -> None:
    retrain(Request())
    store = open_store()
    with sqlite3.connect("mlflow.db") as database:
        database.execute("update model_version_tags set value = 'x' where key = 'md5'")
    database.close()
    (verdict,) = judge_dataset(load_params(), NAME, tolerance_points=0.5, again=False)
    assert verdict.decision.result == "promoted"
    assert "its file has changed" in verdict.decision.reason
    assert [one.version for _, one in champions(store)] == ["2"]


def test_what_cannot_be_retrained_is_refused(workspace: Path) -> None:
    with pytest.raises(ValueError, match="--dataset 'birds': no such data set; known: own"):
        retrain(Request("birds"))
    lock = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(lock.replace("train_teacher@own", "train_teacher@gone"))
    with pytest.raises(ValueError, match="own: has no teacher yet: run `l2s study` first"):
        retrain(Request())
