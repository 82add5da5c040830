"""The graph in dvc.yaml, for the contracts about it."""

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
DVC: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
# The stages, those of a `foreach` by what they do for each entry.
STAGES: dict[str, dict[str, Any]] = {
    name: entry.get("do", entry) for name, entry in DVC["stages"].items()
}


def stage_module(stage: str) -> str:
    """The module that a stage runs, such as "stages.distill"."""
    match = re.search(r"python -m (stages\.\w+)", STAGES[stage]["cmd"])
    assert match, STAGES[stage]["cmd"]
    return match.group(1)
