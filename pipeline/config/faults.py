"""The faults of params.yaml in words: which key, what was given, what is allowed."""

from collections.abc import Iterator, Mapping
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
    steps = list(_steps(fault["loc"], root))
    key = ".".join(str(part) for part, _ in steps)
    if fault["type"] == "missing":
        return f"{key}: is missing"
    if fault["type"] == "extra_forbidden":
        allowed = ", ".join(steps[-1][1].model_fields)
        return f"{key}: unknown key; allowed here: {allowed}"
    if fault["type"].startswith("union_tag"):
        tag = fault["ctx"].get("tag")
        given = "" if tag is None else f" = {tag!r}"
        allowed = ", ".join(fault["ctx"].get("expected_tags", "").replace("'", "").split(", "))
        wrong = "is missing" if tag is None else f"must be one of {allowed}"
        return f"{key}.kind{given}: {wrong}"
    message = fault["msg"][0].lower() + fault["msg"][1:]
    given = fault["input"]
    shown = "" if isinstance(given, Mapping) else f" = {given!r}"
    return f"{key}{shown}: {message}"


def _steps(
    location: tuple[Any, ...], root: type[BaseModel]
) -> Iterator[tuple[Any, type[BaseModel]]]:
    """The keys of a location, each with the model that holds it; tags of unions are no keys."""
    model = root
    choices: list[type[BaseModel]] = []
    names_entry = False
    for part in location:
        if part == "[key]":
            continue
        if len(choices) > 1 and not names_entry:
            model = next((choice for choice in choices if _kind(choice) == part), model)
            choices = []
            continue
        yield part, model
        if names_entry or part not in model.model_fields:
            names_entry = False
            continue
        annotation = model.model_fields[part].annotation
        names_entry = get_origin(annotation) is dict
        choices = _models_in(annotation)
        model = choices[0] if choices else model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]


def _kind(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return get_args(field.annotation)[0] if field else None


def well_formed(raw: Any, model: type[Entry]) -> dict[str, Entry]:
    """The entries of a section that are right by themselves."""
    entries = {}
    for name, value in raw.items() if isinstance(raw, dict) else ():
        try:
            entries[str(name)] = model.model_validate(value)
        except ValidationError:
            continue
    return entries
