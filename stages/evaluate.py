"""Evaluate retrieval: a teacher at full size, or everything at one student's size."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.config.params import Params, load_params
from pipeline.datasets.packs import Pack, open_pack
from pipeline.devices import computed_with, resolve_device
from pipeline.embedding.embeddings import Embed, EvaluationViews, embed_views
from pipeline.evaluation.accuracy import OVERLAP
from pipeline.evaluation.agreement import Search, measure_agreement
from pipeline.evaluation.calibration import calibrate_network, false_matches_passed
from pipeline.evaluation.cells import (
    PRECISION,
    Bootstrap,
    Measured,
    RetrievalSetup,
    measure_setups,
    seed_rows,
    student_setups,
)
from pipeline.evaluation.cost import training_gmacs
from pipeline.evaluation.examples import draw_examples
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.files import file_md5, read_json, replacing, write_json
from pipeline.models.adapter import adapt, procrustes
from pipeline.models.embedder import Embedder
from pipeline.models.torch_encoder import prepare_onnx
from pipeline.models.weights import load_network
from pipeline.paths import DatasetPaths, code_file, history_path
from pipeline.teachers.stored_vectors import StoredVectors
from pipeline.teachers.teacher import Teacher, open_teacher_or_vectors
from pipeline.tracking.record import fingerprint
from pipeline.tracking.runs import tracked_run
from pipeline.tracking.store import require_store
from stages import run_stage

# What a row is about; the rest of its figures are measured.
FACTS = ("dataset", "network", "backbone", "query_px", "database_px")
# What passes of a student's false matches where 1 % of the teacher's do: as it is, and calibrated.
PASSED = ("false_matches_passed", "false_matches_passed_calibrated")
# Whose results the report shows beside the teacher's.
SHOWN = ("asymmetric", "naive")


@dataclass(frozen=True)
class _Cell:
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


def evaluate(key: str) -> None:
    """`key` names a student, or a data set, whose teacher is then evaluated.

    The seeds come one after the other, and no embeddings are kept of any. Calibration, examples and
    ONNX are those of the first, which search and export use.
    """
    require_store()
    params = load_params()
    student = key if key in params.students else None
    name = params.students[student].dataset if student else key
    paths = params.paths(name, params.seeds[0])
    cell = _Cell(params, name, student, open_pack(paths.pack), resolve_device(params.threads))
    measured: list[Measured] = []
    shown: dict[str, Any] = {}
    passed: dict[str, float] = {}
    for seed in cell.seeds:
        own = params.paths(name, seed)
        opened = open_teacher_or_vectors(own.teacher, cell.device)
        setups = list(_setups(cell, own, opened))
        shares_teacher = bool(measured) and own.teacher == paths.teacher
        precision = measured[0].teacher if shares_teacher else _precision(cell, setups[0].database)
        measured.append(_measure(cell, setups, precision))
        if seed == cell.seeds[0]:
            passed = _calibrate(cell, setups[0], opened) if student else {}
            shown = _shown(cell, setups, measured[0])
            _prepare(own.student(student) if student else own.teacher, setups[0])
    interval = params.evaluation
    bootstrap = Bootstrap(interval.bootstrap_samples, interval.confidence, params.seeds[0])
    origin = {"dataset": name, "subset": cell.pack.is_subset, "network": cell.network}
    rows: dict[str, dict[str, Any]] = {
        row["role"]: origin | row for row in seed_rows(measured, bootstrap)
    }
    if passed:
        rows["asymmetric"] |= passed
    trained = {"teacher": paths.teacher}
    if student:
        of_student = dict.fromkeys(("asymmetric", "symmetric"), paths.student(student))
        trained = of_student | {"baseline": paths.baseline(student)}
    for role in rows.keys() & trained.keys():  # of the first seed: all learn as much
        history = history_path(trained[role])
        rows[role]["train_gmacs"] = training_gmacs(rows[role]["gmacs"], history)
    with replacing(paths.per_query(cell.network)) as temporary:
        _per_query(cell, measured).to_parquet(temporary)
    write_json(paths.report_part(cell.network), {"rows": rows, **shown})
    write_json(paths.cell(cell.network), rows)
    _record(cell, key, rows, measured)


def _labels(cell: _Cell) -> Tensor | None:
    pack = cell.pack
    return torch.from_numpy(pack.labels[pack.rows("test")]) if pack.labelled else None


def _precision(cell: _Cell, database: Tensor) -> np.ndarray | None:
    """Average precision of each query by the teacher at full size."""
    labels = _labels(cell)
    if labels is None:
        return None
    return evaluate_retrieval(database, database, labels).query_metrics[PRECISION]


def _measure(cell: _Cell, setups: list[RetrievalSetup], precision: np.ndarray | None) -> Measured:
    recall_at = cell.params.datasets[cell.dataset].recall_at
    return measure_setups(setups, _labels(cell), recall_at, precision, setups[0].database)


def _calibrate(
    cell: _Cell, own: RetrievalSetup, opened: Teacher | StoredVectors
) -> dict[str, float]:
    """Write how a student's scores become its teacher's; what it lets pass, by its columns."""
    share, labels = cell.params.datasets[cell.dataset].validation_share, _labels(cell)
    assert cell.student is not None
    assert own.network is not None, "it is a student's"
    network_px = own.network, own.card.size_px
    calibration = calibrate_network(cell.pack, share, network_px, opened, cell.device)
    content = None if calibration is None else calibration.content()
    write_json(DatasetPaths(cell.dataset).calibration(cell.student), content)
    if calibration is None:
        return {}
    numbers = labels if labels is None else labels.numpy()
    passed = false_matches_passed(own.queries, own.database, numbers, calibration)
    return dict(zip(PASSED, passed, strict=True)) if passed else {}


def _shown(cell: _Cell, setups: list[RetrievalSetup], measured: Measured) -> dict[str, Any]:
    """What the report shows beside the rows: examples and trials of a student, a teacher's pack."""
    paths = DatasetPaths(cell.dataset)
    if cell.student is None:
        return {"pack": read_json(paths.pack_summary)}
    pack, database = cell.pack, setups[0].database
    images = len(pack.rows("test"))
    queries = {"teacher": database[:images]} | {
        one.role: one.queries for one in setups if one.role in SHOWN
    }
    column = PRECISION if pack.labelled else OVERLAP.column
    accuracy = {role: own[column] for role, own in measured.values.items()}
    accuracy["teacher"] = np.ones(images) if measured.teacher is None else measured.teacher
    if not pack.labelled and len(database) > images:  # the others have no pictures to show
        searches = {role: Search(own) for role, own in queries.items()}
        among = measure_agreement(searches, database[:images])
        accuracy = {role: own[OVERLAP.column] for role, own in among.items()}
    px, seed = cell.params.students[cell.student].query_px, cell.params.seeds[0]
    trials = read_json(paths.tuning(cell.student)).get("student", {}).get("trials", [])
    examples = draw_examples(pack, queries, accuracy, query_px=px, seed=seed)
    return {"trials": [trial["score"] for trial in trials], **examples}


def _prepare(file: Path, evaluated: RetrievalSetup) -> None:
    if isinstance(evaluated.network, Embedder):
        prepare_onnx(file, evaluated.network, evaluated.card.size_px)


def _per_query(cell: _Cell, measured: list[Measured]) -> pd.DataFrame:
    """A row a seed, role and test image, by the columns of values."""
    pack, test = cell.pack, cell.pack.rows("test")
    names = [pack.names[row] for row in test]
    # What is sampled: the classes, or where there are none the images.
    units = [pack.class_names[pack.labels[row]] for row in test] if pack.labelled else names
    tables = [
        pd.DataFrame(own).assign(role=role, image=names, unit=units, seed=seed)
        for seed, one in zip(cell.seeds, measured, strict=True)
        for role, own in one.values.items()
    ]
    return pd.concat(tables, ignore_index=True)


def _setups(
    cell: _Cell, paths: DatasetPaths, opened: Teacher | StoredVectors
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


def _record(
    cell: _Cell, key: str, rows: dict[str, dict[str, Any]], measured: list[Measured]
) -> None:
    """One run a row in the tracking store; the run of each seed's training gets its own figures."""
    params, paths = cell.params, DatasetPaths(cell.dataset)
    used: set[Path] = set()
    trained: dict[str, list[tuple[Path, dict[str, float]]]] = {}
    for seed, one in zip(cell.seeds, measured, strict=True):
        own = params.paths(cell.dataset, seed)
        used |= {own.teacher, own.database}
        networks = {"asymmetric": own.student(key), "baseline": own.baseline(key)}
        for role, file in ({"teacher": own.teacher} | networks).items():
            if role in one.facts:
                used.add(file)
                trained.setdefault(role, []).append((file, one.figures(role)))
    settings = {"seeds": list(cell.seeds), **params.evaluation.model_dump()}
    mark = fingerprint(settings, [code_file("evaluate"), paths.pack, *used])
    machine = computed_with(cell.device)
    for role, row in rows.items():
        metrics = {
            column: float(value)
            for column, value in row.items()
            if column not in FACTS and type(value) in (int, float)
        }
        with tracked_run(
            stage="evaluate",
            key=key,
            role=role,
            fingerprint=mark,
            facts={fact: row[fact] for fact in FACTS},
            settings=settings,
            needs_store=False,
        ) as run:
            run.set_tags({"output_md5": file_md5(paths.cell(row["network"])), **machine})
            for file, figures in trained.get(role, ()):
                run.log_training(file_md5(file), figures)
            run.log_results(metrics)


if __name__ == "__main__":
    run_stage(evaluate)
