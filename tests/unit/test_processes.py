"""Process groups: found again by their record, ended whole, and never mistaken."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import processes
from pipeline.processes import (
    FOLDER,
    end_group,
    end_leftovers,
    group_members,
    process_name,
    record_group,
    start_mark,
)

# A leader with a child that outlives it, as a trainer outlives a killed DVC.
FAMILY = """
import signal, subprocess, sys, time
{before}
subprocess.Popen([sys.executable, "-c", "{before}; import time; time.sleep(60)"])
print("up", flush=True)
time.sleep(60)
"""


@pytest.fixture
def groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list["subprocess.Popen[str]"]]:
    """Groups that are started here are gone after the test."""
    monkeypatch.chdir(tmp_path)
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if group_members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()


def start_family(
    groups: list["subprocess.Popen[str]"], before: str = "import signal"
) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", FAMILY.format(before=before)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    groups.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def test_group_has_leader_and_child(groups: list["subprocess.Popen[str]"]) -> None:
    family = start_family(groups)
    assert family.pid in group_members(family.pid)
    assert len(group_members(family.pid)) == 2
    end_group(family.pid)
    assert group_members(family.pid) == []


def test_deaf_group_is_killed(
    groups: list["subprocess.Popen[str]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = (("SIGINT", 0.2), ("SIGTERM", 0.2), ("SIGKILL", 5.0))
    monkeypatch.setattr(processes, "SIGNALS", patience)
    deaf = "import signal; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]"
    family = start_family(groups, deaf)
    time.sleep(0.3)
    end_group(family.pid)
    assert group_members(family.pid) == []
    assert family.wait() == -signal.SIGKILL


def test_impatience_kills_at_once(groups: list["subprocess.Popen[str]"]) -> None:
    family = start_family(groups)
    end_group(family.pid, lambda: False)
    assert family.wait() == -signal.SIGKILL
    assert group_members(family.pid) == []


def test_leftovers_are_ended_and_forgotten(groups: list["subprocess.Popen[str]"]) -> None:
    family = start_family(groups)
    kept = start_family(groups)
    record_group("distill@a-64", family.pid)
    record_group("prefect-server", kept.pid)
    assert end_leftovers(keep=("prefect-server",)) == ["distill@a-64"]
    assert group_members(family.pid) == []
    assert len(group_members(kept.pid)) == 2
    assert end_leftovers() == ["prefect-server"]
    assert group_members(kept.pid) == []
    assert list(FOLDER.glob("*")) == []
    assert end_leftovers() == []


def test_groups_of_a_living_owner_stay(groups: list["subprocess.Popen[str]"]) -> None:
    family = start_family(groups)
    path = record_group("distill@a-64", family.pid)
    assert end_leftovers(own=False) == []
    record = json.loads(path.read_text())
    parent = process_name(os.getppid())
    path.write_text(json.dumps({**record, "owner": parent}))
    assert end_leftovers() == []
    assert len(group_members(family.pid)) == 2
    path.write_text(json.dumps({**record, "owner": {**parent, "host": "another", "pid": "1"}}))
    assert end_leftovers() == []
    dead = {**parent, "process_start": "another boot 1"}
    path.write_text(json.dumps({**record, "owner": dead}))
    assert end_leftovers(own=False) == ["distill@a-64"]
    assert group_members(family.pid) == []


def test_a_record_that_goes_meanwhile_is_no_fault(
    groups: list["subprocess.Popen[str]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a stage of a study ends while `l2s schedule` looks for leftovers."""
    path = record_group("distill@a-64", start_family(groups).pid)
    monkeypatch.setattr(Path, "glob", lambda *_: [path, path.with_name("gone.json")])
    assert end_leftovers() == ["distill@a-64"]


def test_orphans_of_a_killed_leader_are_found(groups: list["subprocess.Popen[str]"]) -> None:
    family = start_family(groups)
    record_group("distill@a-64", family.pid)
    os.kill(family.pid, signal.SIGKILL)
    family.wait()
    assert start_mark(family.pid) is None
    assert len(group_members(family.pid)) == 1
    assert end_leftovers() == ["distill@a-64"]
    assert group_members(family.pid) == []


def test_number_given_to_another_process_is_left_alone(
    groups: list["subprocess.Popen[str]"],
) -> None:
    family = start_family(groups)
    path = record_group("distill@a-64", family.pid)
    record = json.loads(path.read_text())
    record["leader"]["process_start"] = "another boot 1"
    path.write_text(json.dumps(record))
    assert end_leftovers() == []
    assert len(group_members(family.pid)) == 2
    assert not path.exists()


def test_group_of_another_folder_is_left_alone(
    groups: list["subprocess.Popen[str]"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = start_family(groups)
    os.kill(family.pid, signal.SIGKILL)
    family.wait()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    record_group("distill@a-64", family.pid)
    assert end_leftovers() == []
    assert len(group_members(family.pid)) == 1


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"no_proxy": "*"}, "*"),
        ({"no_proxy": "a.example, *"}, "*"),
        ({"no_proxy": "", "NO_PROXY": "a.example"}, "a.example,127.0.0.1,localhost"),
        ({"no_proxy": "a", "NO_PROXY": "b,localhost"}, "a,b,localhost,127.0.0.1"),
        ({}, "127.0.0.1,localhost"),
    ],
)
def test_no_proxy_stands_before_this_machine_and_what_the_user_said_holds(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], wanted: str
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
        if name in given:
            monkeypatch.setenv(name, given[name])
    processes.prepare_process()
    assert (os.environ["no_proxy"], os.environ["NO_PROXY"]) == (wanted, wanted)
