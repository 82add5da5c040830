"""The line of champions: rollbacks walk it backwards and come to an end, whatever led again."""

from functools import partial
from pathlib import Path

import pytest

from pipeline.tracking.registry import (
    Version,
    add_version,
    champions,
    fetch_network,
    find_champion,
    find_champion_of,
    find_previous,
    promote,
    step_back,
)
from pipeline.tracking.store import Store, open_store

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One for all tests, each with a model of its own."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        return open_store()


def versions(
    store: Store, model: str, count: int, folder: Path, teacher: str = "t"
) -> list[Version]:
    network = folder / "network.safetensors"
    network.write_text(model)
    run_id = store.client.create_run(store.experiment_id).info.run_id
    tags = {"teacher_md5": teacher} if teacher else {}
    return [add_version(store, model, network, run_id, tags) for _ in range(count)]


def leader(store: Store, model: str) -> Version:
    found = find_champion(store, model)
    assert found is not None
    return found


def rollbacks(store: Store, model: str, count: int) -> list[str]:
    """Who leads after each rollback; after that many there is none before."""
    seen = []
    for _ in range(count):
        now = leader(store, model)
        step_back(store, now, find_previous(store, now, "t"))
        seen.append(leader(store, model).version)
    now = leader(store, model)
    with pytest.raises(ValueError, match=f"version {now.version} is the first champion"):
        find_previous(store, now, "t")
    return seen


@pytest.mark.parametrize(
    ("promoted", "then"),
    [
        ("1", []),
        ("12", ["1"]),
        ("123", ["2", "1"]),
        ("121", ["2"]),  # 1 led again after 2: it stands in the line once
        ("1231", ["3", "2"]),
        ("12312", ["1", "3"]),
        ("1122", ["1"]),
    ],
)
def test_rollbacks_come_to_an_end(
    store: Store, tmp_path: Path, promoted: str, then: list[str]
) -> None:
    made = versions(store, model := f"line-{promoted}", 3, tmp_path)
    for number in promoted:
        promote(store, made[int(number) - 1])
    assert rollbacks(store, model, len(then)) == then


def test_what_was_rolled_back_from_is_not_come_back_to(store: Store, tmp_path: Path) -> None:
    one, two, three, other = versions(store, "line", 4, tmp_path)
    for version in (one, two):
        promote(store, version)
    assert rollbacks(store, "line", 1) == ["1"]
    promote(store, three)
    assert rollbacks(store, "line", 1) == ["1"]
    promote(store, two)  # judged before
    assert rollbacks(store, "line", 1) == ["1"]
    store.client.set_registered_model_alias("line", "champion", other.version)  # by hand
    assert rollbacks(store, "line", 1) == ["1"]


def test_champions_of_another_teacher_are_passed_over(store: Store, tmp_path: Path) -> None:
    one, two = versions(store, "shared", 2, tmp_path)
    (other,) = versions(store, "shared", 1, tmp_path, teacher="other")
    for version in (one, other, two):
        promote(store, version)
    now = leader(store, "shared")
    found = [find_champion_of(store, now, teacher).version for teacher in ("t", "other", "new")]
    assert found == [two.version, other.version, two.version]
    step_back(store, now, find_previous(store, now, "t"))
    now = leader(store, "shared")
    assert now.version == one.version
    assert find_champion_of(store, now, "other").version == other.version
    with pytest.raises(ValueError, match="champions before version 1 learned from another teacher"):
        find_previous(store, now, "t")


def test_a_version_without_its_tags_is_refused_in_words(store: Store, tmp_path: Path) -> None:
    (one,) = versions(store, "bare", 1, tmp_path, teacher="")
    with pytest.raises(ValueError, match="bare version 1: has no tag 'teacher_md5'"):
        _ = one.tag("teacher_md5")


def test_models_of_others_are_none_of_ours_and_all_pages_are_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = versions(store, "ours", 1, tmp_path)
    promote(store, one)
    (foreign,) = versions(store, "foreign", 1, tmp_path, teacher="")
    store.client.set_registered_model_alias("foreign", "champion", foreign.version)
    search = partial(store.client.search_registered_models, max_results=1)
    monkeypatch.setattr(store.client, "search_registered_models", search)
    names = [found.model for found in champions(store)]
    assert "ours" in names
    assert "foreign" not in names
    assert leader(store, "foreign").version == foreign.version  # by its name it is found


def test_a_network_is_held_to_its_hash(store: Store, tmp_path: Path) -> None:
    (one,) = versions(store, "held", 1, tmp_path)
    assert fetch_network(store, one, str(tmp_path / "a")).read_text() == "held"
    (file,) = (path for path in _artifacts(store) if path.read_text() == "held")
    file.write_text("hold")
    with pytest.raises(ValueError, match=r"held version 1: its file in .* has changed"):
        fetch_network(store, one, str(tmp_path / "b"))


def _artifacts(store: Store) -> list[Path]:
    location = store.client.get_experiment(store.experiment_id).artifact_location
    return list(Path(location.removeprefix("file://")).rglob("network.safetensors"))
