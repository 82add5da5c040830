"""One evaluation from the files of a study to its rows: every seed, and what the report shows."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from pipeline.config.params import Params
from pipeline.datasets.packs import open_pack
from pipeline.devices import resolve_device
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
)
from pipeline.evaluation.cost import training_gmacs
from pipeline.evaluation.examples import draw_examples
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.evaluation.recording import record_rows
from pipeline.evaluation.setups import Cell, cell_setups
from pipeline.files import read_json, replacing, write_json
from pipeline.models.embedder import Embedder
from pipeline.models.torch_encoder import prepare_onnx
from pipeline.paths import DatasetPaths, history_path
from pipeline.teachers.stored_vectors import StoredVectors
from pipeline.teachers.teacher import Teacher, open_teacher_or_vectors

# What passes of a student's false matches where 1 % of the teacher's do: as it is, and calibrated.
PASSED = ("false_matches_passed", "false_matches_passed_calibrated")
# Whose results the report shows beside the teacher's.
SHOWN = ("asymmetric", "naive")


def evaluate_cell(params: Params, key: str) -> None:
    """Measure, record and write what `key` names: a student, or a data set, whose teacher it is.

    The seeds come one after the other, and no embeddings are kept of any. Calibration, examples and
    ONNX are those of the first, which search and export use.
    """
    student = key if key in params.students else None
    name = params.students[student].dataset if student else key
    paths = params.paths(name, params.seeds[0])
    cell = Cell(params, name, student, open_pack(paths.pack), resolve_device(params.threads))
    measured: list[Measured] = []
    shown: dict[str, Any] = {}
    passed: dict[str, float] = {}
    for seed in cell.seeds:
        own = params.paths(name, seed)
        opened = open_teacher_or_vectors(own.teacher, cell.device)
        setups = list(cell_setups(cell, own, opened))
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
    record_rows(cell, key, rows, measured)


def _precision(cell: Cell, database: Tensor) -> np.ndarray | None:
    """Average precision of each query by the teacher at full size."""
    labels = cell.labels
    if labels is None:
        return None
    return evaluate_retrieval(database, database, labels).query_metrics[PRECISION]


def _measure(cell: Cell, setups: list[RetrievalSetup], precision: np.ndarray | None) -> Measured:
    recall_at = cell.params.datasets[cell.dataset].recall_at
    return measure_setups(setups, cell.labels, recall_at, precision, setups[0].database)


def _calibrate(
    cell: Cell, own: RetrievalSetup, opened: Teacher | StoredVectors
) -> dict[str, float]:
    """Write how a student's scores become its teacher's; what it lets pass, by its columns."""
    share, labels = cell.params.datasets[cell.dataset].validation_share, cell.labels
    assert cell.student is not None
    assert own.network is not None, "it is a student's"
    network_px = own.network, own.card.size_px
    calibration = calibrate_network(cell.pack, share, network_px, opened, cell.device)
    content = {} if calibration is None else calibration.content()
    write_json(DatasetPaths(cell.dataset).calibration(cell.student), content)
    if calibration is None:
        return {}
    numbers = labels if labels is None else labels.numpy()
    passed = false_matches_passed(own.queries, own.database, numbers, calibration)
    return dict(zip(PASSED, passed, strict=True)) if passed else {}


def _shown(cell: Cell, setups: list[RetrievalSetup], measured: Measured) -> dict[str, Any]:
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


def _per_query(cell: Cell, measured: list[Measured]) -> pd.DataFrame:
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
