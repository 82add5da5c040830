"""Cells of one study on two workers that share no disk, only a Prefect server and a DVC remote.

Three checkouts on this machine stand for three machines: one asks, two work. The stages sleep, so
that the time told is what the exchange costs. Fails unless dvc.lock is that of `dvc repro` and both
workers had a part. Run: python -m benchmarks.two_machines [--seconds 3]
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.sleepy_study import make_sleepy_study, serial_lock

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 300


def make_checkout(folder: Path, remote: Path, seconds: float) -> Path:
    make_sleepy_study(folder, students=("a-64", "a-48"), seconds=seconds)
    for name in ("pipeline", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "prefect.yaml", folder)
    with (folder / ".dvc" / "config").open("a") as config:
        config.write(f"    remote = exchange\n['remote \"exchange\"']\n    url = {remote}\n")
    return folder


def environment(folder: Path, url: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {
        **os.environ,
        "PATH": path,
        "PYTHONPATH": str(folder),
        "L2S_CHECKOUT": str(folder),
        "PREFECT_API_URL": url,
        "PREFECT_HOME": str(folder / ".prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each stage sleeps")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as name, socket.socket() as probe:
        home = Path(name).resolve()
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        folders = {
            who: make_checkout(home / who, home / "remote", seconds)
            for who in ("asking", "east", "west", "serial")
        }
        reference = serial_lock(folders["serial"])
        url = f"http://127.0.0.1:{port}/api"
        started: list[subprocess.Popen[bytes]] = []

        def prefect(who: str, *arguments: str, wait: bool = True) -> None:
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", *arguments],
                cwd=folders[who],
                env=environment(folders[who], url),
                stdout=(home / "prefect.log").open("ab"),
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            if not wait:
                started.append(process)
            elif process.wait(timeout=PATIENCE_S) != 0:
                sys.exit(f"prefect {arguments}: {(home / 'prefect.log').read_text()}")

        def l2s(*arguments: str) -> str:
            done = subprocess.run(
                [sys.executable, *arguments],
                cwd=folders["asking"],
                env=environment(folders["asking"], url),
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE_S,
            )
            if done.returncode != 0:
                log = (home / "prefect.log").read_text()
                sys.exit(f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}\n{log}")
            return done.stdout + done.stderr

        try:
            prefect("asking", "server", "start", "--port", str(port), "--no-ui", wait=False)
            wait_for_server(url)
            prefect("asking", "work-pool", "create", "--type", "process", "l2s")
            prefect("asking", "--no-prompt", "deploy", "--name", "cell")
            for who in ("east", "west"):
                prefect(
                    who,
                    "worker",
                    "start",
                    "--pool",
                    "l2s",
                    "--limit",
                    "1",
                    "--name",
                    who,
                    wait=False,
                )
            l2s(str(ROOT / "tests" / "sleepy_study.py"), "prepare")
            began_s = time.monotonic()
            print(l2s("-m", "pipeline.cli", "remote", "distill"))
            spent_s = time.monotonic() - began_s
            l2s(str(ROOT / "tests" / "sleepy_study.py"))
        finally:
            for process in reversed(started):
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)
                    try:
                        process.wait(timeout=30)
                    except subprocess.TimeoutExpired:
                        os.killpg(process.pid, signal.SIGKILL)
        shares = {
            who: (folders[who] / "dvc.lock").exists()
            and (folders[who] / "dvc.lock").read_text().count("  distill@")
            for who in ("east", "west")
        }
        print(f"cells a worker: {shares}; two cells of {seconds:g} s took {spent_s:.1f} s")
        same = (folders["asking"] / "dvc.lock").read_bytes() == reference
        print(f"dvc.lock is that of dvc repro: {same}")
        sys.exit(not (same and shares == {"east": 1, "west": 1}))


def wait_for_server(url: str) -> None:
    from pipeline.tracking.pages import answers

    until_s = time.monotonic() + PATIENCE_S
    while not answers(url):
        if time.monotonic() > until_s:
            sys.exit("the Prefect server did not start")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
