"""What a student is trained for: to embed as its teacher does, whatever that one is."""

import numpy as np
import torch
from torch import Tensor

from pipeline.config.losses import least_images
from pipeline.config.recipes import DistillationRecipe
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.models.embedder import Embedder
from pipeline.models.folding import folded
from pipeline.teachers.teacher import open_teacher
from pipeline.training.black_box import vectors_training
from pipeline.training.distillation import DistillationObjective
from pipeline.training.job import TrainingJob, set_up
from pipeline.training.named_losses import loss_of
from pipeline.training.projections import fitted_offset, fitted_projection
from pipeline.training.trainings import Training, TrainingData
from pipeline.views.coupled import cached_decoder


def student_training(job: TrainingJob, data: TrainingData) -> Training:
    """The job's student is drawn to its teacher by the loss of its recipe, without labels."""
    params, recipe = job.params, job.recipe
    assert isinstance(recipe, DistillationRecipe)
    if params.datasets[job.dataset].teacher.kind == "vectors":
        return vectors_training(job, recipe, data)
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
        images_per_batch=recipe.images_per_batch,
        images_per_epoch=recipe.images_per_epoch,
        loss=loss_of(recipe.loss.model_dump(), trained_on, job.seed, data.device),
        least_images=least_images(recipe.loss),
        views=job.view_recipe,
        seed=job.seed,
        device=data.device,
        group=data.group,
    )
    database = embed(data.val) if data.group.is_main else None
    return Training(
        objective,
        card.dim,
        database,
        begin=fitted_projection(job, data, embed),
        end=fitted_offset(job, data, embed),
    )
