"""A schedule that fires by itself and retrains for real on images that were added in between.

Emblems lie in a folder as a user's images do. The schedule runs all the time; the script only adds
images: once as many again, and once a few, with a recipe cut to a single epoch. Told are the times
of the firings and the decisions: the first candidate leads, the one that learned from twice the
images should be promoted, the hasty one refused. Fails unless that is what happened.
Run: python -m benchmarks.scheduled_retraining [--every 20s]
"""

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.datasets.emblems import render_emblems
from tests.integration.test_schedule import free_port
from tests.integration.workspace import ROOT, dvc, environment, make_workspace, set_params

NAME, STUDENT = "own", "own-48"
PATIENCE_S = 1200
TOLD = re.compile(r"new image|no image is|own-48px|next runs|error|fired|retrain")


def put_images(folder: Path, classes: slice, count: int) -> int:
    """The first `count` images of some of the 60 classes, as a folder a class; how many are new."""
    drawn = list(
        render_emblems(
            families=12, members=5, images_per_class=count, image_px=112, jpeg_quality=92, seed=7
        )
    )
    names = sorted({record.class_name for record in drawn})[classes]
    new = 0
    for record in drawn:
        target = folder / "images" / record.class_name / Path(record.name).name
        if record.class_name in names and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(record.encoded)
            new += 1
    return new


def write_params(folder: Path) -> None:
    """The default study's recipes for the images of a folder, with one student."""
    yaml = YAML()
    params = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    dataset = params["datasets"].pop("emblems")
    dataset["source"] = {"kind": "folder", "skip_unreadable": False}
    params["datasets"][NAME] = dataset
    params["inputs"] = {NAME: "images"}
    params["students"] = {STUDENT: {"dataset": NAME, "query_px": 48}}
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def wait_for(text: str, output: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while text not in output.read_text():
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise SystemExit(f"{text!r} did not come:\n{output.read_text()}")
        time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", default="20s", help="how often the schedule fires")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() / "study"
        make_workspace(folder)
        write_params(folder)
        print(f"{put_images(folder, slice(None), 6)} images at first", flush=True)
        began_s = time.monotonic()
        dvc(folder, "repro")
        print(f"the study: {time.monotonic() - began_s:.0f} s", flush=True)
        output = folder / "schedule.txt"
        command = [sys.executable, "-m", "pipeline.cli", "schedule", "--every", options.every]
        with output.open("wb") as file:
            schedule = subprocess.Popen(
                [*command, "--port", str(free_port())],
                cwd=folder,
                env=environment(folder),
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        try:
            wait_for("own-48px: own-48 first", output, schedule)
            print(f"{put_images(folder, slice(None), 14)} images are added", flush=True)
            wait_for("own-48px: own-48 promoted", output, schedule)
            epochs = f"datasets.{NAME}.distillation.optimisation.epochs"
            set_params(folder, {epochs: 1})
            print(f"{put_images(folder, slice(0, 10), 16)} more, and one epoch only", flush=True)
            wait_for("own-48px: own-48 refused", output, schedule)
        finally:
            schedule.send_signal(signal.SIGTERM)
            schedule.wait(timeout=120)
            lines = output.read_text().splitlines()
            print("\n".join(line for line in lines if TOLD.search(line)))


if __name__ == "__main__":
    main()
