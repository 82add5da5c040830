"""The notebook of docs/ runs on a study, and what is stored in it is of the committed one."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from tests.contract.dvc_yaml import ROOT
from tests.made_study import STUDENT, make_finished_study

NOTEBOOK = ROOT / "docs/tour.ipynb"


def outputs(notebook: dict[str, Any]) -> list[tuple[str, str]]:
    """The kind and the text of each output, in order."""
    found = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data") or {"text/plain": output["text"]}
            found += [(kind, "".join(text)) for kind, text in data.items()]
    return found


def test_the_cells_run_on_a_small_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_from_file_location("tour", ROOT / "docs/tour.py")
    assert spec is not None
    assert spec.loader is not None
    tour = module_from_spec(spec)
    spec.loader.exec_module(tour)
    study = make_finished_study(tmp_path / "study")
    (study / "docs").mkdir()
    monkeypatch.chdir(study / "docs")  # where Jupyter starts it
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert "emblems-48" in text
    notebook = json.loads(text.replace("emblems-48", STUDENT))
    tour.run_cells(notebook)
    kinds = [kind for kind, _ in outputs(notebook)]
    assert kinds == [kind for kind, _ in outputs(json.loads(text))]
    assert {"text/plain", "text/html", "image/png"} <= set(kinds)


def test_what_is_stored_is_small_and_of_the_committed_study() -> None:
    assert NOTEBOOK.stat().st_size < 200_000
    metrics = json.loads((ROOT / "report/emblems/metrics.json").read_text())
    row = metrics["emblems-48"]["asymmetric"]
    table = next(
        text for kind, text in outputs(json.loads(NOTEBOOK.read_bytes())) if "html" in kind
    )
    assert f"<td>{100 * row['map']:.1f}</td>" in table
    assert f"<td>{100 * row['recall_at_1']:.1f}</td>" in table
