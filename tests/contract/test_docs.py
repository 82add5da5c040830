"""The site of docs/ is built, strictly and offline, and its pages load nothing from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from tests.browser import browser_path, open_page
from tests.contract.dvc_yaml import ROOT

# What a page loads by itself; an address that a reader may follow is none of it.
LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=[\"']?(https?:)?//"
    r"|<link\b(?![^>]*rel=[\"']?canonical)[^>]*\bhref=[\"']?(https?:)?//"
    r"|@import\s|url\([\"']?(https?:)?//"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-W", "ignore", "-m", "mkdocs", "build", "--strict", "--quiet"]
    done = subprocess.run(
        [*command, "--site-dir", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    files = [path for path in site.rglob("*") if path.suffix in (".html", ".css")]
    assert len(files) > 15
    for path in files:
        found = LOADED.search(path.read_text(encoding="utf-8"))
        assert not found, (path.name, found)
    assert LOADED.search('<script src="https://unpkg.com/x"></script>')
    assert LOADED.search('<link rel="stylesheet" href="//fonts.example/css">')


def test_what_has_its_home_elsewhere_is_taken_from_there(site: Path) -> None:
    assert (site / "look.css").read_bytes() == (ROOT / "pipeline/look.css").read_bytes()
    start = (site / "index.html").read_text(encoding="utf-8")
    for heading in re.findall(r"^## (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert f">{heading}<" in start
    assert 'href="data.html' in start  # of docs/data.md, as README has it


def test_each_name_of_the_library_has_its_docstring_on_the_site(site: Path) -> None:
    page = (site / "api/library.html").read_text(encoding="utf-8")
    for name in pipeline.__all__:
        heading = page.index(f">{name}</span>")
        first = (getattr(pipeline, name).__doc__ or "").partition("\n")[0][:30]
        assert first
        assert re.sub("`.*", "", first) in page[heading:], name


def test_lists_and_tables_are_rendered_as_such(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for paragraph in re.findall(r"<p>(.*?)</p>", text, re.DOTALL):
            assert not re.search(r"^(\||- |\d\. )", paragraph, re.MULTILINE), (path.name, paragraph)


def test_a_table_is_scrolled_by_keyboard(site: Path) -> None:
    seen = 0
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert text.count("<table>") == text.count('<div class="wide" tabindex="0"><table>')
        seen += text.count("<table>")
    assert seen > 10


@pytest.mark.skipif(browser_path() is None, reason="no browser")
def test_the_search_works_from_the_disk(site: Path, tmp_path: Path) -> None:
    with open_page((site / "api/library.html").as_uri(), tmp_path) as page:
        page.value("document.querySelector('[data-md-toggle=search]').click()")
        page.value(
            "(field => { field.focus(); field.value = 'rollback';"
            " for (const kind of ['keyup', 'input']) field.dispatchEvent(new Event(kind)); })"
            "(document.querySelector('[data-md-component=search-query]'))"
        )
        assert page.wait_for("document.querySelectorAll('.md-search-result__item').length") >= 2
        assert page.faults == []
