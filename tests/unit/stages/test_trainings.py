"""What the training stages make of params.yaml: the objective of each loss, not yet trained."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.datasets.packs import open_pack
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.files import write_json
from pipeline.models.weights import build_embedder
from pipeline.paths import DatasetPaths, code_file, further_seeds
from pipeline.tracking.store import open_store
from pipeline.tracking.sync import sync_waiting
from pipeline.training import supervised, trainings
from pipeline.training.metric_learning import LabelledObjective, TripletObjective
from pipeline.training.trainings import Training
from stages import distill
from tests.integration.workspace import set_params
from tests.made_study import BACKBONE, DIM, make_finished_study

RECIPE = {"images_per_batch": 6, "views": 1}
LOSSES: dict[str, dict[str, Any]] = {
    "anchors": {"kind": "anchors", "centroids": 5, "temperature": 0.1, "absolute_weight": 0.5},
    "csd": {
        "kind": "csd",
        "neighbours": 4,
        "student_temperature": 1.0,
        "teacher_temperature": 0.01,
    },
}
LOSSES["bank"] = LOSSES["csd"] | {"gallery": "bank"}
STUDENTS = {
    name: {"dataset": "emblems", "query_px": 16, "distillation": RECIPE | {"loss": loss}}
    for name, loss in LOSSES.items()
}
PROXIES = {"kind": "proxy_anchor", "margin": 0.1, "alpha": 32.0, "proxy_rate": 100.0}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_finished_study(tmp_path_factory.mktemp("finished") / "study")


@pytest.fixture
def study(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    """What trainings were started with; none is run."""
    started: list[Training] = []

    def note(_: object, __: object, training: Training) -> None:
        started.append(training)

    monkeypatch.setattr(trainings, "run_training", note)
    monkeypatch.setattr(trainings, "close_work_folders", lambda *_: None)
    return started


def first_terms(objective: Any) -> dict[str, float]:
    network = build_embedder(BACKBONE, DIM, weights="random", seed=3)
    rows = objective.batches(0)[0]
    terms = objective.terms(network, objective.load(0, 0, rows))
    return {name: value.item() for name, value in terms.items()}


def test_a_student_is_distilled_by_its_own_loss(study: Path, trained: list[Training]) -> None:
    set_params(study, {"students": STUDENTS})
    for name in STUDENTS:
        write_json(DatasetPaths("emblems").tuning(name), {})
        distill.distill(name)
    anchors, csd, bank = (training.objective for training in trained)
    assert len(anchors.loss.keywords["centroids"]) == 5
    assert {len(rows) for rows in csd.batches(0)} == {6, 8}  # 20 images: the last 2 join
    assert (anchors.least_images, csd.least_images, bank.least_images) == (1, 5, 1)
    assert csd.loss.keywords["gallery"] is None
    pack = open_pack(DatasetPaths("emblems").pack)
    plain = EvaluationViews(pack, bank.rows, bank.teacher_px)
    vectors = embed_views(bank.teacher, plain, bank.device)
    torch.testing.assert_close(bank.loss.keywords["gallery"], vectors)
    assert first_terms(bank)["csd"] != first_terms(csd)["csd"]
    terms = first_terms(anchors)
    assert terms.keys() == {"absolute", "anchors"}
    assert min(terms.values()) > 0


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_a_store_that_is_lost_after_the_first_seed_stops_no_other(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_params(study, {"seeds": [0, 1]})
    uri, paths = f"sqlite:///{study}/mlflow.db", DatasetPaths("emblems")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for file in (paths.initial("teacher"), code_file("train_teacher")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("made")
    fit = trainings.fit

    def lost(*given: Any, **named: Any) -> Any:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9/")
        return fit(*given, **named)

    monkeypatch.setattr(trainings, "fit", lost)
    supervised.train_supervised("teacher", "emblems")
    assert (further_seeds(paths.teacher) / "1.safetensors").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    store = open_store()
    assert len(sync_waiting(store)) == 1
    found = store.runs("tags.role = 'teacher'")
    assert [run.info.status for run in found] == ["FINISHED"] * 2


def test_a_network_whose_embeddings_are_no_numbers_is_told(study: Path) -> None:
    pack = open_pack(DatasetPaths("emblems").pack)
    network = build_embedder(BACKBONE, DIM, weights="random", seed=3)
    network.projection.bias.data.fill_(torch.nan)
    views = EvaluationViews(pack, pack.rows("train")[:4], 16)
    with pytest.raises(FloatingPointError, match="a lower learning_rate"):
        trainings._validate(views, None, network)


def test_a_teacher_learns_by_the_loss_that_is_named(study: Path, trained: list[Training]) -> None:
    supervised.train_supervised("teacher", "emblems")
    set_params(study, {"datasets.emblems.teacher.loss": PROXIES})
    supervised.train_supervised("teacher", "emblems")
    plain, by_proxies = trained
    assert isinstance(plain.objective, TripletObjective)
    assert plain.objective.margin == 0.7
    assert plain.proxies is None
    objective = by_proxies.objective
    assert isinstance(objective, LabelledObjective)
    assert by_proxies.proxies.rate == 100
    (proxies,) = by_proxies.proxies.module.parameters()
    assert proxies.shape == (4, DIM)  # of the six training classes two validate
    terms = first_terms(objective)
    assert terms.keys() == {"proxy_anchor"}
    assert terms["proxy_anchor"] > 0
