"""Vectors in a store are indexed, checked and audited where they lie, a file at a time."""

import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from typer.testing import CliRunner

from pipeline.cli.__main__ import app
from pipeline.datasets.picture_sources import PictureSource
from pipeline.datasets.vector_batches import VectorsError
from pipeline.datasets.vectors import read_vectors
from pipeline.embedding.destination import Destination
from pipeline.embedding.golden import UncheckableError, check_folder, check_golden
from pipeline.search.upkeep import open_index
from tests.made_bucket import KEY, S3, loopback_bucket
from tests.made_embedding import embed, make_job, write_network, write_pictures

MEMORY = "memory://vectors/all"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """With a network and images, embedded into `vectors` and into a store."""
    write_network(tmp_path / "net.safetensors")
    write_pictures(tmp_path / "images", range(10))
    embed(make_job(tmp_path))
    embed(make_job(tmp_path, destination=Destination(MEMORY)))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    MemoryFileSystem.store.clear()


def l2s(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code, done.output
    return done.output


def rows(index: str) -> dict[str, list[float]]:
    with open_index(Path(index)) as opened:
        return {
            name: vector.tolist()
            for batch in opened.rows()
            for name, vector in zip(batch.ids, batch.vectors, strict=True)
        }


def test_an_index_of_a_store_is_that_of_a_folder(folder: Path) -> None:
    said = l2s("index", "build", MEMORY, "--to", "remote")
    assert "3 shards checked, 0 without an image that is as it was" in said
    l2s("index", "build", "vectors", "--to", "local")
    assert rows("remote") == rows("local")
    assert len(rows("remote")) == 10
    told = l2s("audit", "remote", "--vectors", MEMORY, "--queries", "vectors", "-k", "2")
    assert "10 queries among 10 vectors" in told
    assert "kept                100.00" in told


def test_an_index_is_kept_in_step_with_a_store(folder: Path) -> None:
    l2s("index", "build", f"{MEMORY}/", "--to", "i")
    write_pictures(folder / "images", range(10, 13))
    (folder / "images" / "0" / "0000.jpg").unlink()
    embed(make_job(folder, destination=Destination(MEMORY)))
    (ids, *_) = [Destination(MEMORY).vectors().tombstones().values()]
    assert list(ids) == [{"0/0000.jpg"}]
    told = l2s("index", "verify", "i", "--allow", "memory://vectors", code=1)
    assert f"is not in step with {MEMORY}: 3 of 12 vectors are not there, 0 have" in told
    said = l2s("index", "add", "i", MEMORY)
    assert said.startswith("1 shard checked, 0 without")
    assert "3 added, 0 replaced, 1 removed, 9 unchanged" in said
    assert "error" not in l2s("index", "verify", "i", "--allow", "memory://vectors")


def test_nobody_but_the_user_names_a_store_that_is_opened(folder: Path) -> None:
    """What an index, or a manifest, says of where vectors and images lie is not followed."""
    l2s("index", "build", MEMORY, "--to", "i")
    MemoryFileSystem.store.clear()  # so that looking there would be a fault
    assert f"not compared with {MEMORY}: --allow names its bucket" in l2s("index", "verify", "i")
    told = l2s("index", "remove", "i", "0/0000.jpg")
    assert f"remains  vectors {MEMORY}: nobody knows, a store is not asked" in told


@pytest.mark.parametrize("bucket", ["vectors", "theirs"])
def test_images_in_the_bucket_that_the_user_named_are_embedded_anew(
    folder: Path, bucket: str
) -> None:
    for file in (folder / "images").rglob("*.jpg"):
        name = file.relative_to(folder / "images").as_posix()
        MemoryFileSystem().pipe(f"/{bucket}/in/{name}", file.read_bytes())
    place = Destination("memory://vectors/second")
    embed(make_job(folder, destination=place, source=PictureSource(f"memory://{bucket}/in")))
    if bucket == "vectors":
        assert check_folder(place).checked == 3
    else:
        with pytest.raises(UncheckableError, match="lie in a store: `l2s embed SOURCE --to memory"):
            check_folder(place)


def test_one_file_at_a_time_is_on_this_machine(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    held, seen = [], []
    for batch in Destination(MEMORY).vectors().batches():
        held.append(len([*(tmp_path / "temporary").rglob("*.parquet")]))
        seen += batch.ids
    assert held == [1, 1, 1]
    assert [*(tmp_path / "temporary").iterdir()] == []
    local = [one for batch in read_vectors(folder / "vectors").batches() for one in batch.ids]
    assert seen == local


def test_what_is_wrong_in_a_store_is_said_of_it(folder: Path) -> None:
    store = MemoryFileSystem()
    names = sorted(name for name in Destination(MEMORY).names() if len(name) > 40)
    card = store.cat("/vectors/all/card.json")
    shard = f"/vectors/all/{names[0]}"
    whole = store.cat(shard)
    store.pipe(shard, b"PAR1 no PAR1")
    with pytest.raises(VectorsError, match=f"^{MEMORY}/{names[0]}: cannot be read as Parquet"):
        [*Destination(MEMORY).vectors().batches()]
    store.pipe(shard, whole)
    store.pipe("/vectors/all/card.json", card.replace(b'"dim": 16', b'"dim": 17'))
    with pytest.raises(VectorsError, match=r"have 16 numbers, card\.json says 17"):
        [*Destination(MEMORY).vectors().batches()]
    store.pipe("/vectors/all/card.json", card.replace(b'"dim": 16', b'"dim": -1'))
    with pytest.raises(VectorsError, match=r"all/card\.json: dim: Input should be greater than 0"):
        Destination(MEMORY).vectors()
    store.pipe("/vectors/cardless/a.parquet", whole)
    with pytest.raises(VectorsError, match=r"cardless/card\.json: there is no such file"):
        Destination("memory://vectors/cardless").vectors()
    store.pipe("/vectors/empty/card.json", card)
    with pytest.raises(VectorsError, match=r"empty: holds no \.parquet file"):
        Destination("memory://vectors/empty").vectors()


REFUSED = {
    "a password": (("index", "build", f"s3://user:{KEY}@photos/v", "--to", "i"), "VECTORS: s3://p"),
    "a signature": (("index", "add", "i", f"s3://photos/v?X-Amz={KEY}"), "must be SCHEME://BUCKET"),
    "of the teacher": (("audit", "i", "--vectors", f"s3://{KEY}@photos/v"), "--vectors: s3://phot"),
    "of the student": (
        ("audit", "i", "--vectors", "vectors", "--queries", f"s3://u:{KEY}@photos/v"),
        "--queries: s3://photos/v: holds a name or password",
    ),
    "an index in a store": (
        ("index", "build", "vectors", "--to", f"s3://u:{KEY}@photos/i"),
        "--to s3://photos/i: an index is a folder of this machine",
    ),
    "no such scheme": (
        ("index", "build", "ftp://photos/v", "--to", "i"),
        "must be SCHEME://BUCKET",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_addresses_are_refused_in_words_that_hold_no_secret(folder: Path, name: str) -> None:
    l2s("index", "build", "vectors", "--to", "i")
    before = (folder / "i" / "index.json").read_bytes()
    arguments, words = REFUSED[name]
    said = l2s(*arguments, code=2)
    assert words in said
    assert KEY not in said
    assert (folder / "i" / "index.json").read_bytes() == before
    assert len(REFUSED) == 6


@S3
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_folder_that_a_console_made_is_empty(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loopback_bucket(monkeypatch, {"made/": b""}):
        place = Destination("s3://photos/made")
        assert place.names() == frozenset()
        assert embed(make_job(folder, destination=place)).embedded == 10
        assert "made" not in place.names()


@S3
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_bucket_is_indexed_and_audited_and_no_file_or_message_holds_its_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "s3://photos/out/vectors"
    with loopback_bucket(monkeypatch, {}):
        embed(make_job(folder, destination=Destination(place)))
        said = l2s("index", "build", place, "--to", "i")
        assert "3 shards checked, 0 without" in said
        write_pictures(folder / "images", [10])
        embed(make_job(folder, destination=Destination(place)))
        said += l2s("index", "add", "i", place)
        assert "1 shard checked" in said
        assert "1 added, 0 replaced, 0 removed, 10 unchanged" in said
        said += l2s("index", "verify", "i", "--allow", "s3://photos")
        said += l2s("audit", "i", "--vectors", place, "-k", "2")
        assert "11 queries among 11 vectors" in said
        said += l2s("index", "build", "s3://nowhere/v", "--to", "other", code=2)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{KEY}2")
    said += l2s("index", "add", "i", place, code=2)  # nobody answers any more
    assert f"{place}: the store cannot be reached, or refuses" in said
    assert KEY not in said
    assert place in (folder / "i" / "index.json").read_text()
    for file in (folder / "i").iterdir():
        assert KEY.encode() not in file.read_bytes()
    embed(make_job(folder))
    here = {
        one: vector
        for batch in read_vectors(folder / "vectors").batches()
        for one, vector in zip(batch.ids, batch.vectors, strict=True)
    }
    found = rows("i")
    assert found.keys() == here.keys()
    for one, vector in here.items():
        np.testing.assert_allclose(found[one], vector, atol=1e-6)


def test_a_fault_of_this_machine_is_not_told_as_one_of_the_store(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(_: PictureSource) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/locked")

    job = make_job(folder, destination=Destination(MEMORY))
    for name, command in (("listing", embed), ("open", check_golden)):
        with monkeypatch.context() as patch:
            patch.setattr(PictureSource, name, locked)
            with pytest.raises(PermissionError, match="/locked"):
                command(job)
