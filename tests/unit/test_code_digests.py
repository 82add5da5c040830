"""Which edits of the code count for a stage, in a small project of its own."""

from pathlib import Path

import pytest

from pipeline import code_digests as module
from pipeline.code_digests import code_digests

FILES = {
    "stages/__init__.py": "",
    "stages/train.py": "import numpy\nimport pipeline.loss\nfrom pipeline import progress\n",
    "pipeline/__init__.py": "",
    "pipeline/loss.py": '''"""A loss."""

def value(x):
    """Doubled."""
    import pipeline.later
    from pipeline.room import inner
    return 2 * x  # why
''',
    "pipeline/later.py": "NAME = 'page.j2'\n",
    "pipeline/page.j2": "{% include 'part.css' %}",
    "pipeline/part.css": "a {}",
    "pipeline/other.css": "b {}",
    "pipeline/idle.py": "x = 1\n",
    "pipeline/room/__init__.py": "",
    "pipeline/room/inner.py": "from pipeline.config.params import Params\n",
    "pipeline/config/__init__.py": "",
    "pipeline/config/params.py": "from pipeline.config.merging import merged\n",
    "pipeline/config/merging.py": "merged = 1\n",
    "pipeline/progress.py": "import pipeline.watched\n",
    "pipeline/watched.py": "y = 1\n",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path


def after(project: Path, name: str, old: str, new: str) -> set[str]:
    """The files whose digests an edit changes, adds or removes."""
    before = code_digests("stages.train")
    path = project / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    module._tree.cache_clear()
    module._digest.cache_clear()
    return {file for file, _ in before.items() ^ code_digests("stages.train").items()}


def test_imports_are_followed_also_in_functions_and_packages_and_templates(project: Path) -> None:
    counted = {
        *("stages/train.py", "pipeline/loss.py", "pipeline/later.py"),
        *("pipeline/page.j2", "pipeline/part.css", "pipeline/room/__init__.py"),
        *("pipeline/room/inner.py", "pipeline/config/__init__.py", "pipeline/config/merging.py"),
    }
    assert code_digests("stages.train").keys() == counted


@pytest.mark.parametrize(
    ("name", "old", "new", "counts"),
    [
        ("pipeline/loss.py", "2 * x", "3 * x", True),
        ("pipeline/loss.py", "Doubled.", "Twice the argument.", False),
        ("pipeline/loss.py", '"""A loss."""', "", False),
        ("pipeline/loss.py", "# why", "", False),
        ("pipeline/loss.py", "2 * x", "2 *  (x)", False),
        ("pipeline/part.css", "a {}", "a { }", True),
        ("pipeline/other.css", "b {}", "b { }", False),
        ("pipeline/config/merging.py", "1", "2", True),
        ("pipeline/config/params.py", "import", "import  ", False),
        ("pipeline/progress.py", "import", "x = 1\nimport", False),
        ("pipeline/watched.py", "1", "2", False),
        ("pipeline/idle.py", "1", "2", False),
    ],
)
def test_an_edit_counts_where_results_can_depend_on_it(
    project: Path, name: str, old: str, new: str, counts: bool
) -> None:
    assert after(project, name, old, new) == ({name} if counts else set())


def test_a_new_import_brings_its_file(project: Path) -> None:
    changed = after(project, "pipeline/later.py", "NAME", "import pipeline.idle\nNAME")
    assert changed == {"pipeline/later.py", "pipeline/idle.py"}


def test_what_is_left_out_is_there() -> None:
    names = [*module.OBSERVERS, *module.MODELS]
    found = [module._file_of(name.removesuffix(".*")) for name in names]
    assert len(found) >= 7
    assert all(found), dict(zip(names, found, strict=True))
