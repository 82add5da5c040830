"""Docstrings as the site shows them: an extension of Griffe."""

import re
from typing import Any

from griffe import Class, Extension, Function, Object

ARGUMENT = re.compile(r"^(\w+(?:, \w+)*): (?=\S)", re.MULTILINE)
RAISES = re.compile(r"^Raises ", re.MULTILINE)


class ArgumentLists(Extension):
    """A line `name: meaning` of a docstring is an entry of a list; what it raises, a paragraph."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if not obj.docstring:
            return
        known = set(obj.members)
        if isinstance(obj, Function | Class):
            known |= {parameter.name.lstrip("*") for parameter in obj.parameters}

        def entry(found: "re.Match[str]") -> str:
            names = found.group(1).split(", ")
            if not known.issuperset(names):
                return found.group()
            return "\n- " + ", ".join(f"`{name}`" for name in names) + ": "

        obj.docstring.value = ARGUMENT.sub(entry, RAISES.sub("\nRaises ", obj.docstring.value))
