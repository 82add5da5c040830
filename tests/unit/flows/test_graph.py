"""The graph of a tiny DVC project, before and after it has run."""

import os
from pathlib import Path

import pytest

from pipeline.flows.graph import GraphError, StageGraph, read_graph
from tests.sleepy_study import make_sleepy_study, serial_lock, write_students

# Of DVC's own dependencies.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ORDER = ["prepare@a", "distill@a-64", "distill@a-48"]
ORDER += ["evaluate@a-64", "evaluate@a-48", "tradeoff@a"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that `dvc repro` has run."""
    folder = tmp_path_factory.mktemp("project") / "study"
    make_sleepy_study(folder, seconds=0.0)
    serial_lock(folder)
    return folder


@pytest.fixture
def chain() -> StageGraph:
    """A chain of three and a stage beside it; the middle of the chain is changed."""
    edges = {"a": (), "b@1": ("a",), "c": ("b@1",), "b@2": ("a",)}
    return StageGraph(edges, {"b@1": ("edited",)}, frozenset(edges))


def test_graph_is_that_of_dvc_yaml(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    graph = read_graph()
    assert graph.names == ORDER
    assert graph.upstreams["prepare@a"] == ()
    assert graph.upstreams["distill@a-48"] == ("prepare@a",)
    assert graph.upstreams["tradeoff@a"] == ("evaluate@a-64", "evaluate@a-48")
    assert graph.changes == {}
    assert graph.dirty() == []
    assert graph.locked == frozenset(ORDER)


def test_order_is_that_of_the_lock_of_a_serial_run(project: Path) -> None:
    lines = (project / "dvc.lock").read_text().splitlines()
    assert [line.strip(" :") for line in lines if line[:3] == "  " + line.strip()[:1]] == ORDER


def test_new_cell_dirties_itself_and_what_reads_all(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    before = Path("params.yaml").read_text()
    try:
        write_students(project, ("a-64", "a-48", "a-32"))
        graph = read_graph()
    finally:
        Path("params.yaml").write_text(before)
    assert graph.dirty() == ["distill@a-32", "evaluate@a-32", "tradeoff@a"]
    assert "distill@a-32" not in graph.locked


def test_deleted_output_is_a_change(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    pack = Path("data/a/pack")
    content = pack.read_bytes()
    pack.unlink()
    try:
        graph = read_graph()
    finally:
        pack.write_bytes(content)
    assert graph.changes["prepare@a"] == ("data/a/pack deleted",)
    assert graph.dirty() == ORDER


def test_dirty_is_changed_or_downstream(chain: StageGraph) -> None:
    assert chain.dirty() == ["b@1", "c"]
    assert chain.dirty(force=True) == ["a", "b@1", "c", "b@2"]


def test_targets_bring_their_upstreams(chain: StageGraph) -> None:
    assert chain.restricted(["b@2"]).names == ["a", "b@2"]
    assert chain.restricted(["b"]).names == ["a", "b@1", "b@2"]
    assert chain.restricted(["c"]).names == ["a", "b@1", "c"]
    assert chain.restricted(["b@2"]).dirty() == []
    assert chain.restricted([]) is chain


def test_unknown_targets_are_refused_with_the_known(chain: StageGraph) -> None:
    with pytest.raises(GraphError, match=r"unknown targets: d, e; stages: a, b@1.*groups: b"):
        chain.restricted(["d", "a", "e"])


def test_faulty_graph_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "study"
    make_sleepy_study(folder)
    (folder / "dvc.yaml").write_text("stages:\n  a: {cmd: 'true', outs: [x], deps: [x]}\n")
    monkeypatch.chdir(folder)
    with pytest.raises(GraphError, match=r"dvc: .*stage: a") as caught:
        read_graph()
    assert "\n" not in str(caught.value)
    assert Path.cwd() == folder.resolve()
    assert os.environ.get("L2S_DEBUG") is None


def test_without_git_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "study"
    make_sleepy_study(folder)
    (folder / ".dvc/config").write_text("")  # which says there is none
    monkeypatch.chdir(folder)
    with pytest.raises(GraphError, match=r"study is not a git repository: run `git init` there"):
        read_graph()


def test_a_folder_that_may_not_be_written_is_read_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC would write two files in .dvc/tmp to read a graph; the modes mean nothing to root."""
    folder = tmp_path / "study"
    make_sleepy_study(folder)
    monkeypatch.chdir(folder)
    graph = read_graph()
    locks = [folder / ".dvc/tmp" / name for name in ("lock", "rwlock")]
    for lock in locks:
        lock.unlink()
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).endswith(".dvc/tmp"))
    assert read_graph() == graph
    assert [lock.exists() for lock in locks] == [False, False]


@pytest.mark.timeout(60)
def test_what_dvc_cannot_read_is_told_before_it_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe would keep it for ever."""
    folder = tmp_path / "study"
    make_sleepy_study(folder)
    (folder / "dvc.yaml").write_text("stages:\n  a: {cmd: 'true', deps: [images]}\n")
    (folder / "images").mkdir()
    monkeypatch.chdir(folder)
    assert read_graph().names == ["a"]
    os.mkfifo(folder / "images/notes")
    with pytest.raises(GraphError, match="images/notes: is a pipe, a socket or a device: remove"):
        read_graph()
