"""Retraining on new images: who leads afterwards, and what the record says of it."""

import copy
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pipeline.cli.__main__ import app
from pipeline.config.params import load_params
from pipeline.evaluation import confidence
from pipeline.files import file_md5
from pipeline.flows.retraining import Request, retrain
from pipeline.flows.terminal import kept_teacher_line
from pipeline.models.weights import NetworkCard, build_embedder, load_network, save_network
from pipeline.paths import locked_outputs, teacher_origin
from pipeline.search import decision
from pipeline.search.promotion import (
    Terms,
    Verdict,
    judge_dataset,
    name_first_champions,
    roll_back_champion,
)
from pipeline.search.search import choose_network, open_network
from pipeline.tracking.registry import add_version, champions, find_champion, promote
from pipeline.tracking.store import open_store
from tests.integration.workspace import set_params
from tests.quick_study import CPU, NAME, STUDENT, environment, make_quick_study, put_images

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own
MODEL = f"{NAME}-16px"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "study"
    return make_quick_study(folder, {5: "bad", 6: "good", 7: "bad"})


def answer_of(student: str, *, newest: bool = False) -> str | None:
    """The version of the champion that a search with the student uses; None for its newest."""
    named = choose_network(load_params(), student, None, newest=newest)
    open_network(named, torch.device("cpu"))
    return named.version


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
    assert verdict.decision.reason == "the candidate is the champion: the same network"
    assert answer_of(STUDENT) == "1"
    assert kept_teacher_line(NAME) is None
    teacher = Path("models/own/teacher.safetensors").read_bytes()

    put_images(workspace, 6)
    second = retrain(Request())
    assert second.is_success
    assert second.lines[0] == f"{NAME}: 24 new images, 0 changed, 0 gone"
    assert set(second.outcomes) == {
        "hash_inputs@own",
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

    Path(f"champions/{NAME}/16px.json").write_text("{}")
    again = retrain(Request())
    assert answer_of(STUDENT) == "2"  # the damaged card is written anew
    assert again.lines[0] == f"{NAME}: no image is new or changed"
    assert "the candidate is the champion: the same network" in again.lines[1]

    put_images(workspace, 7)
    third = retrain(Request())
    (verdict,) = third.verdicts[NAME]
    assert verdict.decision.result == "refused"
    assert "worse by more than 0.5 points" in verdict.decision.reason
    assert verdict.champion == "2"
    assert answer_of(STUDENT) == "2"  # the refused one answers no query
    assert answer_of(STUDENT, newest=True) is None

    store = open_store()
    assert [(one.model, one.version) for one in champions(store)] == [(MODEL, "2")]
    runs = store.runs("tags.role = 'decision'")
    told = {run.data.tags["candidate_version"]: run.data for run in runs}
    assert {number: one.tags["decision"] for number, one in told.items()} == {
        "1": "first",
        "2": "promoted",
        "3": "refused",
    }
    assert told["2"].metrics["map_gain_low"] > 0
    assert told["3"].metrics["map_gain_high"] < 0
    assert told["3"].tags["network"] == STUDENT
    assert told["3"].params["teacher_of_this_pack"] == "no"

    now, before = roll_back_champion(NAME, 16)
    assert (now.version, before.version) == ("2", "1")
    champion = find_champion(store, MODEL)
    assert champion is not None
    assert champion.version == "1"
    assert answer_of(STUDENT) == "1"
    student = Path(f"models/own/students/{STUDENT}.safetensors")
    student.rename(f"models/{NAME}/refused.safetensors")  # as while it is retrained
    assert answer_of(STUDENT) == "1"
    with pytest.raises(ValueError, match="version 1 is the first champion"):
        roll_back_champion(NAME, 16)
    with pytest.raises(ValueError, match=f"own-64px: has no champion; champions: {MODEL}"):
        roll_back_champion(NAME, 64)

    # The one that was refused was never held against the one that leads now.
    verdict = put_student(f"models/{NAME}/refused.safetensors")
    assert "judged before" not in verdict.decision.reason, verdict
    assert "a difference of" in verdict.decision.reason

    # The one that was rolled back may lead where it is asked again.
    assert put_student("made/144/student.safetensors").decision.reason.endswith("rolled back")
    verdict = put_student("made/144/student.safetensors", Terms(again=True))
    assert verdict.decision.result == "promoted"
    assert verdict.champion == "2"


def put_student(network: str, terms: Terms | None = None, key: str = STUDENT) -> Verdict:
    """Judge a network in the place of a student, as if it had been trained."""
    put_file(network, f"models/{NAME}/students/{key}.safetensors")
    (verdict,) = judge_dataset(load_params(), NAME, terms or Terms())
    return verdict


def put_file(made: str, target: str) -> None:
    """Put a file in the place of a stage's output, in dvc.lock as well."""
    lock = Path("dvc.lock")
    before = next(outs[target] for outs in locked_outputs().values() if target in outs)
    shutil.copyfile(made, target)
    lock.write_text(lock.read_text().replace(before, file_md5(Path(target))))


@pytest.fixture
def defended(workspace: Path) -> Path:
    """Version 2, a good one, leads; the next candidate is a bad one."""
    del workspace
    assert [one.decision.result for one in name_first_champions(load_params(), NAME)] == ["first"]
    verdict = put_student("made/144/student.safetensors", Terms(tolerance_points=50))
    assert (verdict.decision.result, verdict.champion) == ("promoted", "2")
    return Path("made/168/student.safetensors")


def champion_state() -> tuple[object, ...]:
    """Versions, their tags, who leads, and the copies that answer."""
    client = open_store().client
    found = client.search_model_versions(f"name = '{MODEL}'")
    versions = sorted((one.version, tuple(sorted(one.tags.items()))) for one in found)
    alias = client.get_model_version_by_alias(MODEL, "champion").version
    kept = {path.name: path.read_bytes() for path in Path("champions").rglob("*px*")}
    return versions, alias, kept, len(open_store().runs("tags.role = 'decision'"))


def _cut(path: str) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:1])


def _flip(pattern: str) -> None:
    for path in Path().glob(pattern):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)


def _remove_artifacts() -> None:
    shutil.rmtree("mlartifacts")


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda: os.environ.update(L2S_DEVICE="cuda:7"), "L2S_DEVICE = 'cuda:7'"),
        (
            lambda: _flip("mlartifacts/**/*.safetensors"),
            "own-16px version 2: its file in .* changed",
        ),
        (_remove_artifacts, "the champions cannot be read or moved"),
        (lambda: _cut(f"embeddings/{NAME}/database.npy"), "database.npy: is not the file that dvc"),
        (lambda: _cut(f"data/{NAME}/pack.arrow"), "pack.arrow: is not the file that dvc.lock"),
        (
            lambda: Path(f"models/{NAME}/teacher.safetensors").unlink(),
            "teacher.safetensors: is not",
        ),
    ],
)
def test_an_error_is_no_reason_to_promote(
    defended: Path, monkeypatch: pytest.MonkeyPatch, break_it: Callable[[], None], words: str
) -> None:
    monkeypatch.setenv("L2S_DEVICE", "cpu")  # which is restored at the end
    before = champion_state()
    put_file(str(defended), f"models/{NAME}/students/{STUDENT}.safetensors")
    break_it()
    with pytest.raises((ValueError, OSError), match=words):
        list(judge_dataset(load_params(), NAME, Terms()))
    assert champion_state() == before


def test_the_command_ends_with_2_where_a_comparison_fails(
    defended: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_file(str(defended), f"models/{NAME}/students/{STUDENT}.safetensors")
    monkeypatch.setenv("L2S_DEVICE", "cuda:7")
    before = champion_state()
    result = CliRunner().invoke(app, ["retrain"])
    assert (result.exit_code, "L2S_DEVICE = 'cuda:7'" in result.stderr) == (2, True), result.output
    assert champion_state() == before


def test_the_same_candidate_is_refused_where_nothing_is_broken(defended: Path) -> None:
    verdict = put_student(str(defended))
    assert (verdict.decision.result, verdict.champion) == ("refused", "2")


def test_too_few_test_classes_promote_nobody_unless_it_is_asked_for(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del workspace
    for module in (confidence, decision):
        monkeypatch.setattr(module, "LEAST_CLASSES", 13)
    assert [one.decision.result for one in name_first_champions(load_params(), NAME)] == ["first"]
    verdict = put_student("made/144/student.safetensors")
    assert (verdict.decision.result, verdict.champion) == ("refused", "1")
    assert "no interval: 12 test classes, 13 are needed" in verdict.decision.reason
    verdict = put_student("made/144/student.safetensors", Terms(again=True, without_interval=True))
    assert (verdict.decision.result, verdict.champion) == ("promoted", "2")
    runs = [run.data for run in open_store().runs("tags.role = 'decision'")]
    asked = {run.params["without_interval"]: run for run in runs if "map_gain" in run.metrics}
    assert set(asked) == {"False", "True"}
    assert not any("map_gain_low" in run.metrics for run in asked.values())


def test_a_refused_candidate_is_judged_anew_on_other_terms_alone(defended: Path) -> None:
    assert put_student(str(defended)).decision.result == "refused"
    again = put_student(str(defended)).decision
    assert (again.result, again.reason) == ("unchanged", "judged before, as version 3: refused")
    other = put_student(str(defended), Terms(tolerance_points=0.6)).decision
    assert other.result == "refused"
    assert "worse by more than 0.6 points" in other.reason


def test_a_refused_candidate_is_judged_anew_where_a_test_class_was_corrected(
    defended: Path,
) -> None:
    assert put_student(str(defended)).decision.result == "refused"
    pack = Path(f"data/{NAME}/pack.arrow")
    table = pa.ipc.open_file(pack.read_bytes()).read_all()
    test = [row for row, split in enumerate(table["split"].to_pylist()) if split == "test"]
    classes = table["class_name"].to_pylist()
    classes[test[0]] = classes[test[-1]]
    column = table.schema.get_field_index("class_name")
    with pa.ipc.new_file("corrected.arrow", table.schema) as writer:
        writer.write_table(table.set_column(column, "class_name", pa.array(classes)))
    put_file("corrected.arrow", str(pack))
    assert "a difference of" in put_student(str(defended)).decision.reason


def test_a_promotion_that_was_killed_before_it_led_is_made_by_the_next_retraining(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise OSError("killed")

    del workspace
    assert [one.decision.result for one in name_first_champions(load_params(), NAME)] == ["first"]
    better = "made/144/student.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.tracking.registry.promote", killed)
        with pytest.raises(OSError, match="killed"):
            put_student(better)
    (run,) = open_store().runs("tags.role = 'decision' and tags.candidate_version = '2'")
    assert (run.info.status, run.data.tags["decision"]) == ("FINISHED", "promoted")
    assert run.data.metrics["map_gain"] > 0
    verdict = put_student(better)
    assert (verdict.decision.result, verdict.champion) == ("promoted", "2")
    open_store().client.set_registered_model_alias(MODEL, "champion", "1")  # by hand, to stay
    assert put_student(better).decision.reason == "judged before, as version 2: promoted"


def test_a_candidate_that_ranks_nothing_is_refused_and_recorded(defended: Path) -> None:
    del defended
    network, card = load_network(Path("made/144/student.safetensors"), CPU)
    for values in network.projection.parameters():
        values.data.fill_(float("nan"))
    save_network(Path("nan.safetensors"), network, card)
    verdict = put_student("nan.safetensors")
    assert (verdict.decision.result, verdict.champion) == ("refused", "2")
    assert "numbers that are not finite" in verdict.decision.reason
    other = build_embedder(card.backbone, 64, weights="random", seed=0)
    save_network(Path("wide.safetensors"), other, replace(card, dim=64))
    verdict = put_student("wide.safetensors")
    assert (verdict.decision.result, verdict.champion) == ("refused", "2")
    assert "dimension 64, those of the database 16" in verdict.decision.reason


def test_a_champion_of_another_teacher_gives_way_to_a_student_of_this_one(defended: Path) -> None:
    network, card = load_network(Path("models/own/teacher.safetensors"), CPU)
    network.projection.bias.data[0] += 1e-6
    save_network(Path("teacher.safetensors"), network, card)
    yaml = YAML()
    put_file("teacher.safetensors", "models/own/teacher.safetensors")
    verdict = put_student(str(defended))
    assert (verdict.decision.result, verdict.champion) == ("promoted", "3")
    assert "another teacher" in verdict.decision.reason
    assert answer_of(STUDENT) == "3"
    state = champion_state()
    words = "the champions before version 3 learned from another teacher"
    with pytest.raises(ValueError, match=words):
        roll_back_champion(NAME, 16)  # it could answer nothing, and the newest student would
    assert champion_state() == state
    # Students and database of the teacher before are not judged with this one.
    md5 = locked_outputs()["train_teacher@own"]["models/own/teacher.safetensors"]
    lock = yaml.load(Path("dvc.lock").read_text())
    (dep,) = (one for one in lock["stages"]["distill@own-16"]["deps"] if one["md5"] == md5)
    dep["md5"] = "0" * 32
    with Path("dvc.lock").open("w") as file:
        yaml.dump(lock, file)
    with pytest.raises(ValueError, match=r"teacher.safetensors: is newer than the result of dist"):
        list(judge_dataset(load_params(), NAME, Terms(again=True)))


def test_a_champion_of_another_teacher_does_not_open_the_gate(defended: Path) -> None:
    """As where another workspace shares the server, or this one went back to an earlier teacher."""
    store = open_store()
    run_id = store.client.create_run(store.experiment_id).info.run_id
    tags = {"dataset": NAME, "teacher_md5": "another"}
    promote(store, add_version(store, MODEL, Path("made/120/student.safetensors"), run_id, tags))
    verdict = put_student(str(defended))
    assert (verdict.decision.result, verdict.champion) == ("refused", "2"), verdict
    assert "worse by more than 0.5 points" in verdict.decision.reason
    assert answer_of(STUDENT) == "2"
    now, before = roll_back_champion(NAME, 16)
    assert (now.version, before.version) == ("2", "1")  # not the one of the other teacher, 3
    assert answer_of(STUDENT) == "1"


def test_a_lost_registry_beside_champions_is_an_error(
    defended: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_file(str(defended), f"models/{NAME}/students/{STUDENT}.safetensors")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///new.db")
    words = "own-16px: MLflow's registry names no champion, but champions/own holds one"
    for ask in (
        lambda: list(judge_dataset(load_params(), NAME, Terms())),
        lambda: list(name_first_champions(load_params(), NAME)),
        lambda: roll_back_champion(NAME, 16),
    ):
        with pytest.raises(ValueError, match=words):
            ask()
    Path("champions/own/16px.json").unlink()  # the networks alone, without the card
    with pytest.raises(ValueError, match=words):
        list(judge_dataset(load_params(), NAME, Terms()))
    shutil.rmtree("champions")
    (verdict,) = name_first_champions(load_params(), NAME)
    assert verdict.decision.result == "first"


def test_the_champion_itself_is_embedded_by_nobody_and_its_copy_is_healed(
    defended: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (kept,) = (path for path in Path("champions/own").glob("*.safetensors") if _leads(path))
    shutil.copyfile(defended, kept)
    with pytest.raises(ValueError, match="not the network of champion version 2 any more"):
        answer_of(STUDENT)
    monkeypatch.setenv("L2S_DEVICE", "cuda:7")
    verdict = put_student("made/144/student.safetensors", Terms(again=True))
    assert verdict.decision.reason == "the candidate is the champion: the same network"
    assert answer_of(STUDENT) == "2"


def _leads(kept: Path) -> bool:
    return json.loads(Path("champions/own/16px.json").read_text())["md5"] in kept.name


def test_a_rollback_that_cannot_be_served_moves_nothing(defended: Path) -> None:
    del defended
    before = champion_state()
    _flip("mlartifacts/**/*.safetensors")
    with pytest.raises(ValueError, match=r"version 1: its file in .* has changed"):
        roll_back_champion(NAME, 16)
    assert champion_state() == before


def test_another_backbone_competes_only_where_it_is_asked_to(defended: Path) -> None:
    """A second student of the size, the better one by validation map, and of another backbone."""
    set_params(Path(), {f"students.{NAME}-other": {"dataset": NAME, "query_px": 16}})
    other = f"models/{NAME}/students/{NAME}-other.safetensors"
    network = build_embedder("timm/test_vit", 16, weights="random", seed=0)
    save_network(Path(other), network, NetworkCard("timm/test_vit", 16, 16))
    Path(other).with_suffix(".csv").write_text("epoch,validation\n1,0.9\n")
    yaml = YAML()
    lock = yaml.load(Path("dvc.lock").read_text())
    entry = copy.deepcopy(lock["stages"][f"distill@{STUDENT}"])
    entry["outs"][0] |= {"path": other, "md5": file_md5(Path(other))}
    lock["stages"][f"distill@{NAME}-other"] = entry
    with Path("dvc.lock").open("w") as file:
        yaml.dump(lock, file)

    verdict = put_student(str(defended))
    assert (verdict.candidate, verdict.not_compared) == (STUDENT, (f"{NAME}-other",))
    assert verdict.line().endswith("; not compared, of another backbone: own-other")
    (verdict,) = judge_dataset(load_params(), NAME, Terms(across_backbones=True))
    assert (verdict.candidate, verdict.not_compared) == (f"{NAME}-other", ())
    Path(f"models/{NAME}/students/{STUDENT}.safetensors").unlink()
    (verdict,) = judge_dataset(load_params(), NAME, Terms())
    assert (verdict.candidate, verdict.decision.result, verdict.champion) == ("", "refused", "2")
    assert "no student of its backbone, timm/test_resnet, is trained" in verdict.decision.reason


def test_what_cannot_be_retrained_is_refused(workspace: Path) -> None:
    with pytest.raises(ValueError, match="--dataset 'birds': no such data set; known: own"):
        retrain(Request("birds"))
    lock = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(lock.replace("train_teacher@own", "train_teacher@gone"))
    with pytest.raises(ValueError, match="own: has no teacher yet: run `l2s study` first"):
        retrain(Request())
