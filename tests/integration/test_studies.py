"""Studies come and go: what is inactive stays and stays usable; gc alone removes; experiments."""

import json
import re
import shutil
import sqlite3
import sys
import time
from pathlib import Path

import pytest

from tests.browser import browser_path, open_page
from tests.integration.workspace import dvc, make_workspace, run
from tests.made_study import write_test_images

FIGURES = ("map", "recall_at_1", "overlap_at_10", "gmacs")
FOLDERS = ("data", "models", "embeddings", "results", "report")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study `emblems` under git, and the text of another, `other`, in studies/."""
    folder = make_workspace(tmp_path_factory.mktemp("studies") / "workspace")
    for name in ("email", "name"):
        run(folder, "git", "config", f"user.{name}", "made@example.org")
    text = (folder / "params.yaml").read_text(encoding="utf-8")
    (folder / "studies").mkdir()
    other = text.replace("tiny-16", "other-16").replace("  emblems:", "  other:")
    other = other.replace("dataset: emblems", "dataset: other").replace(
        "images_per_class: 5", "images_per_class: 6"
    )
    (folder / "studies/other.yaml").write_text(other, encoding="utf-8")
    dvc(folder, "repro")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "made")
    return folder


def l2s(folder: Path, *arguments: str, check: bool = True) -> str:
    done = run(folder, sys.executable, "-m", "pipeline.cli", *arguments, check=check)
    return done.stdout + done.stderr


def files_of(folder: Path, name: str) -> dict[str, tuple[int, int]]:
    """The files of a study, each with what changes where it is written anew: all but the table,
    its figures and the times of trainings, which the end of a study writes.
    """
    found = [
        p
        for one in FOLDERS
        for p in (folder / one).rglob("*")
        if name in p.parts and not p.stem.startswith(("tradeoff", "training_seconds"))
    ]
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in found if p.is_file()}


def test_what_git_tracks_is_the_lock_and_the_metrics(study: Path) -> None:
    tracked = run(study, "git", "ls-files").stdout.splitlines()
    assert {"dvc.lock", "report/emblems/metrics.json"} <= set(tracked)
    assert not [name for name in tracked if name.startswith(FOLDERS[:-1])]
    assert run(study, "git", "status", "--porcelain").stdout == ""


def test_a_clone_compares_at_once_and_knows_what_it_lacks(study: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    run(study, "git", "clone", "--quiet", str(study), str(clone))
    metrics = clone / "report/emblems/metrics.json"
    values = json.loads(metrics.read_text())
    values["tiny-16"]["asymmetric"]["map"] += 0.25
    metrics.write_text(json.dumps(values))
    shown = json.loads(dvc(clone, "metrics", "diff", "--json").stdout)
    change = shown["report/emblems/metrics.json"]["tiny-16.asymmetric.map"]
    assert change["diff"] == pytest.approx(0.25)
    assert l2s(clone, "status").count("not here") == 10
    l2s(clone, "study")  # no cache came along: it is computed, and comes out as it was committed
    assert run(clone, "git", "status", "--porcelain").stdout == ""
    assert json.loads(dvc(clone, "metrics", "diff", "--json").stdout) == {}


def test_there_and_back_with_an_index_in_between(study: Path) -> None:
    pictures = study.parent / "pictures"
    image = str(write_test_images(study, pictures, 12)[0])
    l2s(study, "index", str(pictures), "--name", "mine")
    before, found = files_of(study, "emblems"), l2s(study, "search", image, "--index", "mine")
    assert len(before) > 15

    l2s(study, "select", "other")
    assert l2s(study, "search", image, "--index", "mine") == found
    ended = l2s(study, "study")
    assert "other-16" in ended
    assert files_of(study, "emblems") == before
    for arguments in (
        ("search", image, "--index", "mine"),
        ("search", image, "--network", "tiny-16", "--dataset", "emblems"),
        ("table", "--dataset", "emblems"),
        ("recommend", "--dataset", "emblems", "--max-gmacs", "1"),
        ("index", str(pictures), "--name", "mine", "--dataset", "emblems"),
        ("export", "--network", "tiny-16", "--with-database", "--index", "mine"),
    ):
        assert "tiny-16" in l2s(study, *arguments) or arguments[0] == "index"
    assert l2s(study, "search", image, "--index", "mine") == found
    refused = l2s(study, "table", "--dataset", "else", check=False)
    assert refused == "error: --dataset else: no such data set; known: other, emblems\n"

    l2s(study, "select", "emblems")
    assert "everything is up to date" in l2s(study, "study")
    assert "Running stage" not in dvc(study, "repro").stdout
    assert files_of(study, "emblems") == before
    assert l2s(study, "search", image, "--index", "mine") == found


def test_gc_lists_first_and_takes_what_nothing_needs(study: Path) -> None:
    """After the test above: `other` is inactive, and `emblems` has an index."""
    before = {name: files_of(study, name) for name in ("emblems", "other")}
    assert len(before["other"]) > 15
    lost = study / "results/emblems/cells/gone-16.json"
    lost.write_text("{}")
    listed = l2s(study, "gc", check=False)
    for line in ("study other: data/other, models/other", "lost cells of emblems: ", "are freed"):
        assert line in listed
    assert "study emblems" not in listed
    assert listed.endswith("Aborted.\n")
    assert lost.exists()
    assert files_of(study, "other") == before["other"]
    kept = l2s(study, "gc", "--keep", "other", check=False)
    assert "kept  other: as asked" in kept
    assert "study other" not in kept
    assert "--keep else: no such study" in l2s(study, "gc", "--keep", "else", check=False)

    l2s(study, "select", "other")
    away = l2s(study, "gc", check=False)
    assert "kept  emblems: index mine needs it" in away
    assert "study emblems" not in away
    l2s(study, "select", "emblems")

    own = [study / "data/photos/a.jpg", study / "models/clip/net.onnx"]  # no study's
    for file in own:
        file.parent.mkdir()
        file.write_text("mine")
    cached = len(list((study / ".dvc/cache/files").rglob("*/*")))
    l2s(study, "gc", "--yes")
    assert files_of(study, "other") == {}
    assert [file.read_text() for file in own] == ["mine", "mine"]
    assert not lost.exists()
    assert files_of(study, "emblems") == before["emblems"]
    assert 0 < len(list((study / ".dvc/cache/files").rglob("*/*"))) < cached
    assert (study / "studies/other.yaml").exists()
    assert "everything is up to date" in l2s(study, "study")
    assert "tiny-16" in l2s(study, "search", str(study.parent / "pictures"), "--index", "mine")
    shutil.rmtree(study / "models/emblems")
    dvc(study, "checkout")
    assert "everything is up to date" in l2s(study, "study")
    assert l2s(study, "gc") == "    0.0 MB  are freed\n"


def test_queued_experiments_leave_their_metrics_and_their_record(study: Path) -> None:
    """After the tests above; DVC's worker runs them in folders of their own, and deletes those."""
    key = "datasets.emblems.distillation.optimisation.epochs"
    before = run(study, "git", "status", "--porcelain").stdout
    for epochs in (2, 3):
        dvc(study, "exp", "run", "--queue", "--name", f"made-{epochs}", "-S", f"{key}={epochs}")
    dvc(study, "queue", "start")
    deadline_s = time.monotonic() + 400
    while dvc(study, "queue", "status").stdout.count("Success") < 2:
        assert time.monotonic() < deadline_s, dvc(study, "queue", "logs", "made-2").stdout
        time.sleep(1)
    table = dvc(study, "exp", "show", "--csv", "--only-changed", "--drop", "[^:]*/[^:]*$").stdout
    head, *rows = table.splitlines()
    assert (
        {"tiny-16.asymmetric.map", key}
        <= set(head.split(","))
        <= {
            *("Experiment", "rev", "typ", "Created", "parent", "State", "Executor", key),
            *(f"tiny-16.asymmetric.{name}" for name in FIGURES),
        }
    )
    assert {row.split(",")[0] for row in rows} >= {"made-2", "made-3"}
    with sqlite3.connect(study / "mlflow.db") as database:
        runs = database.execute(
            "select stage.value, own.value from tags own join tags stage using (run_uuid) where "
            "own.key = 'experiment' and own.value != 'none' and stage.key = 'dvc_stage'"
        ).fetchall()
    assert set(runs) == {
        (stage, f"made-{epochs}")
        for stage in ("distill@tiny-16", "evaluate@tiny-16")
        for epochs in (2, 3)
    }
    assert list((study / ".dvc/tmp/exps").glob("tmp*")) == []
    assert run(study, "git", "status", "--porcelain").stdout == before


def test_the_page_of_plots_needs_no_network(study: Path) -> None:
    dvc(study, "plots", "show", "--out", "plots")
    page = (study / "plots/index.html").read_text(encoding="utf-8")
    # Two trainings with labels, one without, a search for values that had no trials, the
    # trade-off; the scripts are in the page.
    assert page.count("vegaEmbed('#") == 5
    assert re.findall(r"<script[^>]* src=", page) == []


@pytest.mark.skipif(browser_path() is None, reason="no Chromium on this machine")
def test_the_page_of_plots_draws_trainings_and_trade_off(study: Path, tmp_path: Path) -> None:
    """After the test above."""
    with open_page((study / "plots/index.html").as_uri(), tmp_path) as page:
        page.wait_for("document.querySelectorAll('svg.marks').length === 5")
        assert page.faults == []
    shutil.rmtree(study / "plots")
