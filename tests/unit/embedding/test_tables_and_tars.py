"""Sources that are lists, tables and tar shards: what they lose, and how they are read."""

import io
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.datasets import tables
from pipeline.datasets.picture_sources import PictureSource
from pipeline.embedding.golden import check_folder, check_golden
from pipeline.embedding.planning import Changes
from pipeline.embedding.shards import Job, ShardEmbedder
from tests.made_embedding import embed, picture


def write_csv(folder: Path, numbers: Sequence[int]) -> Path:
    for number in numbers:
        (folder / f"{number}.jpg").write_bytes(picture(number))
    rows = "".join(f"{number},{number}.jpg\n" for number in numbers)
    (folder / "t.csv").write_text(f"id,path\n{rows}")
    return folder / "t.csv"


def write_parquet(folder: Path, numbers: Sequence[int]) -> Path:
    columns = {"id": [f"{one}" for one in numbers], "image": [picture(one) for one in numbers]}
    pq.write_table(pa.table(columns), folder / "t.parquet")
    return folder / "t.parquet"


def write_tar(folder: Path, numbers: Sequence[int]) -> Path:
    with tarfile.open(folder / "a.tar", "w") as tar:
        for number in numbers:
            content = picture(number)
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return folder


Write = Callable[[Path, Sequence[int]], Path]
WRITERS = {"paths": write_csv, "bytes": write_parquet, "tars": write_tar}


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest) -> Write:
    return WRITERS[request.param]


@pytest.fixture
def listed(job: Job, tmp_path: Path, write: Write) -> Job:
    """Of a source that lists the pictures 0 to 9."""
    (tmp_path / "listed").mkdir()
    return replace(job, source=PictureSource(str(write(tmp_path / "listed", range(10)))))


def ids(job: Job) -> list[str]:
    return sorted(one for batch in job.destination.vectors().batches() for one in batch.ids)


def test_an_image_that_a_list_lost_is_gone_from_its_vectors(
    listed: Job, tmp_path: Path, write: Write
) -> None:
    embed(listed)
    write(tmp_path / "listed", range(1, 10))
    assert check_golden(listed).checked == 3  # before it is told, too
    assert embed(listed).changes == Changes(9, 0, 0, 1)
    assert ids(listed) == [f"{number}" for number in range(1, 10)]
    assert check_golden(listed).checked == 3
    assert check_folder(listed.destination).checked == 3


def test_a_table_of_bytes_is_read_once_a_pass_whatever_waits_beside_it(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With threads, as for the addresses that are allowed here, each image out of order would let
    it be read from its start again.
    """
    source = PictureSource(str(write_parquet(tmp_path, range(40))), ("memory://photos",))
    began: list[Path] = []
    read_images = tables.read_images

    def noted(table: Path) -> Iterator[bytes | None]:
        began.append(table)
        return read_images(table)

    monkeypatch.setattr(tables, "read_images", noted)
    embedder = ShardEmbedder(replace(job, source=source), by_graph=False)
    names = [f"{number}" for number in range(40)]
    for reads in (1, 2):
        assert embedder.embed(names).ids == names
        assert len(began) == reads
    assert embedder.threads == 0
    here = replace(job, source=source)
    embed(here)
    began.clear()
    assert check_golden(here).checked == 10
    assert len(began) == 1


def test_a_shard_that_lost_an_image_and_then_its_file_is_cut_anew(
    listed: Job, tmp_path: Path, write: Write
) -> None:
    embed(listed)
    write(tmp_path / "listed", range(1, 10))
    embed(listed)
    (name,) = listed.destination.vectors().tombstones()
    listed.destination.delete(name)
    assert embed(listed).shards == 1
    assert ids(listed) == [f"{number}" for number in range(1, 10)]
    opened = listed.destination.vectors()
    assert (opened.card.tombstones, len(opened.files)) == (0, 3)
    assert embed(listed).unreadable == 0
