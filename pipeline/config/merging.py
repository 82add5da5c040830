"""How a student's own values are laid over those of its data set."""

from collections.abc import Mapping
from typing import Any

_WHOLE = ("kind", "backbone")  # what a mapping is, in which the other keys make sense


def merged(inherited: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What is inherited, with `own` values laid over it, mapping by mapping.

    A list or null replaces. A mapping that names another kind or backbone replaces whole.
    """
    if any(own.get(name, inherited.get(name)) != inherited.get(name) for name in _WHOLE):
        return dict(own)
    return {**inherited} | {
        name: merged(inherited[name], value)
        if isinstance(value, Mapping) and isinstance(inherited.get(name), Mapping)
        else value
        for name, value in own.items()
    }
