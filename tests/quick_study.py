"""A study of the user's own images whose stages take no time: they copy what was made before.

The student that a retraining gives is chosen by the number of images, so that it can be better or
worse than its champion on purpose. Survey, graph, DVC, comparison and registry are the real ones.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from ruamel.yaml import YAML
from torch.nn.functional import normalize

from pipeline.datasets.emblems import render_emblems
from pipeline.datasets.packs import open_pack, write_pack
from pipeline.datasets.reader import ImageRecord
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.models.weights import NetworkCard, build_embedder, load_network, save_network
from tests.integration.workspace import ROOT, TINY, set_params

NAME, STUDENT, QUERY_PX, TEACHER_PX = "own", "own-16", 16, 32
BACKBONE, DIM = "timm/test_resnet", 16
CLASSES = 24  # of which half test: as many as an interval needs
CPU = torch.device("cpu")

STAGES = """\
stages:
  hash_inputs:
    foreach: ${inputs}
    do:
      cmd: python -m stages.hash_inputs ${key}
      deps: ["${item}"]
      outs: ["data/${key}/source/input.json"]
  prepare:
    foreach: ${datasets}
    do:
      cmd: python step.py ${key} pack.arrow data/${key}/pack.arrow
      deps: ["data/${key}/source/input.json"]
      outs: ["data/${key}/pack.arrow"]
  train_teacher:
    foreach: ${datasets}
    do:
      cmd: python step.py ${key} teacher.safetensors models/${key}/teacher.safetensors
      deps: ["data/${key}/pack.arrow"]
      outs: ["models/${key}/teacher.safetensors"]
  embed_database:
    foreach: ${datasets}
    do:
      cmd: python step.py ${key} database.npy embeddings/${key}/database.npy
      deps: ["data/${key}/pack.arrow", "models/${key}/teacher.safetensors"]
      outs: ["embeddings/${key}/database.npy"]
  distill:
    foreach: ${students}
    do:
      cmd: >-
        python step.py ${item.dataset} student.safetensors
        models/${item.dataset}/students/${key}.safetensors
      deps: ["data/${item.dataset}/pack.arrow", "models/${item.dataset}/teacher.safetensors"]
      outs: ["models/${item.dataset}/students/${key}.safetensors"]
"""

# Copies the file that was made for this number of images.
STEP = """\
import json, shutil, sys
from pathlib import Path

key, name, target = sys.argv[1:]
manifest = Path("data", key, "source", "input.json")
count = len(json.loads(manifest.read_text())["images"])
target = Path(target)
target.parent.mkdir(parents=True, exist_ok=True)
shutil.copyfile(Path("made", str(count), name), target)
"""


def make_quick_study(folder: Path, students: Mapping[int, str]) -> Path:
    """The study with as many images a class as the first key of `students`, and run once.

    students: images a class -> "good" (the teacher's own weights), "bad" (others), or "same" as
    "good" but in the last bits.
    """
    make_study_folder(folder)
    for count, student in students.items():
        made = folder / "made" / str(count * CLASSES)
        _make_data(made, count, make_networks(made, count, student))
    put_images(folder, next(iter(students)))
    reproduce(folder)
    return folder


def make_study_folder(folder: Path) -> Path:
    """The study without images and networks."""
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").write_text(
        "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"
    )
    for name, text in (("dvc.yaml", STAGES), ("step.py", STEP), (".dvcignore", "")):
        (folder / name).write_text(text)
    _write_params(folder)
    return folder


def reproduce(folder: Path) -> None:
    dvc = [sys.executable, "-m", "dvc", "repro", "-q"]
    subprocess.run(dvc, cwd=folder, env=environment(), check=True)


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "L2S_DEVICE": "cpu"}


def put_images(folder: Path, count: int) -> None:
    """Put the first `count` images of each class into the folder of images."""
    for record in _draw(count):
        target = folder / "images" / record.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.write_bytes(record.encoded)


def _draw(count: int) -> list[ImageRecord]:
    """The same images of a class, whatever the count; named as the layout of folders names them."""
    drawn = render_emblems(
        families=8, members=3, images_per_class=count, image_px=40, jpeg_quality=92, seed=0
    )
    return list(drawn)


def _write_params(folder: Path) -> None:
    path = folder / "params.yaml"
    path.write_bytes((ROOT / "params.yaml").read_bytes())
    set_params(folder, TINY)
    yaml = YAML()
    params = yaml.load(path.read_text(encoding="utf-8"))
    dataset = params["datasets"].pop("emblems")
    dataset["source"] = {"kind": "folder", "skip_unreadable": False}
    params["datasets"][NAME] = dataset
    params["inputs"] = {NAME: "images"}
    params["students"] = {STUDENT: {"dataset": NAME, "query_px": QUERY_PX}}
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def make_networks(folder: Path, count: int, student: str) -> Path:
    """The teacher, and a student of a kind that `make_quick_study` names; the teacher's file."""
    folder.mkdir(parents=True)
    file = folder / "teacher.safetensors"
    teacher = build_embedder(BACKBONE, DIM, weights="random", seed=0)
    save_network(file, teacher, NetworkCard(BACKBONE, DIM, TEACHER_PX))
    own = build_embedder(BACKBONE, DIM, weights="random", seed=1) if student == "bad" else teacher
    with torch.no_grad():  # another file for each number of images
        own.projection.bias[0] += count * 1e-6
    save_network(folder / "student.safetensors", own, NetworkCard(BACKBONE, DIM, QUERY_PX))
    return file


def _make_data(folder: Path, count: int, teacher: Path) -> None:
    write_pack(folder / "pack.arrow", iter(_draw(count)))
    opened, _ = load_network(teacher, CPU)
    pack = open_pack(folder / "pack.arrow")
    test = pack.rows("test")
    vectors = embed_views(opened, EvaluationViews(pack, test, QUERY_PX), CPU)
    # Nobody trained the networks: of each image the database holds the mean of its class, so that
    # the good student is better than a bad one on most classes.
    labels = torch.from_numpy(pack.labels[test])
    same = (labels[:, None] == labels).float()
    np.save(folder / "database.npy", normalize(same @ vectors).numpy())
