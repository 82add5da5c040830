"""A finished study in a folder, made in seconds: its files, from networks that nobody trained."""

import json
import os
from pathlib import Path

import numpy as np
import torch

from pipeline.datasets.emblems import render_emblems
from pipeline.datasets.packs import open_pack, write_pack
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.cells import Bootstrap, RetrievalSetup, evaluate_setups
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.files import write_json
from pipeline.models.encoders import open_encoder
from pipeline.models.weights import NetworkCard, build_embedder, load_network, save_network
from pipeline.paths import DatasetPaths
from pipeline.search.structures import write_exact_index
from tests.integration.workspace import ROOT, TINY, set_params

BACKBONE = "timm/test_resnet"
DIM = 16
TEACHER_PX = 32
STUDENT_PX = 16
STUDENT = "tiny-16"
CPU = torch.device("cpu")


def make_finished_study(folder: Path) -> Path:
    """A workspace with pack, networks, database, index and results of `emblems`; 30 test images.

    Teacher and student share their random weights, so that their spaces agree somewhat.
    """
    folder.mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    set_params(folder, TINY)
    before = Path.cwd()
    os.chdir(folder)
    try:
        _make_files(DatasetPaths("emblems"))
    finally:
        os.chdir(before)
    return folder


def make_served_study(folder: Path) -> Path:
    """The same, with the ONNX of its networks, as an evaluation leaves them for searches."""
    make_finished_study(folder)
    before = Path.cwd()
    os.chdir(folder)
    try:
        paths = DatasetPaths("emblems")
        for network in (paths.teacher, paths.student(STUDENT)):
            open_encoder(network, threads=1)
    finally:
        os.chdir(before)
    return folder


def _make_files(paths: DatasetPaths) -> None:
    records = render_emblems(
        families=4, members=3, images_per_class=5, image_px=40, jpeg_quality=92, seed=0
    )
    write_pack(paths.pack, records)
    write_json(paths.tuning(STUDENT), {})
    write_json(paths.pack_summary, {"licence": "the user's own", "kind": "emblems", "images": 60})
    network = build_embedder(BACKBONE, DIM, weights="random", seed=0)
    save_network(paths.teacher, network, NetworkCard(BACKBONE, DIM, TEACHER_PX))
    save_network(paths.student(STUDENT), network, NetworkCard(BACKBONE, DIM, STUDENT_PX))
    pack = open_pack(paths.pack)
    test = pack.rows("test")
    setups = []
    for role, path in (("teacher", paths.teacher), ("asymmetric", paths.student(STUDENT))):
        opened, card = load_network(path, CPU)
        vectors = embed_views(opened, EvaluationViews(pack, test, card.size_px), CPU)
        database = setups[0].database if setups else vectors
        setups.append(RetrievalSetup(role, opened, card, TEACHER_PX, vectors, database))
    paths.database.parent.mkdir(parents=True)
    np.save(paths.database, setups[0].database.numpy())
    write_exact_index(paths.index, setups[0].database.numpy())
    labels, database = torch.from_numpy(pack.labels[test]), setups[0].database
    teacher = evaluate_retrieval(database, database, labels).query_metrics["average_precision"]
    rows, _ = evaluate_setups(setups, labels, (1, 2), Bootstrap(100, 0.95, 0), teacher)
    for row, cell in zip(rows, ("teacher", STUDENT), strict=True):
        origin = {"dataset": paths.dataset, "network": cell}
        write_json(paths.cell(cell), {row["role"]: origin | json.loads(json.dumps(row))})


def write_test_images(study: Path, folder: Path, rows: int) -> list[Path]:
    """The first test images as files CLASS/N.jpg below a folder."""
    pack = open_pack(study / DatasetPaths("emblems").pack)
    files = []
    for row in pack.rows("test")[:rows]:
        file = folder / pack.class_names[pack.labels[row]].replace("/", "-") / f"{row}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pack.encoded(int(row)))
        files.append(file)
    return files
