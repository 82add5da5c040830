"""Candidates against champions: compared, decided, and recorded."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.code_digests import code_digests
from pipeline.config.params import Params
from pipeline.devices import computed_with, resolve_device
from pipeline.evaluation.cells import Bootstrap
from pipeline.evaluation.compare import Comparison, compare_networks
from pipeline.files import file_md5, known_md5
from pipeline.models.weights import read_card
from pipeline.paths import WORK, DatasetPaths, teacher_origin
from pipeline.search.candidates import choose_candidate, find_fault, query_sizes, trained_students
from pipeline.search.champions import Champion, has_led, keep_champion
from pipeline.search.decision import Decision, decide
from pipeline.tracking import registry
from pipeline.tracking.record import fingerprint
from pipeline.tracking.registry import Version
from pipeline.tracking.runs import tracked_run
from pipeline.tracking.store import Store, open_store, tracking_errors

ROLLED_BACK = "rolled back"
TROUBLE = "the champions cannot be read or moved"


@dataclass(frozen=True)
class Terms:
    """On which terms a student may replace a champion. `tolerance_points` are points of map, or of
    overlap; `again`: also one that was judged before; `across_backbones`: also one of another
    backbone; `without_interval`: also one that test classes too few for an interval find no worse.
    """

    tolerance_points: float = 0.5
    again: bool = False
    across_backbones: bool = False
    without_interval: bool = False


@dataclass(frozen=True)
class Verdict:
    """What became of the candidate of one query resolution. `champion` is the version that leads
    now, if there is one; `not_compared` are the students of another backbone than its own.
    """

    model: str
    candidate: str
    champion: str
    decision: Decision
    not_compared: tuple[str, ...] = ()

    def line(self) -> str:
        who = f"{self.model}: {self.candidate or 'no student'}"
        lead = f"champion: version {self.champion}" if self.champion else "no champion"
        text = f"{who} {self.decision.result}: {self.decision.reason}; {lead}"
        others = f"; not compared, of another backbone: {', '.join(self.not_compared)}"
        return text + others if self.not_compared else text


def judge_dataset(params: Params, name: str, terms: Terms) -> Iterator[Verdict]:
    """Judge the candidate of each query resolution of a data set, the largest first.

    Raises TrackingError, since without the registry no champion can be named, and ValueError for
    whatever keeps two networks from being compared: the champion then stays, and nothing is
    registered.
    """
    with tracking_errors(TROUBLE):
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
    with tracking_errors(TROUBLE):
        store = open_store()
        sizes = [px for px in query_sizes(params, name) if trained_students(params, name, px)]
        vacant = [px for px in sizes if _find_champion(store, name, px) is None]
        if vacant and not find_fault(params, name):
            for query_px in vacant:
                yield _judge(params, store, name, query_px, Terms())


def roll_back_champion(dataset: str, query_px: int) -> tuple[Version, Version]:
    """The champion of a query resolution gives way to the last before it that learned from the
    teacher of this workspace; both, the present first.

    Raises TrackingError, and ValueError where there is none such.
    """
    with tracking_errors(TROUBLE):
        store = open_store()
        now = _find_champion(store, dataset, query_px)
        if now is None:
            known = ", ".join(sorted(one.model for one in registry.champions(store)))
            model = registry.model_name(dataset, query_px)
            raise ValueError(f"{model}: has no champion; champions: {known or 'none'}")
        teacher, theirs = DatasetPaths(dataset).teacher, now.tags.get("teacher_md5", "")
        teacher_md5 = file_md5(teacher) if teacher.exists() else theirs
        before = registry.find_previous(store, now, teacher_md5)
        with TemporaryDirectory(dir=WORK) as folder:
            network = registry.fetch_network(store, before, folder)
            if theirs == teacher_md5:
                store.client.set_model_version_tag(now.model, now.version, "decision", ROLLED_BACK)
                registry.step_back(store, now, before)
            else:  # it stays the champion of its own teacher
                registry.promote(store, before)
            _let_answer(dataset, query_px, before, network)
    return now, before


def _find_champion(store: Store, name: str, query_px: int) -> Version | None:
    """The version that leads. Raises ValueError where one led and the registry knows of none."""
    model = registry.model_name(name, query_px)
    champion = registry.find_champion(store, model)
    if champion is None and has_led(name, query_px):
        raise ValueError(
            f"{model}: MLflow's registry names no champion, but champions/{name} holds one: "
            "restore the record (MLFLOW_TRACKING_URI, mlflow.db, mlartifacts), or delete "
            f"champions/{name} to start anew"
        )
    return champion


def _let_answer(dataset: str, query_px: int, version: Version, network: Path) -> None:
    """Let searches of this workspace use a version, as long as its teacher's database is there."""
    key, md5, teacher_md5 = map(version.tag, ("network", "md5", "teacher_md5"))
    keep_champion(Champion(dataset, query_px, key, version.version, md5, teacher_md5), network)


def _judge(params: Params, store: Store, name: str, query_px: int, terms: Terms) -> Verdict:
    model = registry.model_name(name, query_px)
    leads = _find_champion(store, name, query_px)
    teacher_md5 = file_md5(DatasetPaths(name).teacher)
    champion = leads and registry.find_champion_of(store, leads, teacher_md5)
    with TemporaryDirectory(dir=WORK) as folder:
        theirs = registry.fetch_network(store, champion, folder) if champion else None
        backbone = read_card(theirs).backbone if theirs else None
        key, others = choose_candidate(
            params, name, query_px, backbone, across_backbones=terms.across_backbones
        )
        leading, network = champion, theirs
        if key is None:
            kind = f"of its backbone, {backbone}," if others else "of this size"
            decision = Decision("refused", f"there is no candidate: no student {kind} is trained")
        else:
            own = DatasetPaths(name).student(key)
            known = registry.find_versions(store, model, file_md5(own))
            question = _question(params, name, own, champion, terms)
            if champion and (
                settled := _find_settled(store, champion, known, own, question, terms)
            ):
                decision = Decision("unchanged", settled)
            else:
                decision, version = _challenge(
                    params, store, key, known, champion, theirs, question, terms
                )
                if decision.moves_alias:
                    leading, network = version, own
        if leading and network:
            if leading == champion != leads:  # what led has learned from another teacher
                registry.promote(store, leading)
            _let_answer(name, query_px, leading, network)
    return Verdict(model, key or "", leading.version if leading else "", decision, others)


def _settings(params: Params, terms: Terms) -> dict[str, Any]:
    return {
        "tolerance_points": terms.tolerance_points,
        "without_interval": terms.without_interval,
        **params.evaluation.model_dump(),
    }


def _question(params: Params, name: str, own: Path, champion: Version | None, terms: Terms) -> str:
    """A hash of what a decision depends on: candidate, champion, test images and their classes,
    teacher, terms.
    """
    against = champion.tag("md5") if champion else ""
    paths = DatasetPaths(name)
    asked = [against, _settings(params, terms), code_digests(__name__), known_md5(paths.pack)]
    return fingerprint(asked, [own, paths.database, paths.teacher])


def _find_settled(
    store: Store,
    champion: Version,
    known: list[Version],
    own: Path,
    question: str,
    terms: Terms,
) -> str:
    """Why there is nothing to decide; empty where there is: also where the same network was judged
    against another champion, on other test images or on other terms, unless it was rolled back,
    and where it was promoted and a kill kept it from leading.
    """
    if file_md5(own) == champion.tag("md5"):
        return "the candidate is the champion: the same network"
    led = registry.read_line(store, champion.model)
    for one in () if terms.again else known:
        decided = one.tags.get("decision", "")
        is_done = one.version in led or not Decision(decided, "").moves_alias
        is_same = decided and one.tags.get("question") == question
        if decided == ROLLED_BACK or (is_same and is_done):
            return f"judged before, as version {one.version}: {decided}"
    return ""


def _challenge(
    params: Params,
    store: Store,
    key: str,
    known: list[Version],
    champion: Version | None,
    theirs: Path | None,
    question: str,
    terms: Terms,
) -> tuple[Decision, Version]:
    """Compare a student with the champion, whose network is `theirs`, and let the better one lead.

    The decision is a run of its own, the same for the same `question`, and stands as tags on the
    student's version, one of those that are `known`, or a new one.
    """
    student, interval = params.students[key], params.evaluation
    paths = DatasetPaths(student.dataset)
    network, teacher_md5 = paths.student(key), file_md5(paths.teacher)
    model = registry.model_name(student.dataset, student.query_px)
    device = resolve_device(params.threads)
    outcome = compare_networks(
        paths,
        network,
        theirs,
        Bootstrap(interval.bootstrap_samples, interval.confidence, params.seeds[0]),
        device,
        same_teacher=champion is not None and champion.tag("teacher_md5") == teacher_md5,
    )
    decision = decide(outcome, terms.tolerance_points, without_interval=terms.without_interval)
    with tracked_run(
        stage="retrain",
        key=model,
        role="decision",
        fingerprint=question,
        facts={
            "dataset": student.dataset,
            "network": key,
            "backbone": read_card(network).backbone,
            "query_px": student.query_px,
            "candidate_md5": file_md5(network),
            "champion_version": champion.version if champion else "none",
            **teacher_origin(student.dataset),
        },
        settings=_settings(params, terms),
    ) as run:
        origin = {"dataset": student.dataset, "teacher_md5": teacher_md5}
        version = (
            known[0] if known else registry.add_version(store, model, network, run.run_id, origin)
        )
        tags = {"decision": decision.result, "reason": decision.reason}
        run.set_tags({**tags, "candidate_version": version.version, **computed_with(device)})
        if isinstance(outcome, Comparison):
            run.log_results(outcome.metrics())
    for tag, text in {**tags, "question": question}.items():
        store.client.set_model_version_tag(model, version.version, tag, text)
    if decision.moves_alias:  # last: what is killed before it is judged anew
        registry.promote(store, version)
    return decision, version
