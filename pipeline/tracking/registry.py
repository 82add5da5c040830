"""Champions: the registered model of each query resolution, its versions, and who leads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.files import file_md5
from pipeline.tracking.store import Store, TrackingError, has_store, open_store, tracking_errors

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
LINE = "line"  # tag of a model: its champions, the first one first, each once
OWN_TAGS = {"network", "md5", "teacher_md5"}  # of every version of this program


@dataclass(frozen=True)
class Version:
    """One student network that was, is, or might have been the champion of its resolution.

    Its tags are `network`, the key of the student in params.yaml, `md5` of its file, and
    `teacher_md5` of the teacher that it learned from; once it was judged `decision`, `reason`, and
    `question`, a hash of what they depended on.
    """

    model: str
    version: str
    tags: Mapping[str, str]

    def tag(self, name: str) -> str:
        """A tag that every version of this program has. Raises ValueError where it is missing."""
        if name not in self.tags:
            raise ValueError(
                f"{self.model} version {self.version}: has no tag {name!r}, so it is none of this "
                "program's: give the alias back to one of those in MLflow"
            )
        return self.tags[name]


def model_name(dataset: str, query_px: int) -> str:
    return f"{dataset}-{query_px}px"


@tracking_errors()
def champions(store: Store, condition: str | None = None) -> list[Version]:
    """The versions that lead now, of the models that meet a condition in MLflow's words;
    without one those of this program: a server may hold other models.
    """
    page = store.client.search_registered_models(condition)
    models = list(page)
    while page.token:
        page = store.client.search_registered_models(condition, page_token=page.token)
        models += page
    found = [
        _version(store.client.get_model_version(model.name, str(model.aliases[CHAMPION])))
        for model in models
        if CHAMPION in model.aliases
    ]
    return [one for one in found if condition or one.tags.keys() >= OWN_TAGS]


def find_champion(store: Store, model: str) -> Version | None:
    """The version that leads now."""
    return next(iter(champions(store, f"name = '{model}'")), None)


def find_versions(store: Store, model: str, md5: str) -> list[Version]:
    """The versions that hold the network of that MD5."""
    found = store.client.search_model_versions(f"name = '{model}'")
    return [_version(one) for one in found if one.tags.get("md5") == md5]


def add_version(
    store: Store, model: str, network: Path, run_id: str, tags: Mapping[str, str]
) -> Version:
    """Register a network with a file of its own, which no pruning of checkpoints touches."""
    client = store.client
    if not client.search_registered_models(f"name = '{model}'"):
        client.create_registered_model(model)
    tags = {"md5": file_md5(network), "network": network.stem, **tags}
    logged = client.create_logged_model(
        store.experiment_id, name=model, source_run_id=run_id, tags=tags, model_type="candidate"
    )
    client.log_model_artifact(logged.model_id, str(network))
    client.finalize_logged_model(logged.model_id, "READY")
    source = logged.artifact_location
    made = client.create_model_version(model, source, run_id, tags, model_id=logged.model_id)
    return _version(made)


def read_line(store: Store, model: str) -> list[str]:
    """The versions that lead or led and were not rolled back, the first one first."""
    return store.client.get_registered_model(model).tags.get(LINE, "").split()


def promote(store: Store, version: Version) -> None:
    """Let a version lead: the last of the line of champions, in which none stands twice."""
    now = find_champion(store, version.model)
    line = [*_line_before(store, now), now.version] if now else []
    _lead(store, version, [number for number in line if number != version.version])


def find_champion_of(store: Store, now: Version, teacher_md5: str) -> Version:
    """The champion of a teacher: the present one, or else the last before it that learned from that
    teacher. Where none did, the present one.
    """
    if now.tag("teacher_md5") == teacher_md5:
        return now
    return _last_before(store, now, teacher_md5) or now


def find_previous(store: Store, now: Version, teacher_md5: str) -> Version:
    """The champion of a teacher before the present one. Raises ValueError where there is none."""
    if found := _last_before(store, now, teacher_md5):
        return found
    if not _line_before(store, now):
        raise ValueError(f"{now.model}: version {now.version} is the first champion of its size")
    raise ValueError(
        f"{now.model}: the champions before version {now.version} learned from another teacher, so "
        "that they cannot search its database: bring back the results of that teacher first (`git "
        "checkout` and `dvc checkout`)"
    )


def step_back(store: Store, now: Version, before: Version) -> None:
    """Let a champion before lead again. The line gets shorter: the present one has left it."""
    line = _line_before(store, now)
    _lead(store, before, [number for number in line if number != before.version])


def _last_before(store: Store, now: Version, teacher_md5: str) -> Version | None:
    """The last champion before the present one that learned from a teacher."""
    found = store.client.search_model_versions(f"name = '{now.model}'")
    own = {
        one.version: one
        for one in map(_version, found)
        if one.tags.get("teacher_md5") == teacher_md5
    }
    line = [number for number in _line_before(store, now) if number in own]
    return own[line[-1]] if line else None


def _lead(store: Store, version: Version, before: list[str]) -> None:
    """The line follows the alias: where this is broken off, it is as after a move by hand."""
    line = " ".join([*before, version.version])
    store.client.set_registered_model_alias(version.model, CHAMPION, version.version)
    store.client.set_registered_model_tag(version.model, LINE, line)


def _line_before(store: Store, now: Version) -> list[str]:
    """The versions that led before the present one; all, if it was let lead in MLflow by hand."""
    line = read_line(store, now.model)
    return line[: line.index(now.version)] if now.version in line else line


def fetch_network(store: Store, version: Version, folder: str) -> Path:
    """The network of a version, in `folder`. Raises ValueError when it is not what it was."""
    from mlflow.artifacts import download_artifacts

    source = store.client.get_model_version_download_uri(version.model, version.version)
    file = f"{source}/{version.tag('network')}.safetensors"
    path = Path(download_artifacts(file, dst_path=folder, tracking_uri=store.client.tracking_uri))
    if file_md5(path) != version.tag("md5"):
        raise ValueError(
            f"{version.model} version {version.version}: its file in {source} has changed: put one "
            f"of MD5 {version.tag('md5')} back (champions/ may hold a copy)"
        )
    return path


def champion_lines() -> list[str]:
    """For `l2s status`: the champion of each query resolution. A lost store is a line, no error."""
    none = ["no champion yet: l2s retrain names the first ones"]
    if not has_store():
        return none
    try:
        found = champions(open_store())
    except TrackingError as error:
        return [f"champions: {error}"]
    return [
        f"champion of {one.model}: version {one.version}, {one.tag('network')}" for one in found
    ] or none


def _version(found: "ModelVersion") -> Version:
    return Version(found.name, str(found.version), dict(found.tags))
