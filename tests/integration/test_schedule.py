"""A schedule with a real server: it fires by itself, retrains, and ends with all it started."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.quick_study import environment, make_quick_study, put_images
from tests.sleepy_study import processes_in

PATIENCE_S = 240


def test_a_schedule_fires_and_retrains_on_images_that_were_added(tmp_path: Path) -> None:
    folder = make_quick_study(tmp_path / "study", {5: "bad", 6: "good"})
    output = tmp_path / "output.txt"
    command = [sys.executable, "-m", "pipeline.cli", "schedule", "--every", "10s"]
    with output.open("w") as file:
        schedule = subprocess.Popen(
            [*command, "--port", str(free_port())],
            cwd=folder,
            env={**environment(), "PREFECT_RUNNER_POLL_FREQUENCY": "2"},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        wait_for(lambda: "own-16px: own-16 first" in output.read_text(), output, schedule)
        put_images(folder, 6)
        wait_for(lambda: "own-16px: own-16 promoted" in output.read_text(), output, schedule)
        record = json.loads((folder / ".work/schedule/schedule.json").read_text())
        assert record["when"] == "every 10s"
        assert record["coming"]
        assert "next runs: " in output.read_text()
        second = subprocess.run(
            command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
        )
        assert second.returncode == 2
        assert f"a schedule runs here already: process {schedule.pid}" in second.stderr
    finally:
        schedule.send_signal(signal.SIGTERM)
        code = schedule.wait(timeout=PATIENCE_S)
    assert code == 128 + signal.SIGTERM, output.read_text()
    deadline_s = time.monotonic() + 10  # Python's tracker of resources ends when its pipe closes
    while processes_in(folder) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert processes_in(folder) == {}
    assert "ending the schedule (SIGTERM)" in output.read_text()
    assert not (folder / ".work/schedule/schedule.json").exists()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(
    condition: Callable[[], bool], output: Path, process: "subprocess.Popen[bytes]"
) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < deadline_s, output.read_text()
        time.sleep(0.5)
