"""Best values of a training, searched by short trials that are scored on validation classes.

What a student and its labelled baseline learn with, each with as many trials, in one space: factors
of the values that params.yaml gives each of them. No test image is read.
"""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from scipy.stats.qmc import Halton

from pipeline.config.params import Params
from pipeline.config.recipes import DistillationRecipe, TrainedTeacher
from pipeline.config.tuning import Tuning
from pipeline.devices import computed_with
from pipeline.evaluation.accuracy import SCORES
from pipeline.files import file_md5, read_json, write_json, write_text
from pipeline.paths import WORK, code_file
from pipeline.tracking.record import fingerprint
from pipeline.tracking.runs import TrackedRun, tracked_run
from pipeline.training.checkpoints import Row
from pipeline.training.job import TrainingJob
from pipeline.training.students import student_training
from pipeline.training.supervised import labelled_training
from pipeline.training.trainings import TrainingData, begun_network, fit, training_data
from pipeline.training.work_folders import close_work_folders, open_work_folder

Recipe = TrainedTeacher | DistillationRecipe
STAGE = "tune"
SPREAD = 5  # trials that are spread over the space, before scores say where to look
# What `loss_factor` multiplies of each loss: how its parts are weighed, or how sharply it compares.
LOSS_VALUES = {
    "absolute": (),
    "raml": ("lambda_ts", "lambda_ss"),
    "raml_batch": ("lambda_ts", "lambda_ss"),
    "csd": ("student_temperature",),
    "rop": ("temperature",),
    "d3still": ("beta", "gamma"),
    "rkd": ("angle_weight",),
    "anchors": ("temperature",),
    "triplets": ("margin",),
    "normalised_softmax": ("temperature",),
    "proxy_anchor": ("alpha",),
    "multi_similarity": ("beta",),
}


@dataclass(frozen=True)
class Search:
    """Where the trials of a student and its baseline are noted, and their run in the record.

    Of a process group the main one has both.
    """

    mark: str
    folder: Path | None
    run: TrackedRun | None


def tune_student(params: Params, key: str) -> None:
    """Write the best values for a student and its baseline, and every trial: results/.../KEY.json.

    They hold for all seeds, by trials of the first one. Finished trials are noted in the work
    folder, and an unfinished one has its checkpoint, so that an interrupted search ends as an
    undisturbed one. Each trial is a child run in the record.
    Raises ValueError where no trial of a network ends with a finite loss.
    """
    student = TrainingJob(params, "student", key, params.seeds[0])
    jobs = [student]
    if params.has_baseline(key):
        jobs.append(TrainingJob(params, "baseline", key, params.seeds[0]))
    settings = {"tuning": params.tuning.model_dump()} | {job.role: job.settings for job in jobs}
    with training_data(student) as data:
        if not data.group.is_main:
            for job in jobs:
                _best(job, data, Search("", None, None))
            return
        # Without the digests of the code of their own stages, which is part of this one's.
        inputs = {path for job in jobs for path in job.inputs[:-1]}
        mark = fingerprint(settings, [*inputs, code_file(STAGE)])
        folder, output = open_work_folder(STAGE, key, student.seed, mark), student.paths.tuning(key)
        with tracked_run(
            stage=STAGE,
            key=key,
            role="search",
            fingerprint=mark,
            facts={"dataset": student.dataset, "network": key, "query_px": student.size_px},
            settings=params.tuning.model_dump(),
        ) as run:
            run.set_tags(computed_with(data.device))
            found: dict[str, Any] = {
                job.role: _best(job, data, Search(mark, folder, run)) for job in jobs
            }
            write_json(output, found)
            write_text(output.with_suffix(".csv"), trials_table(found))
            run.log_results({f"best_{role}": max(_scores(one)) for role, one in found.items()})
            run.set_tags({"output_md5": file_md5(output)})
        close_work_folders(STAGE, key, output)


def trials_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Comma-separated values: for each number of trials the best score among so many, by role."""
    lines = ["trial,student,baseline"]
    for number in range(max((len(one["trials"]) for one in found.values()), default=0)):
        cells = [str(number + 1)]
        for role in ("student", "baseline"):
            scores = _scores(found[role], number + 1) if role in found else []
            cells.append(str(max(scores)) if scores else "")
        lines.append(",".join(cells))
    return "\n".join([*lines, ""])


def varied(recipe: Recipe, factors: Mapping[str, float]) -> dict[str, Any]:
    """The values of a recipe times the factors, nested as they stand in it."""
    loss = recipe.loss
    rate = recipe.optimisation.learning_rate * factors["learning_rate_factor"]
    scaled = {name: getattr(loss, name) * factors["loss_factor"] for name in LOSS_VALUES[loss.kind]}
    return {"optimisation": {"learning_rate": rate}, "loss": scaled}


def _best(job: TrainingJob, data: TrainingData, search: Search) -> dict[str, Any]:
    """The best values of a job, and its trials in turn.

    The first trials are `first_factors`, the same for every job; then Optuna's TPE draws by what
    scored well. The draws depend on the seed and the scores alone: trials that are known already
    are asked for again.
    """
    tuning, notes = job.params.tuning, search.folder and search.folder / f"{job.role}.json"
    noted = read_json(notes)["trials"] if notes and notes.exists() else []
    known: list[dict[str, Any]] = data.group.share(noted)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=job.seed, n_startup_trials=SPREAD)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    space, fixed = _space(tuning, job.training)
    for factors in first_factors(space):
        study.enqueue_trial(factors)
    trials: list[dict[str, Any]] = []
    for number in range(tuning.trials):
        trial = study.ask(dict(space))
        factors = fixed | trial.params
        if number < len(known):
            assert known[number]["factors"] == factors, "the fingerprint is the same"
            score = known[number]["score"]
        else:
            score = _score(job, data, search, number, factors)
        if score is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, score)
        trials.append({"factors": factors, "score": score})
        if notes:
            write_json(notes, {"trials": trials})
    if all(trial["score"] is None for trial in trials):
        raise ValueError(
            f"{job.key}: no trial of the {job.role} ended with a finite loss: lower "
            "tuning.learning_rate_factor in params.yaml"
        )
    best = max((one for one in trials if one["score"] is not None), key=lambda one: one["score"])
    return {"values": varied(job.training, best["factors"]), "trials": trials}


def first_factors(space: Mapping[str, FloatDistribution]) -> list[dict[str, float]]:
    """`SPREAD` points of the space: the factors 1, or what is nearest to them; then points of the
    Halton sequence, which leaves no part of it empty as a few random ones would.
    """
    points = [{name: min(max(1.0, one.low), one.high) for name, one in space.items()}]
    if not space:
        return points
    # Without its first two points: the corner, and the middle, which is the recipe's own.
    shares = Halton(len(space), scramble=False).random(SPREAD + 1)[2:]
    return points + [
        {
            name: one.low * (one.high / one.low) ** float(share)
            for (name, one), share in zip(space.items(), point, strict=True)
        }
        for point in shares
    ]


def _space(tuning: Tuning, recipe: Recipe) -> tuple[dict[str, FloatDistribution], dict[str, float]]:
    """The factors that are searched, and those that are fixed: as the loss has nothing to scale,
    or as both ends are one.
    """
    ends = {
        "learning_rate_factor": tuning.learning_rate_factor,
        "loss_factor": tuning.loss_factor if LOSS_VALUES[recipe.loss.kind] else (1.0, 1.0),
    }
    searched = {name: FloatDistribution(*both, log=True) for name, both in ends.items()}
    space = {name: one for name, one in searched.items() if one.low < one.high}
    return space, {name: both[0] for name, both in ends.items() if name not in space}


def _score(
    job: TrainingJob, data: TrainingData, search: Search, number: int, factors: Mapping[str, float]
) -> float | None:
    """What a network scores on the validation classes after a trial; None for a loss that is not
    finite, which is told.
    """
    recipe = job.training
    epochs = max(1, round(job.params.tuning.epochs_share * recipe.optimisation.epochs))
    values = varied(recipe, factors)
    tried = job.with_values(values | {"optimisation": values["optimisation"] | {"epochs": epochs}})
    if search.folder is None:
        row = _trained(tried, data, WORK)
    else:
        folder = search.folder / f"{job.role}-{number + 1}"
        folder.mkdir(exist_ok=True)
        with tracked_run(
            stage=STAGE,
            key=job.key,
            role=job.role,
            fingerprint=fingerprint([search.mark, job.role, number], []),
            facts={"dataset": job.dataset, "query_px": job.size_px, "trial": number + 1},
            settings=tried.settings,
            needs_store=False,
            parent=search.run,
        ) as run:
            row = _trained(tried, data, folder)
            run.log_results(row)
        shutil.rmtree(folder)
    score = data.group.share(next((row[name] for name in SCORES if name in row), None))
    if search.folder is not None:
        rate = values["optimisation"]["learning_rate"]
        of = f"{job.key}: {job.role}, trial {number + 1} of {job.params.tuning.trials}"
        told = "the loss was not finite" if score is None else f"validation {score:.4f}"
        sys.stderr.write(f"{of}: learning rate {rate:.3g}: {told}\n")
    return score


def _trained(tried: TrainingJob, data: TrainingData, folder: Path) -> Row:
    """The last row of a trial's epochs; an empty one where its loss was not finite."""
    build = student_training if tried.role == "student" else labelled_training
    training = build(tried, data)
    network, _ = begun_network(tried, data, training)
    try:
        history = fit(tried, data, training, network, folder=folder, on_epoch=lambda _: None)
    except FloatingPointError as error:
        sys.stderr.write(f"{error}\n")
        return {}
    return history[-1]


def _scores(found: Mapping[str, Any], first: int | None = None) -> list[float]:
    """Those of the first trials, or of all."""
    return [one["score"] for one in found["trials"][:first] if one["score"] is not None]
