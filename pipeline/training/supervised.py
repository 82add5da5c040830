"""The supervised training that teacher and baseline share."""

from functools import partial

from torch import Tensor, nn

from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.training.job import TrainingData, TrainingJob, run_training, training_data
from pipeline.training.metric_learning import TripletObjective
from pipeline.views.coupled import cached_decoder

OF_THE_SCHEDULE = {"accumulation_steps", "optimisation", "augmentation"}


def train_supervised(job: TrainingJob) -> None:
    """Train by the triplet recipe of the job."""
    with training_data(job.params, job.dataset) as data:
        own = data.train[data.group.part(len(data.train))]
        objective = TripletObjective(
            decode=cached_decoder(data.pack),
            labels=data.pack.labels,
            rows=data.train,
            size_px=job.size_px,
            recipe=job.view_recipe,
            embed_pool=partial(_embed_pool, data, EvaluationViews(data.pack, own, job.size_px)),
            seed=job.params.seed,
            device=data.device,
            group=data.group,
            **job.recipe.model_dump(exclude=OF_THE_SCHEDULE),
        )
        run_training(job, data, objective, job.network.dim)


def _embed_pool(data: TrainingData, own: EvaluationViews, network: nn.Module) -> Tensor:
    """Embeddings of all training images; each process computes its `own`."""
    return data.group.gather(embed_views(network, own, data.device), len(data.train))
