"""`l2s latency`: one run over all networks of the table, told where the machine is busy."""

import csv
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipeline.cli.__main__ import app
from pipeline.evaluation import latency
from pipeline.files import file_md5, read_json
from pipeline.flows.run_state import hold_workspace
from tests.made_study import STUDENT, make_finished_study

FILE = Path("results/emblems/latency.json")


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = make_finished_study(tmp_path / "study")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("L2S_DEVICE", "cpu")
    monkeypatch.setattr(latency, "ROUNDS", 4)
    monkeypatch.setattr("os.getloadavg", lambda: (0.01, 0.0, 0.0))
    return folder


def l2s(*arguments: str) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.usefixtures("study")
def test_the_table_has_latencies_after_it_and_not_before() -> None:
    before = l2s("table")
    assert "no latencies of this machine" in before.stdout
    refused = l2s("recommend", "--max-latency-ms", "1e6")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "measure again: l2s latency" in refused.stderr
    done = l2s("latency", "--dataset", "emblems")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.startswith("measuring single queries\n")
    assert "busy" not in done.stdout
    run = read_json(FILE)
    assert (run["device"], run["threads"], run["load"]) == ("cpu", 1, 0.01)
    for one in run["networks"]:
        figures = one["figures"]
        assert one["md5"] == file_md5(Path(one["file"]))
        assert 0 < figures["latency_ms"] <= figures["latency_p95_ms"]
    assert [Path(one["file"]).stem for one in run["networks"]] == ["teacher", STUDENT]
    with Path("results/emblems/tradeoff.csv").open(encoding="utf-8") as file:
        ratios = [float(row["latency_ratio"]) for row in csv.DictReader(file)]
    assert ratios == [one["figures"]["latency_ratio"] for one in run["networks"]]
    assert l2s("recommend", "--max-latency-ms", "1e6").exit_code == 0


@pytest.mark.usefixtures("study")
def test_a_busy_machine_is_warned_of_before_and_in_the_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (99.5, 0.0, 0.0))
    done = l2s("latency")
    assert done.exit_code == 0
    assert "busy machine, so too slow (load average 99.50, " in done.stderr.splitlines()[0]
    assert "busy machine" in " ".join(l2s("table").stdout.split())


@pytest.mark.usefixtures("study")
def test_nothing_is_measured_beside_a_study_or_without_results() -> None:
    with hold_workspace() as record:
        record.note()
        beside = l2s("latency")
    assert beside.exit_code == 2
    assert "): measure when it has ended" in beside.stderr
    Path(f"results/emblems/cells/{STUDENT}.json").unlink()
    early = l2s("latency")
    assert early.exit_code == 2
    assert f"not evaluated yet: {STUDENT}; run `l2s study`" in early.stderr
    assert not FILE.exists()


@pytest.mark.usefixtures("study")
def test_no_study_begins_while_it_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*_: object) -> None:
        with pytest.raises(ValueError, match="a study runs here already"), hold_workspace():
            raise AssertionError("held twice")

    monkeypatch.setattr(latency, "measure_latencies", measure)
    done = l2s("latency")
    assert done.exit_code == 0, done.output


@pytest.mark.usefixtures("study")
def test_a_network_that_is_not_there_is_named() -> None:
    file = Path(f"models/emblems/students/{STUDENT}.safetensors")
    file.unlink()
    done = l2s("latency")
    assert done.exit_code == 2
    assert str(file) in done.stderr
    assert not FILE.exists()
