"""Champions: the registered model of each query resolution, its versions, and who leads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.files import file_md5
from pipeline.tracking_checkpoints import network_path
from pipeline.tracking_store import Store, contact_errors, has_store, open_store, require_store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
REPLACED = "replaced"  # tag of a version: the champion before it


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
        return self.tags["md5"]

    @property
    def model_id(self) -> str:
        """Of the logged model that holds its file; kept as a tag, since MLflow forgets it."""
        return self.tags["model_id"]

    @property
    def network(self) -> str:
        """The key of the student in params.yaml."""
        return self.tags["network"]


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
    """Let a version lead; it remembers whom it replaced."""
    before = find_champion(store, version.model)
    if before is not None and before.version != version.version:
        store.client.set_model_version_tag(version.model, version.version, REPLACED, before.version)
    store.client.set_registered_model_alias(version.model, CHAMPION, version.version)


def roll_back(store: Store, model: str) -> tuple[Version, Version]:
    """Let the champion before the present one lead again; both, the present one first.

    Raises RegistryError where there is none.
    """
    now = find_champion(store, model)
    if now is None:
        known = ", ".join(sorted(name for name, _ in champions(store))) or "none"
        raise RegistryError(f"{model}: has no champion; champions: {known}")
    if REPLACED not in now.tags:
        raise RegistryError(f"{model}: version {now.version} is the first champion of its size")
    before = _version(store.client.get_model_version(model, now.tags[REPLACED]))
    store.client.set_registered_model_alias(model, CHAMPION, before.version)
    return now, before


def fetch_network(store: Store, version: Version, folder: Path) -> Path:
    """The network of a version, in `folder`. Raises RegistryError when it is not what it was."""
    logged = store.client.get_logged_model(version.model_id)
    path = network_path(store, logged, folder, logged.tags["network_file"])
    if file_md5(path) != version.md5:
        raise RegistryError(f"{version.model} version {version.version}: its file has changed")
    return path


def champions(store: Store) -> list[tuple[str, Version]]:
    """Each registered resolution and its champion."""
    models = store.client.search_registered_models()
    found = ((model.name, find_champion(store, model.name)) for model in models)
    return [(name, version) for name, version in found if version is not None]


def champion_lines() -> list[str]:
    """For `l2s status`: the champion of each query resolution. A lost store is told, no error."""
    none = ["no champion yet: l2s retrain names the first ones"]
    if not has_store():
        return none
    try:
        require_store()
        found = champions(open_store())
    except contact_errors() as error:
        return [f"champions: {error}"]
    return [
        f"champion of {name}: version {version.version}, {version.network}"
        for name, version in found
    ] or none


def _version(found: "ModelVersion") -> Version:
    return Version(found.name, str(found.version), dict(found.tags))
