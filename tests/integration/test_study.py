"""A tiny study from nothing to its table by `dvc repro`, and what runs again after a change."""

import csv
import hashlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from tests.integration.workspace import (
    changed_stages,
    dvc,
    environment,
    make_workspace,
    run,
    set_params,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_workspace(tmp_path_factory.mktemp("study") / "workspace")
    dvc(folder, "repro")
    return folder


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "results/emblems/tradeoff.csv").open(encoding="utf-8") as file:
        return {row["role"]: row for row in csv.DictReader(file)}


def test_table_has_every_role_with_accuracy_and_cost(study: Path) -> None:
    rows = rows_of(study)
    assert set(rows) == {"teacher", "asymmetric", "symmetric", "naive", "adapter", "baseline"}
    own_database = ("symmetric", "baseline")
    for role, row in rows.items():
        assert 0 < float(row["map"]) <= 1, role
        assert (row["classes"], row["map_low"], row["map_high"]) == ("6", "", "")
        assert row["latency_ms"] == row["latency_p95_ms"] == row["latency_ratio"] == ""
        assert row["query_px"] == ("32" if role == "teacher" else "16")
        assert row["database_px"] == ("16" if role in own_database else "32")
    assert {rows["teacher"][f"overlap_at_{k}"] for k in (1, 10)} == {"1.0"}
    assert 0 < float(rows["asymmetric"]["overlap_at_10"]) < 1
    assert float(rows["teacher"]["gmacs"]) > 3 * float(rows["asymmetric"]["gmacs"])
    for column in ("gmacs", "parameters"):
        assert rows["adapter"][column] == rows["naive"][column]
    for opponent in ("naive", "adapter", "baseline"):
        difference = float(rows["asymmetric"]["map"]) - float(rows[opponent]["map"])
        told = float(rows["asymmetric"][f"map_over_{opponent}"])
        assert told == pytest.approx(difference, abs=1e-12)


def test_few_test_classes_are_told_wherever_figures_are(study: Path) -> None:
    why = "no intervals: 6 test classes say too little, 10 are needed"
    page = (study / "report/index.html").read_text(encoding="utf-8")
    assert f"emblems has {why}." in page
    assert "nan" not in (study / "results/emblems/cells/tiny-16.json").read_text().lower()
    assert (study / "results/emblems/tradeoff.md").read_text().endswith(f"there are {why}.\n")
    shown = run(study, sys.executable, "-m", "pipeline.cli", "table").stdout
    assert f"verdict Nothing here can be called better or worse, for there are {why}." in " ".join(
        shown.split()
    )
    asked = ("-m", "pipeline.cli", "recommend")
    answer = run(study, sys.executable, *asked, "--max-gmacs", "1").stdout
    assert "emblems: tiny-16" in answer
    assert why in answer
    refused = run(study, sys.executable, *asked, "--max-drop", "50", check=False)
    assert refused.returncode == 2
    assert f"emblems has {why}" in refused.stderr


def test_figure_and_metrics_are_readable_by_dvc(study: Path) -> None:
    assert (study / "results/emblems/tradeoff.svg").read_text().count("<svg") == 1
    shown = json.loads(dvc(study, "metrics", "show", "--json").stdout)
    data = shown[""]["data"]["report/emblems/metrics.json"]["data"]
    assert data.keys() == {"teacher", "tiny-16"}
    figures = data["tiny-16"]["asymmetric"]
    row = rows_of(study)["asymmetric"]
    compared = ("map", "recall_at_1", "overlap_at_10", "gmacs")
    assert figures == {name: float(row[name]) for name in compared}
    dvc(study, "plots", "show", "--out", "plots")
    assert (study / "plots/index.html").exists()


def test_the_report_shows_every_row_and_examples(study: Path) -> None:
    page = (study / "report/index.html").read_text(encoding="utf-8")
    assert page == (study / "report/emblems/index.html").read_text(encoding="utf-8")
    assert page.count('<tr id="row-') == len(rows_of(study)) == 6
    assert page.count('<article class="query"') >= 3
    assert page.count("data:image/webp;base64,") >= 6
    assert str(study) not in page


def test_teacher_and_student_are_ready_for_searches_without_torch(study: Path) -> None:
    kept = list((study / ".work/encoders").iterdir())
    assert len(kept) == 2
    assert all(file.stat().st_size > 100_000 for file in kept)


def test_latencies_of_every_row_are_measured_on_request_and_make_nothing_stale(
    study: Path,
) -> None:
    run(study, sys.executable, "-m", "pipeline.cli", "latency")
    rows = rows_of(study)
    assert len(rows) == 6
    for row in rows.values():
        assert 0 < float(row["latency_ms"]) <= float(row["latency_p95_ms"])
    assert float(rows["teacher"]["latency_ratio"]) == 1
    for one, other in (("asymmetric", "symmetric"), ("naive", "adapter")):
        assert rows[one]["latency_ms"] == rows[other]["latency_ms"]
    with sqlite3.connect(study / "mlflow.db") as database:
        recorded = database.execute(
            "select tags.value, latest_metrics.value from tags join latest_metrics using (run_uuid)"
            " where tags.key = 'role' and latest_metrics.key = 'latency_ms'"
        ).fetchall()
    shown = {role: float(row["latency_ms"]) for role, row in rows.items()}
    assert dict(recorded) == pytest.approx(shown, rel=1e-3)
    assert changed_stages(study) == set()


def test_every_training_and_evaluation_is_one_run(study: Path) -> None:
    with sqlite3.connect(study / "mlflow.db") as database:
        tags = database.execute("select run_uuid, key, value from tags").fetchall()
    runs: dict[str, dict[str, str]] = {}
    for run_id, key, value in tags:
        runs.setdefault(run_id, {})[key] = value
    assert sorted(own["role"] for own in runs.values()) == sorted(
        ["teacher", "student", "baseline"]  # trainings
        + ["teacher", "asymmetric", "symmetric", "naive", "adapter", "baseline"]  # evaluations
    )
    for own in runs.values():
        needed = {"dataset", "query_px", "dvc_stage", "fingerprint", "git_commit", "backbone"}
        needed |= {"device", "torch", "timm"}
        assert needed <= own.keys()


def test_nothing_is_left_to_do(study: Path) -> None:
    assert changed_stages(study) == set()
    assert "Running stage" not in dvc(study, "repro").stdout


def test_a_new_resolution_adds_its_own_cells_only(study: Path) -> None:
    before = (study / "params.yaml").read_text()
    try:
        set_params(study, {"students.tiny-24": {"dataset": "emblems", "query_px": 24}})
        # `inputs` and `report` read the list of students; all else is the new student's.
        assert changed_stages(study) == {
            "inputs@emblems",
            "tune@tiny-24",
            "distill@tiny-24",
            "train_baseline@tiny-24",
            "evaluate@tiny-24",
            "report@emblems",
        }
    finally:
        (study / "params.yaml").write_text(before)


def test_a_students_learning_rate_leaves_teacher_and_baseline_alone(study: Path) -> None:
    before = (study / "params.yaml").read_text()
    try:
        rate = "datasets.emblems.distillation.optimisation.learning_rate"
        set_params(study, {rate: 1e-3})
        # `tune` finds nothing to do, and so what it writes stays.
        changed = {"inputs@emblems", "tune@tiny-16", "distill@tiny-16", "report@emblems"}
        assert changed_stages(study) == changed
    finally:
        (study / "params.yaml").write_text(before)


def test_a_copy_trains_one_more_student_and_leaves_the_first_untouched(
    study: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(study, copy, symlinks=True)
    before = contents(study)
    set_params(copy, {"students.tiny-24": {"dataset": "emblems", "query_px": 24}})
    run(copy, sys.executable, "-m", "stages.inputs", "emblems")
    run(copy, sys.executable, "-m", "stages.tune", "tiny-24")
    done = run(copy, sys.executable, "-m", "stages.distill", "tiny-24")
    assert f"record was made in {study}" in done.stderr
    assert contents(study) == before
    with sqlite3.connect(copy / "mlflow.db") as database:
        (address,) = database.execute(
            "select artifact_location from logged_models join logged_model_tags using (model_id) "
            "where tag_key = 'network' and tag_value = 'tiny-24'"
        ).fetchone()
    assert Path(address.removeprefix("file://"), "network.safetensors").is_relative_to(copy)
    assert Path(address.removeprefix("file://"), "network.safetensors").exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("file", "edit", "stages"),
    [
        ("pipeline/training/losses.py", "EDITED = 1", {"tune@tiny-16", "distill@tiny-16"}),
        ("pipeline/training/losses.py", "# edited", set()),
        ("pipeline/training/losses.py", '"""Edited."""', set()),
        (
            "pipeline/training/triplet.py",
            "EDITED = 1",
            {"train_teacher@emblems", "tune@tiny-16", "train_baseline@tiny-16"},
        ),
        ("pipeline/report/figure.py", "EDITED = 1", {"report@emblems"}),
        ("pipeline/report/report.css", "b { }", {"report@emblems"}),
        ("pipeline/search/page/page.css", "b { }", set()),
        ("pipeline/tracking/runs.py", "EDITED = 1", set()),
        ("pipeline/cli/__main__.py", "EDITED = 1", set()),
    ],
)
def test_an_edit_reruns_the_stages_whose_results_can_depend_on_it(
    study: Path, file: str, edit: str, stages: set[str]
) -> None:
    before = (study / file).read_text()
    try:
        (study / file).write_text(f"{before}\n{edit}\n")
        assert changed_stages(study) == {"code"}
        dvc(study, "repro", "code")
        assert changed_stages(study) == stages
    finally:
        (study / file).write_text(before)
        dvc(study, "repro", "code")


def test_compiled_files_make_nothing_stale(study: Path) -> None:
    run(study, sys.executable, "-m", "compileall", "-q", "pipeline", "stages")
    assert list(study.glob("pipeline/**/*.pyc"))
    assert changed_stages(study) == set()


def test_a_file_of_weights_counts_by_its_content_for_the_networks_that_start_from_it(
    study: Path, tmp_path: Path
) -> None:
    before = (study / "params.yaml").read_text()
    trained = {"tune@tiny-16", "distill@tiny-16", "train_baseline@tiny-16"}
    state = timm.create_model("test_resnet").state_dict()
    file = tmp_path / "start.safetensors"
    save_file(state, file)
    try:
        changes = {"weights": {"tiny-16": str(file)}}
        set_params(study, changes | {"students.tiny-16.network": {"weights": "file"}})
        dvc(study, "repro", "inputs")
        assert changed_stages(study) == {*trained, "report@emblems"}
        dvc(study, "repro", "distill", "train_baseline")
        assert not changed_stages(study) & {*trained, "hash_weights@tiny-16"}
        save_file({name: value + 1 for name, value in state.items()}, file)
        assert "hash_weights@tiny-16" in changed_stages(study)
        dvc(study, "repro", "inputs")
        changed = changed_stages(study)
        assert trained <= changed
        assert "train_teacher@emblems" not in changed
    finally:
        (study / "params.yaml").write_text(before)
        dvc(study, "repro")


def test_two_forced_runs_leave_the_same_lock(study: Path) -> None:
    lock = (study / "dvc.lock").read_bytes()
    dvc(study, "repro", "--force")
    assert (study / "dvc.lock").read_bytes() == lock


def test_bad_params_stop_everything_and_overwrite_nothing(study: Path) -> None:
    before = (study / "params.yaml").read_text()
    table = (study / "results/emblems/tradeoff.csv").read_bytes()
    try:
        set_params(
            study,
            {
                "datasets.emblems.distillation.loss.lambda_tz": 1,
                "datasets.emblems.teacher.loss.margin": "wide",
                "students.tiny-16": {"dataset": "emblem", "query_px": 16},
            },
        )
        for command in (["-m", "stages.inputs", "emblems"], ["-m", "pipeline.cli", "study"]):
            done = run(study, sys.executable, *command, check=False)
            assert done.returncode == 2
            assert "Traceback" not in done.stderr
            for fault in (
                "distillation.loss.lambda_tz",
                "teacher.loss.margin = 'wide'",
                "'emblem'",
            ):
                assert fault in done.stderr
        done = dvc(study, "repro", check=False)
        assert done.returncode != 0
        assert "Running stage 'distill" not in done.stdout
        assert (study / "results/emblems/tradeoff.csv").read_bytes() == table
        assert (study / "models/emblems/students/tiny-16.safetensors").exists()
    finally:
        (study / "params.yaml").write_text(before)


def test_unknown_network_is_refused_up_front(study: Path) -> None:
    before = (study / "params.yaml").read_text()
    try:
        set_params(study, {"datasets.emblems.network.backbone": "timm/test_resnett"})
        done = run(study, sys.executable, "-m", "stages.inputs", "emblems", check=False)
        assert done.returncode == 2
        assert "datasets.emblems.network.backbone = 'timm/test_resnett'" in done.stderr
        assert "test_resnet" in done.stderr.split("similar:")[1]
    finally:
        (study / "params.yaml").write_text(before)


def test_a_killed_training_resumes_and_ends_with_the_same_weights(study: Path) -> None:
    before = (study / "params.yaml").read_text()
    output = study / "models/emblems/students/tiny-16.safetensors"
    try:
        set_params(study, {"datasets.emblems.distillation.optimisation.epochs": 12})
        run(study, sys.executable, "-m", "stages.inputs", "emblems")
        command = [sys.executable, "-m", "stages.distill", "tiny-16"]
        run(study, *command)
        undisturbed = hashlib.sha256(output.read_bytes()).hexdigest()
        (work,) = (study / ".work/distill/tiny-16").iterdir()
        for file in work.iterdir():
            file.unlink()
        output.unlink()

        process = subprocess.Popen(
            command, cwd=study, env=environment(study), stderr=subprocess.DEVNULL
        )
        deadline_s = time.monotonic() + 120
        while not (work / "checkpoint.pt").exists():
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not output.exists()

        resumed = run(study, *command)
        assert "resuming after epoch" in resumed.stderr
        assert hashlib.sha256(output.read_bytes()).hexdigest() == undisturbed
        assert list(output.parent.glob(".*.part")) == []
    finally:
        (study / "params.yaml").write_text(before)
