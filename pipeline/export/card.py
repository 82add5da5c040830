"""The model card of an exported query encoder, in Markdown, and the figures that it shows."""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from jinja2 import StrictUndefined, Template

from pipeline.config.params import Params
from pipeline.datasets.packs import open_pack
from pipeline.datasets.reader import natural_key
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.accuracy import accuracy_of
from pipeline.evaluation.agreement import COLUMNS as AGREEMENT
from pipeline.evaluation.calibration import calibrate_network
from pipeline.evaluation.cells import Bootstrap, evaluate_setups, student_setups
from pipeline.export.parity import LARGEST_DIFFERENCE
from pipeline.files import read_json
from pipeline.models.licences import data_licence, weights_licences
from pipeline.models.query_encoder import short_side_px
from pipeline.models.torch_encoder import TorchEncoder
from pipeline.models.weights import read_card
from pipeline.paths import DatasetPaths, locked_dependencies, locked_outputs
from pipeline.search.search import TEACHER, NamedNetwork
from pipeline.teachers.teacher import open_teacher_or_vectors

MAPS = ("map_trapezoid", "map_at_r")
COUNTS = ("images_train", "classes_train", "images_test", "classes_test")


def describe_network(params: Params, named: NamedNetwork, network: TorchEncoder) -> dict[str, Any]:
    """What the card tells of the network: accuracy with intervals, cost, data.

    A champion that is not the last student, and a student that was retrained since the study, are
    evaluated here, on the test images of the present pack. Raises ValueError when no study has
    evaluated the network.
    """
    paths = DatasetPaths(named.dataset)
    cell = paths.cell(named.key)
    if not cell.exists():
        raise ValueError(f"{named.key} is not evaluated yet ({cell}): run `l2s study`")
    if _are_of(named, paths):
        rows, found = read_json(cell), paths.calibration(named.key)
        calibration = read_json(found) if found.exists() else None  # empty: no image validates
    else:
        rows, calibration = _evaluate(params, named, network, paths)
    role = "asymmetric" if "asymmetric" in rows else TEACHER
    recalls = {column for row in rows.values() for column in row if "recall_at_" in column}
    data = read_json(paths.pack_summary)
    return {
        "key": named.key,
        "dataset": named.dataset,
        "version": named.version,
        "card": read_card(named.path),
        "short_px": short_side_px(network.size_px),
        "rows": rows,
        "calibration": calibration,
        "by": accuracy_of(rows[role]),
        "row": rows[role],
        "columns": [
            column
            for column in (*MAPS, *sorted(recalls, key=natural_key), *AGREEMENT)
            if any(row.get(column) is not None for row in rows.values())
        ],
        "level": f"{params.evaluation.confidence:.0%}",
        "data": data,
        "licences": {
            "data": data_licence(params, named.dataset, data.get("licence")),
            **weights_licences(params, named.dataset, named.key),
        },
        "teacher_kind": params.datasets[named.dataset].teacher.kind,
        "counts": ", ".join(
            f"{data[key]} {key.replace('_', ' ')}" for key in COUNTS if data.get(key)
        ),
    }


def model_card(
    described: Mapping[str, Any],
    parity: Mapping[str, Any],
    vectors: Float[np.ndarray, "database dim"] | None,
    shorter: Sequence[Mapping[str, Any]],
) -> str:
    """The card: what it is, how to use it, accuracy with intervals, cost, data, use and limits.

    described: by `describe_network`. parity: the content of parity.json. vectors: of the database
    that goes out with the encoder, if one does. shorter: by `shorter_vectors`.
    """
    template = Template(
        Path(__file__).with_name("card.md.j2").read_text(encoding="utf-8"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return template.render(
        described, parity=parity, allowed=LARGEST_DIFFERENCE, vectors=vectors, shorter=shorter
    )


def _are_of(named: NamedNetwork, paths: DatasetPaths) -> bool:
    """Whether dvc.lock says that the results were made of this network and the present pack.

    Results that dvc.lock does not know of were not made by DVC: they are believed.
    """
    key = named.dataset if named.key == TEACHER else named.key
    seen = locked_dependencies().get(f"evaluate@{key}", {})
    made = ChainMap(*locked_outputs().values())
    trained, pack = str(replace(named, champion=None).path), str(paths.pack)
    network = named.champion.md5 if named.champion else made.get(trained)
    return not seen or (seen.get(trained), seen.get(pack)) == (network, made.get(pack))


def _evaluate(
    params: Params, named: NamedNetwork, network: TorchEncoder, paths: DatasetPaths
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The rows of the network by role, as in the cells, and its calibration."""
    pack = open_pack(paths.pack)
    test, share = pack.rows("test"), params.datasets[named.dataset].validation_share
    database, calibration = torch.from_numpy(np.load(paths.database, mmap_mode="c")), None
    teacher = open_teacher_or_vectors(paths.teacher, network.device)
    views = EvaluationViews(pack, test, network.size_px)
    contenders = student_setups(
        network.network,
        read_card(named.path),
        embed_views(network.network, views, network.device, name="evaluating anew"),
        database,
        teacher.size_px,
    )
    if named.key == TEACHER:
        contenders = [replace(contenders[0], role=TEACHER)]
    else:
        student = network.network, network.size_px
        calibration = calibrate_network(pack, share, student, teacher, network.device)
    rows, _ = evaluate_setups(
        contenders,
        torch.from_numpy(pack.labels[test]) if pack.labelled else None,
        params.datasets[named.dataset].recall_at,
        Bootstrap(
            params.evaluation.bootstrap_samples, params.evaluation.confidence, params.seeds[0]
        ),
        teacher=database,
    )
    origin = {"dataset": named.dataset, "subset": pack.is_subset, "network": named.key}
    by_role = {row["role"]: origin | row for row in rows}
    return by_role, None if calibration is None else calibration.content()
