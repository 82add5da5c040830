"""Made studies for the tests of the report: rows, pictures and names as a real one has them."""

import base64
from functools import cache
from typing import Any

import torch

from pipeline.evaluation.examples import encode_view
from pipeline.evaluation.roles import OPPONENTS
from pipeline.report.tradeoff import pareto_front

PACK = {
    "kind": "folder",
    "origin": "given",
    "licence": "the user's own",
    "subset": False,
    "images": 900,
    "images_train": 450,
    "images_test": 450,
    "classes": 60,
    "classes_train": 30,
    "classes_test": 30,
    "shorter_side_px_least": 180,
    "shorter_side_px_median": 288.5,
    "shorter_side_px_largest": 1200,
    "images_smaller_than_teacher_px": 7,
    "skipped_unreadable": {"a.jpg": "truncated"},
    "absent": 0,
    "passed_over": 0,
}
PARAMETERS = {
    "seeds": [0],
    "threads": 1,
    "students": {"made-32": {"dataset": "made", "query_px": 32}},
}
SIZES = (64, 48, 32)


def row(dataset: str, network: str, role: str, query_px: int, accuracy: float) -> dict[str, Any]:
    """One row of a trade-off, as `read_part` holds it; values that are absent are None."""
    return {
        "dataset": dataset,
        "subset": False,
        "network": network,
        "role": role,
        "backbone": "timm/made",
        "query_px": query_px,
        "database_px": query_px if role in ("symmetric", "baseline") else 96,
        "map": accuracy,
        "map_low": accuracy - 0.02,
        "map_high": accuracy + 0.02,
        "map_trapezoid": accuracy - 0.01,
        "map_at_r": accuracy / 2,
        "recall_at_1": accuracy + 0.1,
        "queries": 450,
        "excluded_queries": 0,
        "classes": 30,
        "seeds": 1,
        "gmacs": query_px**2 * 4e-6,
        "parameters": 385105,
        "input_bytes": 3 * query_px**2,
        "map_drop": 0.7 - accuracy,
        "map_drop_low": 0.69 - accuracy,
        "map_drop_high": 0.71 - accuracy,
        "headroom_closed": 0.4 if role == "asymmetric" else None,
        **{
            f"map_over_{one}{end}": value if one in OPPONENTS.get(role, ()) else None
            for one in ("naive", "adapter", "baseline", "asymmetric")
            for end, value in (("", 0.1), ("_low", 0.08), ("_high", 0.12))
        },
    }


@cache
def picture(size_px: int, seed: int) -> str:
    """A picture with detail at every scale, which compresses as badly as photographs do."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(1, 3, size_px, size_px)
    for cells, weight in ((4, 90.0), (12, 50.0), (size_px, 30.0)):
        noise = torch.rand(1, 3, cells, cells, generator=generator) - 0.5
        total += weight * torch.nn.functional.interpolate(
            noise, (size_px, size_px), mode="bilinear"
        )
    return encode_view((total[0] + 128).clamp(0, 255).byte())


def part(
    dataset: str,
    students: int = 3,
    queries: int = 3,
    class_name: str = "class",
    roles: tuple[str, ...] = ("asymmetric", "symmetric", "naive", "adapter", "baseline"),
) -> dict[str, Any]:
    """What the report shows of one data set; no picture of a result stands twice."""
    rows = [row(dataset, "teacher", "teacher", 96, 0.7)]
    examples, images = [], {}
    for number in range(students):
        name, px = f"{dataset}-{number}", SIZES[number % 3]
        rows += [
            row(dataset, name, role, px, 0.6 - 0.05 * number - 0.08 * place)
            for place, role in enumerate(roles)
        ]
        asked = []
        for reason in ("above_naive", "below_naive", "below_teacher", "at_random"):
            for _ in range(queries):
                first = len(images)
                labels = [
                    {
                        "image": first + i,
                        "name": f"{class_name}/{first + i}.jpg",
                        "class": class_name,
                    }
                    for i in range(16)
                ]
                images |= {str(first + i): picture(96, (first + i) % 24) for i in range(16)}
                answers = [
                    {
                        "role": role,
                        "accuracy": 0.3 * (place + 1),
                        "results": [
                            label | {"hit": i != place}
                            for i, label in enumerate(labels[1 + 5 * place : 6 + 5 * place])
                        ],
                    }
                    for place, role in enumerate(("teacher", "asymmetric", "naive"))
                ]
                small = picture(px, first % 24)
                asked.append(
                    labels[0]
                    | {
                        "reason": reason,
                        "shown": [label["image"] for label in labels],
                        "small": small,
                        "answers": answers,
                    }
                )
        examples.append({"student": name, "query_px": px, "queries": asked})
    front = pareto_front([one["gmacs"] for one in rows], [one["map"] for one in rows])
    return {
        "dataset": dataset,
        "pack": PACK,
        "rows": [one | {"pareto": on} for one, on in zip(rows, front, strict=True)],
        "examples": examples,
        "images": images,
    }


def large_study() -> list[dict[str, Any]]:
    """Four data sets of ten rows."""
    roles = ("asymmetric", "symmetric", "baseline")
    return [part(name, roles=roles) for name in ("birds", "cars", "products", "emblems")]


def decoded(address: str) -> bytes:
    """The file that a data address holds."""
    return base64.b64decode(address.partition(",")[2])


def without_intervals(made: dict[str, Any]) -> dict[str, Any]:
    """A part as eight test classes give it: no ends of any interval."""
    rows = [
        {name: None if name.endswith(("_low", "_high")) else value for name, value in one.items()}
        | {"classes": 8}
        for one in made["rows"]
    ]
    return made | {"rows": rows}


def without_labels(made: dict[str, Any]) -> dict[str, Any]:
    """A part as images without classes give it: the figures of map are those of overlap_at_10."""
    rows = []
    for one in made["rows"]:
        if one["role"] == "baseline":
            continue
        named = {name: value for name, value in one.items() if not name.startswith("recall")}
        overlap = {
            name.replace("map", "overlap_at_10", 1): named[name]
            for name in named
            if name.startswith(("map", "map_"))
            and name not in ("map_trapezoid", "map_at_r")
            and not name.startswith("map_over_baseline")
        }
        absent = {name: None for name in named if name.startswith("map")}
        is_teachers = one["role"] != "symmetric"
        others = {
            "overlap_at_1": one["map"] / 2,
            "overlap_at_100": None,
            "rbo": one["map"] / 3,
            "self_recall": 0.9 if is_teachers else None,
            "cosine": 0.8 if is_teachers else None,
        }
        rows.append({**named, **absent, **overlap, **others, "classes": 0})
    pack = made["pack"] | dict.fromkeys(("classes", "classes_train", "classes_test"), 0)
    examples = [
        example
        | {
            "queries": [
                query
                | {"class": ""}
                | {
                    "answers": [
                        answer | {"results": [one | {"class": ""} for one in answer["results"]]}
                        for answer in query["answers"]
                    ]
                }
                for query in example["queries"]
            ]
        }
        for example in made["examples"]
    ]
    return made | {"rows": rows, "pack": pack, "examples": examples}
