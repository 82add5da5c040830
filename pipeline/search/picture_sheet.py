"""A self-contained HTML page of queries and what was found for them."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from pipeline.datasets.normalisation import UnreadableImage
from pipeline.search.databases import Database, Hit
from pipeline.search.pictures import thumbnail

THUMBNAIL_PX = 144

_STYLE = """
:root { color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif; }
body { margin: 1.5rem; background: Canvas; color: CanvasText; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin: 1.5rem 0 .5rem; overflow-wrap: anywhere; }
ol { display: flex; flex-wrap: wrap; gap: .75rem; padding: 0; margin: 0; list-style: none; }
figure { margin: 0; width: 9rem; } img, .gone { width: 9rem; height: 9rem; object-fit: contain;
  background: color-mix(in srgb, CanvasText 8%, Canvas); border-radius: 6px; }
.gone { display: grid; place-items: center; }
.query img { outline: 3px solid Highlight; }
figcaption { font-size: .8rem; overflow-wrap: anywhere; } .error { color: #b3261e; }
@media (prefers-color-scheme: dark) { .error { color: #ff8a80; } }
@media print { section { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class AnsweredQuery:
    """A query by the name that the user gave, its file, and its results or what is wrong."""

    name: str
    encoded: bytes
    hits: Sequence[Hit]
    error: str | None = None


def picture_sheet(queries: Sequence[AnsweredQuery], database: Database, title: str) -> str:
    """The page as HTML: a row a query, itself first, then its results. It loads nothing."""
    sections = "\n".join(_section(query, database) for query in queries)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main><h1>{escape(title)}</h1>\n{sections}\n</main></body></html>\n"
    )


def _section(query: AnsweredQuery, database: Database) -> str:
    head = f"<section><h2>{escape(query.name)}</h2>"
    if query.error is not None:
        return f'{head}<p class="error">{escape(query.error)}</p></section>'
    figures = [
        f'<li class="query">{_figure(_picture(query.encoded, "the query"), "the query")}</li>'
    ]
    for hit in query.hits:
        is_told = not hit.class_name or hit.name.startswith(f"{hit.class_name}/")
        name = hit.name if is_told else f"{hit.class_name}: {hit.name}"
        caption = f"{hit.rank}. {hit.similarity:.3f} {name}"
        figures.append(f"<li>{_figure(_stored(database, hit), caption)}</li>")
    return f"{head}<ol>{''.join(figures)}</ol></section>"


def _figure(picture: str, caption: str) -> str:
    broken = re.sub(r"([/_])", r"\1<wbr>", escape(caption))  # where a line may end
    return f"<figure>{picture}<figcaption>{broken}</figcaption></figure>"


def _stored(database: Database, hit: Hit) -> str:
    try:
        return _picture(database.read(hit.row), hit.name)
    except UnreadableImage:
        return '<span class="gone">file is gone</span>'


def _picture(encoded: bytes, name: str) -> str:
    data = base64.b64encode(thumbnail(encoded, THUMBNAIL_PX)).decode()
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(name, quote=True)}">'
