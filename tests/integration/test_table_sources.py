"""Images of a table and of tar shards, through the stages that read them."""

import io
import shutil
import tarfile
from contextlib import chdir
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from pipeline.datasets.emblems import render_emblems
from pipeline.datasets.packs import Pack, open_pack
from tests.integration.workspace import ROOT, TINY, run_stages, set_params

TABLE = {"kind": "table", "table": "pictures.parquet", "skip_unreadable": False}
TARS = {"kind": "tars", "skip_unreadable": False}


def write_table(folder: Path, images: dict[str, tuple[str, bytes]]) -> None:
    columns = {
        "id": list(images),
        "class": [class_name for class_name, _ in images.values()],
        "image": [content for _, content in images.values()],
    }
    pq.write_table(pa.table(columns), folder / "pictures.parquet", row_group_size=20)


def write_shards(folder: Path, images: dict[str, tuple[str, bytes]]) -> None:
    names = list(images)
    for number in range(3):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for name in names[number::3]:
                class_name, content = images[name]
                for ending, data in (("jpg", content), ("cls", class_name.encode())):
                    info = tarfile.TarInfo(f"{name}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize(("source", "write"), [(TABLE, write_table), (TARS, write_shards)])
def test_a_pack_is_made_of_them(tmp_path: Path, source: dict, write) -> None:  # type: ignore[no-untyped-def, type-arg]
    options = {"families": 4, "members": 3, "images_per_class": 5, "image_px": 40}
    drawn = render_emblems(**options, jpeg_quality=92, seed=0)
    images = {f"{n:03}": (one.class_name, one.encoded) for n, one in enumerate(drawn)}
    (tmp_path / "given").mkdir()
    write(tmp_path / "given", images)
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    set_params(tmp_path, TINY)
    yaml = YAML()
    params = yaml.load((tmp_path / "params.yaml").read_text(encoding="utf-8"))
    params["datasets"]["own"] = params["datasets"].pop("emblems") | {"source": source}
    params["inputs"] = {"own": "given"}
    params["students"] = {"own-16": {"dataset": "own", "query_px": 16}}
    with (tmp_path / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(params, file)
    with chdir(tmp_path):
        run_stages(("code", "study"), *((name, "own") for name in STAGES))
        pack = open_pack(Path("data/own/pack.arrow"))
    check(pack, images)


STAGES = ("inputs", "hash_inputs", "prepare")


def check(pack: Pack, images: dict[str, tuple[str, bytes]]) -> None:
    assert sorted(pack.names) == sorted(images)
    assert pack.labelled
    for row, name in enumerate(pack.names):
        assert (pack.class_of(row), pack.encoded(row)) == images[name]
    train, test = (set(pack.labels[pack.rows(split)]) for split in ("train", "test"))
    assert len(train) == len(test) == 6
    assert not train & test
