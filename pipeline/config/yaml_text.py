"""A text of YAML, such as params.yaml, as the mapping that it holds."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from pipeline.config.faults import ConfigurationError

_MOST_CHARACTERS = 1 << 20


def read_yaml(text: str, path: Path = Path("params.yaml")) -> dict[str, Any]:
    """The mapping that a text of YAML holds. Raises ConfigurationError; anchors are refused too,
    since a value that several keys share cannot be changed by the path of one, and endless files.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ConfigurationError(path, [f"is longer than {_MOST_CHARACTERS} characters"])
    try:
        aliases = [event for event in YAML().parse(text) if isinstance(event, AliasEvent)]
        raw = None if aliases else YAML(typ="safe").load(text)
    except (YAMLError, ValueError) as error:  # such as of 2024-99-99, and of !!int x
        raise ConfigurationError(path, [f"not YAML: {' '.join(str(error).split())}"]) from None
    if aliases:
        line = aliases[0].start_mark.line + 1
        raise ConfigurationError(path, [f"line {line}: *{aliases[0].anchor}: write the values out"])
    if not isinstance(raw, dict):
        raise ConfigurationError(path, ["must hold keys and values at its top level"])
    return raw
