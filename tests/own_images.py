"""A tiny study of images in a folder: some are there at first, others are added later."""

from pathlib import Path

from ruamel.yaml import YAML

from pipeline.datasets.emblems import render_emblems
from tests.integration.workspace import make_workspace

NAME = "own"
STUDENT = "own-16"


def make_own_study(folder: Path) -> Path:
    """A workspace whose only data set is the folder `images`, with one student."""
    make_workspace(folder)
    yaml = YAML()
    path = folder / "params.yaml"
    params = yaml.load(path.read_text(encoding="utf-8"))
    dataset = params["datasets"].pop("emblems")
    dataset["source"] = {"kind": "folder", "skip_unreadable": False}
    params["datasets"][NAME] = dataset
    params["inputs"] = {NAME: "images"}
    params["students"] = {STUDENT: {"dataset": NAME, "query_px": 16}}
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)
    draw_images(folder, range(5))
    return folder


def draw_images(folder: Path, numbers: range, seed: int = 0) -> None:
    """Put the images of these numbers of each of 12 classes into the folder."""
    drawn = render_emblems(
        families=4,
        members=3,
        images_per_class=numbers.stop,
        image_px=40,
        jpeg_quality=92,
        seed=seed,
    )
    count: dict[str, int] = {}
    for record in drawn:
        number = count[record.class_name] = count.get(record.class_name, -1) + 1
        if number in numbers:
            target = folder / "images" / record.class_name / f"{number}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(record.encoded)
