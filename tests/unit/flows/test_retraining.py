"""Which stages a retraining runs, and what counts as new images."""

import json
from functools import partial
from pathlib import Path

import pytest

from pipeline.config.params import load_params
from pipeline.files import write_json
from pipeline.flows import retraining
from pipeline.flows.graph import StageGraph
from pipeline.flows.retraining import (
    Request,
    chosen_datasets,
    has_new_images,
    image_changes,
    retrain,
    retrain_stages,
    retraining_graph,
)
from pipeline.flows.run_state import hold_workspace
from pipeline.flows.stage_runs import Stop
from tests.made_params import PARAMS, edited_params

UPSTREAMS = {
    "inputs@a": (),
    "inputs@b": (),
    "hash_inputs@a": ("inputs@a",),
    "hash_inputs@b": ("inputs@b",),
    "prepare@a": ("hash_inputs@a",),
    "prepare@b": ("hash_inputs@b",),
    "train_teacher@a": ("prepare@a",),
    "embed_database@a": ("prepare@a", "train_teacher@a"),
    "tune@a-64": ("prepare@a", "train_teacher@a"),
    "distill@a-64": ("prepare@a", "train_teacher@a", "tune@a-64"),
    "train_baseline@a-64": ("prepare@a",),
    "evaluate@a-64": ("distill@a-64", "train_baseline@a-64", "embed_database@a"),
    "tradeoff@a": ("evaluate@a-64",),
    "report": ("tradeoff@a",),
}
PACK = "data/a/pack.arrow modified"


def graph(changes: dict[str, tuple[str, ...]], without: str = "") -> StageGraph:
    return StageGraph(UPSTREAMS, changes, frozenset(UPSTREAMS) - {without})


def test_teacher_baselines_and_searches_are_left_out_and_nothing_waits_for_them() -> None:
    whole = graph({"prepare@a": ("data/a/source modified",), "train_teacher@a": (PACK,)})
    own = retraining_graph(whole, "a", {"a-64"}, with_teacher=False)
    left = {"inputs@b", "hash_inputs@b", "prepare@b", "train_teacher@a"}
    left |= {"train_baseline@a-64", "tune@a-64"}
    assert set(own.names) == set(UPSTREAMS) - left
    assert own.upstreams["distill@a-64"] == ("prepare@a",)
    assert own.upstreams["evaluate@a-64"] == ("distill@a-64", "embed_database@a")
    assert own.dirty() == [
        "prepare@a",
        "embed_database@a",
        "distill@a-64",
        "evaluate@a-64",
        "tradeoff@a",
        "report",
    ]


def test_the_teacher_is_retrained_on_request() -> None:
    own = retraining_graph(graph({}), "a", {"a-64"}, with_teacher=True)
    assert {"train_teacher@a", "train_baseline@a-64", "tune@a-64"} <= set(own.names)
    assert "prepare@b" not in own.names


@pytest.mark.parametrize("stage", ["train_baseline@a-64", "tune@a-64"])
def test_what_never_ran_is_not_left_out(stage: str) -> None:
    own = retraining_graph(graph({}, without=stage), "a", {"a-64"}, with_teacher=False)
    assert stage in own.names


def test_without_a_teacher_there_is_nothing_to_learn_from() -> None:
    with pytest.raises(ValueError, match="a: has no teacher yet"):
        retraining_graph(graph({}, without="train_teacher@a"), "a", {"a-64"}, with_teacher=False)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"prepare@a": ("data/a/source modified",)}, True),
        ({"distill@a-64": (PACK,)}, True),  # a retraining broke off after the pack
        ({"distill@a-64": ("pipeline/training/losses.py modified",)}, False),
        ({"train_teacher@a": (PACK,)}, False),  # as every retraining leaves it
        ({"prepare@b": ("data/b/source modified",)}, False),
    ],
)
def test_new_images_are_told_from_other_changes(
    changes: dict[str, tuple[str, ...]], expected: bool
) -> None:
    assert has_new_images(graph(changes), "a") is expected


def test_a_student_that_was_never_trained_is_no_new_image() -> None:
    new = {"distill@a-64": ("data/a/pack.arrow new",)}
    assert not has_new_images(graph(new, without="distill@a-64"), "a")
    nothing_ran = StageGraph(UPSTREAMS, new, frozenset())
    assert has_new_images(nothing_ran, "a")  # as where the first run is one --with-teacher


def test_manifests_are_compared_image_by_image(tmp_path: Path) -> None:
    def entry(name: str, sha: str, class_name: str = "c") -> dict[str, str]:
        return {"name": name, "sha256": sha, "class_name": class_name}

    before = [entry("1", "a"), entry("2", "b"), entry("3", "c"), entry("4", "d")]
    after = [entry("1", "a"), entry("2", "x"), entry("4", "d", "other"), entry("5", "e")]
    known, given, none = (tmp_path / f"{name}.json" for name in ("known", "given", "none"))
    write_json(known, {"images": before})
    write_json(given, {"images": after})
    assert image_changes(known, given) == "1 new images, 2 changed, 1 gone"
    assert image_changes(known, known) == "0 new images, 0 changed, 0 gone"
    assert image_changes(none, given) == "the images have changed"


def test_the_data_set_is_the_one_named_or_the_only_one() -> None:
    params = load_params(PARAMS)
    assert list(params.datasets) == ["emblems"]
    assert chosen_datasets(params, Request()) == ["emblems"]
    assert chosen_datasets(params, Request("emblems")) == ["emblems"]
    with pytest.raises(ValueError, match="--dataset 'birds': no such data set; known: emblems"):
        chosen_datasets(params, Request("birds"))
    two = params.model_copy(
        update={"datasets": {"one": params.datasets["emblems"], "two": params.datasets["emblems"]}}
    )
    with pytest.raises(ValueError, match="name one by --dataset; known: one, two"):
        chosen_datasets(two, Request())


def test_images_that_a_study_has_learned_since_are_not_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params, given = load_params(PARAMS), Path("data/emblems/source/input.json")
    changes: dict[str, tuple[str, ...]] = {}
    monkeypatch.setattr(
        retraining,
        "read_graph",
        lambda: StageGraph(
            {"hash_inputs@emblems": (), "prepare@emblems": (), "train_teacher@emblems": ()},
            changes,
            frozenset({"hash_inputs@emblems", "prepare@emblems", "train_teacher@emblems"}),
        ),
    )

    def put(count: int) -> None:
        write_json(given, {"images": [{"name": str(number)} for number in range(count)]})

    def cause(count: int, *, fails: bool = False) -> str:
        """What a retraining says that finds so many images, and breaks off after the pack."""

        def run_stages(graph: StageGraph, _: StageGraph) -> bool:
            if graph.names == ["hash_inputs@emblems"]:
                if len(json.loads(given.read_text())["images"]) != count:
                    changes["prepare@emblems"] = (f"{given} modified",)
                put(count)
            elif not fails:
                changes.clear()
            return not (fails and "prepare@emblems" in graph.names)

        return retrain_stages(params, "emblems", Request(), run_stages)

    put(3)
    assert cause(3) == "no image is new or changed"
    put(5)  # `l2s study` takes two
    assert cause(6) == "1 new images, 0 changed, 0 gone"
    assert cause(8, fails=True) == "2 new images, 0 changed, 0 gone"
    assert cause(8) == "2 new images, 0 changed, 0 gone"
    assert cause(8) == "no image is new or changed"
    assert cause(8, fails=True) == "no image is new or changed"
    assert cause(9, fails=True) == "1 new images, 0 changed, 0 gone"
    put(10)  # `l2s study` takes that one and another
    changes.clear()
    assert cause(11) == "1 new images, 0 changed, 0 gone"


@pytest.mark.parametrize("stage", ["train_teacher", "train_baseline"])
def test_a_teacher_that_a_retraining_kept_is_retrained_on_request(
    monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Its pack is older than that of the students, which know all images."""
    key = {"train_teacher": "emblems", "train_baseline": "emblems-64"}[stage]
    changes = {f"{stage}@{key}": ("data/emblems/pack.arrow modified",)}
    names = ("hash_inputs@emblems", "prepare@emblems", "train_teacher@emblems")
    upstreams = dict.fromkeys((*names, "train_baseline@emblems-64", "distill@emblems-64"), ())
    monkeypatch.setattr(
        retraining, "read_graph", lambda: StageGraph(upstreams, changes, frozenset(upstreams))
    )
    ran: list[str] = []

    def run_stages(graph: StageGraph, _: StageGraph) -> bool:
        ran.extend(graph.dirty())
        return True

    asked = (load_params(PARAMS), "emblems")
    assert retrain_stages(*asked, Request(), run_stages) == "no image is new or changed"
    assert ran == []
    cause = retrain_stages(*asked, Request(with_teacher=True), run_stages)
    assert cause == "teacher or baselines learned from an older pack"
    assert ran == list(changes)


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a retraining in a folder of its own, of two data sets, has called; it retrains none."""
    edited_params(tmp_path, {})
    monkeypatch.chdir(tmp_path)
    calls: list[str] = []
    for place in (
        "pipeline.datasets.remote.bring_up_to_date",
        "pipeline.datasets.own_checks.check_own_images",
        "pipeline.tracking.store.require_store",
        "pipeline.flows.retraining.current_graph",
    ):
        note = partial(lambda name, *_: calls.append(name), place.rpartition(".")[2])
        monkeypatch.setattr(place, note)
    monkeypatch.setattr("pipeline.search.promotion.name_first_champions", lambda *_: [])
    monkeypatch.setattr(retraining, "record_lines", list)
    monkeypatch.setattr(retraining, "chosen_datasets", lambda *_: ["one", "two", "three"])
    return calls


def test_while_a_study_runs_its_images_are_not_brought_up_to_date(called: list[str]) -> None:
    with hold_workspace(), pytest.raises(ValueError, match="a study runs here already"):
        retrain(Request())
    assert called == ["require_store"]


def test_what_a_stop_leaves_out_is_named(
    called: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop()

    def stages(_: object, name: str, *__: object) -> str:
        stop.ask("SIGINT", 2)
        return name

    monkeypatch.setattr(retraining, "retrain_stages", stages)
    result = retrain(Request(), stop=stop)
    assert result.lines[0] == "one: one"
    assert result.lines[-1] == "not looked at: two, three"
    assert called == ["require_store", "bring_up_to_date", "check_own_images", "current_graph"]


@pytest.mark.parametrize("tolerance", [-0.1, float("nan")])
def test_a_tolerance_that_is_none_is_refused_before_anything_runs(tolerance: float) -> None:
    with pytest.raises(ValueError, match=r"--tolerance .*: must be 0 or more"):
        Request(tolerance=tolerance)
