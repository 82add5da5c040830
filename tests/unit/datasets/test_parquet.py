"""Parquet files of other writers: names in some files only, images as plain bytes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.datasets import archives
from pipeline.datasets.cars196 import CARS196
from pipeline.datasets.fetching import given_files
from pipeline.datasets.parquet import read_column, split_of, spool_images
from pipeline.datasets.reader import Counts, DatasetError
from tests import made_archives as made

CARS_COUNTS = Counts(2, 2, 5, 4)


def test_cars_parquet_takes_the_names_of_any_file(tmp_path: Path) -> None:
    paths = made.write_cars_parquet(tmp_path)
    first = paths["train-00000-of-00002.parquet"]
    pq.write_table(pq.read_table(first).replace_schema_metadata(None), first)
    with made.opened("cars_parquet", paths, counts=CARS_COUNTS) as reader:
        assert {i.class_name for i in reader.images} == {
            name.replace("/", "-") for name in made.CAR_NAMES
        }


def test_cars_parquet_refuses_two_names_of_a_label(tmp_path: Path) -> None:
    paths = made.write_cars_parquet(tmp_path)
    columns: dict[str, list[object]] = {"image": made.image_cells([1]), "label": [0]}
    made.write_parquet(paths["test-00000-of-00001.parquet"], columns, ("Another",))
    with (
        pytest.raises(DatasetError, match="the files name their labels differently"),
        made.opened("cars_parquet", paths),
    ):
        pass


def test_parquet_images_may_be_plain_bytes(tmp_path: Path) -> None:
    paths = made.write_cars_parquet(tmp_path)
    with made.opened("cars_parquet", paths) as reader:
        whole = [reader.read(image.name) for image in reader.images]
    for path in paths.values():
        table = pq.read_table(path)
        cells = [cell["bytes"] for cell in table.column("image").to_pylist()]
        plain = pa.array(cells, pa.binary())
        pq.write_table(table.set_column(0, "image", plain), path)
    with made.opened("cars_parquet", paths, counts=CARS_COUNTS) as reader:
        assert [reader.read(image.name) for image in reader.images] == whole
        assert len(whole) == 9


def in_folders_of_splits(paths: dict[str, Path], folder: Path) -> list[Path]:
    """The files as the site's own conversion names them."""
    moved = []
    for name, path in paths.items():
        split, number, *_ = name.split("-")
        (folder / split).mkdir(parents=True, exist_ok=True)
        moved.append(path.rename(folder / split / f"{number[1:]}.parquet"))
    return moved


def test_parquet_in_a_folder_of_each_split(tmp_path: Path) -> None:
    paths = made.write_cars_parquet(tmp_path)
    with made.opened("cars_parquet", paths, counts=CARS_COUNTS) as reader:
        whole = [(image, reader.read(image.name)) for image in reader.images]
    in_folders_of_splits(paths, tmp_path / "default")
    (tmp_path / "default" / "partial-train").mkdir()
    (tmp_path / "default" / "partial-train" / "0000.parquet").write_bytes(b"no parquet")
    given = given_files(CARS196.archives["cars_parquet"], tmp_path, accept_subset=True)
    assert list(given) == [
        "default/test/0000.parquet",
        "default/train/0000.parquet",
        "default/train/0001.parquet",
    ]
    located = {name: file.path for name, file in given.items()}
    with made.opened("cars_parquet", located, counts=CARS_COUNTS) as reader:
        assert [(image, reader.read(image.name)) for image in reader.images] == whole
        assert len(whole) == 9


def test_a_broken_parquet_file_is_named_with_the_folder_of_its_split(tmp_path: Path) -> None:
    _, _, broken = in_folders_of_splits(made.write_cars_parquet(tmp_path), tmp_path)
    broken.write_bytes(b"no parquet")
    with (
        pytest.raises(DatasetError, match=r"^test/0000\.parquet: has no readable parquet schema"),
        made.opened("cars_parquet", {"given": broken}),
    ):
        pass


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train-00000-of-00001.parquet", "train"),
        ("data/test-00000-of-00001-0f3a.parquet", "test"),
        ("default/test/0000.parquet", "test"),
        ("test/train-00000.parquet", "train"),
        ("training/0000.parquet", None),
        ("default/validation/0000.parquet", None),
        ("0000.parquet", None),
    ],
)
def test_the_split_of_a_parquet_file(path: str, split: str | None) -> None:
    assert split_of(Path(path)) == split


def damage(tmp_path: Path, column: str, values: pa.Array, **settings: object) -> Path:
    """A file of labels and images of which one column is replaced."""
    file = tmp_path / "train-00000-of-00001.parquet"
    table = pa.table({"image": made.image_cells([1, 2]), "label": [0, 1]})
    columns = {name: table.column(name) for name in table.column_names} | {column: values}
    rows = min(map(len, columns.values()))
    pq.write_table(pa.table({n: c.slice(0, rows) for n, c in columns.items()}), file, **settings)
    return file


def repeated(value: object, rows: int) -> pa.Array:
    """A column of one value, which the file holds once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([value]))


BOMBS = {
    "a long text, repeated": (
        "label",
        repeated("x" * 1_000_000, 2),
        "has 1000000 bytes: allowed are 4096",
    ),
    "a nested column": ("label", pa.array([[1] * 1000] * 2), "holds no numbers or texts but list"),
    "a nested image": ("image", pa.array([[b"x"]] * 2), "holds no bytes but list"),
    "a struct without bytes": ("image", pa.array([{"path": "x"}] * 2), "holds no bytes but struct"),
    "texts for images": ("image", pa.array(["x", "y"]), "holds no bytes but string"),
    "one huge cell": ("image", pa.array([b"\0" * 100_000_000, b""]), "unpacks to 100000... bytes"),
}


@pytest.mark.parametrize("store_schema", [True, False])
@pytest.mark.parametrize("name", BOMBS)
def test_parquet_of_more_than_it_looks_is_refused(
    tmp_path: Path, name: str, store_schema: bool
) -> None:
    """`store_schema`: whether a text that is repeated is so by Arrow's schema, or by the file."""
    column, values, says = BOMBS[name]
    file = damage(tmp_path, column, values, compression="zstd", store_schema=store_schema)
    assert file.stat().st_size < 100_000
    before = pa.total_allocated_bytes()
    opened = spool_images([file], ["one", "two"], tmp_path)
    with pytest.raises(DatasetError, match=says):
        read_column(file, "label") if column == "label" else opened.__enter__()
    assert pa.total_allocated_bytes() - before < 1 << 20
    assert len(BOMBS) == 6


def test_a_parquet_file_has_no_more_rows_than_an_archive_has_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "train-00000-of-00001.parquet"
    pq.write_table(pa.table({"label": repeated("seven", 1000)}), file)
    assert read_column(file, "label") == ["seven"] * 1000
    monkeypatch.setattr(archives, "MEMBERS", 999)
    with pytest.raises(DatasetError, match="has 1000 rows, more than 999"):
        read_column(file, "label")


def test_rows_that_share_a_value_unpack_to_no_more_than_an_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "train-00000-of-00001.parquet"
    pq.write_table(pa.table({"label": repeated("x" * 4000, 1000)}), file)
    assert len(read_column(file, "label")) == 1000
    monkeypatch.setattr(archives, "RATIO_FROM_BYTES", 1_000_000)
    with pytest.raises(DatasetError, match=r"row \d+ of 'label' .* 100 times the file's own"):
        read_column(file, "label")


def test_a_picture_that_many_rows_share_is_held_once(tmp_path: Path) -> None:
    """64 rows of one picture of 8 MB: as a batch half a gigabyte."""
    file = tmp_path / "train-00000-of-00001.parquet"
    random = np.random.default_rng(0).bytes(8_000_000)
    pq.write_table(pa.table({"image": repeated(random, 64)}), file)
    names = [f"{n}" for n in range(64)]
    before = pa.default_memory_pool().max_memory()
    with spool_images([file], names, tmp_path) as members:
        assert [len(members.read(name)) for name in names] == [8_000_000] * 64
    assert pa.default_memory_pool().max_memory() - before < 100_000_000
