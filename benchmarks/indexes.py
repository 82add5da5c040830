"""A large index of each kind: time to build, bytes a vector, recall@10, latency, and opening it.

The vectors are unit ones, class centres plus noise; queries are further members of the classes.
Building, opening and searching are each done in a process of its own, by the functions that
`l2s index` and `l2s search` use. Recall is of the ten most similar by all inner products: of the
index alone, and after the re-ranking of `Database.search`. Memory is of a process beyond what its
libraries take, in all and without pages of files, which the system takes back when it needs them.
Run: python -m benchmarks.indexes [--vectors 1000000]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np

from benchmarks.evaluation import MIB, measure, resident_bytes
from pipeline.search.databases import Database
from pipeline.search.structures import IndexKind, read_index, write_image_index

NEIGHBOURS = 10
PART = 100_000  # vectors that are made at a time
VECTORS, QUERIES, TRUTH = "vectors.npy", "queries.npy", "truth.npy"


def make_vectors(folder: Path, rows: int, dim: int, per_class: int, noise: float) -> None:
    """Write the database, mapped, row by row a member of the next class."""
    source = np.random.default_rng(0)
    centres = unit(source.normal(size=(max(1, rows // per_class), dim)))
    made = np.lib.format.open_memmap(folder / VECTORS, "w+", np.float32, (rows, dim))
    for start in range(0, rows, PART):
        classes = np.arange(start, min(start + PART, rows)) % len(centres)
        made[start : start + PART] = members(centres[classes], noise, source)
    made.flush()
    np.save(folder / "centres.npy", centres)


def make_queries(folder: Path, queries: int, noise: float) -> None:
    """Write queries of random classes, and the rows of their true neighbours."""
    import faiss

    source = np.random.default_rng(1)
    centres = np.load(folder / "centres.npy")
    made = members(centres[source.integers(len(centres), size=queries)], noise, source)
    vectors = np.load(folder / VECTORS, mmap_mode="r")
    _, rows = faiss.knn(made, vectors, NEIGHBOURS, metric=faiss.METRIC_INNER_PRODUCT)
    np.save(folder / QUERIES, made)
    np.save(folder / TRUTH, rows)


def members(centres: np.ndarray, noise: float, source: np.random.Generator) -> np.ndarray:
    """A unit vector around each centre; `noise` is the expected length of what is added."""
    spread = noise / centres.shape[1] ** 0.5
    return unit(centres + spread * source.normal(size=centres.shape))


def unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / lengths, dtype=np.float32)


def build(folder: Path, kind: IndexKind, threads: int) -> dict[str, float]:
    """Write the index of a kind; the vectors are mapped."""
    vectors = np.load(folder / VECTORS, mmap_mode="r")
    ids = np.arange(len(vectors))
    before = resident_bytes(without_files=True)

    def work() -> None:
        write_image_index(folder / f"{kind}.faiss", vectors, ids, kind, threads=threads)

    seconds, cpu_s, peak = measure(work, without_files=True)
    return {"s": seconds, "cpu_s": cpu_s, "peak_bytes": peak - before}


def open_once(folder: Path, kind: IndexKind) -> dict[str, float]:
    """Open the index and ask it once."""
    query = np.load(folder / QUERIES)[:1]
    _use_one_thread()
    first = [resident_bytes(without_files=flag) for flag in (False, True)]
    open_s, index = _timed(lambda: read_index(folder / f"{kind}.faiss"))
    opened = [resident_bytes(without_files=flag) for flag in (False, True)]
    query_s, _ = _timed(lambda: index.search(query, NEIGHBOURS))
    asked = [resident_bytes(without_files=flag) for flag in (False, True)]
    return {
        "open_ms": 1000 * open_s,
        "first_query_ms": 1000 * query_s,
        "opened_bytes": opened[0] - first[0],
        "opened_own_bytes": opened[1] - first[1],
        "asked_bytes": asked[0] - first[0],
        "asked_own_bytes": asked[1] - first[1],
    }


def search(folder: Path, kind: IndexKind) -> dict[str, float]:
    """Recall and latency, query by query on one thread, of the index and of a database."""
    _use_one_thread()
    queries, truth = np.load(folder / QUERIES), np.load(folder / TRUTH)
    index = read_index(folder / f"{kind}.faiss")
    vectors = np.load(folder / VECTORS, mmap_mode="r")
    no_names = [""] * len(vectors)
    database = Database(
        name=kind,
        dataset="made",
        index=index,
        is_exact=kind == "exact",
        vectors=vectors,
        ids=np.arange(len(vectors)),
        names=no_names,
        class_names=no_names,
        read=lambda row: b"",
    )

    def alone(query: np.ndarray) -> list[int]:
        rows: list[int] = index.search(query[None], NEIGHBOURS)[1][0].tolist()
        return rows

    def ranked_again(query: np.ndarray) -> list[int]:
        return [hit.row for hit in database.search(query, NEIGHBOURS)]

    told = {}
    for name, ask in (("index", alone), ("database", ranked_again)):
        for query in queries[: max(1, len(queries) // 10)]:
            ask(query)  # the pages that it touches come into memory
        answers = [_timed(partial(ask, query)) for query in queries]
        found = [len({*rows} & {*true}) for (_, rows), true in zip(answers, truth, strict=True)]
        told[f"{name}_ms"] = 1000 * median(seconds for seconds, _ in answers)
        told[f"{name}_recall"] = sum(found) / truth.size
    return told


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started_s = time.perf_counter()
    result = work()
    return time.perf_counter() - started_s, result


def _use_one_thread() -> None:
    import faiss

    faiss.omp_set_num_threads(1)


def forget(file: Path) -> None:
    """Push a file out of the system's cache, where its file system lets us."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_a_process(step: str, folder: Path, kind: str, threads: int) -> dict[str, float]:
    """What a step tells, done in a fresh process."""
    program = [sys.executable, "-m", "benchmarks.indexes", "--step", step, "--kinds", kind]
    options = ["--folder", str(folder), "--threads", str(threads)]
    done = subprocess.run([*program, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{step} of {kind} failed:\n{done.stderr}")
    told: dict[str, float] = json.loads(done.stdout)
    return told


def report(folder: Path, kind: str, vectors: int, threads: int) -> None:
    """Build, open (from the disk, then again) and search one kind, and print what it took."""
    built = in_a_process("build", folder, kind, threads)
    file = folder / f"{kind}.faiss"
    size_bytes = file.stat().st_size
    forget(file)
    cold, warm = (in_a_process("open", folder, kind, 1) for _ in range(2))
    found = in_a_process("search", folder, kind, 1)
    print(
        f"{kind}\n"
        f"  built in {built['s']:.1f} s ({built['cpu_s']:.1f} s of CPU, {threads} threads), "
        f"peak {built['peak_bytes'] / MIB:.0f} MiB; file {size_bytes / MIB:.0f} MiB, "
        f"{size_bytes / vectors:.1f} bytes a vector\n"
        f"  index alone      recall@10 {found['index_recall']:.4f}  {found['index_ms']:.3f} ms\n"
        f"  Database.search  recall@10 {found['database_recall']:.4f}  "
        f"{found['database_ms']:.3f} ms",
        flush=True,
    )
    for name, told in (("from the disk", cold), ("opened again", warm)):
        print(
            f"  {name:13} {told['open_ms']:.1f} ms, then {told['opened_bytes'] / MIB:.0f} MiB "
            f"({told['opened_own_bytes'] / MIB:.0f} without files); first query "
            f"{told['first_query_ms']:.1f} ms, then {told['asked_bytes'] / MIB:.0f} MiB "
            f"({told['asked_own_bytes'] / MIB:.0f} without files)",
            flush=True,
        )


STEPS = {"open": open_once, "search": search}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--per-class", type=int, default=100, help="vectors around each centre")
    parser.add_argument("--noise", type=float, default=1.0, help="its length; a centre's is 1")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2, help="of building")
    parser.add_argument("--kinds", nargs="+", default=get_args(IndexKind))
    parser.add_argument("--folder", type=Path, help="keep the files here; by default a passing one")
    parser.add_argument("--step", choices=("build", *STEPS), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.step == "build":
        print(json.dumps(build(given.folder, given.kinds[0], given.threads)))
        return
    if given.step:
        print(json.dumps(STEPS[given.step](given.folder, given.kinds[0])))
        return
    with TemporaryDirectory() as passing:
        folder = given.folder or Path(passing)
        folder.mkdir(parents=True, exist_ok=True)
        make_vectors(folder, given.vectors, given.dim, given.per_class, given.noise)
        make_queries(folder, given.queries, given.noise)
        print(
            f"{given.vectors} vectors x {given.dim} float32 in classes of {given.per_class}, noise "
            f"{given.noise}; {given.queries} queries, one by one on one thread"
        )
        for kind in given.kinds:
            report(folder, kind, given.vectors, given.threads)


if __name__ == "__main__":
    main()
