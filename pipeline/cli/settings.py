"""Values of params.yaml that a command line sets."""

from typing import Any


def read_setting(text: str) -> tuple[str, Any]:
    """The key and the value, read as YAML, of KEY=VALUE. Raises ValueError without a sign."""
    from ruamel.yaml import YAML

    key, sign, value = text.partition("=")
    if not sign:
        raise ValueError(
            f"-S {text}: must be KEY=VALUE, the key with its path: students.NAME.query_px"
        )
    return key, YAML().load(value)
