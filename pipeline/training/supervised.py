"""The supervised training that teacher and baseline share."""

from torch import Tensor, nn

from pipeline.config.params import load_params
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.training.job import Role, TrainingJob, run_training, training_data
from pipeline.training.metric_learning import TripletObjective
from pipeline.views.coupled import cached_decoder

# Of the recipe: what the objective takes.
OBJECTIVE = {
    *("classes_per_batch", "images_per_class", "margin"),
    *("negatives_per_anchor", "negative_pool", "distance_floor"),
}


def train_supervised(role: Role, key: str) -> None:
    """Train the teacher of the data set `key`, or the baseline of the student `key`."""
    params = load_params()
    job = TrainingJob(params, role, key)
    with training_data(job) as data:
        rows, group = data.train, data.group
        own = EvaluationViews(data.pack, rows[group.part(len(rows))], job.size_px)

        def embed_pool(network: nn.Module) -> Tensor:
            """Embeddings of all training images; each process computes its `own`."""
            return group.gather(embed_views(network, own, data.device), len(rows))

        objective = TripletObjective(
            decode=cached_decoder(data.pack),
            labels=data.pack.labels,
            rows=rows,
            size_px=job.size_px,
            **job.recipe.model_dump(include=OBJECTIVE),
            views=job.view_recipe,
            embed_pool=embed_pool,
            seed=params.seed,
            device=data.device,
            group=group,
        )
        run_training(job, data, objective, job.network.dim)
