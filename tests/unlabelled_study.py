"""A tiny study of images without classes, of a teacher that nobody trains."""

from pathlib import Path

from ruamel.yaml import YAML

from tests.integration.workspace import make_workspace
from tests.own_images import NAME, STUDENT, draw_images


def make_unlabelled_study(folder: Path) -> Path:
    """A workspace whose only data set is the 60 images below the folder `images`."""
    make_workspace(folder)
    yaml = YAML()
    path = folder / "params.yaml"
    params = yaml.load(path.read_text(encoding="utf-8"))
    dataset = params["datasets"].pop("emblems")
    dataset["source"] = {"kind": "images", "skip_unreadable": False}
    dataset["teacher"] = {"kind": "frozen"}
    dataset["validation_share"] = 0.4
    dataset["distillation"]["optimisation"]["epochs"] = 2
    dataset["distillation"]["offset"] = "learned"
    params["datasets"][NAME] = dataset
    params["inputs"] = {NAME: "images"}
    own = {"dataset": NAME, "query_px": 16, "network": {"weights": "teacher"}}
    params["students"] = {STUDENT: own}
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)
    draw_images(folder, range(5))
    return folder
