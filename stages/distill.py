"""Distil a student for one query size from the fixed teacher, without labels."""

import torch
from torch import nn

from pipeline.config.params import Params, Student, load_params
from pipeline.datasets.packs import open_pack, validation_split
from pipeline.devices import resolve_device
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.models.folding import folded
from pipeline.models.weights import NetworkCard, build_embedder, load_network, weights_files
from pipeline.paths import DatasetPaths
from pipeline.training.checkpoints import Row
from pipeline.training.distillation import DistillationObjective
from pipeline.training.job import TrainingJob, run_training, schedule_of, set_up, view_recipe_of
from pipeline.training.team import Team, joined_team, start_team
from pipeline.views.coupled import cached_decoder
from stages import run_stage


def distill(key: str) -> None:
    params = load_params()
    student = params.students[key]
    start_team(params.compute.processes)
    device = resolve_device(params.threads)
    with joined_team(params.compute.processes, device) as team:
        _distill(params, key, student, device, team)


def _distill(params: Params, key: str, student: Student, device: torch.device, team: Team) -> None:
    dataset = params.datasets[student.dataset]
    network = params.student_network(key)
    recipe = params.student_distillation(key)
    paths = DatasetPaths(student.dataset)
    pack = open_pack(paths.pack)
    teacher, teacher_card = load_network(paths.teacher, device)
    teacher = set_up(folded(teacher, teacher_card.size_px), params.compute, device)
    fitting, validating = validation_split(pack, dataset.validation_share)
    small_views = EvaluationViews(pack, validating, student.query_px)
    labels = torch.from_numpy(pack.labels[validating])
    if len(validating) and team.leads:
        large_views = EvaluationViews(pack, validating, teacher_card.size_px)
        database = embed_views(teacher, large_views, device)

    def validate(model: nn.Module) -> Row:
        """Asymmetric map on the held-out training classes."""
        if not len(validating):
            return {}
        queries = embed_views(model, small_views, device)
        return {"validation_map": evaluate_retrieval(queries, database, labels).map}

    job = TrainingJob(
        stage="distill",
        key=key,
        role="student",
        dataset=student.dataset,
        card=NetworkCard(
            network.backbone, teacher_card.dim, student.query_px, network.mean, network.std
        ),
        settings={
            "seed": params.seed,
            "threads": params.threads,
            "size_px": student.query_px,
            "validation_share": dataset.validation_share,
            **params.compute.model_dump(),
            **network.model_dump(),
            **recipe.model_dump(),
        },
        inputs=(paths.pack, paths.teacher, *weights_files(network.weights)),
        output=paths.student(key),
        keep_best=params.tracking.keep_best,
    )
    objective = DistillationObjective(
        decode=cached_decoder(pack),
        rows=fitting,
        teacher=teacher,
        teacher_px=teacher_card.size_px,
        student_px=student.query_px,
        recipe=view_recipe_of(recipe),
        images_per_batch=recipe.images_per_batch,
        images_per_epoch=recipe.images_per_epoch,
        lambda_ts=recipe.lambda_ts,
        lambda_ss=recipe.lambda_ss,
        seed=params.seed,
        device=device,
        team=team,
    )
    model = build_embedder(
        network.backbone,
        teacher_card.dim,
        weights=network.weights,
        seed=params.seed,
        mean=network.mean,
        std=network.std,
    )
    model = set_up(model, params.compute, device)
    run_training(job, model, objective, schedule_of(recipe, network), validate, team)


if __name__ == "__main__":
    run_stage(distill)
