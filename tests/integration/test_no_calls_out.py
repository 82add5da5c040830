"""No component calls out: a study, its record, an index and a search connect to loopback alone."""

from pathlib import Path

import pytest

from tests.integration.workspace import make_workspace, run

# In every Python process of the workspace: the places that it connects to or looks up.
HOOK = """\
import sys

def note(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        place = arguments[1][0] if isinstance(arguments[1], tuple) else None
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        place = arguments[0]
    else:
        return
    if place:
        place = place.decode() if isinstance(place, bytes) else place
        with open({log!r}, "a") as log:
            log.write(f"{{place}}\\t{{event}}\\t{{' '.join(sys.argv)[:80]}}\\n")

sys.addaudithook(note)
"""
LOOPBACK = ("127.0.0.1", "::1", "localhost", "0.0.0.0")  # noqa: S104


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_workspace(tmp_path_factory.mktemp("quiet") / "study")
    (folder / "sitecustomize.py").write_text(HOOK.format(log=str(folder.parent / "calls")))
    return folder


@pytest.mark.timeout(1800)
def test_a_study_and_a_search_connect_to_loopback_alone(workspace: Path) -> None:
    l2s = ("python", "-m", "pipeline.cli")
    run(workspace, *l2s, "study")
    run(workspace, *l2s, "table")
    images = workspace.parent / "images" / "one"
    images.mkdir(parents=True)
    for number in range(3):
        run(workspace, "python", "-c", DRAW, str(images / f"{number}.png"), str(number))
    run(workspace, *l2s, "index", str(images.parent), "--name", "mine")
    run(workspace, *l2s, "search", str(images / "0.png"), "--index", "mine")
    lines = (workspace.parent / "calls").read_text().splitlines()
    places = {line.partition("\t")[0] for line in lines}
    assert "127.0.0.1" in places  # Prefect's server
    assert [line for line in lines if not line.startswith(LOOPBACK)] == []


DRAW = "import sys; from PIL import Image; Image.new('RGB', (40, 40), 'teal').save(sys.argv[1])"
