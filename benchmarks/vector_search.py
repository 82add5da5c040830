"""Indexes of many vectors: accuracy, latency, bytes and memory of each kind, and where it loses.

The vectors are unit ones, class centres plus noise; the student's are the teacher's plus noise.
`l2s index build`, `l2s audit` and single queries are each done in a process of its own; then one
client asks `l2s ui` for the same queries, POST /search with a vector, over one connection. Memory
is the most that the process held: in all, and without pages of files, which the system takes back.
Run: python -m benchmarks.vector_search [--vectors 1000000] [--kinds exact hnsw ivfpq]
With --stores LanceDB and Qdrant (local mode) follow on 10,000 vectors: upsert, delete, and their
searches equal to the exact one. 10^7 vectors take 2.6 GB as float16, and as much again an index.
"""

import argparse
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.attacks import make_study, peak_bytes, served
from benchmarks.evaluation import MIB, measure, resident_bytes
from benchmarks.indexes import members, unit
from pipeline.datasets.vector_batches import VectorBatch
from pipeline.datasets.vectors import read_vectors, write_vectors
from pipeline.search.audit import audit_index
from pipeline.search.upkeep import build_index, open_index
from pipeline.search.vector_index import VectorIndex, sample_rows

PART = 1 << 14
WARMING = 20
NUMBERS = ("vectors", "dim", "sample", "queries")  # that a step is told
TEACHER, STUDENT = "teacher", "student"


def made_vectors(given: argparse.Namespace, role: str) -> Iterator[VectorBatch]:
    """The teacher's vectors, or the student's of the first 10,000 images, block by block."""
    centre_of = np.random.default_rng(0)
    centres = unit(centre_of.normal(size=(max(1, given.vectors // given.per_class), given.dim)))
    rows = given.vectors if role == TEACHER else min(given.vectors, 10_000)
    for start in range(0, rows, PART):
        numbers = np.arange(start, min(start + PART, rows))
        own = np.random.default_rng([1, start])
        vectors = members(centres[numbers % len(centres)], given.noise, own)
        if role == STUDENT:
            vectors = members(vectors, given.student_noise, own)
        yield VectorBatch([f"image-{one}.jpg" for one in numbers], vectors, [""] * len(numbers))


def build(given: argparse.Namespace) -> dict[str, float]:
    kind = given.kinds[0]
    build_index(given.folder / kind, given.folder / TEACHER, kind, number="float16")
    return {}


def drawn_queries(given: argparse.Namespace) -> np.ndarray:
    """The student's vectors that are searched for: first those that warm up."""
    batches = read_vectors(given.folder / STUDENT).batches()
    return sample_rows(batches, WARMING + given.queries, 2)[1].vectors


def single(given: argparse.Namespace) -> dict[str, float]:
    """Milliseconds a query, one by one on one thread, of vectors that the index holds."""
    import faiss

    faiss.omp_set_num_threads(1)
    queries = drawn_queries(given)
    with open_index(given.folder / given.kinds[0]) as index:
        times_ms = timed(index, queries)
    return {f"p{share}_ms": float(np.percentile(times_ms, share)) for share in (50, 99)}


def timed(index: VectorIndex, queries: np.ndarray) -> list[float]:
    return timed_calls(lambda query: index.search(query[None], 10), queries)


def timed_calls(search: Callable[[np.ndarray], object], queries: np.ndarray) -> list[float]:
    times_ms = []
    for query in queries:
        started_s = time.perf_counter()
        search(query)
        times_ms.append(1000 * (time.perf_counter() - started_s))
    return times_ms[WARMING:]


def over_http(given: argparse.Namespace) -> dict[str, float]:
    """The same, asked of `l2s ui`, whose peak memory this is as well."""
    queries = drawn_queries(given)
    with TemporaryDirectory() as passing:
        study = make_study(Path(passing, "study"))
        (study / "indexes").mkdir(exist_ok=True)
        (study / "indexes" / "many").symlink_to((given.folder / given.kinds[0]).resolve())
        with served(study) as page:
            connection = http.client.HTTPConnection("127.0.0.1", page.port)

            def ask(query: np.ndarray) -> None:
                body = json.dumps({"vectors": [query.tolist()]})
                headers = {"Content-Type": "application/json"}
                connection.request("POST", "/search?database=index%20many", body, headers)
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200

            times_ms = timed_calls(ask, queries)
            peak = peak_bytes(page.pid)
    percentiles = {f"p{share}_ms": float(np.percentile(times_ms, share)) for share in (50, 99)}
    return percentiles | {"server_mib": peak / MIB}


def audit(given: argparse.Namespace) -> dict[str, float]:
    with open_index(given.folder / given.kinds[0]) as index:
        teacher, student = (read_vectors(given.folder / role) for role in (TEACHER, STUDENT))
        found = audit_index(index, teacher, student, sample=given.sample, k=10)
    told = {"recall": found.found, "loss": found.loss, **found.parts}
    ends = {
        f"{name}_{end}": getattr(one, end) for name, one in told.items() for end in ("low", "high")
    }
    return {name: one.mean for name, one in told.items()} | ends


STEPS = {"build": build, "single": single, "http": over_http, "audit": audit}


def in_a_process(step: str, kind: str, given: argparse.Namespace) -> dict[str, float]:
    """What a step tells, done in a fresh process, and what it took."""
    options = [f"--{name}={getattr(given, name)}" for name in NUMBERS]
    command = [sys.executable, "-m", "benchmarks.vector_search", "--step", step, "--kinds", kind]
    done = subprocess.run(
        [*command, "--folder", str(given.folder), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{step} of {kind} failed:\n{done.stderr}")
    told: dict[str, float] = json.loads(done.stdout)
    return told


def do_step(given: argparse.Namespace) -> dict[str, Any]:
    """A step in this process, with its time and the most memory that it held."""
    told: dict[str, Any] = {}
    before = resident_bytes(without_files=True)

    def work() -> None:
        told.update(STEPS[given.step](given))

    seconds, cpu_s, peak = measure(work, without_files=True)
    return told | {"s": seconds, "cpu_s": cpu_s, "own_mib": peak / MIB, "start_mib": before / MIB}


def report(kind: str, given: argparse.Namespace) -> None:
    built = in_a_process("build", kind, given)
    files = [file for file in (given.folder / kind).rglob("*") if file.is_file()]
    size_bytes = sum(file.stat().st_size for file in files)
    print(
        f"{kind}\n  built in {built['s']:.0f} s ({built['cpu_s']:.0f} s of CPU), holding "
        f"{built['own_mib']:.0f} MiB; {size_bytes / given.vectors:.0f} bytes a vector",
        flush=True,
    )
    one = in_a_process("single", kind, given)
    asked = in_a_process("http", kind, given)
    print(
        f"  a query: median {one['p50_ms']:.2f} ms, 99 % within {one['p99_ms']:.2f} ms; over HTTP "
        f"{asked['p50_ms']:.2f} and {asked['p99_ms']:.2f} ms, the server holding "
        f"{asked['server_mib']:.0f} MiB, mapped files included",
        flush=True,
    )
    if not given.sample:
        return
    lost = in_a_process("audit", kind, given)
    names = ("student", "quantisation", "approximation")
    parts = " + ".join(
        f"{name} {100 * lost[name]:.2f} ({100 * lost[f'{name}_low']:.2f} to "
        f"{100 * lost[f'{name}_high']:.2f})"
        for name in names
    )
    print(
        f"  recall@10 against the exact search {lost['recall']:.4f}\n"
        f"  audit of {given.sample} queries in {lost['s']:.0f} s ({lost['cpu_s']:.0f} s of CPU), "
        f"holding {lost['own_mib']:.0f} MiB\n"
        f"  lost {100 * lost['loss']:.2f} % = {parts}; difference "
        f"{abs(sum(lost[name] for name in names) - lost['loss']):.1e}",
        flush=True,
    )


def report_stores(given: argparse.Namespace) -> None:
    """LanceDB and Qdrant beside the exact kind: the same lists after upserts and deletions."""
    build_index(given.folder / "exact", given.folder / TEACHER, "exact")
    _, queries = sample_rows(read_vectors(given.folder / STUDENT).batches(), 200, 2)
    gone = [f"image-{number}.jpg" for number in range(0, given.vectors, 10)]
    moved = VectorBatch(
        [f"image-{number}.jpg" for number in range(1, 101)], queries.vectors[:100], [""] * 100
    )
    found = {}
    for kind in ("exact", "lancedb", "qdrant"):
        started_s = time.perf_counter()
        build_index(given.folder / kind, given.folder / TEACHER, kind)
        built_s = time.perf_counter() - started_s
        with open_index(given.folder / kind) as index:
            before = index.search(queries.vectors, 10).ids
            deleted, changed = index.delete(gone), index.upsert([moved])
            found[kind] = (before, index.search(queries.vectors, 10).ids)
            times_ms = timed(index, queries.vectors)
            print(
                f"{kind}: built in {built_s:.1f} s, {deleted} deleted, {changed} replaced, "
                f"{len(index)} left; median {np.median(times_ms):.2f} ms; lists equal to exact: "
                f"{share_equal(found[kind][0], found['exact'][0]):.4f} before, "
                f"{share_equal(found[kind][1], found['exact'][1]):.4f} after",
                flush=True,
            )


def share_equal(lists: list[list[str]], others: list[list[str]]) -> float:
    return float(np.mean([one == other for one, other in zip(lists, others, strict=True)]))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--per-class", type=int, default=100, help="vectors around each centre")
    parser.add_argument("--noise", type=float, default=1.0, help="its length; a centre's is 1")
    parser.add_argument("--student-noise", type=float, default=0.5)
    parser.add_argument("--sample", type=int, default=1000, help="queries of the audit; 0: none")
    parser.add_argument("--queries", type=int, default=200, help="that are timed, one by one")
    parser.add_argument("--kinds", nargs="+", default=["exact", "hnsw", "ivfpq"])
    parser.add_argument("--stores", action="store_true", help="LanceDB and Qdrant on 10,000")
    parser.add_argument("--folder", type=Path, help="keep the vectors here; else a passing one")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.step:
        print(json.dumps(do_step(given)))
        return
    with TemporaryDirectory() as passing:
        given.folder = given.folder or Path(passing)
        if given.stores:
            given.vectors = 10_000
        for role in (TEACHER, STUDENT):
            if not (given.folder / role).exists():
                write_vectors(given.folder / role, made_vectors(given, role), number="float16")
        print(f"{given.vectors} vectors x {given.dim} float16", flush=True)
        if given.stores:
            report_stores(given)
            return
        for kind in given.kinds:
            report(kind, given)
            rmtree(given.folder / kind)


if __name__ == "__main__":
    main()
