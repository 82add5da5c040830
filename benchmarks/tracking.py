"""What the record costs: one epoch and one checkpoint logged to MLflow, in ms.

Compare with the epochs' own time, which `l2s study` tells (the default study: seconds an epoch).
Run: python -m benchmarks.tracking [--epochs 12] [--backbone timm/test_resnet] [--px 64]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.models.weights import NetworkCard, build_embedder, save_network
from pipeline.tracking.runs import tracked_run

DIM = 128


def milliseconds(work: Callable[[], object]) -> float:
    since_s = time.perf_counter()
    work()
    return (time.perf_counter() - since_s) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--backbone", default="timm/test_resnet")
    parser.add_argument("--px", type=int, default=64)
    options = parser.parse_args()
    network = build_embedder(options.backbone, DIM, weights="random", seed=0)
    card = NetworkCard(options.backbone, DIM, options.px)
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)

        def save(path: Path) -> None:
            save_network(path, network, card)

        size = size_and_saving_time(save)
        for what, saving in (("metrics only", None), ("with its file", save)):
            opened_s = time.perf_counter()
            with tracked_run(
                stage="distill",
                key="a",
                role="student",
                fingerprint=what,
                facts={"dataset": "emblems"},
                settings={"seed": 0},
                dataset={"name": "emblems", "path": "a", "digest": "0" * 32, "profile": {}},
                keep_best=2,
            ) as run:
                opened_ms = (time.perf_counter() - opened_s) * 1000
                spent_ms = [
                    milliseconds(
                        lambda epoch=epoch, saving=saving: run.log_epoch(
                            {"epoch": epoch, "loss": 1.0, "validation_map": epoch % 5 / 10}, saving
                        )
                    )
                    for epoch in range(1, options.epochs + 1)
                ]
            print(
                f"checkpoint {what}: median {statistics.median(spent_ms):.0f} ms, largest "
                f"{max(spent_ms):.0f} ms; opening the run {opened_ms:.0f} ms; {size}"
            )
        os.chdir("/")


def size_and_saving_time(save: Callable[[Path], None]) -> str:
    path = Path("network.safetensors")
    spent_ms = milliseconds(lambda: save(path))
    return f"network of {path.stat().st_size / 1e6:.1f} MB, saved in {spent_ms:.0f} ms"


if __name__ == "__main__":
    main()
