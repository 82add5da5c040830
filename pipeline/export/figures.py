"""The figures that a model card shows: those of the results, if they are of this very network."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config.params import Params
from pipeline.datasets.packs import open_pack
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.cells import Bootstrap, RetrievalSetup, evaluate_setups
from pipeline.export.card import main_row
from pipeline.models.weights import read_card
from pipeline.paths import DatasetPaths, locked_dependencies, locked_outputs
from pipeline.search.search import TEACHER, NamedNetwork, QueryNetwork


def figures_of(
    params: Params, named: NamedNetwork, network: QueryNetwork
) -> Mapping[str, Mapping[str, Any]]:
    """Rows by role, as in results/DATASET/cells/KEY.json.

    A champion that is not the last student, and a student that was retrained since the study, are
    evaluated here, on the test images of the present pack. Raises ValueError for a network that no
    study has evaluated.
    """
    cell = DatasetPaths(named.dataset).cell(named.key)
    if not cell.exists():
        raise ValueError(f"{named.key} is not evaluated yet ({cell}): run `l2s study`")
    rows = read_table(cell)
    main_row(rows)
    return rows if _are_of(named) else _evaluate(params, named, network)


def read_table(path: Path) -> dict[str, Any]:
    """A JSON file of names and values. Raises ValueError for one that is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is damaged ({error}): run `l2s study`") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: is damaged (no table of names and values): run `l2s study`")
    return found


def _are_of(named: NamedNetwork) -> bool:
    """Whether dvc.lock says that the results were made of this network and the present pack.

    Results that dvc.lock does not know of were not made by DVC: they are believed.
    """
    paths = DatasetPaths(named.dataset)
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
    params: Params, named: NamedNetwork, network: QueryNetwork
) -> Mapping[str, Mapping[str, Any]]:
    paths = DatasetPaths(named.dataset)
    pack = open_pack(paths.pack)
    test = pack.rows("test")
    views = EvaluationViews(pack, test, network.size_px)
    queries = embed_views(network.network, views, network.device, name="evaluating anew")
    database = torch.from_numpy(np.load(paths.database))
    card, teacher_px = read_card(named.path), read_card(paths.teacher).size_px
    role = "teacher" if named.key == TEACHER else "asymmetric"
    setups = [RetrievalSetup(role, network.network, card, teacher_px, queries, database)]
    if role == "asymmetric":
        setups.append(
            RetrievalSetup("symmetric", network.network, card, card.size_px, queries, queries)
        )
    evaluation = params.evaluation
    rows, _ = evaluate_setups(
        setups,
        torch.from_numpy(pack.labels[test]),
        params.datasets[named.dataset].recall_at,
        Bootstrap(evaluation.bootstrap_samples, evaluation.confidence, params.seed),
    )
    origin = {"dataset": named.dataset, "subset": pack.is_subset, "network": named.key}
    return {row["role"]: {**origin, **row} for row in rows}
