"""Evaluate retrieval: a teacher at full size, or everything at one student's size."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline.config.params import Params, load_params
from pipeline.datasets.packs import Pack, open_pack
from pipeline.devices import resolve_device
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.cells import Bootstrap, Contender, evaluate_contenders
from pipeline.evaluation.contrasts import find_contrasts
from pipeline.evaluation.cost import query_latency_ms
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.files import file_md5, replacing, write_json
from pipeline.models.embedder import Embedder
from pipeline.models.weights import load_network
from pipeline.paths import DatasetPaths
from pipeline.tracking.record import fingerprint
from pipeline.tracking.runs import tracked_run
from pipeline.tracking.store import require_store
from stages import run_stage

# What a row is about; the rest of its figures are measured.
FACTS = ("dataset", "network", "backbone", "query_px", "database_px")


def evaluate(key: str) -> None:
    """`key` names a student, or a data set, whose teacher is then evaluated."""
    require_store()
    params = load_params()
    student = params.students.get(key)
    name = student.dataset if student else key
    cell = key if student else "teacher"
    paths = DatasetPaths(name)
    device = resolve_device(params.threads)
    pack = open_pack(paths.pack)
    test = pack.rows("test")
    contenders = list(_contenders(paths, key if student else None, pack, device))
    bootstrap = Bootstrap(
        params.evaluation.bootstrap_samples, params.evaluation.confidence, params.seed
    )
    labels = torch.from_numpy(pack.labels[test])
    database = contenders[0].database
    teacher = evaluate_retrieval(database, database, labels).query_metrics["average_precision"]
    rows, per_query = evaluate_contenders(
        contenders, labels, params.datasets[name].recall_at, bootstrap, teacher
    )
    origin = {"dataset": name, "subset": pack.is_subset, "network": cell}
    rows = [{**origin, **row} for row in rows]
    names = [pack.names[row] for row in test]
    with replacing(paths.per_query(cell)) as temporary:
        per_query.assign(image=names * len(rows)).to_parquet(temporary)
    if student:
        contrasts = _contrasts(contenders, per_query, teacher, labels.numpy(), params.seed)
        write_json(paths.contrasts(cell), contrasts)
    write_json(paths.cell(cell), {row["role"]: row for row in rows})
    latencies = _latencies(contenders)
    write_json(paths.timings(cell), latencies)
    _record(params, name, cell, rows, latencies, _inputs(paths, key if student else None))


def _contrasts(
    contenders: list[Contender],
    per_query: pd.DataFrame,
    teacher: np.ndarray,
    labels: np.ndarray,
    seed: int,
) -> list[dict[str, Any]]:
    """The queries that the report shows, with what each network finds in the teacher's database."""
    database = contenders[0].database
    searches = {"teacher": database} | {
        contender.role: contender.queries
        for contender in contenders
        if contender.role in ("asymmetric", "naive")
    }
    precision = {
        str(role): values.to_numpy()
        for role, values in per_query.groupby("role")["average_precision"]
    }
    return find_contrasts(searches, database, precision | {"teacher": teacher}, labels, seed)


def _inputs(paths: DatasetPaths, student: str | None) -> list[Path]:
    own = [paths.student(student), paths.baseline(student)] if student else []
    return [paths.pack, paths.database, paths.teacher, *own]


def _contenders(
    paths: DatasetPaths, student: str | None, pack: Pack, device: torch.device
) -> Iterator[Contender]:
    """Teacher alone; or asymmetric, symmetric, naive and baseline at the student's size.

    Where the student sees the full size the naive row would be the teacher's: it is left out.
    """
    database = torch.from_numpy(np.load(paths.database))
    teacher, teacher_card = load_network(paths.teacher, device)
    full_px = teacher_card.size_px
    if student is None:
        yield Contender("teacher", teacher, teacher_card, full_px, database, database)
        return

    def embed(network: Embedder, size_px: int, what: str) -> Tensor:
        views = EvaluationViews(pack, pack.rows("test"), size_px)
        return embed_views(network, views, device, name=f"{what} embedding at {size_px} px")

    network, card = load_network(paths.student(student), device)
    px = card.size_px
    queries = embed(network, px, "student")
    yield Contender("asymmetric", network, card, full_px, queries, database)
    yield Contender("symmetric", network, card, px, queries, queries)
    if px < full_px:
        small = embed(teacher, px, "teacher")
        shrunk = replace(teacher_card, size_px=px)
        yield Contender("naive", teacher, shrunk, full_px, small, database)
    baseline, baseline_card = load_network(paths.baseline(student), device)
    queries = embed(baseline, px, "baseline")
    yield Contender("baseline", baseline, baseline_card, px, queries, queries)


def _latencies(contenders: list[Contender]) -> dict[str, float]:
    """Milliseconds a query by role; contenders of one architecture and size share a measurement."""
    measured: dict[tuple[str, int], float] = {}
    for contender in contenders:
        architecture = (contender.card.backbone, contender.card.size_px)
        if architecture not in measured:
            measured[architecture] = query_latency_ms(contender.network, contender.card.size_px)
    return {
        contender.role: measured[contender.card.backbone, contender.card.size_px]
        for contender in contenders
    }


def _record(
    params: Params,
    name: str,
    cell: str,
    rows: list[dict[str, object]],
    latencies: dict[str, float],
    inputs: list[Path],
) -> None:
    """One run a row in the tracking store; its training's run gets the figures to compare by."""
    settings = {"seed": params.seed, **params.evaluation.model_dump()}
    mark = fingerprint(settings, inputs)
    paths = DatasetPaths(name)
    trained = {
        "teacher": paths.teacher,
        "asymmetric": paths.student(cell),
        "baseline": paths.baseline(cell),
    }
    for row in rows:
        role = str(row["role"])
        facts = {fact: row[fact] for fact in FACTS}
        metrics = {
            column: float(value)
            for column, value in row.items()
            if isinstance(value, int | float)
            and not isinstance(value, bool)
            and column not in FACTS
        }
        with tracked_run(
            stage="evaluate",
            key=name if cell == "teacher" else cell,
            role=role,
            fingerprint=mark,
            facts=facts,
            settings=settings,
            needs_store=False,
        ) as run:
            run.set_tags({"output_md5": file_md5(paths.cell(cell))})
            if role in trained:
                run.set_tags({"network_md5": file_md5(trained[role])})
            run.log_results({**metrics, "latency_ms": latencies[role]})


if __name__ == "__main__":
    run_stage(evaluate)
