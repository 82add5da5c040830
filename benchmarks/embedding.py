"""Many images to vectors: time, rate and peak memory of both engines, and what kills leave.

Generates N small JPEG files of noise and a random network, and embeds them by each engine in a
process of its own, whose whole tree is watched: memory is the sum of the proportional set sizes.
Workers note the time that they spend in decoding and network; the local engine's wall and the CPU
time of its whole tree, less what it takes for no image, are set against the sum, which the wall
shares between the workers.
The two engines' folders are compared byte by byte. With --kills so many times a process of the
tree, drawn at random, is killed at a random moment, by SIGKILL or SIGTERM; what is there when a
last run has ended is compared with what an undisturbed one wrote.
Run: python -m benchmarks.embedding --images 1000 10000 [--engines local ray] [--kills 15]
"""

import argparse
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import psutil
from PIL import Image

from pipeline.datasets.picture_sources import PictureSource
from pipeline.embedding import local
from pipeline.embedding.destination import Destination
from pipeline.embedding.local import LocalEngine
from pipeline.embedding.manifest import SHARD_IMAGES
from pipeline.embedding.ray_engine import RayEngine
from pipeline.embedding.sharded import embed_source
from pipeline.embedding.shards import Embedded, Job, ShardEmbedder, ShardReport, embedder
from pipeline.models.weights import NetworkCard, build_embedder, save_network
from pipeline.processes import prepare_process
from pipeline.search.upkeep import build_index

ENGINES = {"local": LocalEngine, "ray": RayEngine}
SIDE_PX, DIM, WORKERS = 112, 128, 2
PERIOD_S = 0.2
KILLED_SHARD = 64  # images, so that a kill falls amid many shards


def write_images(folder: Path, images: int) -> None:
    """The files of a folder up to a number, noise of 14 px scaled up; those there stay."""
    for number in range(images):
        file = folder / f"{number // 1000:04}" / f"{number:07}.jpg"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            grey = np.random.default_rng(number).integers(0, 256, (14, 14, 3), dtype=np.uint8)
            Image.fromarray(grey).resize((SIDE_PX, SIDE_PX)).save(file, quality=85)


def job_of(home: Path, images: int, destination: str) -> Job:
    source = PictureSource(str(home / f"images-{images}"))
    return Job(source, Destination(str(home / destination)), home / "net.safetensors")


def start(home: Path, images: int, engine: str, destination: str, shard: int) -> "subprocess.Popen":
    # By -c: processes that are spawned import the main module anew, where it is a file.
    program = "from benchmarks.embedding import run; run()"
    command = ["-c", program, str(home), str(images), engine, destination, str(shard)]
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def usual_shard(images: int) -> int:
    """Images a shard: as `l2s embed` cuts them, or fewer, so that all workers have some."""
    return min(SHARD_IMAGES, images // (2 * WORKERS))


def tree(process: "subprocess.Popen") -> list[psutil.Process]:
    try:
        root = psutil.Process(process.pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def memory_bytes(processes: list[psutil.Process]) -> int:
    found = 0
    for one in processes:
        try:
            found += one.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@dataclass(frozen=True)
class Measured:
    wall_s: float
    cpu_s: float
    peak_bytes: int


def measure(
    home: Path, images: int, engine: str, destination: str, *, shard: int, watch: bool
) -> Measured:
    """One run from nothing. Watching its memory takes a fifth of a core, so it has its own run."""
    shutil.rmtree(home / destination, ignore_errors=True)
    before, started_s, peak = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), 0
    process = start(home, images, engine, destination, shard)
    while process.poll() is None:
        if watch:
            peak = max(peak, memory_bytes(tree(process)))
        time.sleep(PERIOD_S)
    assert process.returncode == 0, process.communicate()[1]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(time.monotonic() - started_s, cpu_s, peak)


def against_work(home: Path, images: int, rounds: int) -> str:
    """What the local engine takes for decoding and network alone, in words: medians of rounds."""
    works_ms, starts_s, cpu, after, wall = [], [], [], [], []
    for _ in range(rounds):
        nothing = measure(home, 2, "local", "nothing", shard=1, watch=False)
        spent = home / "local.spent"
        spent.unlink(missing_ok=True)
        found = measure(home, images, "local", "local", shard=usual_shard(images), watch=False)
        work_s, work_cpu_s = np.loadtxt(spent).sum(0).tolist()
        works_ms.append(1000 * work_cpu_s / images)
        starts_s.append(nothing.wall_s)
        cpu.append((found.cpu_s - nothing.cpu_s) / work_cpu_s)
        after.append((found.wall_s - nothing.wall_s) * WORKERS / work_s)
        wall.append(found.wall_s * WORKERS / work_s)
    return (
        f"work {median(works_ms):.2f} ms/image, CPU {median(cpu):.3f} of it, wall "
        f"{median(after):.3f} ({min(after):.3f} to {max(after):.3f} in {rounds} rounds) after "
        f"{median(starts_s):.1f} s of start, {median(wall):.3f} ({min(wall):.3f} to "
        f"{max(wall):.3f}) with it"
    )


def timed_shard(job: Job, number: int, digest: str) -> ShardReport:
    """As `write_shard`; how long decoding and network took is noted beside the vectors."""
    opened, spent = embedder(job), []

    def embed(ids: Sequence[str]) -> Embedded:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        found = ShardEmbedder.embed(opened, ids)
        spent.append((time.perf_counter() - wall_s, time.process_time() - cpu_s))
        return found

    opened.embed = embed  # type: ignore[method-assign]
    report = opened.write(number, digest)
    with Path(f"{job.destination.address}.spent").open("a") as file:
        file.writelines(f"{wall_s} {cpu_s}\n" for wall_s, cpu_s in spent)
    return report


def same(first: Path, second: Path) -> bool:
    """Whether two folders have the same visible files with the same bytes; their vectors' own
    folder, which the card of an index names, may be another.
    """

    def content(file: Path) -> bytes:
        own = file.parent.name.removesuffix("-index").encode()
        return file.read_bytes().replace(own, b"") if file.suffix == ".json" else file.read_bytes()

    held = [
        {file.name: content(file) for file in folder.iterdir() if not file.name.startswith(".")}
        for folder in (first, second)
    ]
    return held[0] == held[1]


def kill_rounds(home: Path, images: int, engine: str, kills: int) -> None:
    """Kill processes of runs that go on where the last one was, and compare."""
    drawn = random.Random(0)  # noqa: S311  # no secret
    for name in ("whole", "killed", "whole-index", "killed-index"):
        shutil.rmtree(home / name, ignore_errors=True)
    started_s = time.monotonic()
    whole = start(home, images, engine, "whole", KILLED_SHARD)
    told = whole.communicate()[1]
    assert whole.returncode == 0, told
    whole_s, shards = time.monotonic() - started_s, len(list((home / "whole").glob("*.parquet")))
    struck: Counter[str] = Counter()
    while struck.total() < kills:
        process = start(home, images, engine, "killed", KILLED_SHARD)
        time.sleep(drawn.uniform(0.2, 1) * whole_s)
        processes = tree(process)
        if not processes or process.poll() is not None:
            shutil.rmtree(home / "killed-index", ignore_errors=True)  # to be built once more
            continue
        target = drawn.choice(processes[-WORKERS:] if drawn.random() < 0.5 else processes)
        number = drawn.choice([signal.SIGKILL, signal.SIGTERM])
        done = len(list((home / "killed").glob("*.parquet")))
        phase = "indexing" if done == shards else f"embedding ({done} of {shards})"
        try:
            name = "coordinator" if target.pid == process.pid else Path(target.cmdline()[0]).name
            target.send_signal(number)
        except psutil.NoSuchProcess:
            continue
        struck[f"{phase}: {name} {number.name}"] += 1
        process.communicate()
        _, alive = psutil.wait_procs(processes, timeout=20)
        left = [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
        assert not left, left
        if done == shards and drawn.random() < 0.5:
            shutil.rmtree(home / "killed")  # so that as many fall on the embedding
    last = start(home, images, engine, "killed", KILLED_SHARD)
    told = last.communicate()[1]
    assert last.returncode == 0, told
    is_same = [same(home / f"whole{part}", home / f"killed{part}") for part in ("", "-index")]
    print(f"{engine}: same vectors {is_same[0]}, same index {is_same[1]}, after kills of")
    print("\n".join(f"  {count} x {what}" for what, count in sorted(struck.items())), flush=True)


def run() -> None:
    """What `start` starts; runs that are killed build an index too, if there is none."""
    prepare_process()
    local.write_shard = timed_shard
    home, images, engine, destination, shard = sys.argv[1:]
    job = job_of(Path(home), int(images), destination)
    embed_source(job, engine=ENGINES[engine], workers=WORKERS, shard_images=int(shard))
    index = Path(home, f"{destination}-index")
    if int(shard) == KILLED_SHARD and not index.exists():
        build_index(index, Path(home, destination), "ivfpq")


def main() -> None:
    prepare_process()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--backbone", default="torchvision/mobilenet_v2")
    parser.add_argument("--rounds", type=int, default=1, help="of the local engine")
    parser.add_argument("--kills", type=int, default=0)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        home = Path(folder)
        network = build_embedder(given.backbone, DIM, weights="random", seed=0)
        save_network(home / "net.safetensors", network, NetworkCard(given.backbone, DIM, SIDE_PX))
        write_images(home / "images-2", 2)
        for images in given.images:
            write_images(home / f"images-{images}", images)
            for engine in given.engines:
                if given.kills:
                    kill_rounds(home, images, engine, given.kills)
                    continue
                shard = usual_shard(images)
                watched = measure(home, images, engine, engine, shard=shard, watch=True)
                found = measure(home, images, engine, engine, shard=shard, watch=False)
                line = f"{images} images, {engine}: {found.wall_s:.1f} s wall"
                line += f", {images / found.wall_s:.0f} images/s, {found.cpu_s:.1f} s CPU"
                line += f", peak {watched.peak_bytes / 2**20:.0f} MiB"
                if engine == "local":
                    line += f", {against_work(home, images, given.rounds)}"
                print(line, flush=True)
            if len(given.engines) > 1 and not given.kills:
                print(f"{images} images: same bytes: {same(home / 'local', home / 'ray')}")


if __name__ == "__main__":
    main()
