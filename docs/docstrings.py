"""Docstrings as the site shows them: an extension of Griffe."""

import re
from typing import Any

from griffe import Extension, Object

ARGUMENT = re.compile(r"^((?:\w+, )*\w+): (?=\S)", re.MULTILINE)
RAISES = re.compile(r"^Raises ", re.MULTILINE)
SENTENCES = ("Source", "Sources", "Definitions", "Below")  # words with a colon that name none


class ArgumentLists(Extension):
    """A line `name: meaning` of a docstring is an entry of a list; what it raises, a paragraph."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            apart = RAISES.sub("\nRaises ", obj.docstring.value)
            obj.docstring.value = ARGUMENT.sub(_entry, apart)


def _entry(found: "re.Match[str]") -> str:
    names = found.group(1)
    if names.startswith(SENTENCES):
        return found.group()
    return "\n- " + ", ".join(f"`{name}`" for name in names.split(", ")) + ": "
