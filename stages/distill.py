"""Distil a student for one query size from the fixed teacher, without labels."""

import numpy as np
import torch
from torch import Tensor

from pipeline.config.losses import least_images
from pipeline.config.params import load_params
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.models.embedder import Embedder
from pipeline.models.folding import folded
from pipeline.teachers.teacher import open_teacher
from pipeline.training.black_box import distil_from_vectors
from pipeline.training.distillation import DistillationObjective
from pipeline.training.job import TrainingData, TrainingJob, run_training, set_up, train_seeds
from pipeline.training.named_losses import loss_of
from pipeline.views.coupled import cached_decoder
from stages import run_stage

# Of the recipe: what the objective takes.
OBJECTIVE = {"images_per_batch", "images_per_epoch"}


def distill(key: str) -> None:
    train_seeds(load_params(), "student", key, _distil)


def _distil(job: TrainingJob, data: TrainingData) -> None:
    params, recipe = job.params, job.params.student_distillation(job.key)
    if params.datasets[job.dataset].teacher.kind == "vectors":
        distil_from_vectors(job, recipe, data)
        return
    opened = open_teacher(job.paths.teacher, data.device)
    teacher, card = opened.network, opened.card
    if isinstance(teacher, Embedder):
        teacher = set_up(folded(teacher, card.size_px), params.compute, data.device)

    def embed(rows: np.ndarray) -> Tensor:
        views = EvaluationViews(data.pack, rows, card.size_px)
        return embed_views(teacher, views, data.device)

    def trained_on() -> Tensor:
        # The same vectors in each process: a GPU's sums may differ in their last digits.
        return data.group.share(embed(data.train) if data.group.is_main else torch.empty(0))

    objective = DistillationObjective(
        decode=cached_decoder(data.pack),
        rows=data.train,
        teacher=teacher,
        teacher_px=card.size_px,
        student_px=job.size_px,
        **recipe.model_dump(include=OBJECTIVE),
        loss=loss_of(recipe.loss.model_dump(), trained_on, job.seed, data.device),
        least_images=least_images(recipe.loss),
        views=job.view_recipe,
        seed=job.seed,
        device=data.device,
        group=data.group,
    )
    database = embed(data.val) if data.group.is_main else None
    run_training(job, data, objective, card.dim, database)


if __name__ == "__main__":
    run_stage(distill)
