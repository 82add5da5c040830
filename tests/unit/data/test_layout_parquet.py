"""Parquet files of other writers: names in some files only, images as plain bytes."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.layouts import open_layout
from pipeline.data.listings import LayoutError
from pipeline.data.sources import ExpectedCounts, SourceForm
from tests import made_archives as made

CARS_COUNTS = ExpectedCounts(2, 2, 5, 4)


def test_cars_parquet_takes_the_names_of_any_file(tmp_path: Path) -> None:
    paths = made.write_cars_parquet(tmp_path)
    first = paths["train-00000-of-00002.parquet"]
    pq.write_table(pq.read_table(first).replace_schema_metadata(None), first)
    with open_layout(SourceForm("cars_parquet"), paths, counts=CARS_COUNTS) as listing:
        assert {i.class_name for i in listing.images} == {
            name.replace("/", "-") for name in made.CAR_NAMES
        }


def test_cars_parquet_refuses_two_names_of_a_label(tmp_path: Path) -> None:
    paths = made.write_cars_parquet(tmp_path)
    columns: dict[str, list[object]] = {"image": made.image_cells([1]), "label": [0]}
    made.write_parquet(paths["test-00000-of-00001.parquet"], columns, ("Another",))
    with (
        pytest.raises(LayoutError, match="label 0 is 'Another', in an earlier file 'AM General"),
        open_layout(SourceForm("cars_parquet"), paths),
    ):
        pass


def test_parquet_images_may_be_plain_bytes(tmp_path: Path) -> None:
    paths = made.write_cars_parquet(tmp_path)
    with open_layout(SourceForm("cars_parquet"), paths) as listing:
        whole = [listing.read(image.name) for image in listing.images]
    for path in paths.values():
        table = pq.read_table(path)
        cells = [cell["bytes"] for cell in table.column("image").to_pylist()]
        plain = pa.array(cells, pa.binary())
        pq.write_table(table.set_column(0, "image", plain), path)
    with open_layout(SourceForm("cars_parquet"), paths, counts=CARS_COUNTS) as listing:
        assert [listing.read(image.name) for image in listing.images] == whole
        assert len(whole) == 9
