"""Text files of columns: what an editor adds at the ends is left out, what lacks is refused."""

from pathlib import Path

import pytest

from pipeline.datasets.archives import open_archive
from pipeline.datasets.listings import LayoutError
from pipeline.datasets.text_tables import read_table
from tests.made_archives import write_tgz

TABLE = [["1", "a b.jpg"], ["2", "c.jpg"]]


def table_of(content: bytes, folder: Path) -> list[list[str]]:
    archive = write_tgz(folder / "a.tgz", {"list.txt": content})
    with open_archive(archive) as members:
        return read_table(archive, members, "list.txt", columns=2)


@pytest.mark.parametrize(
    "content",
    [
        b"1 a b.jpg\n2 c.jpg\n",
        b"1 a b.jpg\r\n2 c.jpg",
        b"\xef\xbb\xbf1 a b.jpg\n2 c.jpg\n",
        b"1 a b.jpg\n2 c.jpg\n\n \r\n\t\n",
    ],
)
def test_the_same_table(content: bytes, tmp_path: Path) -> None:
    assert table_of(content, tmp_path) == TABLE


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"1 a.jpg\n\n2 c.jpg\n", 2),
        (b"\n1 a.jpg\n", 1),
        (b"1 a.jpg\n2\n\n", 2),
    ],
)
def test_blank_lines_elsewhere_are_refused(content: bytes, line: int, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=f"line {line} has . columns instead of 2"):
        table_of(content, tmp_path)
