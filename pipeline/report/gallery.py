"""What the report shows of one data set: its rows, and queries with their results as pictures."""

import base64
import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import pandas as pd
from PIL import Image
from torch import Tensor

from pipeline.datasets.packs import Pack
from pipeline.paths import DatasetPaths
from pipeline.views.evaluation import evaluation_view

NAMES = ("dataset", "network", "role", "backbone", "gain_over")
THUMBNAIL_PX = 96
SHOWN_PX = 160  # a page shows no picture larger, so a larger view is shrunk to this
LOSSLESS_PX = 64  # up to here a small view keeps each pixel; a larger one is compressed


def report_part(paths: DatasetPaths, pack: Pack) -> dict[str, Any]:
    """Rows of the trade-off, facts of the data set, and a gallery a student, as JSON values.

    Pictures of the results stand once, under the row of the pack, however often they are shown.
    """
    table = pd.read_csv(
        paths.results / "accuracy.csv",
        dtype=dict.fromkeys(NAMES, str),  # a data set may be called 32, or null
        keep_default_na=False,
        na_values=[""],
    )
    rows = json.loads(table.to_json(orient="records", double_precision=15))
    teacher_px = next(row["query_px"] for row in rows if row["role"] == "teacher")
    galleries = [
        _gallery(paths, pack, row["network"], row["query_px"])
        for row in rows
        if row["role"] == "asymmetric"
    ]
    shown = {row for gallery in galleries for query in gallery["queries"] for row in query["shown"]}
    return {
        "dataset": paths.dataset,
        "pack": json.loads(paths.pack_summary.read_text(encoding="utf-8")),
        "teacher_px": teacher_px,
        "rows": rows,
        "galleries": galleries,
        "images": {
            str(row): encode_view(evaluation_view(pack.image(row), THUMBNAIL_PX))
            for row in sorted(shown)
        },
    }


def encode_view(view: Tensor) -> str:
    """A view `[channel, height, width]` as the address of a WebP picture, of SHOWN_PX at most."""
    picture = Image.fromarray(view.permute(1, 2, 0).contiguous().numpy())
    if picture.width > SHOWN_PX:
        picture = picture.resize((SHOWN_PX, SHOWN_PX), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    lossless = picture.width <= LOSSLESS_PX
    picture.save(buffer, "WEBP", lossless=lossless, quality=100 if lossless else 72, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _gallery(paths: DatasetPaths, pack: Pack, student: str, query_px: int) -> dict[str, Any]:
    contrasts = json.loads(paths.contrasts(student).read_text(encoding="utf-8"))
    queries = [_query(pack, contrast, query_px) for contrast in contrasts]
    return {"student": student, "query_px": query_px, "queries": queries}


def _query(pack: Pack, contrast: Mapping[str, Any], query_px: int) -> dict[str, Any]:
    """One query of a gallery; `shown` are the rows of its own picture and of its results'."""
    test = pack.rows("test")
    row = int(test[contrast["query"]])
    results = {role: test[rows].tolist() for role, rows in contrast["results"].items()}
    return _label(pack, row) | {
        "reason": contrast["reason"],
        "shown": sorted({row}.union(*results.values())),
        "small": encode_view(evaluation_view(pack.image(row), query_px)),
        "answers": [
            {
                "role": role,
                "average_precision": contrast["average_precision"][role],
                "results": [
                    _label(pack, result) | {"hit": bool(pack.labels[result] == pack.labels[row])}
                    for result in results[role]
                ],
            }
            for role in ("teacher", "asymmetric", "naive")
            if role in results
        ],
    }


def _label(pack: Pack, row: int) -> dict[str, Any]:
    return {
        "image": row,
        "name": pack.names[row],
        "class": pack.class_names[int(pack.labels[row])],
    }
