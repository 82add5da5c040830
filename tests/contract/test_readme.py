"""README and docs say what is there: commands and options, files, figures, and their own length."""

import json
import re
import shlex

import typer

from pipeline.cli.__main__ import app
from tests.contract.dvc_yaml import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def commands() -> list[list[str]]:
    """The words of each command `l2s` that stands in a block of code."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES).replace("\\\n", " ")
    found = re.findall(r"^    (?:nohup )?l2s (.+?)(?:\s{2,}#.*| # .*)?$", text, re.MULTILINE)
    return [shlex.split(line) for line in found]


def test_readme_is_read_in_one_sitting() -> None:
    lines = PAGES[0].read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 160


def test_every_command_of_the_pages_is_there_with_its_options() -> None:
    seen = commands()
    assert len(seen) > 15
    for name, *words in seen:
        command = COMMANDS[name]
        if own := getattr(command, "commands", None):  # `l2s index FOLDER` is of pictures
            command = own.get(words[0], own.get("pictures"))
        known = {opt for parameter in command.params for opt in parameter.opts}
        options = {word.partition("=")[0] for word in words if word.startswith("-")}
        assert options <= known, (name, options - known)


def test_every_link_to_a_file_leads_somewhere() -> None:
    seen = 0
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), (page.name, link)
            seen += 1
    assert seen > 10


def test_the_table_is_of_the_committed_study() -> None:
    metrics = json.loads((ROOT / "report/emblems/metrics.json").read_text())
    rows = re.findall(
        r"^\| (\S+) \| (\w+) \| \d+ \| ([\d.]+) .*?\| ([\d.]+) \|",
        PAGES[0].read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    held = {(network, role): values for network, role, *values in rows}
    assert len(held) > 8
    seen = 0
    for network, roles in metrics.items():
        for role, row in roles.items():
            if (network, role) in held:
                shown = [f"{100 * row[name]:.1f}" for name in ("map", "recall_at_1")]
                assert held[network, role] == shown
                seen += 1
    assert seen >= 3
