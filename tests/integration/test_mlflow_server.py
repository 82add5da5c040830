"""A server of MLflow as the store, and the pages that `l2s mlflow` serves: real processes."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest

from pipeline.tracking import runs
from pipeline.tracking.pages import CHARTS
from pipeline.tracking.runs import tracked_run
from pipeline.tracking.store import TrackingError, open_store, require_store
from tests.browser import browser_path, open_page
from tests.integration.test_schedule import free_port

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own
ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 240
ask = build_opener(ProxyHandler({})).open
# A training of three epochs, which begins when the file `go` is there.
TRAINING = """
import sys, time
from pathlib import Path
import mlflow
from pipeline.tracking.runs import tracked_run

facts, settings = {"dataset": "emblems"}, {"seed": 0}
print("ready", flush=True)
while not Path(sys.argv[1]).exists():
    time.sleep(0.001)
with tracked_run(
    stage="distill", key="a-64", role="student", fingerprint="f1", facts=facts, settings=settings
) as run:
    for epoch in range(1, 4):
        run.log_epoch({"epoch": epoch, "loss": 1 / epoch})
"""


def environment(**more: str) -> dict[str, str]:
    quiet = {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    known = {name: text for name, text in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return known | quiet | more


@contextmanager
def serve(folder: Path, port: int) -> Iterator[None]:
    """A server with its database and files in a folder, until the block ends."""
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--backend-store-uri", "sqlite:///server.db"],
        cwd=folder,
        env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert time.monotonic() < deadline_s
            assert process.poll() is None
            time.sleep(0.2)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(address: str) -> bool:
    try:
        with ask(address, timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.parent.name)


def test_a_server_is_a_store_for_two_checkouts_also_when_it_goes_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    for name in ("server", "one", "other"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # which this machine does not go through
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serve(tmp_path / "server", port):
        race(tmp_path, uri)
        store = open_store()
        (run,) = store.runs("tags.fingerprint = 'f1'")
        assert run.info.status == "FINISHED"
        history = store.client.get_metric_history(run.info.run_id, "loss")
        assert {metric.step for metric in history} == {1, 2, 3}
        training = tracked_run(
            stage="distill",
            key="b-64",
            role="student",
            fingerprint="f2",
            facts={"dataset": "emblems"},
            settings={},
            keep_best=1,
        )
        tracked = training.__enter__()
        tracked.log_epoch({"epoch": 1, "validation_map": 0.5}, save)
    tracked.log_epoch({"epoch": 2, "validation_map": 0.6}, save)
    assert "the work goes on" in capsys.readouterr().err
    assert tracked.logged_epochs == 1
    with serve(tmp_path / "server", port):
        monkeypatch.setattr(runs.time, "monotonic", lambda: 2.0**40)  # it is time for another try
        tracked.log_epoch({"epoch": 3, "validation_map": 0.4}, save)
        assert tracked.logged_epochs == 3
        training.__exit__(None, None, None)
        monkeypatch.undo()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        (run,) = store.runs("tags.fingerprint = 'f2'")
        assert run.info.status == "FINISHED"
        models = store.client.search_logged_models(
            [store.experiment_id], f"source_run_id = '{run.info.run_id}'"
        )
        kept = {model.tags["epoch"]: model.tags["file"] for model in models}
        assert kept == {"1": "removed", "2": "kept", "3": "kept"}
        held = (tmp_path / "server").rglob("network.safetensors")
        assert sorted(path.read_text() for path in held) == ["epoch-2", "epoch-3"]

        store.client.delete_experiment(store.experiment_id)
        with pytest.raises(TrackingError, match="was deleted") as refused:
            require_store()
        _, remedy, _ = str(refused.value).split("`")
        restore = f"{remedy.replace('mlflow ', f'{sys.executable} -m mlflow ', 1)}"
        subprocess.run(restore, shell=True, env=environment(), check=True, capture_output=True)  # noqa: S602
        require_store()


def race(folder: Path, uri: str) -> None:
    """The same training from two checkouts, which meet an empty server at the same moment."""
    trainings = [
        subprocess.Popen(
            [sys.executable, "-c", TRAINING, str(folder / "go")],
            cwd=folder / name,
            env=environment(MLFLOW_TRACKING_URI=uri),
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "other")
    ]
    for training in trainings:
        assert training.stdout is not None
        assert training.stdout.readline() == "ready\n"
    (folder / "go").touch()
    for training in trainings:
        training.communicate(timeout=PATIENCE_S)
        assert training.returncode == 0


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address that `l2s mlflow` names, in a study of four current rows and an older one."""
    folder = tmp_path_factory.mktemp("pages")
    for name in ("params.yaml", "dvc.yaml"):
        (folder / name).touch()
    results = [f"{{path: results/emblems/cells/a-{n}.json, md5: f2}}" for n in (0, 1)]
    stages = [f"  evaluate@a-{n}: {{outs: [{result}]}}" for n, result in enumerate(results)]
    (folder / "dvc.lock").write_text("\n".join(["stages:", *stages]))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # By an address of its own, as MLflow keeps one connection an address in a process.
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        for number, (mark, score) in enumerate([("f1", 0.9), ("f2", 0.5), ("f2", 0.7)]):
            for role in ("naive", "asymmetric"):
                with tracked_run(
                    stage="evaluate",
                    key=f"a-{number % 2}",
                    role=role,
                    fingerprint=mark,
                    facts={"dataset": "emblems", "query_px": 64},
                    settings={},
                ) as run:
                    figures = {"recall_at_1": 0.25, "gmacs": 0.125, "latency_ms": 2.5}
                    run.log_results({"map": score, **figures})
                    run.set_tags({"output_md5": mark})
    command = [sys.executable, "-m", "pipeline.cli", "mlflow", "--port", str(free_port())]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = next(line for line in process.stdout if line.startswith("MLflow's pages: "))
    try:
        yield line.split()[2]
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) is not None


def test_pages_answer_when_their_address_is_named(pages: str) -> None:
    server = pages.partition("/#")[0]
    since_s = time.monotonic()
    with ask(server) as answer:
        assert b"MLflow" in answer.read()
    assert time.monotonic() - since_s < 10
    port = server.rpartition(":")[2]
    command = [sys.executable, "-m", "pipeline.cli", "mlflow", "--port", port]
    done = subprocess.run(
        command, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"--port {port}: a server of MLflow answers there already" in done.stderr


@pytest.mark.skipif(not browser_path(), reason="no Chromium on this machine")
def test_the_page_opens_on_charts_of_accuracy_for_cost(pages: str) -> None:
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        open_page(pages, Path(profile)) as page,
    ):
        page.resize(1920, 1000)
        page.wait_for("document.querySelector('.scatterlayer') !== null")
        shown = page.value("document.body.innerText")
    assert all(f"{x} vs. {y}" in shown for x, y in CHARTS)


def test_its_table_is_flat_and_of_the_current_results(pages: str) -> None:
    table = pages.replace("&compareRunsMode=CHART", "")
    cells = "[...document.querySelectorAll('[role=gridcell][col-id=\"metrics.`map`\"]')]"
    heads = "[...document.querySelectorAll('.ag-header-cell')]"
    last = "document.querySelector('.ag-header-cell[col-id=\"tags.`query_px`\"]')"
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        open_page(table, Path(profile)) as page,
    ):
        page.resize(1920, 1000)
        page.wait_for(f"{cells}.length > 0 && {last} !== null")
        shown = page.value(f"{cells}.map(cell => cell.innerText)")
        columns = page.value(f"{heads}.map(head => head.getAttribute('col-id'))")
    assert shown == ["0.7", "0.7", "0.5", "0.5"]
    assert {f"metrics.`{name}`" for name in ("map", "recall_at_1", "gmacs", "latency_ms")} <= set(
        columns
    )
    assert "tags.`role`" in columns
