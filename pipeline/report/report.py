"""The report of a study: one HTML page that needs no network and no other file.

Equal results give equal bytes, for the page is an output that DVC hashes. It therefore holds no
time, no latency and no commit (a commit that changes no result would change it); the commit of each
run stands in the tracking store, and `results_mark` tells whether two pages show the same results.
The versions are those of the environment that wrote the page.
"""

import base64
import hashlib
import io
import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from ruamel.yaml import YAML

from pipeline.report.report_figure import draw_panel
from pipeline.report.tradeoff import SUBSET_NOTE

FOLDER = Path(__file__).parent
TEMPLATE, STYLE, SCRIPT = "report.html.j2", "report.css", "report.js"
NARROW = (380, 360)  # of the figure on a phone, in the units of its drawing
PICTURE_BYTES = 4_000_000  # of all galleries together: the page then stays under 5 MB
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pandas", "pyarrow", "pillow", "faiss-cpu")
ROLES = {
    "teacher": "The teacher at full size, in its own database: the upper bound.",
    "asymmetric": "The student, from small images, in the teacher's database: the method.",
    "symmetric": "The student, in a database made by the student: needs re-indexing.",
    "naive": "The teacher, fed small images, in its own database: without the method.",
    "baseline": "A network trained with labels at the small size, in its own database.",
}
REASONS = {
    "above_naive": "Where the student gains most over the teacher fed the same small image",
    "below_teacher": "Where the student loses most to the teacher at full size",
    "at_random": "Drawn at random",
}


def render_report(
    parts: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any], confidence: float
) -> str:
    """The page, as HTML text.

    parts: one a data set, as `report_part` makes them. parameters: the values of the study that
    the page shows. confidence: level of the intervals, a fraction of 1.
    """
    numbered = _numbered(parts)
    shown, left_out = fit_galleries(numbered, PICTURE_BYTES)
    wide = (980, 460) if len(parts) == 1 else (560, 380)
    panels = {
        part["dataset"]: {
            "wide": draw_panel(part["rows"], *wide),
            "narrow": draw_panel(part["rows"], *NARROW),
        }
        for part in numbered
    }
    style, script = (
        Markup((FOLDER / name).read_text(encoding="utf-8"))  # noqa: S704  (our own files)
        for name in (STYLE, SCRIPT)
    )
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            parts=shown,
            left_out=left_out,
            panels=panels,
            others=any(not mark.own_backbone for p in panels.values() for mark in p["wide"].marks),
            readings=[reading for part in numbered if (reading := _reading(part))],
            rows=[row for part in numbered for row in part["rows"]],
            roles={
                role: note
                for role, note in ROLES.items()
                if any(row["role"] == role for part in parts for row in part["rows"])
            },
            reasons=REASONS,
            subset_note=SUBSET_NOTE,
            parameters=_yaml(parameters),
            versions=_versions(),
            results_mark=_mark(parts),
            confidence=confidence,
            style=style,
            script=script,
            script_hash=_script_hash(script),
        )
    )


def fit_galleries(
    parts: Sequence[Mapping[str, Any]], most_bytes: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """The parts with as many queries as their pictures have room for, and the students left out.

    Each reason keeps its first queries: as many for all students alike; where one each is too many,
    the last students of each data set have no gallery.
    """
    whole = max((len(g["queries"]) for part in parts for g in part["galleries"]), default=0)
    most = max((len(part["galleries"]) for part in parts), default=0)
    ways = [(each, most) for each in range(whole, 0, -1)]
    ways += [(1, students) for students in range(most - 1, 0, -1)]
    for each, students in [*ways, (0, 0)]:
        fitted = [_with_galleries(part, each, students) for part in parts]
        if _picture_bytes(fitted) <= most_bytes:
            break
    return fitted, [g["student"] for part in parts for g in part["galleries"][students:]]


def _with_galleries(part: Mapping[str, Any], each: int, students: int) -> dict[str, Any]:
    galleries = []
    for gallery in part["galleries"][:students]:
        groups = [
            [query for query in gallery["queries"] if query["reason"] == reason][:each]
            for reason in REASONS
        ]
        galleries.append(
            dict(gallery) | {"queries": [query for group in groups for query in group]}
        )
    shown = {row for gallery in galleries for query in gallery["queries"] for row in query["shown"]}
    images = {row: picture for row, picture in part["images"].items() if int(row) in shown}
    return dict(part) | {"galleries": galleries, "images": images}


def _picture_bytes(parts: Sequence[Mapping[str, Any]]) -> int:
    return sum(
        sum(map(len, part["images"].values()))
        + sum(len(query["small"]) for g in part["galleries"] for query in g["queries"])
        for part in parts
    )


def _numbered(parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The parts with their rows numbered through; the page refers to rows by these numbers."""
    first, numbered = 0, []
    for part in parts:
        rows = [dict(row) | {"number": first + place} for place, row in enumerate(part["rows"])]
        numbered.append(dict(part) | {"rows": rows})
        first += len(rows)
    return numbered


def _reading(part: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page's first lines say of a data set: its best student beside its teacher."""
    teacher = next(row for row in part["rows"] if row["role"] == "teacher")
    students = [row for row in part["rows"] if row["role"] == "asymmetric"]
    if not students:
        return None
    best = max(students, key=lambda row: (row["map"], -row["gmacs"]))
    return {"teacher": teacher, "student": best, "times": teacher["gmacs"] / best["gmacs"]}


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": lambda value: f"{100 * value:.1f}",
        "signed": lambda value: f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}"),
        "figures": figures,
    }
    return environment


def figures(value: float, count: int = 3) -> str:
    """A number to `count` significant figures, never with an exponent."""
    if value == 0:
        return "0"
    digits = count - 1 - math.floor(math.log10(abs(value)))
    text = f"{round(value, digits):.{max(0, digits)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _yaml(values: Mapping[str, Any]) -> str:
    yaml = YAML()
    yaml.width = 100
    stream = io.StringIO()
    yaml.dump(dict(values), stream)
    return stream.getvalue()


def _versions() -> dict[str, str]:
    own = {"large-to-small": version("large-to-small"), "Python": platform.python_version()}
    return own | {name: version(name) for name in PACKAGES}


def _mark(parts: Sequence[Mapping[str, Any]]) -> str:
    text = json.dumps([part["rows"] for part in parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _script_hash(script: str) -> str:
    """What the page's policy allows to run: this script and no other."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
