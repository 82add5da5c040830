"""Turn the source of a data set into one pack of encoded images."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.params import Params, load_params
from pipeline.config.sources import CsvSource, EmblemsSource, FolderSource
from pipeline.datasets.emblems import render_emblems
from pipeline.datasets.fetching import describe_files
from pipeline.datasets.own_images import hold_to_manifest, list_own_images
from pipeline.datasets.packs import Pack, open_pack, write_pack
from pipeline.datasets.published import open_published
from pipeline.datasets.reader import DatasetReader, read_records
from pipeline.datasets.sources import DATASETS, find_files
from pipeline.files import write_json
from pipeline.paths import WORK, DatasetPaths
from pipeline.progress import track
from stages import run_stage


def prepare(name: str) -> None:
    params = load_params()
    paths = DatasetPaths(name)
    source = params.datasets[name].source
    described = json.loads(paths.source.read_text(encoding="utf-8"))
    notes = {**{key: described[key] for key in ("kind", "origin", "licence")}, "subset": False}
    if isinstance(source, EmblemsSource):
        settings = source.model_dump(exclude={"kind"})
        images = source.families * source.members * source.images_per_class
        write_pack(paths.pack, track(render_emblems(**settings), "rendering", images, "image"))
    else:
        with _open_reader(params, name, described) as reader:
            notes |= _pack_images(
                reader,
                paths,
                skip_unreadable=source.skip_unreadable,
                largest_side_px=params.datasets[name].largest_side_px,
            )
        if isinstance(source, FolderSource | CsvSource):
            notes["kept_out_of_test"] = _kept_out(paths)
    write_json(
        paths.pack_summary,
        notes | _summary(open_pack(paths.pack), params.datasets[name].teacher_px),
    )


@contextmanager
def _open_reader(params: Params, name: str, described: dict[str, Any]) -> Iterator[DatasetReader]:
    """The images of a data set that is no emblems, held to what the earlier stages saw of them."""
    source = params.datasets[name].source
    assert not isinstance(source, EmblemsSource), "emblems are rendered"
    if described["origin"] == "given":
        described = json.loads(DatasetPaths(name).given.read_text(encoding="utf-8"))
    if isinstance(source, FolderSource | CsvSource):
        yield hold_to_manifest(list_own_images(Path(params.inputs[name]), source), described)
        return
    files = find_files(source, params.inputs.get(name))
    found = describe_files(files)
    if found != {key: described[key] for key in found}:
        stage = "hash_inputs" if source.archives == "given" else "inputs"
        raise ValueError(
            f"the archives of {name} are not those that the stage {stage} saw: "
            f"run `dvc repro --force --single-item {stage}@{name}`, then the study again"
        )
    WORK.mkdir(exist_ok=True)
    with open_published(
        DATASETS[source.kind],
        source.layout,
        {name: file.path for name, file in files.items()},
        accept_subset=source.accept_subset,
        spool_dir=WORK,
    ) as reader:
        yield replace(reader, subset=reader.subset or found["subset"])


def _pack_images(
    reader: DatasetReader, paths: DatasetPaths, *, skip_unreadable: bool, largest_side_px: int
) -> dict[str, object]:
    """Write the pack, and say what was left out of it."""
    skipped: dict[str, str] = {}
    shrunk: list[str] = []
    records = read_records(
        reader,
        largest_side_px=largest_side_px,
        skipped=skipped if skip_unreadable else None,
        shrunk=shrunk,
    )
    write_pack(
        paths.pack,
        track(records, "reading", len(reader.images), "image"),
        {"subset": "yes" if reader.subset else "no"},
        reader.class_order,
        reader.positions,
    )
    return {
        "subset": reader.subset,
        "skipped_unreadable": skipped,
        "absent": len(reader.absent),
        "passed_over": len(reader.passed_over),
        "largest_side_px": largest_side_px,
        "shrunk_to_largest_side": len(shrunk),
    }


def _kept_out(paths: DatasetPaths) -> dict[str, str]:
    """The test images that are none, since they were trained on, and the classes they were in."""
    images = json.loads(paths.given.read_text(encoding="utf-8"))["images"]
    return {i["name"]: i["trained_as"] for i in images if "trained_as" in i}


def _summary(pack: Pack, teacher_px: int) -> dict[str, object]:
    """Counts a split, and how many images are smaller than the database's."""
    shorter = np.minimum(pack.widths, pack.heights)
    return {
        "images": len(pack),
        "classes": len(pack.class_names),
        "images_train": len(pack.rows("train")),
        "images_test": len(pack.rows("test")),
        "classes_train": len(np.unique(pack.labels[pack.rows("train")])),
        "classes_test": len(np.unique(pack.labels[pack.rows("test")])),
        "shorter_side_px_least": int(shorter.min()),
        "shorter_side_px_median": float(np.median(shorter)),
        "shorter_side_px_largest": int(shorter.max()),
        "images_smaller_than_teacher_px": int((shorter < teacher_px).sum()),
    }


if __name__ == "__main__":
    run_stage(prepare)
