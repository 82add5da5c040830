"""The time of the flow beside that of `dvc repro`, over the same stages that only sleep.

Three ways of the flow: with a Prefect server that runs already, with its own (the default), and
with nothing to do. `dvc repro` runs one stage at a time, the flow `--jobs` of them.
Run: python -m benchmarks.flow_overhead [--seconds 2] [--students 3]
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.flows.server import prefect_server
from tests.sleepy_study import forget_results, make_sleepy_study, serial_lock, start_study


def measure(label: str, work: Callable[[], object]) -> None:
    """Tell the time and the processor time, of the children that ended, that a piece of work took.

    On a machine that others use, too, the second is the one to compare.
    """
    began_s, before = time.monotonic(), os.times()
    work()
    after = os.times()
    used_s = after.children_user + after.children_system
    used_s -= before.children_user + before.children_system
    print(f"{label:48} {time.monotonic() - began_s:6.1f} s {used_s:6.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each stage sleeps")
    parser.add_argument("--students", type=int, default=3)
    options = parser.parse_args()
    students = tuple(f"a-{number}" for number in range(options.students))
    stages = 2 + 2 * len(students)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() / "study"
        make_sleepy_study(folder, students, options.seconds)

        def study(**environment: str) -> None:
            process = start_study(folder, **environment)
            output, _ = process.communicate()
            assert process.returncode == 0, output

        rows = -(-len(students) // 2)
        least_s = options.seconds * (2 + 2 * rows)
        print(f"{stages} stages of {options.seconds} s")
        print(f"asleep, one at a time: {stages * options.seconds} s; two at a time: {least_s} s")
        print(f"{'':48} {'time':>8} {'CPU':>8}")
        measure("dvc repro", lambda: serial_lock(folder))
        reference = (folder / "dvc.lock").read_bytes()
        measure("dvc repro, nothing to do", lambda: serial_lock(folder))
        measure("l2s study, nothing to do", study)
        for number in ("first", "second"):
            forget_results(folder)
            measure(f"l2s study, its own Prefect server, {number} time", study)
            assert (folder / "dvc.lock").read_bytes() == reference
        os.chdir(name)  # where the study does not take the server for a leftover of its own
        with prefect_server() as server:
            measure("a Prefect server starts", server.wait)
            forget_results(folder)
            measure("l2s study, that server runs", lambda: study(PREFECT_API_URL=server.url))
            assert (folder / "dvc.lock").read_bytes() == reference
        os.chdir("/")


if __name__ == "__main__":
    main()
