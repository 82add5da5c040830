"""The studies that can be selected: presets of the package, and what a user made of them.

params.yaml is the text of one study, or of several joined. Texts are cut and joined by lines, since
comments belong to the lines that they stand beside; the result is read and compared with what was
meant before it replaces anything.
"""

import io
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from pipeline.config.params import ConfigurationError, Params, parse_params
from pipeline.config.yaml_text import read_yaml
from pipeline.files import write_text
from pipeline.paths import DatasetPaths

SAVED = Path("studies")  # beside params.yaml: edited studies that are not active now
# Whose entries belong to one study each.
_SECTIONS = ("inputs", "weights", "vectors", "datasets", "students")
Block = tuple[str, str, list[str]]  # section, entry ("" for the section's own lines), lines


def preset_names() -> list[str]:
    """The studies that come with the package."""
    found = files("pipeline").joinpath("presets").iterdir()
    return sorted(entry.name.removesuffix(".yaml") for entry in found if ".yaml" in entry.name)


def preset_text(name: str) -> str:
    return files("pipeline").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")


def select_studies(
    path: Path,
    names: Sequence[str],
    settings: Mapping[str, Any] | None = None,
    *,
    original: bool = False,
    epochs: int | None = None,
) -> tuple[list[str], list[str]]:
    """Make `names` the active studies of params.yaml: the names that came, and those that left.

    A study that leaves and was edited is saved in `studies/`, from where it comes back; with
    `original` it comes from its preset, and edits that the preset replaces are saved too. What is
    active already stays as it is, and with it what is no study's, such as `seeds`. settings: values
    to set then, by the dotted path of their keys; `inputs.NAME` may be new. epochs: of each network
    of the studies that is trained.

    Raises ValueError for a name that there is not, for entries that cannot be moved and for a key
    that is not there; ConfigurationError for a result that could not be run. Then nothing changes.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    active = list(_section(read_yaml(text, path), "datasets")) if text else []
    saved = _saved_studies(path.parent)
    known = dict.fromkeys([*active, *saved, *preset_names()])
    names = list(dict.fromkeys(names))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        listed = ", ".join(map(repr, unknown)) or "none was named"
        raise ValueError(f"no such study: {listed}; known: {', '.join(known)}")

    def source(name: str) -> str:
        if original or (name not in active and name not in saved):
            return preset_text(name)
        return text if name in active else saved[name].read_text(encoding="utf-8")

    leaving = [name for name in active if name not in names]
    replaced = {name: _joined({name: text}, name) for name in (active if original else leaving)}
    stays = set(names) == set(active) and not original
    if text and not stays:
        _require_owners(text, active)
    whose = next((name for name in names if name in active), names[0])
    try:
        changed = text if stays else _joined({name: source(name) for name in names}, whose)
        schedules = _schedules(changed) if epochs else []
        changed = set_values(changed, {**dict.fromkeys(schedules, epochs), **(settings or {})})
        parse_params(changed, path)
    except ConfigurationError:
        if not original:  # the fault may be one of a saved study: then its file is named
            for name in names:
                if name in saved and name not in active:
                    parse_params(source(name), saved[name])
        raise
    for name, own in replaced.items():
        if name not in preset_names() or own != preset_text(name):
            write_text(path.parent / SAVED / f"{name}.yaml", own)
    if changed != text:
        write_text(path, changed)
    return [name for name in names if name not in active], leaving


def _schedules(text: str) -> list[str]:
    """The keys of the epochs in a text of params.yaml; a teacher that is not trained has none."""
    datasets = _section(read_yaml(text), "datasets")
    return [
        f"datasets.{name}.{recipe}.optimisation.epochs"
        for name, one in _sections(datasets, "datasets.").items()
        for recipe in ("teacher", "distillation")
        if "optimisation" in _section(one, recipe, f"datasets.{name}.")
    ]


def with_inactive(params: Params) -> Params:
    """The parameters of the active studies of the current folder, and after them those of inactive
    ones whose teacher is there. Raises ValueError for the faults of a saved study.
    """
    for name in known_studies():
        if name not in params.datasets and DatasetPaths(name).teacher.exists():
            found = inactive_params(name)
            datasets = {**params.datasets, name: found.datasets[name]}
            students = {**found.students, **params.students}
            params = params.model_copy(update={"datasets": datasets, "students": students})
    return params


def known_studies() -> list[str]:
    """The studies that are saved in the current folder, and those that come with the package."""
    return list({**_saved_studies(Path()), **dict.fromkeys(preset_names())})


def inactive_params(name: str) -> Params:
    """The parameters of a study by its own text, saved or of the package. Raises ValueError."""
    path = _saved_studies(Path()).get(name)
    text = path.read_text(encoding="utf-8") if path else preset_text(name)
    found = parse_params(text, path or Path("params.yaml"))
    if name not in found.datasets:
        raise ValueError(f"{path}: holds no data set {name}, by which it is named")
    return found


def named_paths() -> set[Path]:
    """The files and folders of the user's that params.yaml or a saved study names, absolute."""
    given: set[Path] = set()
    for file in (Path("params.yaml"), *_saved_studies(Path()).values()):
        study = read_yaml(file.read_text(encoding="utf-8"), file)
        for section in ("inputs", "weights", "vectors"):
            given |= {Path(one).absolute() for one in _section(study, section).values() if one}
    return given


def _saved_studies(folder: Path) -> dict[str, Path]:
    return {one.stem: one for one in sorted((folder / SAVED).glob("*.yaml"))}


def set_values(text: str, settings: Mapping[str, Any]) -> str:
    """The text with values set by the dotted paths of their keys, written as DVC writes it."""
    if not settings:
        return text
    yaml = YAML()
    yaml.default_flow_style = False
    data = yaml.load(text)
    for key, value in settings.items():
        *above, last = key.split(".")
        place: Any = data
        for step in above:
            place = place.get(step) if isinstance(place, dict) else None
        if not isinstance(place, dict) or (
            last not in place and above not in (["inputs"], ["weights"], ["vectors"])
        ):
            raise ValueError(f"{key}: there is no such key in params.yaml")
        if isinstance(place, CommentedMap) and not place:
            place.fa.set_block_style()
        place[last] = value
    yaml.dump(data, stream := io.StringIO())
    return stream.getvalue()


def _joined(sources: Mapping[str, str], whose: str) -> str:
    """One text of several studies, each out of its text; what is no study's is out of that of the
    study `whose`.

    Raises ValueError unless the text holds each study as its source does.
    """
    parts = {name: _own_blocks(name, text) for name, text in sources.items()}
    lines: list[str] = []
    for section, entry, own in parts[whose]:
        if entry:
            continue
        blocks = [
            block for part in parts.values() for of, name, block in part if of == section and name
        ]
        if section in _SECTIONS:
            own = [_section_key(line, is_empty=not blocks) for line in own]
        lines += chain(own, *blocks)
    text = "\n".join(lines) + "\n"
    try:
        found = read_yaml(text)
    except ConfigurationError:
        found = {}
    for name, source in sources.items():
        if _entries(found, name) != _entries(read_yaml(source), name):
            raise ValueError(
                f"params.yaml: the entries of {name} cannot be moved as lines: each must be a "
                "block, one key a line, without braces around it"
            )
    return text


def _section_key(line: str, *, is_empty: bool) -> str:
    """The line of a section's key: an empty section is written as an empty mapping."""
    if is_empty:
        return re.sub(r"^(\w+:)(?! \{)(   )?", r"\1 {}", line)
    return re.sub(r"^(\w+:) \{\}", r"\1   ", line).rstrip()


def _own_blocks(name: str, text: str) -> list[Block]:
    """The blocks of a text that are the study's, or no study's."""
    return [block for owner, block in _owned_blocks(text) if owner in ("", name)]


def _owned_blocks(text: str) -> list[tuple[str, Block]]:
    """The blocks of a text, each with the data set that it belongs to, "" for those of no study."""
    students = _section(read_yaml(text), "students")
    owners = {key: str(one.get("dataset")) for key, one in _sections(students, "students.").items()}
    return [(owners.get(block[1], block[1]), block) for block in _blocks(text)]


def _require_owners(text: str, active: Sequence[str]) -> None:
    """Raise ValueError for entries of no data set of the text: no study would take them along."""
    if lost := [
        f"{section}.{entry}"
        for owner, (section, entry, _) in _owned_blocks(text)
        if owner not in ("", *map(str, active))
    ]:
        raise ValueError(
            f"params.yaml: {', '.join(lost)}: of no data set there, so that it would be lost: mend "
            "or delete it first"
        )


def _blocks(text: str) -> list[Block]:
    """The text as blocks of lines; comments and blank lines belong to the block that they precede,
    unless they are indented more than its entries are; those at the end to the last one.
    """
    blocks: list[Block] = []
    waiting: list[str] = []
    for line in text.splitlines():
        if not line.strip() or re.match(r" {0,2}#", line):
            waiting.append(line)
            continue
        key = re.match(r"(?:  )?([^\s#][^:]*):", line)
        section = blocks[-1][0] if blocks else ""
        if key and not line.startswith(" "):
            blocks.append((key[1], "", [*waiting, line]))
        elif key and section in _SECTIONS:
            blocks.append((section, key[1].strip("\"'"), [*waiting, line]))
        elif blocks:
            blocks[-1][2].extend([*waiting, line])
        else:  # such as ---, before the first key
            waiting.append(line)
            continue
        waiting = []
    blocks[-1][2].extend(waiting)
    return blocks


def _entries(values: Mapping[str, Any], name: str) -> list[Any]:
    rows = _sections(_section(values, "students"), "students.")
    students = {key: one for key, one in rows.items() if one.get("dataset") == name}
    weights = _section(values, "weights").items()
    return [
        _section(values, "inputs").get(name),
        {key: one for key, one in weights if key in (name, *students)},
        _section(values, "vectors").get(name),
        _section(values, "datasets").get(name),
        students,
    ]


def _section(values: Mapping[str, Any], name: str, above: str = "") -> Mapping[str, Any]:
    """The entries of a section. Raises ConfigurationError where it holds something else."""
    found = values.get(name) or {}
    if not isinstance(found, Mapping):
        raise ConfigurationError(Path("params.yaml"), [f"{above}{name}: must hold keys and values"])
    return found


def _sections(values: Mapping[str, Any], above: str) -> dict[str, Mapping[str, Any]]:
    return {name: _section(values, name, above) for name in values}
