"""The ways to answer a query that one cell of a study compares, from its files."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.datasets.packs import Pack
from pipeline.embedding.embeddings import Embed, EvaluationViews, embed_views
from pipeline.evaluation.cells import RetrievalSetup, student_setups
from pipeline.models.adapter import adapt, procrustes
from pipeline.models.weights import load_network
from pipeline.paths import DatasetPaths
from pipeline.teachers.stored_vectors import StoredVectors
from pipeline.teachers.teacher import Teacher


@dataclass(frozen=True)
class Cell:
    """What is evaluated: a student, or the teacher of the data set where `student` is None."""

    params: Params
    dataset: str
    student: str | None
    pack: Pack
    device: torch.device

    @property
    def network(self) -> str:
        return self.student or "teacher"

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those that trained something here."""
        return self.params.seeds if self.student else self.params.teacher_seeds(self.dataset)

    @property
    def labels(self) -> Tensor | None:
        """Of the test images, where there are classes."""
        pack = self.pack
        return torch.from_numpy(pack.labels[pack.rows("test")]) if pack.labelled else None


def cell_setups(
    cell: Cell, paths: DatasetPaths, opened: Teacher | StoredVectors
) -> Iterator[RetrievalSetup]:
    """Teacher alone; or asymmetric, symmetric, naive, adapter and baseline at the student's size.

    Where the student sees the full size, naive and adapter would be the teacher: both are left out,
    as they are where the teacher takes no other size than its own, or is nothing but vectors, and
    of a further seed where all seeds have one teacher.
    """
    params, student, pack, device = cell.params, cell.student, cell.pack, cell.device
    database = torch.from_numpy(np.load(paths.database, mmap_mode="c"))
    full_px, test = opened.size_px, pack.rows("test")
    if student is None:
        known = None if isinstance(opened, StoredVectors) else opened.network
        own = database[: len(test)]
        yield RetrievalSetup("teacher", known, opened.card, full_px, own, database)
        return

    def embed(network: Embed, size_px: int, what: str, rows: np.ndarray = test) -> Tensor:
        views = EvaluationViews(pack, rows, size_px)
        return embed_views(network, views, device, name=f"{what} embedding at {size_px} px")

    network, card = load_network(paths.student(student), device)
    px = card.size_px
    queries = embed(network, px, "student")
    yield from student_setups(network, card, queries, database, full_px)
    absent = []
    if len(database) > len(test):
        absent.append("no row symmetric: the database has vectors without images")
    if isinstance(opened, StoredVectors):
        absent.append("no rows naive and adapter: the teacher is stored vectors")
    elif not opened.takes(px):
        absent.append(
            f"no rows naive and adapter: {opened.card.backbone} takes images of {full_px} px alone"
        )
    elif px < full_px and (paths.seed is None or paths.teacher_seed is not None):
        teacher = opened.network
        small = embed(teacher, px, "teacher")
        shrunk = replace(opened.card, size_px=px)
        yield RetrievalSetup("naive", teacher, shrunk, full_px, small, database)
        order = np.random.default_rng(params.seeds[0]).permutation(pack.rows("train"))
        rows = np.sort(order[: params.evaluation.adapter_images])
        pairs = [embed(teacher, size, "adapter: teacher", rows) for size in (px, full_px)]
        mapped = adapt(small, procrustes(*pairs))
        yield RetrievalSetup("adapter", teacher, shrunk, full_px, mapped, database)
    if paths.seed is None:
        sys.stderr.writelines(f"{student}: {line}\n" for line in absent)
    # Empty where nothing learned from labels; there, further seeds have no file.
    if DatasetPaths(cell.dataset).baseline(student).stat().st_size:
        baseline, baseline_card = load_network(paths.baseline(student), device)
        queries = embed(baseline, px, "baseline")
        yield RetrievalSetup("baseline", baseline, baseline_card, px, queries, queries)
