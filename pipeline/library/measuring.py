"""Two sets of embeddings measured exactly, with a result that can be shown as pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.evaluation import ranking
from pipeline.evaluation.examples import first_results
from pipeline.files import write_text

Vectors = Float[Tensor, "row dim"] | Float[np.ndarray, "row dim"]
Labels = Int[Tensor, " row"] | Int[np.ndarray, " row"] | Sequence[int] | Sequence[str] | pd.Series
SHEET_ROW_EM = 17  # of a frame: a query with its results in one line


@dataclass(frozen=True)
class PictureSheet:
    """A page of pictures that loads nothing. A notebook shows it in a frame of its own."""

    html: str
    rows: int

    def write(self, path: str | Path) -> None:
        """Write the page to a file, in the place of one that is there."""
        write_text(Path(path), self.html)

    def _repr_html_(self) -> str:
        height_em = 6 + SHEET_ROW_EM * self.rows
        return (
            f'<iframe sandbox srcdoc="{escape(self.html)}" title="queries and what they find" '
            f'style="width:100%;height:{height_em}em;border:0"></iframe>'
        )


@dataclass(frozen=True, eq=False)
class Evaluation(ranking.RetrievalResult):
    """A `RetrievalResult`, with what it was made of: embeddings, and the class of each row.

    classes: the name of each class; `labels` are places in it.
    """

    query: Float[Tensor, "query dim"]
    database: Float[Tensor, "query dim"]
    labels: Int[np.ndarray, " query"]
    classes: Sequence[str]

    def show(
        self,
        read: Callable[[int], bytes],
        names: Sequence[str] | None = None,
        *,
        queries: Sequence[int] | None = None,
        k: int = 6,
    ) -> PictureSheet:
        """Queries, and the `k` rows nearest to each but its own, marked as right or wrong.

        read: the encoded picture of a row, such as the `read` of a database; the page says where a
            file is gone (`UnreadableImage`).
        names: of each row; None: its number.
        queries: rows, one or more, each shown once; None: the six of least average precision.
        Raises ValueError for a row that is not there, `k` under 1, and names of another number.
        """
        from pipeline.search.page.sheet import picture_sheet

        precision = self.query_metrics["average_precision"]
        chosen = np.argsort(precision)[:6].tolist() if queries is None else map(int, queries)
        rows = list(dict.fromkeys(chosen))
        if not rows or min(rows) < 0 or max(rows) >= len(precision) or k < 1:
            raise ValueError(
                f"queries = {rows}, k = {k}: must be rows from 0 to {len(precision) - 1}, and 1 or "
                "more results"
            )
        if names is not None and len(names) != len(precision):
            raise ValueError(f"{len(names)} names of {len(precision)} rows: must be one a row")
        names = None if names is None else list(names)  # an array or a column has no truth value
        found = first_results(self.query, self.database, self.labels, rows, k)
        similarity = (self.query[rows] @ self.database.T).cpu().numpy()
        titles = {self._title(row, names): row for row in rows}
        described = [
            {
                "image": title,
                "results": [
                    self._described(row, one, rank, float(scores[one]), names)
                    for rank, one in enumerate(found[row], 1)
                ],
            }
            for (title, row), scores in zip(titles.items(), similarity, strict=True)
        ]
        page = picture_sheet(
            described, lambda title: read(titles[title]), read, "Queries and what they find"
        )
        return PictureSheet(page, len(rows))

    def _title(self, row: int, names: Sequence[str] | None) -> str:
        precision = float(self.query_metrics["average_precision"][row])
        shown = "no other of its class" if np.isnan(precision) else f"AP {100 * precision:.1f} %"
        return f"row {row}, {names[row] if names else self.classes[self.labels[row]]}: {shown}"

    def _described(
        self, row: int, one: int, rank: int, similarity: float, names: Sequence[str] | None
    ) -> dict[str, Any]:
        return {
            "rank": rank,
            "row": one,
            "similarity": similarity,
            "name": names[one] if names else f"row {one}",
            "class_name": self.classes[self.labels[one]],
            "is_right": bool(self.labels[one] == self.labels[row]),
        }

    def _repr_html_(self) -> str:
        shares = {"mAP": self.map, "mAP@R": self.map_at_r}
        shares |= {f"R@{k}": share for k, share in self.recall_at.items()}
        head = "".join(f"<th>{name} %</th>" for name in shares)
        body = "".join(f"<td>{100 * share:.1f}</td>" for share in shares.values())
        used = len(self.labels) - self.excluded_queries
        return (
            f"<table><caption>{used} queries, leave-one-out</caption>"
            f"<tr>{head}</tr><tr>{body}</tr></table>"
        )


def evaluate_retrieval(
    query: Vectors,
    database: Vectors,
    labels: Labels,
    *,
    recall_at: Sequence[int] = (1, 2, 4, 8),
) -> Evaluation:
    """Exact leave-one-out metrics: every image a query against the database of all the others.

    query, database: embeddings `[query, dim]`, both float32 or both float64; row i of both is the
        same image and is left out of its own result. They are compared by dot product.
    labels: the class of each row, as integers or as names; the others of its class are a query's
        positives.
    recall_at: the k of recall at k, each 1 or more.

    The means are fractions of 1 over the queries that have a positive: `map` (full ranking),
    `map_trapezoid`, `map_at_r`, `recall_at`; `per_query` is a pandas table of a row a query,
    `excluded_queries` counts those without a positive, `show` makes a page of pictures.
    Definitions, sources and errors (ValueError): `pipeline.evaluation.ranking.evaluate_queries`.
    """
    tensors = (_tensor(query), _tensor(database))
    listed = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if listed.dtype == object and all(isinstance(one, str) for one in listed.ravel()):
        listed = listed.astype(str)  # a column of pandas
    if listed.dtype.kind not in "iuU":
        raise ValueError(f"labels are {listed.dtype}: must be integers or names")
    if listed.dtype.kind == "U" and (listed == "").any():
        raise ValueError("labels: images without a class, of which nothing says what is right")
    classes, places = np.unique(listed, return_inverse=True)
    result = ranking.evaluate_retrieval(*tensors, torch.from_numpy(places), recall_at=recall_at)
    names = [str(one) for one in classes]
    return Evaluation(
        **vars(result), query=tensors[0], database=tensors[1], labels=places, classes=names
    )


def _tensor(vectors: Vectors) -> Float[Tensor, "row dim"]:
    """The same numbers; those of an array are copied, as a mapped file must not be written to."""
    return vectors.detach() if isinstance(vectors, Tensor) else torch.tensor(np.asarray(vectors))
