"""Turn the source of a data set into one pack of encoded images."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.params import load_params
from pipeline.config.sources import EmblemsSource, OwnSource, PublishedSource
from pipeline.datasets.duplicates import find_duplicates
from pipeline.datasets.emblems import render_emblems
from pipeline.datasets.fetching import describe_files
from pipeline.datasets.own_images import hold_to_manifest, list_own_images
from pipeline.datasets.packs import LEAST_IMAGES, Pack, open_pack, remove_rows, write_pack
from pipeline.datasets.published import open_published
from pipeline.datasets.reader import DatasetError, DatasetReader, enumerate_names, read_records
from pipeline.datasets.sources import DATASETS, find_files
from pipeline.files import read_json, write_json
from pipeline.paths import WORK, DatasetPaths
from pipeline.progress import track
from stages import run_stage

_PAIRS_NOTED = 100


def prepare(name: str) -> None:
    params, paths = load_params(), DatasetPaths(name)
    dataset = params.datasets[name]
    source = dataset.source
    described = read_json(paths.source)
    notes = {**{key: described[key] for key in ("kind", "origin", "licence")}, "subset": False}
    if isinstance(source, EmblemsSource):
        settings = source.model_dump(exclude={"kind"})
        images = source.families * source.members * source.images_per_class
        write_pack(paths.pack, track(render_emblems(**settings), "rendering", images, "image"))
    else:
        side_px = source.largest_side_px or default_largest_side_px(dataset.teacher_px)
        seen = read_json(paths.given) if described["origin"] == "given" else described
        skipped: dict[str, str] = {}
        shrunk: list[str] = []
        with _open_reader(name, source, params.inputs.get(name), seen) as reader:
            records = read_records(
                reader,
                largest_side_px=side_px,
                skipped=skipped if source.skip_unreadable else None,
                shrunk=shrunk,
            )
            write_pack(
                paths.pack,
                track(records, "reading", len(reader.images), "image"),
                {"subset": "yes" if reader.subset else "no"},
                reader.class_order,
                reader.positions,
            )
        notes |= {
            "subset": reader.subset,
            "skipped_unreadable": skipped,
            "absent": len(reader.absent),
            "passed_over": len(reader.passed_over),
            "largest_side_px": side_px,
            "shrunk_to_largest_side": len(shrunk),
        }
        if isinstance(source, OwnSource):
            # The test images that are none, since they were trained on, and in which classes.
            images = seen["images"]
            notes["kept_out_of_test"] = {
                i["name"]: i["trained_as"] for i in images if "trained_as" in i
            }
        notes["near_duplicates"] = _settle_duplicates(name, paths.pack, source.near_duplicates)
    write_json(paths.pack_summary, notes | _summary(open_pack(paths.pack), dataset.teacher_px))


def default_largest_side_px(teacher_px: int) -> int:
    """The longest side of a packed picture: twice the side of the teacher's evaluation view."""
    return 2 * round(teacher_px * 8 / 7)


@contextmanager
def _open_reader(
    name: str, source: PublishedSource | OwnSource, given: str | None, seen: dict[str, Any]
) -> Iterator[DatasetReader]:
    """The images of a data set, held to what the earlier stages have `seen` of them."""
    if isinstance(source, OwnSource):
        assert given is not None, "load_params refuses it"
        yield hold_to_manifest(list_own_images(Path(given), source), seen)
        return
    files = find_files(source, given)
    found = describe_files(files)
    if found != {key: seen[key] for key in found}:
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


def _settle_duplicates(name: str, path: Path, wanted: str) -> dict[str, Any]:
    """Tell which images show the same as one of another class; leave out those of the test.

    Without classes: the same as one of the other split.
    """
    pack = open_pack(path)
    where = "another class" if pack.labelled else "the other split"
    found = find_duplicates(pack)
    left_out = [] if wanted == "keep" else [row for row in found if not pack.is_train[row]]
    pairs = {pack.names[row]: pack.names[other] for row, other in found.items()}
    if found:
        shown = enumerate_names(f"{one} as {other}" for one, other in pairs.items())
        sys.stderr.write(
            f"{name}: {len(found)} images nearly show the same as one of {where}: {shown}; "
            f"{len(left_out)} test images are left out (source.near_duplicates: {wanted})\n"
        )
    if fault := too_few(pack, np.setdiff1d(pack.rows("test"), left_out)):
        what, remedy = ": images that cannot be read, or were trained on, leave", "add others"
        if left_out:
            what = f".source.near_duplicates = {wanted!r}: leaves"
            remedy = f"{shown}: remove images that show the same, or set keep"
        raise DatasetError(f"datasets.{name}{what} {fault}: {remedy}")
    if left_out:
        remove_rows(path, left_out)
    first = dict(islice(pairs.items(), _PAIRS_NOTED))
    return {"images": len(found), "left_out_of_test": len(left_out), "first": first}


def too_few(pack: Pack, test: np.ndarray) -> str | None:
    """Why the rows `test` of a pack are too few to be tested with."""
    if pack.labelled and (not test.size or np.bincount(pack.labels[test]).max() < 2):
        return "no test class of two images"
    if not pack.labelled and len(test) < LEAST_IMAGES:
        return f"{len(test)} test images, and {LEAST_IMAGES} are the least"
    return None


def _summary(pack: Pack, teacher_px: int) -> dict[str, object]:
    """Counts a split, and how many images are smaller than the database's."""
    shorter = np.minimum(pack.widths, pack.heights)
    train, test = pack.rows("train"), pack.rows("test")
    return {
        "images": len(pack),
        "classes": len(pack.class_names),
        "images_train": len(train),
        "images_test": len(test),
        "classes_train": len(np.unique(pack.labels[train])) if pack.labelled else 0,
        "classes_test": len(np.unique(pack.labels[test])) if pack.labelled else 0,
        "shorter_side_px_least": int(shorter.min()),
        "shorter_side_px_median": float(np.median(shorter)),
        "shorter_side_px_largest": int(shorter.max()),
        "images_smaller_than_teacher_px": int((shorter < teacher_px).sum()),
    }


if __name__ == "__main__":
    run_stage(prepare)
