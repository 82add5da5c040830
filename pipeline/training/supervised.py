"""The supervised training that teacher and baseline share."""

from typing import Any

import numpy as np
from torch import Tensor, nn

from pipeline.config.losses import LabelLoss, MultiSimilarityLoss, TripletsLoss
from pipeline.config.params import load_params
from pipeline.config.recipes import TrainedTeacher
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.training.job import Role, TrainingJob
from pipeline.training.metric_learning import LabelledObjective, TripletObjective
from pipeline.training.schedule import Proxies
from pipeline.training.trainings import Training, TrainingData, train_seeds
from pipeline.views.coupled import cached_decoder


def train_supervised(role: Role, key: str) -> None:
    """Train the teacher of the data set `key`, or the baseline of the student `key`."""
    train_seeds(load_params(), role, key, labelled_training)


def labelled_training(job: TrainingJob, data: TrainingData) -> Training:
    """What a network that learns from labels is trained for, by the loss of its recipe."""
    recipe = job.training
    assert isinstance(recipe, TrainedTeacher)
    loss = recipe.loss
    if isinstance(loss, TripletsLoss):
        return Training(triplets(job, data, loss), job.network.dim)
    objective, proxies = labelled(job, data, loss)
    return Training(objective, job.network.dim, proxies=proxies)


def triplets(job: TrainingJob, data: TrainingData, loss: TripletsLoss) -> TripletObjective:
    """The paper's loss of labels."""
    rows, group = data.train, data.group
    own = EvaluationViews(data.pack, rows[group.part(len(rows))], job.size_px)

    def embed_pool(network: nn.Module) -> Tensor:
        """Embeddings of all training images; each process computes its `own`."""
        return group.gather(embed_views(network, own, data.device), len(rows))

    return TripletObjective(
        **shared_values(job, data), **loss.model_dump(exclude={"kind"}), embed_pool=embed_pool
    )


def labelled(
    job: TrainingJob, data: TrainingData, loss: LabelLoss
) -> tuple[LabelledObjective, Proxies | None]:
    """Another loss of labels, with what it learns itself, if it does."""
    from pipeline.training.label_losses import label_loss, shared_by

    classes = len(np.unique(data.pack.labels[data.train]))
    values = loss.model_dump(exclude={"kind", "proxy_rate"})
    module = label_loss(loss.kind, values, classes, job.network.dim, job.seed)
    shared_by(data.group, module.to(data.device))
    objective = LabelledObjective(**shared_values(job, data), name=loss.kind, loss=module)
    if isinstance(loss, MultiSimilarityLoss):
        return objective, None
    return objective, Proxies(module, loss.proxy_rate)


def shared_values(job: TrainingJob, data: TrainingData) -> dict[str, Any]:
    """What every objective of labels takes."""
    return {
        "decode": cached_decoder(data.pack),
        "labels": data.pack.labels,
        "rows": data.train,
        "size_px": job.size_px,
        **job.training.model_dump(include={"classes_per_batch", "images_per_class"}),
        "views": job.view_recipe,
        "seed": job.seed,
        "device": data.device,
        "group": data.group,
    }
