"""What the site takes from where it has its home: README, changes, log, the notebook, the look.

Hooks of MkDocs. Links to files of the repository that are no page become plain text.
"""

import json
import posixpath
import re
from html import escape
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).parents[1]
HOMES = {"index.md": "README.md", "changes.md": "CHANGELOG.md", "log.md": "LOG.md"}
WORKER = "https://unpkg.com/iframe-worker/shim"  # what the theme would load; ours stands in for it
UNNAMED, NAMED = 'role="dialog"', 'role="dialog" aria-label="Search"'  # the theme's search
NOTEBOOK = "docs/tour.ipynb"
TABLE = re.compile(r"<table>.*?</table>", re.DOTALL)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    texts = {page: (ROOT / home).read_text(encoding="utf-8") for page, home in HOMES.items()}
    texts["tour.md"] = notebook_page(json.loads((ROOT / NOTEBOOK).read_bytes()))
    texts["look.css"] = (ROOT / "pipeline/look.css").read_text(encoding="utf-8")
    for name, text in texts.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    folder = posixpath.dirname(HOMES.get(page.file.src_uri, f"docs/{page.file.src_uri}"))
    pages = {home: name for name, home in HOMES.items()} | {NOTEBOOK: "tour.md"}

    def linked(found: "re.Match[str]") -> str:
        picture, text, target, anchor = found.groups(default="")
        if ":" in target:
            return found.group()
        path = posixpath.normpath(posixpath.join(folder, target))
        place = pages.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(place) is None:
            return text
        to = posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or ".")
        return f"{picture}[{text}]({to}{anchor})"

    return LINK.sub(linked, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Tables in a frame that is scrolled by keyboard, too; the theme does so for code."""
    return TABLE.sub(r'<div class="wide" tabindex="0">\g<0></div>', html)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    output = output.replace(UNNAMED, NAMED)
    return output.replace(WORKER, get_relative_url("file_worker.js", page.url))


def on_post_template(output: str, template_name: str, config: MkDocsConfig) -> str:
    return output.replace(WORKER, get_relative_url("file_worker.js", template_name))


def notebook_page(notebook: dict[str, Any]) -> str:
    """The cells of a notebook, with the outputs that are stored in it, as Markdown."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        is_code = cell["cell_type"] == "code"
        parts.append(f"```python\n{source}\n```" if is_code else source)
        parts += [_shown(output) for output in cell.get("outputs", [])]
    return "\n\n".join(parts) + "\n"


def _shown(output: dict[str, Any]) -> str:
    """One output: a page or a table, else a picture, else text."""
    data = output.get("data", {})
    if "text/html" in data:
        html = "".join(data["text/html"])
    elif "image/png" in data:
        encoded = "".join(data["image/png"]).replace("\n", "")
        html = f'<img src="data:image/png;base64,{encoded}" alt="output of the cell">'
    else:
        text = "".join(output.get("text") or data["text/plain"])
        html = f"<pre><code>{escape(text)}</code></pre>"
    return f'<div class="output">{html}</div>'
