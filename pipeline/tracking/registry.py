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


class RegistryError(ValueError):
    """The registry does not hold what was asked for."""


@dataclass(frozen=True)
class Version:
    """One student network that was, is, or might have been the champion of its resolution."""

    model: str
    version: str
    tags: Mapping[str, str]

    @property
    def md5(self) -> str:
        return self._tag("md5")

    @property
    def model_id(self) -> str:
        """Of the logged model that holds its file; kept as a tag, since MLflow forgets it."""
        return self._tag("model_id")

    @property
    def network(self) -> str:
        """The key of the student in params.yaml."""
        return self._tag("network")

    @property
    def teacher_md5(self) -> str:
        """Of the teacher that it learned from."""
        return self._tag("teacher_md5")

    def _tag(self, name: str) -> str:
        if name not in self.tags:
            raise RegistryError(
                f"{self.model} version {self.version}: has no tag {name!r}, so it is none of this "
                "program's: give the alias back to one of those in MLflow"
            )
        return self.tags[name]


def model_name(dataset: str, query_px: int) -> str:
    return f"{dataset}-{query_px}px"


def find_champion(store: Store, model: str) -> Version | None:
    """The version that leads now."""
    from mlflow.exceptions import MlflowException

    try:
        return _version(store.client.get_model_version_by_alias(model, CHAMPION))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def find_versions(store: Store, model: str, md5: str) -> list[Version]:
    """The versions that hold the network of that MD5: it has been judged before."""
    found = store.client.search_model_versions(f"name = '{model}'")
    return [_version(one) for one in found if one.tags.get("md5") == md5]


def add_version(
    store: Store, model: str, network: Path, run_id: str, tags: Mapping[str, str]
) -> Version:
    """Register a network with a file of its own, which no pruning of checkpoints touches."""
    from mlflow.exceptions import MlflowException

    client = store.client
    try:
        client.create_registered_model(model)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    facts = {"md5": file_md5(network), **tags}
    logged = client.create_logged_model(
        store.experiment_id, name=model, source_run_id=run_id, tags=facts, model_type="candidate"
    )
    client.log_model_artifact(logged.model_id, str(network), None)
    client.set_logged_model_tags(logged.model_id, {"network_file": network.name})
    client.finalize_logged_model(logged.model_id, "READY")
    made = client.create_model_version(
        model,
        logged.artifact_location,
        run_id=run_id,
        tags={**facts, "model_id": logged.model_id},
        model_id=logged.model_id,
    )
    return _version(made)


def promote(store: Store, version: Version) -> None:
    """Let a version lead: the last of the line of champions, in which none stands twice."""
    now = find_champion(store, version.model)
    line = [*_line_before(store, now), now.version] if now else []
    _lead(store, version, [number for number in line if number != version.version])


def find_previous(store: Store, now: Version) -> Version:
    """The champion before the present one. Raises RegistryError where there is none."""
    before = _line_before(store, now)
    if not before:
        raise RegistryError(f"{now.model}: version {now.version} is the first champion of its size")
    return _version(store.client.get_model_version(now.model, before[-1]))


def step_back(store: Store, now: Version, before: Version) -> None:
    """Let the champion before lead again. The line gets shorter: the present one has left it."""
    _lead(store, before, _line_before(store, now)[:-1])


def _lead(store: Store, version: Version, before: list[str]) -> None:
    """The alias moves last: where this is broken off, the same one leads as before."""
    line = " ".join([*before, version.version])
    store.client.set_registered_model_tag(version.model, LINE, line)
    store.client.set_registered_model_alias(version.model, CHAMPION, version.version)


def _line_before(store: Store, now: Version) -> list[str]:
    """The versions that led before the present one; all, if it was let lead in MLflow by hand."""
    line = store.client.get_registered_model(now.model).tags.get(LINE, "").split()
    return line[: line.index(now.version)] if now.version in line else line


def fetch_network(store: Store, version: Version, folder: Path) -> Path:
    """The network of a version, in `folder`. Raises RegistryError when it is not what it was."""
    from mlflow.artifacts import download_artifacts

    logged = store.client.get_logged_model(version.model_id)
    fetched = download_artifacts(
        artifact_uri=f"{logged.artifact_location}/{logged.tags['network_file']}",
        dst_path=str(folder),
        tracking_uri=store.client.tracking_uri,
    )
    path = Path(fetched)
    if file_md5(path) != version.md5:
        raise RegistryError(
            f"{version.model} version {version.version}: its file in {logged.artifact_location} "
            f"has changed: put one of MD5 {version.md5} back (champions/ may hold a copy)"
        )
    return path


def champions(store: Store) -> list[tuple[str, Version]]:
    """Each registered resolution and its champion."""
    models = store.client.search_registered_models()
    found = ((model.name, find_champion(store, model.name)) for model in models)
    return [(name, version) for name, version in found if version is not None]


def known_champions(store: Store) -> str:
    """Their names, for the words of an error."""
    return ", ".join(sorted(name for name, _ in champions(store))) or "none"


def champion_lines() -> list[str]:
    """For `l2s status`: the champion of each query resolution. A lost store is a line, no error."""
    none = ["no champion yet: l2s retrain names the first ones"]
    if not has_store():
        return none
    try:
        with tracking_errors():
            found = champions(open_store())
    except TrackingError as error:
        return [f"champions: {error}"]
    return [
        f"champion of {name}: version {version.version}, {version.network}"
        for name, version in found
    ] or none


def _version(found: "ModelVersion") -> Version:
    return Version(found.name, str(found.version), dict(found.tags))
