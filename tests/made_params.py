"""The committed params.yaml with some values changed, in a folder of its own."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"
ABSENT = object()


def edited_params(folder: Path, changes: dict[str, Any]) -> Path:
    """Write it with each dotted key set to its value, or removed for ABSENT."""
    yaml = YAML()
    yaml.representer.ignore_aliases = lambda _: True
    values = yaml.load(PARAMS.read_text(encoding="utf-8"))
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = values
        for parent in parents:
            place = place[parent]
        if value is ABSENT:
            del place[last]
        else:
            place[last] = value
            if value == []:  # which ruamel writes beside a comment so that the rest is no YAML
                place.ca.items.pop(last)
    path = folder / "params.yaml"
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(values, file)
    return path
