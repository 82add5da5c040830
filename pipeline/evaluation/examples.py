"""Example queries: where the networks differ most, and some at random, with what each finds."""

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from pipeline.datasets.packs import Pack
from pipeline.views.evaluation import evaluation_view

# Of each kind; a page shows fewer where it has no room.
QUERIES_EACH = 3
RESULTS_EACH = 5
NEAREST = 10  # of the teacher's, which are to be found where there are no classes
THUMBNAIL_PX = 96
SHOWN_PX = 160  # a page shows no picture larger, so a larger view is shrunk to this
LOSSLESS_PX = 64  # up to here a small view keeps each pixel; a larger one is compressed


def choose_queries(
    accuracy: Mapping[str, Float[np.ndarray, " query"]],
    labels: Int[np.ndarray, " query"],
    *,
    each: int,
    seed: int,
) -> dict[str, list[int]]:
    """Rows of queries by the reason for which they are chosen, the most telling first.

    above_naive: where the student's accuracy exceeds that of the teacher fed the same small image
    by most; below_naive: where it falls short of that by most; below_teacher: likewise of the
    teacher's at full size; at_random: drawn from the rest. No row stands twice, the others hold no
    class twice, and only true gains and losses are in them.

    accuracy: of each query by role: teacher, asymmetric and, unless the student sees the full size,
        naive; its average precision, without labels its overlap with the teacher's ten nearest.
        NaN marks a query that is never chosen.
    labels: the class of each query; without classes a number of its own.
    each: at most so many of each kind. seed: of those at random.
    """
    student = accuracy["asymmetric"]
    differences = {"below_teacher": accuracy["teacher"] - student}
    if "naive" in accuracy:
        over = student - accuracy["naive"]
        differences = {"above_naive": over, "below_naive": -over} | differences
    taken = set(np.flatnonzero(np.isnan(student)).tolist())
    chosen = {}
    for reason, difference in differences.items():
        order = np.argsort(-difference, kind="stable")
        of_class: dict[int, int] = {}
        for row in order[difference[order] > 0].tolist():
            if row not in taken:
                of_class.setdefault(int(labels[row]), row)
        chosen[reason] = list(of_class.values())[:each]
        taken |= set(chosen[reason])
    # One order of all rows: the students of a data set then share most of these queries.
    order = np.random.default_rng(seed).permutation(len(student))
    chosen["at_random"] = [row for row in order.tolist() if row not in taken][:each]
    return chosen


def first_results(
    query: Float[Tensor, "query dim"],
    database: Float[Tensor, "query dim"],
    labels: Int[np.ndarray, " query"],
    rows: Sequence[int],
    count: int,
) -> dict[int, list[int]]:
    """For each of some queries the best `count` database rows, its own row left out.

    Ties as in the metrics: a negative stands before a positive that is as similar.
    """
    similarity = (query[list(rows)] @ database.T).cpu().numpy()
    found = {}
    for row, scores in zip(rows, similarity, strict=True):
        order = np.lexsort((labels == labels[row], -scores))
        found[row] = order[order != row][:count].tolist()
    return found


def draw_examples(
    pack: Pack,
    queries: Mapping[str, Float[Tensor, "query dim"]],
    accuracy: Mapping[str, Float[np.ndarray, " query"]],
    *,
    query_px: int,
    seed: int,
) -> dict[str, Any]:
    """The chosen queries, what each role finds for them, and the pictures, as JSON values.

    `images` holds the picture of each row of the pack once, however often it is shown; a query's
    `shown` are the rows of its own picture and of its results', `small` is what the student sees.
    A result is a `hit` if it has the query's class, without classes if it is one of the teacher's
    ten nearest.

    queries: embeddings of the test images by role; those of the teacher are the database, which
        all search. accuracy: of each query by role, as for `choose_queries`.
    query_px: the student's size. seed: of the queries drawn at random.
    """
    test = pack.rows("test")
    labels = pack.labels[test] if pack.labelled else np.arange(len(test))
    chosen = choose_queries(accuracy, labels, each=QUERIES_EACH, seed=seed)
    rows = [row for of_reason in chosen.values() for row in of_reason]
    nearest = first_results(queries["teacher"], queries["teacher"], labels, rows, NEAREST)
    found = {
        role: first_results(own, queries["teacher"], labels, rows, RESULTS_EACH)
        for role, own in queries.items()
    }

    def described(row: int) -> dict[str, Any]:
        image = int(test[row])
        return {"image": image, "name": pack.names[image], "class": pack.class_of(image)}

    def is_hit(row: int, one: int) -> bool:
        return bool(labels[one] == labels[row]) if pack.labelled else one in nearest[row]

    def answer(role: str, row: int) -> dict[str, Any]:
        results = [described(one) | {"hit": is_hit(row, one)} for one in found[role][row]]
        return {"role": role, "accuracy": float(accuracy[role][row]), "results": results}

    examples = []
    for reason, of_reason in chosen.items():
        for row in of_reason:
            shown = test[[row, *(one for results in found.values() for one in results[row])]]
            small = encode_view(evaluation_view(pack.image(int(test[row])), query_px))
            examples.append(
                described(row)
                | {
                    "reason": reason,
                    "shown": np.unique(shown).tolist(),
                    "small": small,
                    "answers": [answer(role, row) for role in queries],
                }
            )
    images = {
        str(row): encode_view(evaluation_view(pack.image(row), THUMBNAIL_PX))
        for row in sorted({row for example in examples for row in example["shown"]})
    }
    return {"queries": examples, "images": images}


def encode_view(view: UInt8[Tensor, "channel height width"]) -> str:
    """A view as the address of a WebP picture, of SHOWN_PX at most."""
    picture = Image.fromarray(view.permute(1, 2, 0).contiguous().numpy())
    if picture.width > SHOWN_PX:
        picture = picture.resize((SHOWN_PX, SHOWN_PX), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    lossless = picture.width <= LOSSLESS_PX
    picture.save(buffer, "WEBP", lossless=lossless, quality=100 if lossless else 72)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
