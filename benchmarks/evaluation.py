"""Exact retrieval metrics against the bare blocked matrix product they cannot do without.

Both sides run in this process, on the same random unit embeddings, threads and blocks: the bare
side only multiplies each block of queries with the database; the other side is the evaluation with
leave-one-out (as many queries as database rows) or of outside queries. Memory is the resident peak;
with a database that is mapped from a file (--mapped) without pages of files, which the system takes
back when it needs them. Run: python -m benchmarks.evaluation [--sizes]
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.evaluation.ranking import evaluate_queries, evaluate_retrieval
from pipeline.evaluation.ranks import BLOCK_BYTES

MIB = 2**20


@dataclass(frozen=True)
class Size:
    """Numbers of queries, database rows, dimensions and images of a class."""

    name: str
    queries: int
    database: int
    dim: int
    images_per_class: int


# METHOD section 7: SOP has 60502 test images in 11316 classes, CUB200 5924 in 100.
SOP = Size("SOP", queries=60_502, database=60_502, dim=512, images_per_class=5)
CUB = Size("CUB200", queries=5_924, database=5_924, dim=512, images_per_class=59)
MILLION = Size("million", queries=10_000, database=1_000_000, dim=128, images_per_class=5)


def bare_product(query: torch.Tensor, database: torch.Tensor, block_bytes: int) -> None:
    """The matrix product alone, block by block into one buffer."""
    rows = min(max(1, block_bytes // (4 * len(database))), len(query))
    buffer = query.new_empty(rows, len(database))
    for start in range(0, len(query), rows):
        block = query[start : start + rows]
        torch.mm(block, database.T, out=buffer[: len(block)])


def resident_bytes(*, without_files: bool) -> int:
    """Resident memory of this process (Linux)."""
    resident, of_files = map(int, Path("/proc/self/statm").read_text().split()[1:3])
    return 4096 * (resident - of_files if without_files else resident)


def measure(work: Callable[[], object], *, without_files: bool) -> tuple[float, float, int]:
    """Wall and CPU seconds of one run, and its resident peak in bytes, sampled every 5 ms."""
    peak, done = resident_bytes(without_files=without_files), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, resident_bytes(without_files=without_files))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start, start_cpu = time.perf_counter(), time.process_time()
    work()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    done.set()
    watcher.join()
    return seconds, cpu_seconds, peak


def unit_rows(rows: int, dim: int, file: Path | None) -> torch.Tensor:
    """Random unit vectors, in memory or mapped from a file that is made in parts."""
    generator = torch.Generator().manual_seed(0)
    part = 100_000
    if file is None:
        made = torch.empty(rows, dim)
    else:
        made = torch.from_numpy(np.memmap(file, np.float32, "w+", shape=(rows, dim)))
    for start in range(0, rows, part):
        some = made[start : start + part]
        some.copy_(torch.randn(len(some), dim, generator=generator))
        some /= some.norm(dim=1, keepdim=True)
    return made


def compare(size: Size, repeats: int, file: Path | None) -> None:
    """Print both sides' best time of interleaved runs, their ratio, and the memory."""
    database = unit_rows(size.database, size.dim, file)
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(size.database) // size.images_per_class
    leave_one_out = size.queries == size.database
    query = torch.randn(size.queries, size.dim, generator=generator)
    query = database[: size.queries] + 0.05 * query
    query_labels = labels[: size.queries]

    def evaluation() -> object:
        if leave_one_out:
            return evaluate_retrieval(query, database, labels)
        return evaluate_queries(query, database, query_labels, labels)

    mapped = file is not None
    before = resident_bytes(without_files=mapped)
    bare, full = [], []
    for _ in range(repeats):
        bare.append(
            measure(lambda: bare_product(query, database, BLOCK_BYTES), without_files=mapped)
        )
        full.append(measure(evaluation, without_files=mapped))
    bare_s, full_s = min(bare)[0], min(full)[0]
    bare_cpu_s, full_cpu_s = min(cpu for _, cpu, _ in bare), min(cpu for _, cpu, _ in full)
    peak = max(peak for _, _, peak in full)
    place = ", mapped" if mapped else ""
    print(
        f"{size.name}: {size.queries} queries x {size.database} rows x {size.dim} float32{place}, "
        f"{size.images_per_class} images a class, {torch.get_num_threads()} threads, "
        f"blocks of {BLOCK_BYTES // MIB} MiB, best of {repeats}\n"
        f"  bare blocked product {bare_s:8.2f} s, {bare_cpu_s:8.2f} s of CPU\n"
        f"  exact evaluation     {full_s:8.2f} s, {full_cpu_s:8.2f} s of CPU\n"
        f"  ratio {full_s / bare_s:.2f}, of CPU {full_cpu_s / bare_cpu_s:.2f} (on a shared machine "
        "the steadier one)\n"
        f"  resident: {before / MIB:.0f} MiB before (libraries and embeddings), "
        f"peak {peak / MIB:.0f} MiB, {(peak - before) / MIB:.0f} MiB more",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=SOP.queries)
    parser.add_argument("--database", type=int, default=SOP.database)
    parser.add_argument("--dim", type=int, default=SOP.dim)
    parser.add_argument("--images-per-class", type=int, default=SOP.images_per_class)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=1, help="runs of each side, interleaved")
    parser.add_argument("--mapped", action="store_true", help="the database lies in a file")
    parser.add_argument("--sizes", action="store_true", help="CUB200, SOP and a million rows")
    given = parser.parse_args()
    if given.queries > given.database:
        parser.error(f"--queries {given.queries}: at most --database, {given.database}")
    torch.set_num_threads(given.threads)
    one = Size("given", given.queries, given.database, given.dim, given.images_per_class)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "database.float32") if given.mapped else None
        for size in (CUB, SOP, MILLION) if given.sizes else (one,):
            compare(size, given.repeats, file)


if __name__ == "__main__":
    main()
