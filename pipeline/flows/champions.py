"""Candidates against champions: compared, decided, registered, and told."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.config import Params
from pipeline.devices import resolve_device
from pipeline.files import file_md5
from pipeline.flows.decision import Decision, decide
from pipeline.flows.retraining import teacher_origin
from pipeline.models.champions import Champion, keep_champion, kept_version
from pipeline.models.weights import read_card
from pipeline.study.challenge import Comparison, compare_students
from pipeline.tracking import TrackedRun, TrackingError, tracked_run
from pipeline.tracking_registry import (
    RegistryError,
    Version,
    add_version,
    fetch_network,
    find_champion,
    find_versions,
    model_name,
    promote,
    roll_back,
)
from pipeline.tracking_store import Store, contact_errors, open_store
from pipeline.workspace import WORK, DatasetPaths, history_path


@dataclass(frozen=True)
class Verdict:
    """What became of the candidate of one query resolution. `champion` is the version that leads
    now, if there is one.
    """

    model: str
    candidate: str
    champion: str
    decision: Decision
    comparison: Comparison | None

    def line(self) -> str:
        lead = f"champion: version {self.champion}" if self.champion else "no champion"
        told = f"{self.decision.result}: {self.decision.reason}"
        return f"{self.model}: {self.candidate or 'no student'} {told}; {lead}"


def judge_dataset(
    params: Params, name: str, *, tolerance_points: float, again: bool
) -> list[Verdict]:
    """Judge the candidate of each query resolution of a data set.

    again: judge candidates that were judged before, too. Raises TrackingError, since without the
    registry no champion can be named.
    """
    with _told_errors():
        store = open_store()
        return [
            _judge(params, store, name, query_px, tolerance_points, again=again)
            for query_px in _sizes(params, name)
        ]


def name_first_champions(params: Params, name: str) -> list[Verdict]:
    """Let the students that are there lead where nobody does, so that the first retraining has a
    champion to compare with and to go back to. Raises TrackingError as `judge_dataset` does.
    """
    if not DatasetPaths(name).database.exists():
        return []
    with _told_errors():
        store = open_store()
        vacant = [
            query_px
            for query_px in _sizes(params, name)
            if find_champion(store, model_name(name, query_px)) is None
            and choose_candidate(params, name, query_px) is not None
        ]
        return [_judge(params, store, name, query_px, 0.0, again=False) for query_px in vacant]


def roll_back_champion(dataset: str, query_px: int) -> tuple[Version, Version]:
    """The champion of a query resolution gives way to the one before; both, the present first."""
    with _told_errors():
        store = open_store()
        now, before = roll_back(store, model_name(dataset, query_px))
        store.client.set_model_version_tag(now.model, now.version, "decision", "rolled back")
        _let_answer(store, dataset, query_px, before, before.tags.get("teacher_md5", ""))
    return now, before


def _sizes(params: Params, name: str) -> list[int]:
    """The query resolutions of a data set, the largest first."""
    sizes = {one.query_px for one in params.students.values() if one.dataset == name}
    return sorted(sizes, reverse=True)


@contextmanager
def _told_errors() -> Iterator[None]:
    try:
        yield
    except contact_errors() as error:
        if isinstance(error, TrackingError):
            raise
        raise TrackingError(f"the champions cannot be read or moved: {error}") from error


def choose_candidate(params: Params, name: str, query_px: int) -> str | None:
    """The student that stands for a query resolution: the best by validation map of its last epoch,
    never by a test query; without validation classes the first of params.yaml.
    """
    paths = DatasetPaths(name)
    scores = {
        key: _validation_map(history_path(paths.student(key)))
        for key, one in params.students.items()
        if one.dataset == name and one.query_px == query_px and paths.student(key).exists()
    }
    return max(scores, key=scores.__getitem__) if scores else None


def _validation_map(history: Path) -> float:
    table = pd.read_csv(history) if history.exists() else pd.DataFrame()
    return float(table["validation_map"].iloc[-1]) if "validation_map" in table else -1.0


def _judge(
    params: Params,
    store: Store,
    name: str,
    query_px: int,
    tolerance_points: float,
    *,
    again: bool,
) -> Verdict:
    model = model_name(name, query_px)
    champion = find_champion(store, model)
    lead = champion.version if champion else ""
    key = choose_candidate(params, name, query_px)
    if key is None:
        decision = decide(None, champion.md5 if champion else None, None, tolerance_points)
        return Verdict(model, "", lead, decision, None)
    network = DatasetPaths(name).student(key)
    md5 = file_md5(network)
    known = find_versions(store, model, md5)
    judged = [one for one in known if "decision" in one.tags]
    if judged and champion and not again:
        if kept_version(name, query_px) != champion.version:  # moved by hand, or the copy is gone
            _let_answer(store, name, query_px, champion, champion.tags.get("teacher_md5", ""))
        word = f"judged before, as version {judged[0].version}: {judged[0].tags['decision']}"
        return Verdict(model, key, lead, Decision("unchanged", word), None)
    comparison = _compare(params, store, name, network, champion) if champion else None
    if champion and champion.md5 == md5:
        comparison = None
    decision = decide(md5, champion.md5 if champion else None, comparison, tolerance_points)
    figures = comparison if isinstance(comparison, Comparison) else None
    teacher_md5 = file_md5(DatasetPaths(name).teacher)
    with _decision_run(params, name, key, model, md5, champion, tolerance_points) as run:
        version = (
            known[0]
            if known
            else add_version(
                store,
                model,
                network,
                run.run_id,
                {"network": key, "dataset": name, "teacher_md5": teacher_md5},
            )
        )
        if decision.moves_alias:
            promote(store, version)
            lead = version.version
        _tell(store, run, version, decision, figures, tolerance_points)
    leading = version if decision.moves_alias or champion is None else champion
    _let_answer(store, name, query_px, leading, teacher_md5)
    return Verdict(model, key, lead, decision, figures)


def _let_answer(
    store: Store, dataset: str, query_px: int, version: Version, teacher_md5: str
) -> None:
    """Let searches of this workspace use a version, found fit for that teacher's database."""
    champion = Champion(
        dataset, query_px, version.network, version.version, version.md5, teacher_md5
    )
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        keep_champion(champion, fetch_network(store, version, Path(folder)))


def _compare(
    params: Params, store: Store, name: str, candidate: Path, champion: Version
) -> Comparison | str:
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        try:
            theirs = fetch_network(store, champion, Path(folder))
            return compare_students(
                DatasetPaths(name),
                candidate,
                theirs,
                seed=params.seed,
                samples=params.evaluation.bootstrap_samples,
                level=params.evaluation.confidence,
                device=resolve_device(params.threads),
            )
        except (ValueError, FileNotFoundError) as error:
            return str(error)


def _decision_run(
    params: Params,
    name: str,
    key: str,
    model: str,
    md5: str,
    champion: Version | None,
    tolerance_points: float,
) -> Any:
    """The MLflow run of one decision, the same for the same question."""
    paths = DatasetPaths(name)
    origin = teacher_origin(name)
    question = [md5, champion.md5 if champion else "", file_md5(paths.database), tolerance_points]
    student = params.students[key]
    return tracked_run(
        stage="retrain",
        key=model,
        role="decision",
        fingerprint=hashlib.sha256(repr(question).encode()).hexdigest()[:20],
        facts={
            "dataset": name,
            "network": key,
            "backbone": read_card(paths.student(key)).backbone,
            "query_px": student.query_px,
            "candidate_md5": md5,
            "champion_version": champion.version if champion else "none",
            **origin,
        },
        settings={"tolerance_points": tolerance_points, **params.evaluation.model_dump()},
    )


def _tell(
    store: Store,
    run: TrackedRun,
    version: Version,
    decision: Decision,
    comparison: Comparison | None,
    tolerance_points: float,
) -> None:
    """The decision and its figures, on its run and on the version."""
    told = {"decision": decision.result, "reason": decision.reason}
    run.set_tags({**told, "candidate_version": version.version})
    if comparison is not None:
        run.log_results(
            {
                "map": comparison.candidate_map,
                "champion_map": comparison.champion_map,
                "map_gain": comparison.mean,
                "map_gain_low": comparison.low,
                "map_gain_high": comparison.high,
                "queries": comparison.queries,
                "tolerance_points": tolerance_points,
            }
        )
    for tag, text in told.items():
        store.client.set_model_version_tag(version.model, version.version, tag, text)


__all__ = [
    "RegistryError",
    "Verdict",
    "choose_candidate",
    "judge_dataset",
    "name_first_champions",
    "roll_back_champion",
]
