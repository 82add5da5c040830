"""The model card of an exported query encoder, in Markdown, and the figures that it shows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from pipeline.config.params import Params
from pipeline.datasets.packs import open_pack
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.cells import Bootstrap, evaluate_setups, student_setups
from pipeline.export.parity import LARGEST_DIFFERENCE, Parity
from pipeline.files import read_json
from pipeline.models.query_encoder import short_side_px
from pipeline.models.weights import NetworkCard, read_card
from pipeline.paths import DatasetPaths, locked_dependencies, locked_outputs
from pipeline.search.search import TEACHER, NamedNetwork, QueryNetwork

Row = Mapping[str, Any]
TEMPLATE = Path(__file__).with_name("card.md.j2")
COUNTS = ("images_train", "classes_train", "images_test", "classes_test")


@dataclass(frozen=True)
class ExportedNetwork:
    """What the card tells of. `rows` are those of results/DATASET/cells/KEY.json, by role.

    `version` is that of the champion, `level` of the intervals, `data` what is known of the images.
    """

    key: str
    dataset: str
    card: NetworkCard
    rows: Mapping[str, Row]
    latencies_ms: Mapping[str, float]
    data: Mapping[str, Any]
    level: float
    version: str | None = None


def describe_network(params: Params, named: NamedNetwork, network: QueryNetwork) -> ExportedNetwork:
    """What is known of the network. Raises ValueError when no study has evaluated it.

    A champion that is not the last student, and a student that was retrained since the study, are
    evaluated here, on the test images of the present pack.
    """
    paths = DatasetPaths(named.dataset)
    cell, timings = paths.cell(named.key), paths.timings(named.key)
    if not cell.exists():
        raise ValueError(f"{named.key} is not evaluated yet ({cell}): run `l2s study`")
    rows = read_json(cell)
    main_row(rows)
    return ExportedNetwork(
        key=named.key,
        dataset=named.dataset,
        card=read_card(named.path),
        rows=rows if _are_of(named, paths) else _evaluate(params, named, network, paths),
        latencies_ms=read_json(timings) if timings.exists() else {},
        data=read_json(paths.pack_summary),
        level=params.evaluation.confidence,
        version=network.version,
    )


def model_card(
    exported: ExportedNetwork,
    parity: Parity,
    versions: Mapping[str, str],
    *,
    int8: Parity | None = None,
    vectors: Float[np.ndarray, "database dim"] | None = None,
) -> str:
    """The card: what it is, how to use it, accuracy with intervals, cost, data, use and limits.

    int8: of the encoder in 8 bits, vectors: of the database that goes out with it, where there is
    one. Raises ValueError for results without the row of a search in the teacher's database.
    """
    from jinja2 import Environment, StrictUndefined

    row = main_row(exported.rows)
    recalls = {column for row in exported.rows.values() for column in row if "recall_at_" in column}
    data = {"kind": None, "licence": None} | dict(exported.data)
    environment = Environment(  # noqa: S701  (of Markdown)
        undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        vars(exported)
        | {
            "row": {"subset": False} | dict(row),
            "level": f"{exported.level:.0%}",
            "columns": ["map_trapezoid", "map_at_r"]
            + sorted(recalls, key=lambda column: int(column.rpartition("_")[2])),
            "latency_ms": exported.latencies_ms.get(str(row["role"])),
            "short_px": short_side_px(exported.card.size_px),
            "data": data,
            "counts": ", ".join(
                f"{data[key]} {key.replace('_', ' ')}" for key in COUNTS if key in data
            ),
            "parity": parity,
            "allowed": LARGEST_DIFFERENCE,
            "versions": versions,
            "int8": int8,
            "vectors": vectors,
        }
    )


def main_row(rows: Mapping[str, Row]) -> Row:
    """The row of searching the teacher's database. Raises ValueError where there is none."""
    for role in ("asymmetric", "teacher"):
        if role in rows:
            return rows[role]
    raise ValueError(f"the results hold {', '.join(rows) or 'no row'}: run `l2s study`")


def _are_of(named: NamedNetwork, paths: DatasetPaths) -> bool:
    """Whether dvc.lock says that the results were made of this network and the present pack.

    Results that dvc.lock does not know of were not made by DVC: they are believed.
    """
    is_teacher = named.key == TEACHER
    trained = paths.teacher if is_teacher else paths.student(named.key)
    key = named.dataset if is_teacher else named.key
    seen = locked_dependencies(f"evaluate@{key}")
    if not seen:
        return True
    outputs = locked_outputs()
    stage = f"train_teacher@{key}" if is_teacher else f"distill@{key}"
    network = named.champion.md5 if named.champion else outputs.get(stage, {}).get(str(trained))
    pack = outputs.get(f"prepare@{named.dataset}", {}).get(str(paths.pack))
    return (seen.get(str(trained)), seen.get(str(paths.pack))) == (network, pack)


def _evaluate(
    params: Params, named: NamedNetwork, network: QueryNetwork, paths: DatasetPaths
) -> Mapping[str, Row]:
    pack = open_pack(paths.pack)
    test = pack.rows("test")
    views = EvaluationViews(pack, test, network.size_px)
    contenders = student_setups(
        network.network,
        read_card(named.path),
        embed_views(network.network, views, network.device, name="evaluating anew"),
        torch.from_numpy(np.load(paths.database)),
        read_card(paths.teacher).size_px,
    )
    if named.key == TEACHER:
        contenders = [replace(contenders[0], role=TEACHER)]
    evaluation = params.evaluation
    rows, _ = evaluate_setups(
        contenders,
        torch.from_numpy(pack.labels[test]),
        params.datasets[named.dataset].recall_at,
        Bootstrap(evaluation.bootstrap_samples, evaluation.confidence, params.seed),
    )
    origin = {"dataset": named.dataset, "subset": pack.is_subset, "network": named.key}
    return {row["role"]: {**origin, **row} for row in rows}
