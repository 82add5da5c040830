"""A network that is replaced, and a source that is cut anew, while shards are embedded."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.datasets.vectors import LISTS
from pipeline.embedding.destination import Destination
from pipeline.embedding.manifest import ShardSummary, open_manifest, output_name
from pipeline.embedding.shards import (
    Embedded,
    Job,
    Sample,
    ShardEmbedder,
    ShardReport,
    vectors_file,
)
from tests.made_bucket import S3, loopback_bucket
from tests.made_embedding import (
    DIM,
    InProcess,
    embed,
    files_of,
    write_network,
)


def read(job: Job) -> list[str]:
    return sorted(one for batch in job.destination.vectors().batches() for one in batch.ids)


def shard_files(job: Job) -> set[str]:
    return {one for one in job.destination.names() if one.endswith(".parquet")} - {*LISTS}


def named_files(job: Job) -> set[str]:
    with open_manifest(job.destination) as manifest:
        network = manifest.origin["network"]
        return {output_name(one.digest, network) for one in manifest.summaries()}


def opened_after(change: Callable[[Job], object]) -> type[InProcess]:
    """An engine whose worker is opened when something has changed since the run began."""

    class OpenedAfter(InProcess):
        def sample(self, shard: ShardSummary, images: int) -> Sample:
            sample = super().sample(shard, images)
            change(self.opened.job)
            self.opened = ShardEmbedder(self.opened.job)
            return sample

    return OpenedAfter


def another_network(job: Job) -> None:
    write_network(job.network, seed=7)


def test_a_worker_that_finds_another_network_is_refused(job: Job, tmp_path: Path) -> None:
    expected = replace(job, destination=Destination(str(tmp_path / "expected")))
    embed(expected)
    with pytest.raises(ValueError, match=r"net\.safetensors: is not the network .* was begun with"):
        embed(job, engine=opened_after(another_network))
    assert shard_files(job) == set()
    write_network(job.network)
    assert embed(job).shards == 3
    assert files_of(tmp_path / "vectors") == files_of(tmp_path / "expected")


def test_a_network_of_another_length_is_told_before_the_estimate(job: Job) -> None:
    class Replaced(InProcess):
        def __init__(self, job: Job, workers: int) -> None:
            write_network(job.network, seed=7, dim=DIM // 2)
            super().__init__(job, workers)

    with pytest.raises(ValueError, match=r"net\.safetensors: is not the network .* was begun with"):
        embed(job, engine=Replaced)


def test_a_network_that_is_replaced_before_it_is_exported_is_refused(job: Job) -> None:
    """Or its ONNX would stay in the destination, and embed whatever is put back."""
    with pytest.raises(ValueError, match=r"net\.safetensors: is not the network .* was begun with"):
        embed(job, tell=lambda _: another_network(job))
    assert "network.onnx" not in job.destination.names()


def test_a_network_that_is_replaced_when_all_have_opened_it_changes_nothing(
    job: Job, tmp_path: Path
) -> None:
    class ReplacedBehind(InProcess):
        def write(self, shards: Iterable[ShardSummary]) -> Iterator[ShardReport]:
            write_network(self.opened.job.network, seed=7, dim=DIM // 2)
            return super().write(shards)

    expected = replace(job, destination=Destination(str(tmp_path / "expected")))
    embed(expected)
    embed(job, engine=ReplacedBehind)
    assert files_of(tmp_path / "vectors") == files_of(tmp_path / "expected")


def first_shard(job: Job) -> ShardSummary:
    with open_manifest(job.destination) as manifest:
        return next(manifest.summaries())


class StoppedError(RuntimeError):
    pass


class StopsAtOnce(InProcess):
    def sample(self, shard: ShardSummary, images: int) -> Sample:
        raise StoppedError


@pytest.fixture
def begun(job: Job) -> Job:
    """Of which a run was stopped before anything was embedded."""
    with pytest.raises(StoppedError):
        embed(job, engine=StopsAtOnce)
    return job


def cut_anew(job: Job) -> None:
    """By a later run, as an image is not there any more."""
    (Path(job.source.address) / "0" / "0000.jpg").unlink(missing_ok=True)
    embed(job)


def test_a_shard_of_an_earlier_cut_is_refused(begun: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    worker, shard = ShardEmbedder(begun), first_shard(begun)
    whole = worker.embed

    def embed_meanwhile(ids: Sequence[str]) -> Embedded:
        cut_anew(begun)
        return whole(ids)

    monkeypatch.setattr(worker, "embed", embed_meanwhile)
    for _ in ("cut anew while it is embedded", "before"):
        with pytest.raises(ValueError, match=r"vectors: shard 0 was cut anew by another run"):
            worker.write(shard.number, shard.digest)
    with pytest.raises(ValueError, match=r"vectors: shard 3 was cut anew by another run"):
        worker.write(3, shard.digest)
    assert shard_files(begun) == named_files(begun)
    assert len(read(begun)) == 9


def put_late(job: Job, shard: ShardSummary, found: Embedded) -> None:
    job.destination.put(output_name(shard.digest, job.digest()), vectors_file(found, job.number))


@pytest.mark.parametrize("place", ["folder", "memory://vectors/all"])
def test_a_shard_of_an_earlier_cut_that_comes_late_is_deleted_by_the_next_run(
    job: Job, place: str
) -> None:
    if place != "folder":
        job = replace(job, destination=Destination(place))
    with pytest.raises(StoppedError):
        embed(job, engine=StopsAtOnce)
    shard = first_shard(job)
    with open_manifest(job.destination) as manifest:
        found = ShardEmbedder(job).embed(manifest[0].ids)
    cut_anew(job)
    put_late(job, shard, found)
    own = {"notes.txt": b"x", "ab.parquet": b"y", f"{'a' * 39}g.parquet": b"z"}
    for name, content in own.items():
        job.destination.put(name, content)
    assert embed(job).embedded == 0
    assert shard_files(job) == named_files(job) | {name for name in own if "parquet" in name}
    for name, content in own.items():
        assert job.destination.read(name) == content
        job.destination.delete(name)
    assert len(read(job)) == 9
    MemoryFileSystem.store.clear()


def test_a_shard_that_comes_late_into_a_run_is_deleted_at_its_end(begun: Job) -> None:
    worker, shard = ShardEmbedder(begun), first_shard(begun)
    with open_manifest(begun.destination) as manifest:
        found = worker.embed(manifest[0].ids)

    def late(job: Job) -> None:
        put_late(job, shard, found)

    (Path(begun.source.address) / "0" / "0000.jpg").unlink()
    embed(begun, engine=opened_after(late))
    assert shard_files(begun) == named_files(begun)
    assert len(read(begun)) == 9


@S3
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_an_object_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    with loopback_bucket(monkeypatch, {"v/a": b"a", "v/b": b"b"}):
        place = Destination("s3://photos/v")
        place.delete("a")
        place.delete("a")  # by another run before
        assert place.names() == {"b"}
        with pytest.raises(FileNotFoundError):
            place.read("a")
