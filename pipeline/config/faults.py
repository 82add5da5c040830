"""The faults of params.yaml in words: which key, what was given, what is allowed."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

Entry = TypeVar("Entry", bound=BaseModel)


class ConfigurationError(ValueError):
    """params.yaml cannot be used; the message names every fault, one a line."""

    def __init__(self, path: Path, faults: list[str]) -> None:
        self.faults = faults
        listed = "\n".join(f"  {fault}" for fault in faults)
        count = f"{len(faults)} fault" + ("s" if len(faults) > 1 else "")
        super().__init__(f"{path}: {count}\n{listed}")


def field_faults(root: type[BaseModel], raw: dict[str, Any]) -> list[str]:
    """Every key of `raw` that is unknown, missing or of a wrong value, with its path."""
    try:
        root.model_validate(raw)
    except ValidationError as error:
        return [_describe(dict(fault), root) for fault in error.errors()]
    return []


def _describe(fault: dict[str, Any], root: type[BaseModel]) -> str:
    """`datasets.emblems.teacher_px = 'x': what is wrong`; for a misspelt key, what is allowed."""
    key, model = _place(fault["loc"], root)
    match fault["type"]:
        case "missing":
            return f"{key}: is missing"
        case "extra_forbidden":
            return f"{key}: unknown key; allowed here: {', '.join(model.model_fields)}"
        case "union_tag_not_found":
            return f"{key}.kind: is missing"
        case "union_tag_invalid":
            given, allowed = fault["ctx"]["tag"], fault["ctx"]["expected_tags"].replace("'", "")
            return f"{key}.kind = {given!r}: must be one of {allowed}"
    shown = "" if isinstance(fault["input"], Mapping) else f" = {fault['input']!r}"
    return f"{key}{shown}: {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _place(location: tuple[Any, ...], root: type[BaseModel]) -> tuple[str, type[BaseModel]]:
    """The path of a key, in which the tags of unions are no keys, and the model that holds it."""
    parts = [part for part in location if part != "[key]"]
    keys: list[Any] = []
    holder = model = root
    while parts:
        holder = model
        keys.append(parts.pop(0))
        field = model.model_fields.get(keys[-1])
        if field is None:
            continue
        choices = _models_in(field.annotation)
        if parts and get_origin(field.annotation) is dict:
            keys.append(parts.pop(0))
        elif parts and len(choices) > 1:
            kind = parts.pop(0)
            choices = [
                one for one in choices if kind in get_args(one.model_fields["kind"].annotation)
            ]
        model = choices[0] if choices else model
    return ".".join(map(str, keys)), holder


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]


def well_formed(raw: Mapping[Any, Any], model: type[Entry]) -> dict[str, Entry]:
    """The entries of a section that are right by themselves."""
    entries = {}
    for name, value in raw.items():
        with suppress(ValidationError):
            entries[str(name)] = model.model_validate(value)
    return entries
