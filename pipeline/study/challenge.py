"""Two students of one size on the same queries against the current database."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.data.packs import open_pack
from pipeline.models.weights import load_network
from pipeline.retrieval.embeddings import EvaluationViews, embed_views
from pipeline.retrieval.ranking import evaluate_retrieval
from pipeline.study.confidence import paired_bootstrap
from pipeline.workspace import DatasetPaths


@dataclass(frozen=True)
class Comparison:
    """The gain in map of a candidate over a champion, and its interval, as fractions of 1."""

    candidate_map: float
    champion_map: float
    mean: float
    low: float
    high: float
    level: float
    queries: int


def compare_students(
    paths: DatasetPaths,
    candidate: Path,
    champion: Path,
    *,
    seed: int,
    samples: int,
    level: float,
    device: torch.device,
) -> Comparison:
    """Search with both networks for every test image, leave-one-out, in the teacher's database.

    Raises ValueError where a network's embeddings do not fit the database.
    """
    pack = open_pack(paths.pack)
    test = pack.rows("test")
    labels = torch.from_numpy(pack.labels[test])
    database = torch.from_numpy(np.load(paths.database))

    def queries_of(path: Path) -> Tensor:
        network, card = load_network(path, device)
        views = EvaluationViews(pack, test, card.size_px)
        return embed_views(network, views, device, name=f"queries at {card.size_px} px")

    return compare_queries(
        queries_of(candidate),
        queries_of(champion),
        database,
        labels,
        seed=seed,
        samples=samples,
        level=level,
    )


def compare_queries(
    candidate: Float[Tensor, "query dim"],
    champion: Float[Tensor, "query dim"],
    database: Float[Tensor, "query dim"],
    labels: Int[Tensor, " query"],
    *,
    seed: int,
    samples: int,
    level: float,
) -> Comparison:
    """The gain in map of the candidate's queries over the champion's, paired by query."""
    ours = evaluate_retrieval(candidate, database, labels)
    theirs = evaluate_retrieval(champion, database, labels)
    gain = paired_bootstrap(
        ours.query_metrics["average_precision"],
        theirs.query_metrics["average_precision"],
        seed=seed,
        samples=samples,
        level=level,
    )
    return Comparison(
        candidate_map=ours.map,
        champion_map=theirs.map,
        mean=gain.mean,
        low=gain.low,
        high=gain.high,
        level=level,
        queries=len(labels) - ours.excluded_queries,
    )
