"""Engines: the same bytes as within the process, and what becomes of workers that are killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.embedding.destination import Destination
from pipeline.embedding.local import LocalEngine, WorkerEndedError
from pipeline.embedding.manifest import ShardSummary, open_manifest
from pipeline.embedding.planning import plan
from pipeline.embedding.ray_engine import RayEngine
from pipeline.embedding.sharded import embed_source
from pipeline.embedding.shards import Job, ShardReport, prepare_graph
from tests.made_embedding import InProcess, files_of, make_job, write_network, write_pictures

ROOT = Path(__file__).parents[3]
embed = partial(embed_source, shard_images=4)
ENGINES = {"local": LocalEngine, **({"ray": RayEngine} if find_spec("ray") else {})}
PROGRAM = """
import signal, sys
from pathlib import Path
from pipeline.embedding.destination import Destination
from pipeline.embedding.{module} import {engine}
from pipeline.embedding.sharded import embed_source
from tests.made_embedding import make_job
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what runs in background
    job = make_job(Path(sys.argv[1]), destination=Destination(sys.argv[2]))
    embed_source(job, engine={engine}, workers=2, shard_images=4, tell=print)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A folder with images and a network, and what comes of them within the process."""
    folder = tmp_path_factory.mktemp("made")
    write_network(folder / "net.safetensors")
    write_pictures(folder / "images", range(120))
    job = make_job(folder, destination=Destination(str(folder / "expected")))
    embed(job, engine=InProcess)
    return folder, files_of(folder / "expected")


def job_of(folder: Path, destination: Path) -> Job:
    return make_job(folder, destination=Destination(str(destination)))


def test_two_processes_write_the_same_bytes_and_none_is_left(
    made: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    folder, expected = made
    report = embed(job_of(folder, tmp_path / "v"), workers=2)
    assert files_of(tmp_path / "v") == expected
    assert (report.shards, report.embedded) == (30, 120)
    assert multiprocessing.active_children() == []


class KillsItsWorker(LocalEngine):
    def write(self, shards: Iterable[ShardSummary]) -> Iterator[ShardReport]:
        for done, report in enumerate(super().write(shards)):
            yield report
            if done == 1:
                for child in multiprocessing.active_children():
                    child.kill()

    def __exit__(self, *error: Any) -> None:
        time.sleep(0.1)  # so that the pool's thread is at its wait
        super().__exit__(*error)


def test_a_killed_worker_is_told_and_the_next_start_goes_on(
    made: tuple[Path, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait: Callable[[int, int], tuple[int, int]] = os.waitpid

    def wait_slowly(process: int, options: int) -> tuple[int, int]:
        ended = wait(process, options)
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.2)  # the pool's thread has the end and has not noted it yet
        return ended

    monkeypatch.setattr(os, "waitpid", wait_slowly)
    folder, expected = made
    job = job_of(folder, tmp_path / "v")
    with pytest.raises(WorkerEndedError, match=r"the same command goes on with what is left"):
        embed(job, engine=KillsItsWorker)
    assert multiprocessing.active_children() == []
    assert 0 < embed(job, engine=InProcess).shards < 30
    assert files_of(tmp_path / "v") == expected


def first_shard(job: Job) -> ShardSummary:
    plan(job, 4)
    prepare_graph(job, job.digest())
    with open_manifest(job.destination) as manifest:
        return next(manifest.summaries())


def test_all_workers_start_while_one_takes_the_sample(
    made: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    job = job_of(made[0], tmp_path / "v")
    shard = first_shard(job)
    with LocalEngine(job, 3) as engine:
        engine.sample(shard, 4)
        assert len(multiprocessing.active_children()) == 3
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("engine", ENGINES)
def test_a_worker_that_is_killed_amid_the_sample_is_told(
    made: tuple[Path, dict[str, bytes]], tmp_path: Path, engine: str
) -> None:
    """Where memory runs out first; also of the engine ray, whose sample is taken here."""

    def kill() -> None:
        while not (found := multiprocessing.active_children()):
            time.sleep(0.01)
        for child in found:
            child.kill()

    killer = threading.Thread(target=kill)
    job = job_of(made[0], tmp_path / "v")
    shard = first_shard(job)
    with ENGINES[engine](job, 1) as opened:
        killer.start()
        with pytest.raises(WorkerEndedError, match=r"the same command goes on with what is left"):
            opened.sample(shard, 4)
    killer.join()


def start(folder: Path, vectors: Path, engine: str, module: str) -> "subprocess.Popen[str]":
    """The embedding of a folder, in a session of its own."""
    program = vectors.with_name("program.py")
    program.write_text(PROGRAM.format(engine=engine, module=module))
    return subprocess.Popen(
        [sys.executable, str(program), str(folder), str(vectors)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def vectors_in(folder: Path) -> int:
    return sum(len(file.name) > 30 for file in folder.glob("*.parquet"))


def ended(processes: list[psutil.Process], within_s: float = 10) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=within_s)
    return all(one.status() == psutil.STATUS_ZOMBIE for one in alive)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_coordinator_leaves_no_worker_and_the_next_start_goes_on(
    made: tuple[Path, dict[str, bytes]], tmp_path: Path, number: signal.Signals
) -> None:
    vectors = tmp_path / "v"
    process = start(made[0], vectors, "LocalEngine", "local")
    while vectors_in(vectors) < 2 and process.poll() is None:
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert ended(workers)
    assert not (vectors / "card.json").exists()
    assert 0 < embed(job_of(made[0], vectors), engine=InProcess).shards <= 28
    assert files_of(vectors) == made[1]


@pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra ray")
def test_ray_writes_the_same_bytes_though_an_actor_is_killed_and_leaves_no_process(
    made: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    vectors = tmp_path / "v"
    process = start(made[0], vectors, "RayEngine", "ray_engine")
    killed = False
    processes: list[psutil.Process] = []
    while process.poll() is None:
        processes = psutil.Process(process.pid).children(recursive=True) or processes
        if not killed and vectors_in(vectors) >= 2:
            actors = [one for one in processes if "_Actor" in " ".join(one.cmdline())]
            killed = any(one.kill() is None for one in actors[:1])
        time.sleep(0.05)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert killed
    assert ended(processes)
    assert files_of(vectors) == made[1]
