"""Rounds of killing the flow, DVC and a trainer in turn, by SIGINT, SIGTERM and SIGKILL.

Each round starts a study anew, kills at a random moment, and lets the next start finish. Told are
processes left, the exit codes, whether dvc.lock, which holds the hash of every output, is that of
an undisturbed `dvc repro`, and, for real trainings, what is wrong with MLflow's record. With
--small-disk, a folder on a disk of its own of less than 2 GiB (mount -t tmpfs -o size=600m), the
disk is full at a random moment in every third round instead.
Run: python -m benchmarks.kill_rounds [--trained] [--rounds 30] [--seed 0] [--seconds 1.0]
     [--small-disk FOLDER]
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.killed_studies import SLEEPY, TURNS, faults, full_disk_round, kill_round
from tests.sleepy_study import make_sleepy_study, serial_lock
from tests.trained_study import TRAINED, make_trained_study, record_faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each stage sleeps")
    parser.add_argument("--trained", action="store_true", help="real trainings, none that sleep")
    parser.add_argument("--small-disk", type=Path, help="a folder on a small disk of its own")
    options = parser.parse_args()
    dice = random.Random(options.seed)  # noqa: S311
    began_s, bad = time.monotonic(), 0
    with tempfile.TemporaryDirectory(dir=options.small_disk) as name:
        folder = Path(name).resolve() / "study"
        if options.trained:
            reference = make_trained_study(folder)
        else:
            make_sleepy_study(folder, seconds=options.seconds)
            reference = serial_lock(folder)
        subject, longest_s = (TRAINED, 45.0) if options.trained else (SLEEPY, 12.0)
        for number in range(options.rounds):
            if options.small_disk and number % 3 == 2:
                done = full_disk_round(folder, dice, longest_s, subject)
            else:
                turn = TURNS[number % len(TURNS)]
                done = kill_round(folder, dice, turn, longest_s, subject)
            wrong = faults(folder, reference, done)
            if options.trained:
                wrong += record_faults(folder)
            bad += bool(wrong)
            print(
                f"round {number + 1:2}: {done.victim:7} {done.signal:7} after {done.after_s:4.1f} s"
                f"{'' if done.hit else ' (missed)'}, exit {done.code:3}, left {len(done.left)}; "
                f"next: exit {done.next_code} in {done.next_s:4.1f} s; {wrong or 'all well'}",
                flush=True,
            )
            if wrong or "Traceback" in done.output:
                print(done.output)
    print(f"{options.rounds} rounds, {bad} with faults, {time.monotonic() - began_s:.0f} s")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
