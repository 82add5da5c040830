"""The training with labels that teacher and baseline share, from params.yaml to a saved network."""

from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.config.params import Params
from pipeline.config.recipes import Network
from pipeline.datasets.packs import open_pack, validation_split
from pipeline.devices import resolve_device
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.models.weights import NetworkCard, build_embedder, weights_files
from pipeline.paths import DatasetPaths
from pipeline.training.checkpoints import Row
from pipeline.training.job import TrainingJob, run_training, schedule_of, set_up, view_recipe_of
from pipeline.training.metric_learning import TripletObjective
from pipeline.training.team import Team, joined_team, start_team
from pipeline.views.coupled import cached_decoder


def train_with_labels(
    params: Params, dataset_name: str, network: Network, *, stage: str, key: str, size_px: int
) -> None:
    """Train `network` on images of `size_px` by the data set's labelled recipe."""
    start_team(params.compute.processes)
    device = resolve_device(params.threads)
    with joined_team(params.compute.processes, device) as team:
        _train(params, dataset_name, network, stage, key, size_px, device, team)


def _train(
    params: Params,
    dataset_name: str,
    network: Network,
    stage: str,
    key: str,
    size_px: int,
    device: torch.device,
    team: Team,
) -> None:
    dataset = params.datasets[dataset_name]
    paths = DatasetPaths(dataset_name)
    pack = open_pack(paths.pack)
    fitting, validating = validation_split(pack, dataset.validation_share)
    pool_views = EvaluationViews(pack, fitting[team.part(len(fitting))], size_px)
    validation_views = EvaluationViews(pack, validating, size_px)
    labels = torch.from_numpy(pack.labels[validating])

    def embed_pool(model: nn.Module) -> Tensor:
        return team.gather(embed_views(model, pool_views, device), len(fitting))

    def validate(model: nn.Module) -> Row:
        if not len(validating):
            return {}
        vectors = embed_views(model, validation_views, device)
        return {"validation_map": evaluate_retrieval(vectors, vectors, labels).map}

    is_teacher = stage == "train_teacher"
    recipe = dataset.teacher
    job = TrainingJob(
        stage=stage,
        key=key,
        role="teacher" if is_teacher else "baseline",
        dataset=dataset_name,
        card=NetworkCard(network.backbone, network.dim, size_px, network.mean, network.std),
        settings={
            "seed": params.seed,
            "threads": params.threads,
            "size_px": size_px,
            "validation_share": dataset.validation_share,
            **params.compute.model_dump(),
            **network.model_dump(),
            **recipe.model_dump(),
        },
        inputs=(paths.pack, *weights_files(network.weights)),
        output=_output(paths, key, is_teacher),
        keep_best=params.tracking.keep_best,
    )
    objective = TripletObjective(
        decode=cached_decoder(pack),
        labels=pack.labels,
        rows=fitting,
        size_px=size_px,
        recipe=view_recipe_of(recipe),
        classes_per_batch=recipe.classes_per_batch,
        images_per_class=recipe.images_per_class,
        margin=recipe.margin,
        negatives_per_anchor=recipe.negatives_per_anchor,
        negative_pool=recipe.negative_pool,
        distance_floor=recipe.distance_floor,
        embed_pool=embed_pool,
        seed=params.seed,
        device=device,
        team=team,
    )
    model = build_embedder(
        network.backbone,
        network.dim,
        weights=network.weights,
        seed=params.seed,
        mean=network.mean,
        std=network.std,
    )
    model = set_up(model, params.compute, device)
    run_training(job, model, objective, schedule_of(recipe, network), validate, team)


def _output(paths: DatasetPaths, key: str, is_teacher: bool) -> Path:
    return paths.teacher if is_teacher else paths.baseline(key)
