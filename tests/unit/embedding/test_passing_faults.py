"""Faults that pass: what they cost a run, the next one makes good; readers see nothing of them."""

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.picture_sources import PictureSource
from pipeline.datasets.vector_batches import VectorsError
from pipeline.embedding.destination import Destination
from pipeline.embedding.golden import check_golden
from pipeline.embedding.manifest import ShardSummary
from pipeline.embedding.shards import Job, ShardReport
from tests.made_bucket import S3, loopback_bucket
from tests.made_embedding import (
    InProcess,
    embed,
    files_of,
    images_of,
    picture,
)


def files(job: Job) -> dict[str, bytes]:
    return files_of(Path(job.destination.address))


def read(job: Job) -> dict[str, np.ndarray]:
    """By ids the vectors that readers are given, each id once."""
    rows = [
        (one, vector)
        for batch in job.destination.vectors().batches()
        for one, vector in zip(batch.ids, batch.vectors, strict=True)
    ]
    found = dict(rows)
    assert len(found) == len(rows)
    return found


def check_as_without_a_fault(job: Job) -> None:
    """The vectors are those of a run of which nothing is known but the source."""
    place = Path(f"{job.network.parent}/anew")
    anew = replace(job, destination=Destination(str(place)))
    embed(anew)
    ours, expected = read(job), read(anew)
    assert ours.keys() == expected.keys()
    assert len(ours) > 0
    for name, vector in expected.items():
        np.testing.assert_allclose(ours[name], vector, atol=1e-6)


class StoppedError(RuntimeError):
    pass


class StopsAtOnce(InProcess):
    def write(self, shards: Iterable[ShardSummary]) -> Iterator[ShardReport]:
        raise StoppedError
        yield


def around(before: Callable[[], object], after: Callable[[], object]) -> type[InProcess]:
    """An engine that does something before it writes, and something behind."""

    class Around(InProcess):
        def write(self, shards: Iterable[ShardSummary]) -> Iterator[ShardReport]:
            before()
            yield from super().write(shards)
            after()

    return Around


def fail_to_read(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Reading a file of this name fails as on a network's disk that is away for a moment."""
    real = Path.read_bytes

    def read_bytes(file: Path) -> bytes:
        if file.name == name:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(file)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)


def test_an_image_that_could_not_be_read_is_tried_again(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Size and time of the file stay as they were; what cannot be decoded is left alone."""
    (images_of(job) / "broken.jpg").write_bytes(b"no picture")
    with monkeypatch.context() as patch:
        fail_to_read(patch, "0003.jpg")
        report = embed(job)
        assert (report.embedded, report.unreadable) == (9, 2)
        before = files(job)
        assert embed(job).shards == 0  # as long as it cannot be read
        assert files(job) == before
    whole = replace(job, destination=Destination(f"{job.destination}-whole"))
    shutil.copytree(str(job.destination), str(whole.destination))
    with pytest.raises(StoppedError):
        embed(job, engine=StopsAtOnce)
    assert "0/0003.jpg" not in read(job)
    report = embed(job)
    embed(whole)
    assert files(job) == files(whole)
    assert (report.shards, report.embedded, report.unreadable) == (1, 1, 1)
    check_as_without_a_fault(job)
    assert job.destination.vectors().card.tombstones == 0
    assert check_golden(job).checked == 4
    after = files(job)
    assert all(after[name] == before[name] for name in before if len(name) > 30)
    assert embed(job).shards == 0
    assert files(job) == after


def test_an_image_that_was_touched_and_could_not_be_read_is_tried_again(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(job)
    os.utime(images_of(job) / "0" / "0003.jpg", (1, 1))
    with monkeypatch.context() as patch:
        fail_to_read(patch, "0003.jpg")
        assert embed(job).unreadable == 1
    assert embed(job).unreadable == 0
    check_as_without_a_fault(job)


def test_an_image_that_was_away_while_it_was_to_be_read_is_tried_again(job: Job) -> None:
    file, away = images_of(job) / "0" / "0003.jpg", images_of(job).with_name("away.jpg")
    engine = around(lambda: file.rename(away), lambda: away.rename(file))
    assert embed(job, engine=engine).unreadable == 1
    assert embed(job).unreadable == 0
    check_as_without_a_fault(job)


@pytest.mark.parametrize("damage", ["cut short", "overwritten"])
def test_a_damaged_shard_is_named_and_made_anew_when_it_is_deleted(job: Job, damage: str) -> None:
    embed(job)
    (Path(job.source.address) / "0" / "0000.jpg").unlink()  # so that its shard is read in full
    embed(job)
    before = files(job)
    (name,) = job.destination.vectors().tombstones()
    file = Path(str(job.destination), name)
    content = before[name]
    half = len(content) // 2
    file.write_bytes(content[:half] if damage == "cut short" else bytes(half) + content[half:])
    said = rf"vectors/{name}: cannot be read as Parquet: .*: delete it if it is damaged"
    for command in (embed, check_golden):
        with pytest.raises(VectorsError, match=said):
            command(job)
    file.unlink()
    assert embed(job).shards == 1
    assert sorted(read(job)) == sorted(
        one.relative_to(images_of(job)).as_posix() for one in images_of(job).rglob("*.jpg")
    )


@S3
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_an_object_that_was_away_while_it_was_to_be_read_is_tried_again(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = {"in/a.jpg": picture(1), "in/b.jpg": picture(2)}
    with loopback_bucket(monkeypatch, stored) as client:
        here = {"Bucket": "photos", "Key": "in/b.jpg"}
        engine = around(
            lambda: client.delete_object(**here),
            lambda: client.put_object(**here, Body=stored["in/b.jpg"]),
        )
        job = replace(job, source=PictureSource("s3://photos/in"))
        assert embed(job, engine=engine).unreadable == 1
        assert embed(job).unreadable == 0
    assert read(job).keys() == {"a.jpg", "b.jpg"}
