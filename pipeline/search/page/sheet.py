"""A self-contained HTML page of queries and what was found for them."""

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets.decode import UnreadableImage
from pipeline.search.databases import Database, Hit
from pipeline.search.pictures import thumbnail

THUMBNAIL_PX = 144
TEMPLATE = Path(__file__).with_name("sheet.html.j2")


@dataclass(frozen=True)
class AnsweredQuery:
    """A query by the name that the user gave, its file, and its results or what is wrong."""

    name: str
    encoded: bytes
    hits: Sequence[Hit]
    error: str | None = None

    def picture(self) -> str:
        """Its thumbnail, as base64."""
        return _thumbnail(self.encoded)

    def found(self, database: Database) -> Iterator[tuple[str | None, str]]:
        """The thumbnail of each result, None where its file is gone, and its caption."""
        for hit in self.hits:
            is_told = not hit.class_name or hit.name.startswith(f"{hit.class_name}/")
            name = hit.name if is_told else f"{hit.class_name}: {hit.name}"
            try:
                picture = _thumbnail(database.read(hit.row))
            except UnreadableImage:
                picture = None
            yield picture, f"{hit.rank}. {hit.similarity:.3f} {name}"


def picture_sheet(queries: Sequence[AnsweredQuery], database: Database, title: str) -> str:
    """The page as HTML: a row a query, itself first, then its results. It loads nothing."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters["breakable"] = _breakable
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(queries=queries, database=database, title=title)


def _breakable(caption: str) -> object:
    """The caption with places where a line may end."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"([/_])", r"\1<wbr>", str(escape(caption))))  # noqa: S704  (escaped)


def _thumbnail(encoded: bytes) -> str:
    return base64.b64encode(thumbnail(encoded, THUMBNAIL_PX)).decode()
