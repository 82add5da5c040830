"""Run the cells of tour.ipynb in the folder of a finished study, and store what they give.

python docs/tour.py        # after `make study`, when cells or figures have changed
"""

import ast
import json
from base64 import b64encode
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).with_suffix(".ipynb")


def run_cells(notebook: dict[str, Any]) -> None:
    """Execute the cells of code one after another, as Jupyter does, into their outputs."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        tree, value = ast.parse("".join(cell["source"])), None
        is_shown = isinstance(tree.body[-1], ast.Expr)
        last = ast.Expression(tree.body.pop().value) if is_shown else None  # type: ignore[attr-defined]
        with redirect_stdout(StringIO()) as printed:
            exec(compile(tree, f"cell {number}", "exec"), names)  # noqa: S102
            if last is not None:
                value = eval(compile(last, f"cell {number}", "eval"), names)  # noqa: S307
        cell["execution_count"] = number
        cell["outputs"] = []
        if text := printed.getvalue():
            stream = {"name": "stdout", "output_type": "stream", "text": _lines(text)}
            cell["outputs"].append(stream)
        if value is not None:
            shown = {"data": _data(value), "execution_count": number, "metadata": {}}
            cell["outputs"].append(shown | {"output_type": "execute_result"})


def _data(value: Any) -> dict[str, Any]:
    """A value in the forms that a notebook keeps."""
    if hasattr(value, "_repr_html_"):
        return {"text/html": _lines(value._repr_html_())}
    if hasattr(value, "_repr_png_"):
        return {"image/png": b64encode(value._repr_png_()).decode()}
    return {"text/plain": _lines(repr(value))}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


if __name__ == "__main__":
    made = json.loads(NOTEBOOK.read_bytes())
    run_cells(made)
    text = json.dumps(made, indent=1, ensure_ascii=False)
    NOTEBOOK.write_text(text + "\n", encoding="utf-8")
