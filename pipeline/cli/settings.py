"""Values of params.yaml that a command line sets."""

from typing import Any


def read_setting(text: str) -> tuple[str, Any]:
    """The key and the value, read as YAML, of KEY=VALUE. Raises ValueError for another form."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    key, sign, value = text.partition("=")
    if not sign:
        raise ValueError(
            f"-S {text}: must be KEY=VALUE, the key with its path: students.NAME.query_px"
        )
    try:
        return key, YAML().load(value)
    except (YAMLError, ValueError) as error:
        fault = " ".join(str(error).split())
        raise ValueError(f"-S {text}: its value is not YAML: {fault}") from None
