"""Which studies of params.yaml are active: entries move between their places and the shelf.

They move as lines of text. A YAML library's round trip keeps comments too, but hangs each on the
token before it, so that what moves takes the comments of the next section along. The new text is
read and compared with what was meant before it replaces the old one.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node
from ruamel.yaml.reader import ReaderError

from pipeline.config.params import ConfigurationError, parse_params
from pipeline.files import write_text

_SECTIONS = ("inputs", "datasets", "students", "shelf")
# Where keys stand: of a section's entries, of the parts of an entry of the shelf, and below those.
_ENTRY, _PART, _INNER = 2, 4, 6


@dataclass(frozen=True)
class Span:
    """The lines of a key: comments from `begin`, the key, what is below it up to `end`."""

    begin: int
    key: int
    end: int
    column: int
    value: Node


@dataclass
class Section:
    """A top-level mapping as lines: its key with comments, its entries, and what follows them."""

    header: list[str]
    entries: dict[str, list[str]]
    tail: list[str]

    def lines(self) -> list[str]:
        """The section; one without entries is written as an empty mapping."""
        if self.entries:
            header = [re.sub(r"^(\w+:) \{\}", r"\1   ", line).rstrip() for line in self.header]
        else:
            header = [re.sub(r"^(\w+:)(?! \{)(   )?", r"\1 {}", line) for line in self.header]
        return [*header, *(line for entry in self.entries.values() for line in entry), *self.tail]


def select_studies(
    path: Path, names: Sequence[str], given: str | None = None
) -> tuple[list[str], list[str]]:
    """Make `names` the active studies of params.yaml: the names that came, and those that left.

    given: what becomes the entry of `inputs` of the only name. The file is replaced in one step,
    or not touched where nothing changes.

    Raises ValueError for a name that there is not and for entries that cannot be moved, and
    ConfigurationError for a result that could not be run.
    """
    text = path.read_text(encoding="utf-8")
    raw = _read(text, path)
    known = [*raw["datasets"], *raw["shelf"]]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        listed = ", ".join(map(repr, unknown)) or "none was named"
        raise ValueError(f"no such study: {listed}; known: {', '.join(known)}")
    if given is not None and len(names) > 1:
        raise ValueError("a path can be given to one study at a time")
    coming = [name for name in dict.fromkeys(names) if name in raw["shelf"]]
    leaving = [name for name in raw["datasets"] if name not in names]
    meant = _meant(raw, coming, leaving)
    changed = _moved(text, raw, coming, leaving) if coming or leaving else text
    if given is not None:
        meant["inputs"] = meant["inputs"] | {names[0]: given}
        changed = _with_input(changed, names[0], given)
    if _read(changed, path) != meant:
        raise ValueError(
            f"{path}: cannot move the entries without changing them: move them by hand"
        )
    parse_params(changed, path)
    if changed != text:
        write_text(path, changed)
    return coming, leaving


def _read(text: str, path: Path) -> dict[str, Any]:
    """The values of params.yaml, with every section that is moved to or from."""
    try:
        raw = YAML(typ="safe").load(text)
    except (MarkedYAMLError, ReaderError) as error:
        raise ConfigurationError(path, [f"not YAML: {' '.join(str(error).split())}"]) from None
    if not isinstance(raw, dict):
        raise ConfigurationError(path, ["must hold keys and values at its top level"])
    raw |= {section: raw.get(section) or {} for section in _SECTIONS}
    wrong = [section for section in _SECTIONS if not isinstance(raw[section], dict)]
    if wrong:
        raise ConfigurationError(path, [f"{name}: must hold keys and values" for name in wrong])
    return raw


def _meant(raw: dict[str, Any], coming: Iterable[str], leaving: Iterable[str]) -> dict[str, Any]:
    """The values after the move."""
    inputs, datasets, students, shelf = (dict(raw[section]) for section in _SECTIONS)
    for name in leaving:
        entry = {"input": inputs.pop(name)} if name in inputs else {}
        own = {key: one for key, one in students.items() if one.get("dataset") == name}
        students = {key: one for key, one in students.items() if key not in own}
        shelf[name] = entry | {"dataset": datasets.pop(name), "students": own}
    for name in coming:
        entry = shelf.pop(name)
        inputs |= {name: entry["input"]} if "input" in entry else {}
        datasets[name] = entry["dataset"]
        students |= entry["students"]
    return raw | dict(zip(_SECTIONS, (inputs, datasets, students, shelf), strict=True))


def _moved(text: str, raw: dict[str, Any], coming: Sequence[str], leaving: Sequence[str]) -> str:
    """The text after the move."""
    _column_below(YAML().compose(text), 0)
    for name in ("inputs", "shelf"):
        if not re.search(rf"^{name}:", text, re.MULTILINE):
            text = f"{text.rstrip()}\n\n{name}: {{}}\n"
    lines = text.splitlines()
    top = _spans(YAML().compose(text), lines, 0, len(lines))
    spans = {
        name: _spans(top[name].value, lines, top[name].key + 1, _end(lines, top[name]))
        for name in _SECTIONS
    }
    sections = {name: _section(lines, top[name], spans[name]) for name in _SECTIONS}
    shelved = {}
    for name in leaving:
        own = [key for key, one in raw["students"].items() if one.get("dataset") == name]
        shelved[name] = _shelve(sections, spans, lines, name, own)
    for name in coming:
        del sections["shelf"].entries[name]
        _activate(sections, spans["shelf"][name], lines, name)
    sections["shelf"].entries = shelved | sections["shelf"].entries
    parts = [lines[: min(span.begin for span in top.values())]] + [
        sections[name].lines() if name in sections else lines[span.begin : span.end]
        for name, span in top.items()
    ]
    return "\n".join(line for part in parts for line in part) + "\n"


def _spans(node: Node, lines: Sequence[str], begin: int, end: int) -> dict[str, Span]:
    """The keys of a block mapping that stands on these lines; none of an empty one.

    Comments right above a key, at its own indentation, are the key's. Raises ValueError for a
    mapping in braces and for an alias, which have no lines of their own.
    """
    if not isinstance(node, MappingNode) or not node.value:
        return {}
    _column_below(node, begin)
    begins = []
    for key, _ in node.value:
        at = key.start_mark.line
        while at > begin and re.match(rf" {{{key.start_mark.column}}}#", lines[at - 1]):
            at -= 1
        begins.append(at)
    return {
        str(key.value): Span(first, key.start_mark.line, last, key.start_mark.column, value)
        for (key, value), first, last in zip(node.value, begins, [*begins[1:], end], strict=True)
    }


def _column_below(node: Node, line: int) -> int:
    """Where the keys of a block mapping stand; it begins at `line` or later."""
    first = node.value[0][0].start_mark
    if not isinstance(node, MappingNode) or node.flow_style or first.line < line:
        raise ValueError(
            f"params.yaml, line {line}: to be moved it must be a block, one key a line, "
            "without braces or an alias"
        )
    return int(first.column)


def _end(lines: Sequence[str], section: Span) -> int:
    """The end of a section without the blank lines, and the comments of the next, after it."""
    end = section.end
    while end > section.key + 1 and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1
    return end


def _section(lines: Sequence[str], span: Span, within: dict[str, Span]) -> Section:
    end = _end(lines, span)
    first = min((inner.begin for inner in within.values()), default=end)
    return Section(
        header=list(lines[span.begin : first]),
        entries={name: list(lines[inner.begin : inner.end]) for name, inner in within.items()},
        tail=list(lines[end : span.end]),
    )


def _shelve(
    sections: dict[str, Section],
    spans: dict[str, dict[str, Span]],
    lines: Sequence[str],
    name: str,
    students: Iterable[str],
) -> list[str]:
    """Take an active study out of the sections; its lines as an entry of the shelf."""
    dataset = spans["datasets"][name]
    column = _column_below(dataset.value, dataset.key + 1)
    del sections["datasets"].entries[name]
    entry = list(lines[dataset.begin : dataset.key + 1])
    if given := sections["inputs"].entries.pop(name, None):
        place = spans["inputs"][name]
        entry += _renamed(given, place.key - place.begin, "input", _PART - place.column)
    entry += [f"{' ' * _PART}dataset:"]
    entry += _shifted(lines[dataset.key + 1 : dataset.end], _INNER - column)
    entry += [f"{' ' * _PART}students:"]
    for key in students:
        block = sections["students"].entries.pop(key)
        entry += _shifted(block, _INNER - spans["students"][key].column)
    return entry


def _activate(sections: dict[str, Section], entry: Span, lines: Sequence[str], name: str) -> None:
    """Put an entry of the shelf into the sections."""
    parts = _spans(entry.value, lines, entry.key + 1, entry.end)
    dataset, students = parts["dataset"], parts["students"]
    column = _column_below(dataset.value, dataset.key + 1)
    first = min(part.begin for part in parts.values())
    sections["datasets"].entries[name] = [
        *lines[entry.begin : first],
        *_comments(lines, dataset, dataset.key + 1, _PART),
        *_shifted(lines[dataset.key + 1 : dataset.end], _PART - column),
    ]
    if place := parts.get("input"):
        block = lines[place.begin : place.end]
        sections["inputs"].entries[name] = _renamed(
            block, place.key - place.begin, name, _ENTRY - place.column
        )
    within = _spans(students.value, lines, students.key + 1, students.end)
    above = _comments(lines, students, min(one.begin for one in within.values()), _ENTRY)
    for key, one in within.items():
        block = _shifted(lines[one.begin : one.end], _ENTRY - one.column)
        sections["students"].entries[key] = above + block
        above = []


def _comments(lines: Sequence[str], part: Span, end: int, column: int) -> list[str]:
    """The comments above a key, behind it, and below it up to line `end`, as lines at `column`."""
    behind = re.search(r"\s(#.*)$", lines[part.key])
    texts = [
        *lines[part.begin : part.key],
        *([behind[1]] if behind else []),
        *lines[part.key + 1 : end],
    ]
    return [f"{' ' * column}{text.strip()}" for text in texts if text.strip()]


def _renamed(block: Sequence[str], at: int, key: str, shift: int) -> list[str]:
    """A block whose key, on line `at` of it, has another name and another place."""
    renamed = [
        re.sub(r"^( *)[^:]+:", rf"\1{key}:", line) if i == at else line
        for i, line in enumerate(block)
    ]
    return _shifted(renamed, shift)


def _shifted(block: Iterable[str], columns: int) -> list[str]:
    """Lines moved to the right, or to the left as far as they are blank there."""
    if columns >= 0:
        return [" " * columns + line if line.strip() else line for line in block]
    return [re.sub(rf"^ {{0,{-columns}}}", "", line) for line in block]


def _with_input(text: str, name: str, given: str) -> str:
    """The text with the entry of `inputs` set."""
    is_plain = re.fullmatch(r"[\w./][\w./ -]*[\w./-]", given) is not None
    is_text = is_plain and YAML(typ="safe").load(given) == given
    quoted = given if is_text else json.dumps(given)
    lines = text.splitlines()
    top = _spans(YAML().compose(text), lines, 0, len(lines))
    inputs = top["inputs"]
    within = _spans(inputs.value, lines, inputs.key + 1, _end(lines, inputs))
    if name in within:
        value = within[name].value
        start, end = value.start_mark.index, value.end_mark.index
        return text[:start] + quoted + text[end:]
    section = _section(lines, inputs, within)
    section.entries[name] = [f"{' ' * _ENTRY}{name}: {quoted}"]
    return "\n".join([*lines[: inputs.begin], *section.lines(), *lines[inputs.end :]]) + "\n"
