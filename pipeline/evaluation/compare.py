"""Two students of one size on the same queries against the current database."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.datasets.packs import Pack, open_pack
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.accuracy import MAP, OVERLAP, Accuracy
from pipeline.evaluation.agreement import Search, measure_agreement
from pipeline.evaluation.cells import Bootstrap
from pipeline.evaluation.confidence import paired_bootstrap
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.models.weights import NotFiniteError, load_network, read_card
from pipeline.paths import DatasetPaths

LEAST_SPREAD = 0.01  # of unit embeddings; untrained networks reach 0.1


@dataclass(frozen=True)
class Comparison:
    """The accuracy of a candidate, its gain over a champion's, and the interval of that gain at a
    confidence `level`, as fractions of 1. The interval's ends are None where there are too few
    `units` of the queries: classes, or without labels the images themselves.
    """

    by: Accuracy
    candidate: float
    champion: float
    gain: float
    gain_low: float | None
    gain_high: float | None
    level: float
    queries: int
    units: int

    def metrics(self) -> dict[str, float]:
        """What the record of a decision holds of it, by the names of the accuracy."""
        column = self.by.column
        found = {
            column: self.candidate,
            f"champion_{column}": self.champion,
            f"{column}_gain": self.gain,
            f"{column}_gain_low": self.gain_low,
            f"{column}_gain_high": self.gain_high,
            "level": self.level,
            "queries": self.queries,
            self.by.units: self.units,
        }
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Incompatible:
    """The champion's embedding space is not the database's: it gives way without a comparison."""

    reason: str


@dataclass(frozen=True)
class Unfit:
    """The candidate can search no database of this teacher, whoever the champion is."""

    reason: str


def compare_networks(
    paths: DatasetPaths,
    candidate: Path,
    champion: Path | None,
    bootstrap: Bootstrap,
    device: torch.device,
    *,
    same_teacher: bool,
) -> Comparison | Incompatible | Unfit | None:
    """Search with both networks for every test image, leave-one-out, in the teacher's database.

    A wrong dimension is found in their cards, before anything is embedded. Another error says
    nothing of either network, and is not caught here. None: it is fit, and there is no champion.

    candidate, champion: files of the networks; None where nobody leads.
    same_teacher: whether the champion learned from the teacher that embedded the database.

    Raises ValueError where images and database, or the champion's embeddings, cannot be used.
    """
    database = torch.from_numpy(np.load(paths.database, mmap_mode="c"))
    dim = database.shape[1]
    wrong_dims = {
        path: f"its embeddings have dimension {own_dim}, those of the database {dim}"
        for path in (candidate, champion)
        if path and (own_dim := read_card(path).dim) != dim
    }
    if candidate in wrong_dims:
        return Unfit(wrong_dims[candidate])
    pack = open_pack(paths.pack)
    try:
        queries = _embed_queries(pack, candidate, device)
    except NotFiniteError as error:
        return Unfit(str(error))
    if fault := find_fault(queries):
        return Unfit(fault)
    if champion is None:
        return None
    if champion in wrong_dims:
        return Incompatible(wrong_dims[champion])
    if not same_teacher:
        return Incompatible("it learned from another teacher than the one of the database")
    theirs = _embed_queries(pack, champion, device)
    if fault := find_fault(theirs):
        raise ValueError(f"the champion cannot be compared with: {fault}: see `l2s rollback`")
    labels = torch.from_numpy(pack.labels[pack.rows("test")]) if pack.labelled else None
    return compare_queries(queries, theirs, database, labels, bootstrap)


def find_fault(queries: Float[Tensor, "query dim"]) -> str:
    """What keeps unit embeddings from ranking anything; empty for nothing.

    They must be finite, and lie further than `LEAST_SPREAD` (root mean square) from their mean.
    """
    broken = int((~queries.isfinite()).any(dim=1).sum())
    if broken:
        return f"{broken} of {len(queries)} embeddings hold NaN or infinite values"
    spread = float((queries - queries.mean(dim=0)).square().sum(dim=1).mean().sqrt())
    if spread < LEAST_SPREAD:
        all_same = f"all {len(queries)} embeddings are the same"
        return f"{all_same} (they spread {spread:.1g} at unit length)"
    return ""


def _embed_queries(pack: Pack, path: Path, device: torch.device) -> Float[Tensor, "query dim"]:
    network, card = load_network(path, device)
    views = EvaluationViews(pack, pack.rows("test"), card.size_px)
    return embed_views(network, views, device, name=f"queries at {card.size_px} px")


def compare_queries(
    candidate: Float[Tensor, "query dim"],
    champion: Float[Tensor, "query dim"],
    database: Float[Tensor, "database dim"],
    labels: Int[Tensor, " query"] | None,
    bootstrap: Bootstrap,
) -> Comparison:
    """The gain of the candidate's queries over the champion's, paired by query.

    It is that in map, and without labels in the overlap with the teacher's ten nearest, whose
    interval is over the query images.
    """
    if labels is None:
        searches = {"candidate": Search(candidate), "champion": Search(champion)}
        found = measure_agreement(searches, database)
        by, units = OVERLAP, np.arange(len(candidate))
        ours, theirs = (found[name][by.column] for name in searches)
        means = [float(ours.mean()), float(theirs.mean())]
    else:
        by, units = MAP, labels.numpy()
        results = [evaluate_retrieval(one, database, labels) for one in (candidate, champion)]
        ours, theirs = (one.query_metrics["average_precision"] for one in results)
        means = [one.map for one in results]
    gain = paired_bootstrap(ours, theirs, units, **asdict(bootstrap))
    asked = units[~np.isnan(ours)]
    return Comparison(
        by=by,
        candidate=means[0],
        champion=means[1],
        gain=gain.mean,
        gain_low=gain.low,
        gain_high=gain.high,
        level=bootstrap.level,
        queries=len(asked),
        units=len(np.unique(asked)),
    )
