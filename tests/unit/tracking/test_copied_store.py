"""A workspace that was copied or moved: its record names its own files, never the first one's."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.tracking.registry import add_version, fetch_network, find_champion, promote
from pipeline.tracking.store import Store, TrackingError, open_store, require_store
from tests.made_runs import training

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own


def enter(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Work there; by an address of its own, as MLflow keeps one connection an address."""
    patch.chdir(folder)
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a training of two epochs, whose network is a champion."""
    folder = tmp_path_factory.mktemp("copied") / "100 % \u00e9's"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        train("f1", 2)
        store = open_store()
        network = folder / "a-64.safetensors"
        network.write_text("champion")
        (run,) = store.runs("")
        promote(store, add_version(store, "emblems-64px", network, run.info.run_id, {}))
    return folder


def train(fingerprint: str, epochs: int) -> None:
    with training(fingerprint, keep_best=1) as run:
        for epoch in range(1, epochs + 1):
            run.log_epoch({"epoch": epoch, "validation_map": epoch / 10}, save)


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.parent.name)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def addresses(store: Store) -> set[str]:
    """All that MLflow's own interface tells of where files lie."""
    client, ids = store.client, [store.experiment_id]
    (version,) = client.search_model_versions("name = 'emblems-64px'")
    return {
        client.get_experiment(store.experiment_id).artifact_location,
        *(run.info.artifact_uri for run in client.search_runs(ids)),
        *(model.artifact_location for model in client.search_logged_models(ids)),
        version.source,
        client.get_model_version_download_uri(version.name, version.version),
    }


@pytest.fixture
def workspace(finished: Path, tmp_path: Path) -> Path:
    """One that a test may change, in its own place."""
    folder = tmp_path / "first" / "mlruns"
    folder.parent.mkdir()
    shutil.copytree(finished, folder)
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        open_store()
    return folder


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_copy_continues_a_training_and_leaves_the_first_untouched(
    finished: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, is_gone: bool
) -> None:
    copy = workspace.parent / "copy of it"
    shutil.copytree(workspace, copy)
    before = files(workspace), files(finished)
    if is_gone:
        shutil.rmtree(workspace)
    enter(copy, monkeypatch)
    train("f1", 3)  # the file of epoch 1 or 2 is not among the best any more: it is pruned
    train("f2", 1)
    if not is_gone:
        assert (files(workspace), files(finished)) == before
    store = open_store()
    assert all(one.startswith(f"{copy.as_uri()}/mlartifacts") for one in addresses(store))
    kept = [model for model in models(store) if model.tags.get("file") == "kept"]
    assert len(kept) == 2
    for model in kept:
        store.client.list_logged_model_artifacts(model.model_id)
    champion = find_champion(store, "emblems-64px")
    assert champion is not None
    assert fetch_network(store, champion, str(copy)).read_text() == "champion"


def models(store: Store) -> list["LoggedModel"]:
    return list(store.client.search_logged_models([store.experiment_id]))


def test_a_moved_workspace_and_one_behind_a_link_work_on(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    link = tmp_path / "link"
    link.symlink_to(workspace)
    enter(link, monkeypatch)
    require_store()
    assert "it names the files here now" not in capsys.readouterr().err
    moved = workspace.rename(tmp_path / "moved")
    enter(moved, monkeypatch)
    require_store()
    assert f"was made in {workspace}" in capsys.readouterr().err
    require_store()
    assert capsys.readouterr().err == ""
    assert all(one.startswith(f"{moved.as_uri()}/mlartifacts") for one in addresses(open_store()))


def test_a_database_without_its_files_is_refused_with_the_remedy(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(workspace / "mlflow.db", tmp_path)
    before = files(workspace)
    enter(tmp_path, monkeypatch)
    with pytest.raises(TrackingError, match=f"which lie in {workspace}/mlartifacts: copy that"):
        require_store()
    with pytest.raises(TrackingError):
        train("f2", 1)
    (tmp_path / "mlartifacts").mkdir()
    train("f2", 1)
    assert files(workspace) == before


def test_a_place_that_the_user_chose_for_files_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(tmp_path, monkeypatch)
    from mlflow import MlflowClient

    for place in ("s3://bucket/mlartifacts", (tmp_path / "elsewhere").as_uri()):
        (tmp_path / "mlflow.db").unlink(missing_ok=True)
        uri = f"sqlite:///{tmp_path}/{'./' if place.startswith('s3') else ''}mlflow.db"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        made = MlflowClient(uri).create_experiment("large-to-small", artifact_location=place)
        store = open_store()
        assert store.experiment_id == made
        assert store.client.get_experiment(made).artifact_location == place
