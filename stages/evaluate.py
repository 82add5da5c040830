"""Evaluate retrieval: a teacher at full size, or everything at one student's size."""

import sys
from collections.abc import Iterator
from dataclasses import replace
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
from pipeline.evaluation.cells import Bootstrap, RetrievalSetup, evaluate_setups, student_setups
from pipeline.evaluation.examples import draw_examples
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.files import file_md5, read_json, replacing, write_json
from pipeline.models.adapter import adapt, procrustes
from pipeline.models.embedder import Embedder
from pipeline.models.torch_encoder import prepare_onnx
from pipeline.models.weights import load_network
from pipeline.paths import DatasetPaths, code_file
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


def evaluate(key: str) -> None:
    """`key` names a student, or a data set, whose teacher is then evaluated."""
    require_store()
    params = load_params()
    student = params.students.get(key)
    name = student.dataset if student else key
    cell = key if student else "teacher"
    paths = DatasetPaths(name)
    pack = open_pack(paths.pack)
    test = pack.rows("test")
    opened = open_teacher_or_vectors(paths.teacher, resolve_device(params.threads))
    setups = list(_setups(params, paths, key if student else None, pack, opened))
    settings = params.evaluation
    bootstrap = Bootstrap(settings.bootstrap_samples, settings.confidence, params.seeds[0])
    labels = torch.from_numpy(pack.labels[test]) if pack.labelled else None
    database = setups[0].database
    teacher = None
    if labels is not None:
        itself = evaluate_retrieval(database, database, labels)
        teacher = itself.query_metrics["average_precision"]
    recall_at = params.datasets[name].recall_at
    found, values = evaluate_setups(setups, labels, recall_at, bootstrap, teacher, database)
    origin = {"dataset": name, "subset": pack.is_subset, "network": cell}
    rows = {row["role"]: {**origin, **row} for row in found}
    if student:
        share = params.datasets[name].validation_share
        own, device = setups[0], resolve_device(params.threads)
        assert own.network is not None, "it is a student's"
        network_px = own.network, own.card.size_px
        calibration = calibrate_network(pack, share, network_px, opened, device)
        content = None if calibration is None else calibration.content()
        write_json(paths.calibration(key), content)
        if calibration:
            numbers = labels if labels is None else labels.numpy()
            passed = false_matches_passed(setups[0].queries, database, numbers, calibration)
            rows["asymmetric"] |= dict(zip(PASSED, passed, strict=True)) if passed else {}
    names = [pack.names[row] for row in test]
    tables = [pd.DataFrame(own).assign(role=role, image=names) for role, own in values.items()]
    with replacing(paths.per_query(cell)) as temporary:
        pd.concat(tables, ignore_index=True).to_parquet(temporary)
    shown: dict[str, Any] = {"rows": rows}
    if student:
        queries = {"teacher": database[: len(test)]} | {
            one.role: one.queries for one in setups if one.role in SHOWN
        }
        column = "average_precision" if pack.labelled else OVERLAP.column
        accuracy = {role: own[column] for role, own in values.items()}
        accuracy["teacher"] = np.ones(len(test)) if teacher is None else teacher
        if not pack.labelled and len(database) > len(test):  # the others have no pictures to show
            searches = {role: Search(own) for role, own in queries.items()}
            among = measure_agreement(searches, database[: len(test)])
            accuracy = {role: own[OVERLAP.column] for role, own in among.items()}
        px, seed = student.query_px, params.seeds[0]
        shown |= draw_examples(pack, queries, accuracy, query_px=px, seed=seed)
    else:
        shown["pack"] = read_json(paths.pack_summary)
    write_json(paths.report_part(cell), shown)
    write_json(paths.cell(cell), rows)
    _record(params, paths, key, rows)
    evaluated, network = setups[0], paths.student(key) if student else paths.teacher
    if isinstance(evaluated.network, Embedder):
        prepare_onnx(network, evaluated.network, evaluated.card.size_px)


def _setups(
    params: Params,
    paths: DatasetPaths,
    student: str | None,
    pack: Pack,
    opened: Teacher | StoredVectors,
) -> Iterator[RetrievalSetup]:
    """Teacher alone; or asymmetric, symmetric, naive, adapter and baseline at the student's size.

    Where the student sees the full size, naive and adapter would be the teacher: both are left out,
    as they are where the teacher takes no other size than its own, or is nothing but vectors.
    """
    device = resolve_device(params.threads)
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
    if len(database) > len(test):
        sys.stderr.write(f"{student}: no row symmetric: the database has vectors without images\n")
    if isinstance(opened, StoredVectors):
        sys.stderr.write(f"{student}: no rows naive and adapter: the teacher is stored vectors\n")
    elif not opened.takes(px):
        sys.stderr.write(
            f"{student}: no rows naive and adapter: {opened.card.backbone} takes images of "
            f"{full_px} px alone\n"
        )
    elif px < full_px:
        teacher = opened.network
        small = embed(teacher, px, "teacher")
        shrunk = replace(opened.card, size_px=px)
        yield RetrievalSetup("naive", teacher, shrunk, full_px, small, database)
        order = np.random.default_rng(params.seeds[0]).permutation(pack.rows("train"))
        rows = np.sort(order[: params.evaluation.adapter_images])
        pairs = [embed(teacher, size, "adapter: teacher", rows) for size in (px, full_px)]
        mapped = adapt(small, procrustes(*pairs))
        yield RetrievalSetup("adapter", teacher, shrunk, full_px, mapped, database)
    if paths.baseline(student).stat().st_size:  # else nothing learned from labels
        baseline, baseline_card = load_network(paths.baseline(student), device)
        queries = embed(baseline, px, "baseline")
        yield RetrievalSetup("baseline", baseline, baseline_card, px, queries, queries)


def _record(params: Params, paths: DatasetPaths, key: str, rows: dict[str, dict[str, Any]]) -> None:
    """One run a row in the tracking store; its training's run gets the figures to compare by."""
    trained = {"asymmetric": paths.student(key), "baseline": paths.baseline(key)}
    used = [paths.teacher, *(trained[role] for role in rows if role in trained)]
    trained["teacher"] = paths.teacher
    settings = {"seed": params.seeds[0], **params.evaluation.model_dump()}
    mark = fingerprint(settings, [code_file("evaluate"), paths.pack, paths.database, *used])
    machine = computed_with(resolve_device(params.threads))
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
            if role in trained:
                run.set_tags({"network_md5": file_md5(trained[role])})
            run.log_results(metrics)


if __name__ == "__main__":
    run_stage(evaluate)
