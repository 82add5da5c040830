"""A self-contained HTML page of queries and what was found for them."""

import base64
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template

from pipeline.datasets.decode import UnreadableImage
from pipeline.search.pictures import thumbnail

THUMBNAIL_PX = 144


def picture_sheet(
    queries: Sequence[Mapping[str, Any]],
    read_query: Callable[[str], bytes],
    read_row: Callable[[int], bytes],
    title: str,
) -> str:
    """The page as HTML: a row a query, itself first, then its results. It loads nothing.

    queries: as `Searcher.search` gives them; a result with `is_right` is marked as right or wrong.
    read_query, read_row: give the encoded picture of a query's name and of a row of the database,
    or raise UnreadableImage.
    """
    template = Path(__file__).with_name("sheet.html.j2").read_text(encoding="utf-8")
    look = Path(__file__).parents[2].joinpath("look.css").read_text(encoding="utf-8")
    return Template(template, autoescape=True, undefined=StrictUndefined).render(
        queries=queries,
        title=title,
        look=look,
        query_picture=partial(_thumbnail, read_query),
        row_picture=partial(_thumbnail, read_row),
    )


def _thumbnail(read: Callable[[Any], bytes], key: object) -> str | None:
    """A thumbnail as base64; None where the file is gone."""
    try:
        return base64.b64encode(thumbnail(read(key), THUMBNAIL_PX, str(key))).decode()
    except UnreadableImage:
        return None
