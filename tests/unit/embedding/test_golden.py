"""Vectors are held against their network before an index is built, or it is said why not."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.cli.__main__ import app
from pipeline.datasets.picture_sources import PictureSource
from pipeline.datasets.vector_batches import VectorBatch, VectorsError
from pipeline.datasets.vectors import write_vectors
from pipeline.embedding import golden, shards
from pipeline.embedding.destination import Destination
from pipeline.embedding.golden import UncheckableError, check_folder, check_golden
from pipeline.embedding.manifest import noted_network, open_manifest
from pipeline.embedding.shards import Embedded, ShardEmbedder
from pipeline.models.query_encoder import square_view
from pipeline.search.upkeep import build_index, open_index
from tests.made_embedding import (
    embed,
    files_of,
    make_job,
    picture,
    write_network,
    write_pictures,
)


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    write_network(tmp_path / "net.safetensors")
    write_pictures(tmp_path / "images", range(10))
    embed(make_job(tmp_path))
    return tmp_path / "vectors"


def build(vectors: Path, *options: str) -> tuple[int, str]:
    place = str(vectors.parent / "index")
    done = CliRunner().invoke(app, ["index", "build", str(vectors), "--to", place, *options])
    return done.exit_code, done.output


def test_an_index_is_built_of_vectors_that_are_found_to_be_those_of_their_network(
    vectors: Path,
) -> None:
    code, said = build(vectors)
    assert code == 0, said
    assert "3 shards checked, 0 without an image that is as it was; least cosine 1.0000" in said


def test_no_index_is_built_of_vectors_of_another_network(vectors: Path) -> None:
    """The file of the network was replaced since, as a training does; what is there stays."""
    build(vectors)
    before = (vectors.parent / "index" / "parts.json").read_bytes()
    write_network(vectors.parent / "net.safetensors", seed=1)
    code, said = build(vectors)
    assert code == 2
    assert "net.safetensors: is another network than the one that embedded " in said
    assert (vectors.parent / "index" / "parts.json").read_bytes() == before
    code, said = build(vectors, "--unchecked")
    assert code == 0
    assert "not checked against their network: as you wish" in said


def test_a_network_that_has_moved_is_noted_by_the_next_run(vectors: Path) -> None:
    """Though no image is new: then another one at its old place says nothing of the vectors."""
    job = make_job(vectors.parent, network=vectors.parent / "kept.safetensors")
    (vectors.parent / "net.safetensors").rename(job.network)
    assert embed(job).shards == 0
    write_network(vectors.parent / "net.safetensors", seed=1)
    assert noted_network(job.destination) == job.network
    assert check_folder(job.destination).checked == 3
    before = files_of(vectors)
    assert embed(job).shards == 0
    assert files_of(vectors) == before


def test_a_network_of_vectors_of_another_length_is_told(vectors: Path) -> None:
    job = make_job(vectors.parent)
    write_network(job.network, dim=8)
    said = r"parquet: its vectors have 16 numbers, those of .*net\.safetensors 8: another network"
    with pytest.raises(VectorsError, match=said):
        check_golden(job)
    code, told = build(vectors)
    assert (code, "another network" in told) == (2, True)


def test_no_index_is_built_of_vectors_of_another_preprocessing(
    vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "square_view", lambda *given: square_view(*given)[::-1].copy())
    with pytest.raises(VectorsError, match="another preprocessing"):
        build_index(vectors.parent / "index", vectors, "exact")
    assert not (vectors.parent / "index").exists()


def _spoil(file: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replace the vectors of a shard's file."""
    table = pq.read_table(file)
    numbers = table["vector"].combine_chunks().values.to_numpy()
    spoiled = pa.FixedSizeListArray.from_arrays(pa.array(change(numbers)), 16)
    pq.write_table(table.set_column(1, table.schema.field("vector"), spoiled), file)


SPOILED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "of another network": lambda numbers: numbers[::-1].copy(),
    "no numbers": lambda numbers: numbers * np.float32("nan"),
    "zeros": lambda numbers: numbers * np.float32(0),
}


@pytest.mark.parametrize("name", SPOILED)
def test_one_spoiled_shard_is_enough(vectors: Path, name: str) -> None:
    _spoil(max(vectors.glob("????????????????????????????????????????.parquet")), SPOILED[name])
    code, said = build(vectors)
    assert (code, "to its stored vector: another network" in said) == (2, True)
    assert len(SPOILED) == 3


def test_a_shard_is_checked_by_any_image_that_is_left(tmp_path: Path) -> None:
    """Of ten images in a shard the first five are deleted, and the next three have changed."""
    write_network(tmp_path / "net.safetensors")
    write_pictures(tmp_path / "images", range(10))
    job = make_job(tmp_path)
    embed(job, shard_images=10)
    names = sorted((tmp_path / "images").rglob("*.jpg"))
    for file in names[:5]:
        file.unlink()
    embed(job, shard_images=10)
    for file in names[5:8]:
        file.write_bytes(b"other")
    assert check_golden(job).checked == 1
    (file,) = (tmp_path / "vectors").glob("????????????????????????????????????????.parquet")
    _spoil(file, SPOILED["of another network"])
    with pytest.raises(VectorsError, match="to its stored vector: another network"):
        check_golden(job)


def add(vectors: Path, *options: str) -> tuple[int, str]:
    place = str(vectors.parent / "index")
    done = CliRunner().invoke(app, ["index", "add", place, str(vectors), *options])
    return done.exit_code, done.output


def test_only_shards_that_are_new_to_an_index_are_checked_before_they_are_added(
    vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(vectors)
    write_pictures(vectors.parent / "images", range(10, 16))
    embed(make_job(vectors.parent))
    code, said = add(vectors)
    assert code == 0, said
    assert said.startswith("2 shards checked, 0 without an image that is as it was; least cosine 1")
    assert "6 added, 0 replaced, 0 removed, 10 unchanged" in said
    opened: list[object] = []
    monkeypatch.setattr(golden, "ShardEmbedder", opened.append)  # a network takes seconds to open
    assert add(vectors) == (
        0,
        f"{vectors.parent / 'index'}: 0 added, 0 replaced, 0 removed, 16 unchanged\n",
    )
    assert opened == []


def test_a_changed_image_is_checked_in_its_new_shard_alone(vectors: Path) -> None:
    build(vectors)
    (vectors.parent / "images" / "0" / "0000.jpg").write_bytes(picture(77))
    embed(make_job(vectors.parent))
    code, said = add(vectors)
    assert said.startswith("1 shard checked, 0 without")
    assert "0 added, 1 replaced, 0 removed, 9 unchanged" in said
    assert code == 0


@pytest.mark.parametrize("kind", ["exact", "lancedb"])  # the latter keeps each block by itself
def test_no_shard_of_another_network_is_added(vectors: Path, kind: str) -> None:
    if kind == "lancedb":
        pytest.importorskip("lancedb")
    build(vectors, "--kind", kind)
    write_pictures(vectors.parent / "images", range(10, 16))
    embed(make_job(vectors.parent))
    write_network(vectors.parent / "net.safetensors", seed=1)
    code, said = add(vectors)
    assert code == 2
    assert "is another network than the one that embedded " in said
    with open_index(vectors.parent / "index") as index:
        assert len(index) == 10
    code, said = add(vectors, "--unchecked")
    assert code == 0, said
    assert said.startswith("not checked against their network: as you wish\n")
    assert "6 added" in said


def test_no_shard_of_another_preprocessing_is_added(
    vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(vectors)
    write_pictures(vectors.parent / "images", range(10, 12))
    embed(make_job(vectors.parent))
    monkeypatch.setattr(shards, "square_view", lambda *given: square_view(*given)[::-1].copy())
    code, said = add(vectors)
    assert (code, "another preprocessing" in said) == (2, True)


def _change_origin(vectors: Path, **changes: object) -> None:
    table = pq.read_table(vectors / "manifest.parquet")
    origin = json.loads(table.schema.metadata[b"origin"]) | changes
    origin = {key: value for key, value in origin.items() if value is not None}
    kept = table.replace_schema_metadata({b"origin": json.dumps(origin).encode()})
    pq.write_table(kept, vectors / "manifest.parquet", row_group_size=1)


def test_a_manifest_to_come_is_refused(vectors: Path) -> None:
    with open_manifest(Destination(str(vectors))) as manifest:
        assert manifest.origin["format"] == 1
    _change_origin(vectors, format=2)
    said = r"manifest\.parquet: is of format 2, and this version reads 1: embed into a new folder"
    with pytest.raises(VectorsError, match=said):
        embed(make_job(vectors.parent))
    assert build(vectors)[0] == 2
    _change_origin(vectors, format=None)  # of an earlier version
    assert embed(make_job(vectors.parent)).embedded == 0


UNCHECKED: dict[str, tuple[Callable[[Path], object], str]] = {
    "the network is gone": (lambda v: (v.parent / "net.safetensors").unlink(), "is not there"),
    "the images are gone": (
        lambda v: shutil.rmtree(v.parent / "images"),
        "are not there|as it was",
    ),
    "all images have changed": (
        lambda v: [file.write_bytes(b"") for file in (v.parent / "images").rglob("*.jpg")],
        "no image in .* is as it was",
    ),
    "of an earlier version": (lambda v: _change_origin(v, file=None), "does not say which"),
    "images in a store": (lambda v: _change_origin(v, source="s3://theirs/x"), "lie in a store"),
    "a table that names a store": (lambda v: _change_origin(v, allow=["s3://x"]), "in a store"),
    "no manifest": (lambda v: (v / "manifest.parquet").unlink(), "did not write"),
}


@pytest.mark.parametrize("name", UNCHECKED)
def test_what_cannot_be_checked_is_said_and_the_index_is_built(vectors: Path, name: str) -> None:
    spoil, says = UNCHECKED[name]
    spoil(vectors)
    with pytest.raises(UncheckableError, match=says):
        check_folder(Destination(str(vectors)))
    code, said = build(vectors)
    assert code == 0, said
    assert "not checked against their network: " in said
    assert len(UNCHECKED) == 7


def test_vectors_from_elsewhere_are_not_checked(tmp_path: Path) -> None:
    rows = np.eye(16, dtype=np.float32)
    write_vectors(tmp_path / "v", [VectorBatch([f"{i}" for i in range(16)], rows, [""] * 16)])
    built = build_index(tmp_path / "index", tmp_path / "v", "exact")
    assert built.vectors == 16
    assert built.golden.startswith("not checked against their network: `l2s embed` did not write")


def test_a_reduced_decode_is_checked_by_a_reduced_decode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_network(tmp_path / "net.safetensors")
    write_pictures(tmp_path / "images", range(4))
    embed(make_job(tmp_path, is_reduced=True))
    decoded: list[bool] = []
    whole = ShardEmbedder.embed

    def noted(opened: ShardEmbedder, ids: Sequence[str]) -> Embedded:
        decoded.append(opened.job.is_reduced)
        return whole(opened, ids)

    monkeypatch.setattr(ShardEmbedder, "embed", noted)
    assert check_folder(Destination(str(tmp_path / "vectors"))).least_cosine > 0.99999
    assert check_golden(make_job(tmp_path)).checked == 1  # whatever the user says now
    assert decoded == [True, True]


def test_a_check_of_another_source_is_refused(vectors: Path) -> None:
    shutil.copytree(vectors.parent / "images", vectors.parent / "copy")
    copy = make_job(vectors.parent, source=PictureSource(str(vectors.parent / "copy")))
    with pytest.raises(VectorsError, match=r"vectors: holds vectors of .*/images, not of .*/copy"):
        check_golden(copy)


def test_a_check_that_checks_nothing_is_none(vectors: Path) -> None:
    for file in (vectors.parent / "images").rglob("*.jpg"):
        file.unlink()
    said = r"nothing of .*vectors was checked: no image in .*images is as it was"
    with pytest.raises(UncheckableError, match=said):
        check_golden(make_job(vectors.parent))
