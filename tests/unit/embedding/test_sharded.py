"""Sources to folders of vectors: what they hold, what changes, and what is refused."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.datasets.decode import decode_image
from pipeline.datasets.picture_sources import PictureSource, picture_source
from pipeline.datasets.vector_batches import VectorsError
from pipeline.datasets.vectors import read_vectors
from pipeline.embedding.destination import Destination, destination_of
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.embedding.golden import check_golden
from pipeline.embedding.manifest import ShardSummary, open_manifest, output_name
from pipeline.embedding.planning import Changes
from pipeline.embedding.sharded import EmbeddingReport, estimate, size_text
from pipeline.embedding.shards import Job, Sample, ShardReport
from pipeline.models.weights import load_network
from pipeline.views.evaluation import evaluation_view
from tests.made_bucket import S3, loopback_bucket
from tests.made_embedding import (
    DIM,
    SIZE_PX,
    InProcess,
    embed,
    files_of,
    images_of,
    make_job,
    picture,
    write_network,
)
from tests.made_training import CPU, made_pack


def read(job: Job) -> dict[str, tuple[np.ndarray, str]]:
    """By ids the vectors and content of what readers are given."""
    batches = list(read_vectors(Path(job.destination.address)).batches())
    return {
        one: (vector, content)
        for part in batches
        for one, vector, content in zip(part.ids, part.vectors, part.content, strict=True)
    }


def expected(job: Job) -> dict[str, tuple[np.ndarray, str]]:
    """One image after the other, by the network as it is saved."""
    network, card = load_network(job.network, torch.device("cpu"))
    found = {}
    for file in sorted(images_of(job).rglob("*.jpg")):
        content = file.read_bytes()
        view = evaluation_view(decode_image(content, file.name), card.size_px)
        with torch.inference_mode():
            vector = network(view[None].float() / 255)[0].numpy()
        name = file.relative_to(images_of(job)).as_posix()
        found[name] = (vector, hashlib.sha256(content).hexdigest())
    return found


def check_equal(job: Job) -> None:
    ours, wanted = read(job), expected(job)
    assert ours.keys() == wanted.keys()
    assert len(ours) > 0
    for name, (vector, content) in wanted.items():
        np.testing.assert_allclose(ours[name][0], vector, atol=1e-5)
        assert ours[name][1] == content


def test_holds_the_networks_vectors_and_the_hashes_of_the_files(job: Job) -> None:
    told: list[str] = []
    report = embed(job, tell=told.append)
    assert (report.changes, report.shards, report.embedded) == (Changes(10, 10), 3, 10)
    check_equal(job)
    folder = Path(job.destination.address)
    card = read_vectors(folder).card
    assert (card.dim, card.network, card.tombstones) == (DIM, job.digest(), 0)
    assert told[0] == "10 images: 10 new, 0 changed, 0 deleted"
    assert told[1].startswith("to embed: 10 images in 3 shards, ")
    assert " ms an image and worker, 1 worker), " in told[2]
    assert not list(folder.glob(".*.part"))


def test_agrees_with_the_database_of_a_study(tmp_path: Path, network: Path) -> None:
    pack = made_pack(tmp_path, 3, 4)
    for row, name in enumerate(pack.names):
        file = tmp_path / "images" / Path(name).with_suffix(".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pack.encoded(row))
    job = make_job(tmp_path, network=network)
    embed(job)
    opened, _ = load_network(network, CPU)
    study = embed_views(opened, EvaluationViews(pack, np.arange(len(pack.names)), SIZE_PX), CPU)
    ours = read(job)
    assert len(ours) == len(pack.names)
    for name, vector in zip(pack.names, study.numpy(), strict=True):
        np.testing.assert_allclose(ours[str(Path(name).with_suffix(".png"))][0], vector, atol=1e-5)


def test_float16_is_half_and_nearly_the_same(job: Job, tmp_path: Path) -> None:
    other = make_job(
        tmp_path,
        network=job.network,
        number="float16",
        destination=Destination(str(tmp_path / "h")),
    )
    embed(job)
    embed(other)
    for name, (vector, _) in read(job).items():
        np.testing.assert_allclose(read(other)[name][0], vector, atol=1e-3)
    assert job.digest() != other.digest()


def test_nothing_new_writes_nothing(job: Job) -> None:
    embed(job)
    before = files_of(Path(job.destination.address))
    report = embed(job)
    assert (report.shards, report.embedded) == (0, 0)
    assert files_of(Path(job.destination.address)) == before


class StoppedError(RuntimeError):
    pass


class StopsAfterOne(InProcess):
    def write(self, shards: Iterable[ShardSummary]) -> Iterator[ShardReport]:
        yield from super().write(list(shards)[:1])
        raise StoppedError


def test_stopped_and_started_again_the_bytes_are_those_of_a_run(job: Job, tmp_path: Path) -> None:
    other = make_job(tmp_path, network=job.network, destination=Destination(str(tmp_path / "w")))
    embed(other)
    with pytest.raises(StoppedError):
        embed(job, engine=StopsAfterOne)
    folder = Path(job.destination.address)
    assert not (folder / "card.json").exists()
    (folder / ".x.parquet.99.part").write_bytes(b"half")
    report = embed(job)
    assert (report.shards, report.embedded) == (2, 6)
    assert files_of(folder) == files_of(Path(other.destination.address))
    assert not (folder / ".x.parquet.99.part").exists()


def test_new_changed_and_deleted_images(job: Job) -> None:
    embed(job)
    before = files_of(Path(job.destination.address))
    folder = images_of(job)
    (folder / "0" / "0003.jpg").write_bytes(picture(77))
    (folder / "1" / "0001.jpg").unlink()
    (folder / "new.jpg").write_bytes(picture(78))
    os.utime(folder / "2" / "0002.jpg", (1, 1))
    report = embed(job)
    assert report.changes == Changes(10, 1, 1, 1)
    assert (report.shards, report.embedded) == (1, 2)
    check_equal(job)
    opened = read_vectors(Path(job.destination.address))
    assert opened.card.tombstones == 2
    gone = {one for ids in opened.tombstones().values() for one in ids}
    assert gone == {"0/0003.jpg", "1/0001.jpg"}
    after = files_of(Path(job.destination.address))
    kept = [name for name in before if len(name) > 30]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert embed(job).changes == Changes(10, 0)  # the touched one is not read again


def test_an_image_that_comes_back_as_it_was_has_one_row(job: Job) -> None:
    file = images_of(job) / "0" / "0003.jpg"
    embed(job)
    file.unlink()
    embed(job)
    assert "0/0003.jpg" not in read(job)
    file.write_bytes(picture(3))
    assert embed(job).changes == Changes(10, 1)
    check_equal(job)
    file.write_bytes(picture(99))
    embed(job)
    check_equal(job)


def test_a_whole_shard_that_was_away_and_is_back_as_it_was_has_its_rows(job: Job) -> None:
    """As the folder of a day on a disk that was not there: same names, sizes and times."""
    embed(job)
    day, away = images_of(job) / "day", images_of(job).with_name("away")
    day.mkdir()
    (day / "a.jpg").write_bytes(picture(70))
    for at in range(3):
        assert embed(job).changes == Changes(11, 1)
        check_equal(job)
        day.rename(away)
        assert embed(job).changes == Changes(10, 0, 0, 1)
        check_equal(job)
        away.rename(day)
        assert read_vectors(Path(job.destination.address)).card.tombstones == at + 1


def test_a_shard_that_was_not_done_is_cut_anew_without_what_has_gone(job: Job) -> None:
    with pytest.raises(StoppedError):
        embed(job, engine=StopsAfterOne)
    names = sorted(one.relative_to(images_of(job)) for one in images_of(job).rglob("*.jpg"))
    (images_of(job) / names[-1]).unlink()
    (images_of(job) / names[5]).write_bytes(picture(77))
    embed(job)
    check_equal(job)
    assert read_vectors(Path(job.destination.address)).card.tombstones == 0
    with open_manifest(job.destination) as manifest:
        assert [shard.images for shard in manifest.summaries()] == [4, 4, 1]


def test_unreadable_images_are_counted_and_listed_as_long_as_they_are_there(job: Job) -> None:
    (images_of(job) / "broken.jpg").write_bytes(b"no picture")
    (images_of(job) / "empty.jpg").write_bytes(b"")
    assert embed(job).unreadable == 2
    listed = pq.read_table(Path(job.destination.address, "unreadable.parquet")).to_pydict()
    assert listed["id"] == ["broken.jpg", "empty.jpg"]
    assert listed["reason"] == ["is not an image of a known format", "is empty (0 bytes)"]
    (images_of(job) / "broken.jpg").unlink()
    (images_of(job) / "empty.jpg").write_bytes(picture(5))
    assert embed(job).unreadable == 0
    check_equal(job)


def test_another_source_network_or_content_of_the_folder_is_refused(
    job: Job, network: Path, tmp_path: Path
) -> None:
    embed(job)
    shutil.copytree(images_of(job), tmp_path / "copy")
    elsewhere = make_job(
        tmp_path, network=job.network, source=PictureSource(str(tmp_path / "copy"))
    )
    with pytest.raises(ValueError, match=r"holds vectors of the images in .*images, not of "):
        embed(elsewhere)
    other = make_job(tmp_path, network=write_network(tmp_path / "other.safetensors", seed=1))
    with pytest.raises(ValueError, match=r"holds vectors of another network, or of another"):
        embed(other)
    reduced = make_job(tmp_path, network=job.network, is_reduced=True)
    with pytest.raises(ValueError, match=r"preprocessing: name another folder"):
        embed(reduced)
    into = make_job(tmp_path, network=job.network, destination=Destination(str(tmp_path / "copy")))
    (tmp_path / "copy" / ".film.mkv.7.part").write_bytes(b"being fetched by another program")
    with pytest.raises(ValueError, match=r"copy: holds 0, but no manifest\.parquet"):
        embed(into)
    assert (tmp_path / "copy" / ".film.mkv.7.part").exists()
    empty = make_job(
        tmp_path,
        source=PictureSource(str(network.parent)),
        network=job.network,
        destination=Destination(str(tmp_path / "x")),
    )
    with pytest.raises(ValueError, match=r": holds no image"):
        embed(empty)


def test_two_at_once_are_refused(job: Job) -> None:
    with job.destination.alone(), pytest.raises(ValueError, match=r"another `l2s embed` is"):
        embed(job)


def test_a_golden_image_a_shard_tells_another_network(job: Job, tmp_path: Path) -> None:
    embed(job)
    found = check_golden(job)
    assert (found.checked, found.passed_over) == (3, 0)
    assert found.least_cosine > 0.99999
    other = make_job(tmp_path, network=write_network(tmp_path / "other.safetensors", seed=1))
    with pytest.raises(VectorsError, match=r"has cosine .* to its stored vector: another network"):
        check_golden(other)
    shutil.rmtree(images_of(job) / "0")
    (images_of(job) / "0").mkdir()
    assert check_golden(job).passed_over == 1


def test_a_file_of_vectors_is_named_by_its_shard_and_its_network(job: Job) -> None:
    embed(job)
    with open_manifest(job.destination) as manifest:
        names = {output_name(one.digest, job.digest()) for one in manifest.summaries()}
        others = {output_name(one.digest, "other") for one in manifest.summaries()}
    files = set(read_vectors(Path(job.destination.address)).files)
    assert files == names
    assert not files & others


def test_a_report_says_what_was_done(job: Job) -> None:
    report = embed(job)
    assert isinstance(report, EmbeddingReport)
    assert report.worker_bytes > 1 << 20


@S3
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_from_a_store_into_a_store(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(job)
    here = files_of(Path(job.destination.address))
    with loopback_bucket(monkeypatch, {}) as client:
        for file in images_of(job).rglob("*.jpg"):
            key = f"in/{file.relative_to(images_of(job)).as_posix()}"
            client.put_object(Bucket="photos", Key=key, Body=file.read_bytes())
        stored = make_job(
            tmp_path,
            network=job.network,
            source=PictureSource("s3://photos/in"),
            destination=Destination("s3://photos/out/vectors"),
        )
        with pytest.raises(StoppedError):
            embed(stored, engine=StopsAfterOne)
        assert embed(stored).shards == 2
        there = [stored.destination.read(name) for name in sorted(stored.destination.names())]
        assert check_golden(stored).checked == 3
        client.delete_object(Bucket="photos", Key="in/0/0000.jpg")
        assert embed(stored).changes == Changes(9, 0, 0, 1)
        table = pq.read_table(pa.BufferReader(stored.destination.read("tombstones.parquet")))
        assert table["id"].to_pylist() == ["0/0000.jpg"]
    tables = [pq.read_table(pa.BufferReader(one)) for one in there if one[:4] == b"PAR1"]
    rows = pa.concat_tables(one for one in tables if "vector" in one.schema.names)
    local = [pa.BufferReader(here[name]) for name in here if len(name) > 30]
    expected = pa.concat_tables(map(pq.read_table, local))
    assert rows.sort_by("id") == expected.sort_by("id")


@pytest.mark.parametrize(
    ("count", "text"),
    [(999, "999 bytes"), (1010, "0.986 KiB"), (1010 << 20, "0.986 GiB"), (5 << 30, "5 GiB")],
)
def test_sizes_have_three_digits(count: int, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(("image_s", "text"), [(0.0123, "12.3 ms"), (1.234, "1.23 s")])
def test_a_time_has_three_digits(job: Job, image_s: float, text: str) -> None:
    shard = ShardSummary(0, "", 10, 1000)
    (_, told) = estimate(job, [shard], Sample(image_s, 1 << 20), workers=1)
    assert f"({text} an image and worker, 1 worker), " in told


def test_a_home_is_where_the_shell_did_not_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "v").mkdir(parents=True)
    here, wanted = tmp_path / "here", str(tmp_path / "home" / "v")
    assert destination_of("~/v", here).address == wanted  # as of --to=~/v
    assert picture_source("~/v", here).address == wanted
