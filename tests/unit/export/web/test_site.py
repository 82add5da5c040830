"""The folder of the web export: what it holds, what bounds it, and where the runtime is found."""

import gzip
import json
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.export.web import site
from pipeline.export.web.runtime import PACKAGE, PROGRAM, find_runtime
from tests.made_site import (
    COLOURS,
    MEAN_COLOUR,
    colour_database,
    made_runtime,
    write_colour_site,
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    folder = tmp_path_factory.mktemp("colours")
    told = write_colour_site(folder, colour_database(unreadable=7))
    return folder / "web", told


def test_the_folder_holds_all_that_the_page_names(written: tuple[Path, dict[str, int]]) -> None:
    folder, told = written
    page = "".join((folder / name).read_text() for name in ("index.html", *site.SCRIPTS))
    named = re.findall(r'(?:href|src)="([^"]+)"', page)
    named += re.findall(r'(?:loaded|import)\("([^"]+)"', page)
    assert len(named) == 15
    assert all((folder / name).is_file() for name in named)
    assert not re.findall(r"https?://(?!localhost)\w", page)  # of elsewhere nothing is loaded
    assert named.index("look.css") < named.index("page.css") < named.index("app.css")
    program = (folder / "runtime/ort.wasm.gz").read_bytes()
    assert gzip.decompress(program) == b"\0asm" + bytes(1000)
    assert (folder / "runtime/ort.js").read_text() == MEAN_COLOUR
    assert "MIT License" in (folder / "runtime/LICENSE").read_text()
    assert told["network"] == len(b"a network")
    assert told["runtime"] == len(program) + len(MEAN_COLOUR)
    assert (told["images"], told["unreadable"]) == (60, 1)


def test_the_index_tells_what_is_in_a_row(written: tuple[Path, dict[str, int]]) -> None:
    folder, told = written
    database = colour_database()
    index = json.loads((folder / "index.json").read_text())
    assert (index["network"], index["size_px"]) == ("colours-16", 16)
    assert index["names"] == database.names
    assert [index["classes"][place] for place in index["class_of"]] == database.class_names
    assert index["classes"] == sorted(COLOURS)
    vectors = (folder / "vectors.bin").read_bytes()
    assert len(vectors) == 60 * (4 + 3)
    steps = np.frombuffer(vectors, "<f4", 60)
    numbers = np.frombuffer(vectors, np.int8, offset=240).reshape(60, 3)
    np.testing.assert_allclose(numbers * steps[:, None], database.vectors, atol=0.5 / 127)
    assert told["index"] == len(vectors) + (folder / "index.json").stat().st_size


def pictures_of(folder: Path) -> dict[int, bytes]:
    """The picture of each row that has one."""
    found = {}
    for number, listed in enumerate(json.loads((folder / "index.json").read_text())["pictures"]):
        content = BytesIO((folder / f"pictures-{number}.bin").read_bytes())
        found |= {row: content.read(length) for row, length in listed}
        assert not content.read()
    return found


def test_pictures_are_small_and_a_missing_one_is_left_out(
    written: tuple[Path, dict[str, int]],
) -> None:
    found = pictures_of(written[0])
    assert list(found) == [row for row in range(60) if row != 7]
    for row, colour in ((0, COLOURS["red"]), (40, COLOURS["blue"])):
        with Image.open(BytesIO(found[row])) as picture:
            assert (picture.format, picture.size) == ("WEBP", (128, 85))
            np.testing.assert_allclose(picture.getpixel((50, 50)), colour, atol=8)


def test_pictures_are_bounded_and_lie_in_files_of_a_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "PACK_BYTES", 500)
    told = write_colour_site(tmp_path, colour_database(), pictures=10)
    assert list(pictures_of(tmp_path / "web")) == [0, 7, 13, 20, 26, 33, 39, 46, 52, 59]
    packs = [file.stat().st_size for file in (tmp_path / "web").glob("pictures-*.bin")]
    assert len(packs) > 2
    assert max(packs) <= 500
    assert told["pictures"] == sum(packs)


def test_no_pictures_at_all(tmp_path: Path) -> None:
    assert write_colour_site(tmp_path, colour_database(), pictures=0)["pictures"] == 0
    assert pictures_of(tmp_path / "web") == {}


def test_a_database_without_images_is_refused(tmp_path: Path) -> None:
    empty = replace(colour_database(), ids=np.empty(0, np.int64))
    with pytest.raises(ValueError, match="colours: holds no image"):
        write_colour_site(tmp_path, empty)
    assert not (tmp_path / "web").exists()


def test_where_the_runtime_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NODE_PATH", raising=False)
    with pytest.raises(ValueError, match=f"`npm install {PACKAGE}` here, or name its folder"):
        find_runtime(None, tmp_path)
    package = tmp_path / "node_modules" / PACKAGE
    package.mkdir(parents=True)
    dist = made_runtime(package / "dist")
    for given in (None, tmp_path, package, dist):
        assert find_runtime(given, tmp_path) == dist
    monkeypatch.setenv("NODE_PATH", f"/nowhere:{tmp_path / 'node_modules'}")
    assert find_runtime(None, tmp_path / "elsewhere") == dist
    (dist / PROGRAM).unlink()
    with pytest.raises(ValueError, match=r"--runtime .*dist: holds no such files.*give its folder"):
        find_runtime(dist, tmp_path)
