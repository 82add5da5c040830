"""Candidates against champions: compared, decided, and recorded."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.devices import resolve_device
from pipeline.evaluation.cells import Bootstrap
from pipeline.evaluation.compare import Comparison, Incompatible, Unfit, compare_networks
from pipeline.files import file_md5
from pipeline.models.weights import read_card
from pipeline.paths import WORK, DatasetPaths, teacher_origin
from pipeline.search.candidates import (
    choose_candidate,
    find_fault,
    query_sizes,
    trained_students,
)
from pipeline.search.champions import Champion, has_kept, keep_champion
from pipeline.search.decision import Decision, decide
from pipeline.tracking.registry import (
    RegistryError,
    Version,
    add_version,
    fetch_network,
    find_champion,
    find_previous,
    find_versions,
    known_champions,
    model_name,
    promote,
    step_back,
)
from pipeline.tracking.runs import TrackedRun, tracked_run
from pipeline.tracking.store import Store, TrackingError, contact_errors, open_store


@dataclass(frozen=True)
class Terms:
    """On which terms a student may replace a champion. `tolerance_points` are points of map;
    `again`: also one that was judged before; `across_backbones`: also one of another backbone.
    """

    tolerance_points: float = 0.5
    again: bool = False
    across_backbones: bool = False


@dataclass(frozen=True)
class Verdict:
    """What became of the candidate of one query resolution. `champion` is the version that leads
    now, if there is one; `not_compared` are the students of another backbone than its own.
    """

    model: str
    candidate: str
    champion: str
    decision: Decision
    comparison: Comparison | None = None
    not_compared: tuple[str, ...] = ()

    def line(self) -> str:
        lead = f"champion: version {self.champion}" if self.champion else "no champion"
        text = f"{self.decision.result}: {self.decision.reason}"
        others = f"; not compared, of another backbone: {', '.join(self.not_compared)}"
        return (
            f"{self.model}: {self.candidate or 'no student'} {text}; {lead}"
            f"{others if self.not_compared else ''}"
        )


def judge_dataset(params: Params, name: str, terms: Terms) -> Iterator[Verdict]:
    """Judge the candidate of each query resolution of a data set, the largest first.

    Raises TrackingError, since without the registry no champion can be named, and ValueError for
    whatever keeps two networks from being compared: the champion then stays, and nothing is
    registered.
    """
    with _tracking_errors():
        store = open_store()
        if fault := find_fault(params, name):
            raise ValueError(f"{fault}: run `l2s study` or `l2s retrain --force`")
        for query_px in query_sizes(params, name):
            yield _judge(params, store, name, query_px, terms)


def name_first_champions(params: Params, name: str) -> Iterator[Verdict]:
    """Let the students that are there lead where nobody does, so that the first retraining has a
    champion to compare with and to go back to. None where students, teacher and database are not
    of one another. Raises errors as `judge_dataset` does.
    """
    with _tracking_errors():
        store = open_store()
        vacant = [px for px in query_sizes(params, name) if _find_champion(store, name, px) is None]
        vacant = [px for px in vacant if trained_students(params, name, px)]
        if vacant and not find_fault(params, name):
            for query_px in vacant:
                yield _judge(params, store, name, query_px, Terms())


def roll_back_champion(dataset: str, query_px: int) -> tuple[Version, Version]:
    """The champion of a query resolution gives way to the one before; both, the present first."""
    with _tracking_errors():
        store = open_store()
        now = _find_champion(store, dataset, query_px)
        if now is None:
            model = model_name(dataset, query_px)
            raise RegistryError(f"{model}: has no champion; champions: {known_champions(store)}")
        before = find_previous(store, now)
        with _work_folder() as folder:
            network = fetch_network(store, before, folder)
            step_back(store, now, before)
            store.client.set_model_version_tag(now.model, now.version, "decision", "rolled back")
            _let_answer(dataset, query_px, before, network)
    return now, before


@contextmanager
def _tracking_errors() -> Iterator[None]:
    try:
        yield
    except contact_errors() as error:
        if isinstance(error, TrackingError):
            raise
        raise TrackingError(f"the champions cannot be read or moved: {error}") from error


@contextmanager
def _work_folder() -> Iterator[Path]:
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        yield Path(folder)


def _find_champion(store: Store, name: str, query_px: int) -> Version | None:
    """The version that leads. Raises RegistryError where one led and the registry knows of none."""
    model = model_name(name, query_px)
    champion = find_champion(store, model)
    if champion is None and has_kept(name, query_px):
        raise RegistryError(
            f"{model}: MLflow's registry names no champion, but champions/{name} holds one: "
            "restore the record (MLFLOW_TRACKING_URI, mlflow.db, mlartifacts), or delete "
            f"champions/{name} to start anew"
        )
    return champion


def _judge(params: Params, store: Store, name: str, query_px: int, terms: Terms) -> Verdict:
    model = model_name(name, query_px)
    champion = _find_champion(store, name, query_px)
    with _work_folder() as folder:
        theirs = fetch_network(store, champion, folder) if champion else None
        backbone = read_card(theirs).backbone if theirs else None
        key, others = choose_candidate(
            params, name, query_px, backbone, across_backbones=terms.across_backbones
        )
        leading, network, comparison = champion, theirs, None
        if key is None:
            kind = f"of its backbone, {backbone}," if others else "of this size"
            decision = Decision("refused", f"there is no candidate: no student {kind} is trained")
        else:
            own = DatasetPaths(name).student(key)
            known = find_versions(store, model, file_md5(own))
            if champion and (settled := _find_settled(champion, known, file_md5(own), terms)):
                decision = Decision("unchanged", settled)
            else:
                outcome = _challenge(params, name, own, champion, theirs)
                decision = decide(outcome, terms.tolerance_points)
                comparison = outcome if isinstance(outcome, Comparison) else None
                with _decision_run(params, key, champion, terms.tolerance_points) as run:
                    version = known[0] if known else _register(store, model, name, key, run)
                    if decision.moves_alias:
                        promote(store, version)
                        leading, network = version, own
                    _record_decision(store, run, version, decision, comparison, terms)
        if leading and network:
            _let_answer(name, query_px, leading, network)
    lead = leading.version if leading else ""
    return Verdict(model, key or "", lead, decision, comparison, others)


def _find_settled(champion: Version, known: list[Version], md5: str, terms: Terms) -> str:
    """Why there is nothing to decide; empty where there is."""
    judged = [one for one in known if "decision" in one.tags]
    if judged and not terms.again:
        return f"judged before, as version {judged[0].version}: {judged[0].tags['decision']}"
    return "the candidate is the champion: the same network" if md5 == champion.md5 else ""


def _challenge(
    params: Params, name: str, candidate: Path, champion: Version | None, theirs: Path | None
) -> Comparison | Incompatible | Unfit | None:
    paths = DatasetPaths(name)
    interval = params.evaluation
    return compare_networks(
        paths,
        candidate,
        theirs,
        Bootstrap(interval.bootstrap_samples, interval.confidence, params.seed),
        resolve_device(params.threads),
        same_teacher=champion is not None and champion.teacher_md5 == file_md5(paths.teacher),
    )


def _register(store: Store, model: str, name: str, key: str, run: TrackedRun) -> Version:
    paths = DatasetPaths(name)
    origin = {"network": key, "dataset": name, "teacher_md5": file_md5(paths.teacher)}
    return add_version(store, model, paths.student(key), run.run_id, origin)


def _let_answer(dataset: str, query_px: int, version: Version, network: Path) -> None:
    """Let searches of this workspace use a version, as long as its teacher's database is there."""
    champion = Champion(
        dataset, query_px, version.network, version.version, version.md5, version.teacher_md5
    )
    keep_champion(champion, network)


def _decision_run(
    params: Params, key: str, champion: Version | None, tolerance_points: float
) -> Any:
    """The MLflow run of one decision, the same for the same question."""
    student = params.students[key]
    paths = DatasetPaths(student.dataset)
    network = paths.student(key)
    md5 = file_md5(network)
    question = [md5, champion.md5 if champion else "", file_md5(paths.database), tolerance_points]
    return tracked_run(
        stage="retrain",
        key=model_name(student.dataset, student.query_px),
        role="decision",
        fingerprint=hashlib.sha256(repr(question).encode()).hexdigest()[:20],
        facts={
            "dataset": student.dataset,
            "network": key,
            "backbone": read_card(network).backbone,
            "query_px": student.query_px,
            "candidate_md5": md5,
            "champion_version": champion.version if champion else "none",
            **teacher_origin(student.dataset),
        },
        settings={"tolerance_points": tolerance_points, **params.evaluation.model_dump()},
    )


def _record_decision(
    store: Store,
    run: TrackedRun,
    version: Version,
    decision: Decision,
    comparison: Comparison | None,
    terms: Terms,
) -> None:
    """The decision and its figures, on its run and on the version."""
    tags = {"decision": decision.result, "reason": decision.reason}
    run.set_tags({**tags, "candidate_version": version.version})
    if comparison is not None:
        run.log_results(
            {
                "map": comparison.candidate_map,
                "champion_map": comparison.champion_map,
                "map_gain": comparison.mean,
                "map_gain_low": comparison.low,
                "map_gain_high": comparison.high,
                "queries": comparison.queries,
                "tolerance_points": terms.tolerance_points,
            }
        )
    for tag, text in tags.items():
        store.client.set_model_version_tag(version.model, version.version, tag, text)
