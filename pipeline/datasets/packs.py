"""A data set as one memory-mapped Arrow file: encoded images, labels, splits, names."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.datasets.decode import decode_image
from pipeline.datasets.reader import ImageRecord, Split
from pipeline.files import replacing

RECORDS_PER_BATCH = 64  # with the next, bounds the memory of the writer: it holds one batch
BYTES_PER_BATCH = 1 << 24
LEAST_IMAGES = 12  # to test or validate without classes: each has more than ten others to find
_CLASS_ORDER, _POSITIONS = "class_order", "positions"

_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("class_name", pa.string()),
        ("split", pa.string()),
        ("encoded", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Pack:
    """An open pack. Rows are images in the order of their source.

    `labels` number the classes in their official order, by default that of first appearance; of
    images without classes they are -1, and `class_names` is empty. `is_train` splits the rows.
    `is_subset`: the images are a part of a published data set only. `positions`: of each class, or
    without classes of each image, in [0, 1), where they decide which validate; empty where the
    official order does.
    """

    is_subset: bool
    names: list[str]
    class_names: list[str]
    labels: np.ndarray
    is_train: np.ndarray
    widths: np.ndarray
    heights: np.ndarray
    positions: Mapping[str, float]
    _encoded: pa.ChunkedArray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled(self) -> bool:
        """Whether the images have classes: all of them do, or none."""
        return bool(self.class_names)

    def class_of(self, row: int) -> str:
        """The name of one image's class; empty where the images have none."""
        return self.class_names[self.labels[row]] if self.labelled else ""

    def rows(self, split: Split) -> np.ndarray:
        """Rows of one split, ascending."""
        return np.flatnonzero(self.is_train == (split == "train"))

    def encoded(self, row: int) -> bytes:
        """The encoded file of one image."""
        return bytes(self._encoded[row].as_buffer())

    def image(self, row: int) -> Image.Image:
        """One image, decoded to RGB."""
        return Image.open(BytesIO(self.encoded(row))).convert("RGB")

    def small_image(self, row: int, least_px: int) -> Image.Image:
        """One image in RGB, decoded to a fraction of its size (1, 1/2, 1/4 or 1/8).

        Both sides stay at least `least_px` long where they are. A JPEG is then never decoded in
        full, which saves most of the time; its pixels are not those of a filter such as Lanczos, so
        this is for looking at images, not for evaluation.
        """
        return decode_image(self.encoded(row), self.names[row], least_px=least_px)


def write_pack(
    path: Path,
    records: Iterable[ImageRecord],
    facts: Mapping[str, str] | None = None,
    class_order: Sequence[str] = (),
    positions: Mapping[str, float] | None = None,
) -> None:
    """Stream records into a pack, with the facts of their source (`subset`: yes or no).

    class_order: the names of the classes in official order, where the records have another; some
    of them may have no record. positions: as in `Pack`.

    Raises ValueError for a name that occurs twice, a class in both splits, classes of some images
    only, or no record at all.
    """
    names: set[str] = set()
    splits: dict[str, Split] = {}
    facts = dict(facts or {})
    if class_order:
        facts[_CLASS_ORDER] = json.dumps(list(class_order))
    if positions:
        facts[_POSITIONS] = json.dumps(positions, sort_keys=True)
    with replacing(path) as temporary, pa.OSFile(str(temporary), "wb") as file:
        with pa.ipc.new_file(file, _SCHEMA.with_metadata(facts)) as writer:
            for chunk in _chunks(records):
                for record in chunk:
                    if record.name in names:
                        raise ValueError(f"{record.name}: this name occurs twice")
                    names.add(record.name)
                    known = splits.setdefault(record.class_name, record.split)
                    if record.class_name and known != record.split:
                        raise ValueError(f"class {record.class_name!r} is in both splits")
                writer.write_batch(pa.RecordBatch.from_pylist(list(map(vars, chunk)), _SCHEMA))
        if not names:
            raise ValueError("the source holds no image")
        if "" in splits and len(splits) > 1:
            raise ValueError("some images have a class and others have none: all must, or none")


def remove_rows(path: Path, rows: Iterable[int]) -> None:
    """Write a pack anew without some of its rows."""
    kept = np.ones(len(open_pack(path)), dtype=bool)
    kept[list(rows)] = False
    with pa.memory_map(str(path)) as source, replacing(path) as temporary:
        reader = pa.ipc.open_file(source)
        with pa.ipc.new_file(str(temporary), reader.schema) as writer:
            start = 0
            for batch in map(reader.get_batch, range(reader.num_record_batches)):
                mask = pa.array(kept[start : start + len(batch)])
                start += len(batch)
                writer.write_batch(batch.filter(mask))


def _chunks(records: Iterable[ImageRecord]) -> Iterator[list[ImageRecord]]:
    """Records in batches of a bounded number and size; one image may be larger by itself."""
    chunk: list[ImageRecord] = []
    size_bytes = 0
    for record in records:
        is_full = len(chunk) == RECORDS_PER_BATCH
        if chunk and (is_full or size_bytes + len(record.encoded) > BYTES_PER_BATCH):
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(record)
        size_bytes += len(record.encoded)
    if chunk:
        yield chunk


def open_pack(path: Path) -> Pack:
    """Map a pack into memory; only the small columns are read.

    Raises ValueError for a file that is none, or is not there.
    """
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: is no whole pack ({error}): run `l2s study`") from error
    classes = table.column("class_name").combine_chunks().dictionary_encode()
    metadata = table.schema.metadata or {}
    facts = {key.decode(): value.decode() for key, value in metadata.items()}
    class_names, labels = _in_order(
        classes.dictionary.to_pylist(),
        np.from_dlpack(classes.indices).astype(np.int64),
        json.loads(facts.get(_CLASS_ORDER, "[]")),
    )
    if class_names == [""]:
        class_names, labels = [], np.full(len(labels), -1)
    return Pack(
        is_subset=facts.get("subset") == "yes",
        names=table.column("name").to_pylist(),
        class_names=class_names,
        labels=labels,
        is_train=np.array([split == "train" for split in table.column("split").to_pylist()]),
        widths=_numbers(table.column("width")),
        heights=_numbers(table.column("height")),
        positions=json.loads(facts.get(_POSITIONS, "{}")),
        _encoded=table.column("encoded"),
    )


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """`column.to_numpy()` without importing pandas, half a second, as that does."""
    return np.from_dlpack(column.combine_chunks())


def _in_order(
    names: list[str], labels: np.ndarray, class_order: list[str]
) -> tuple[list[str], np.ndarray]:
    """Classes and labels renumbered; classes that `class_order` does not have come last."""
    places = {name: place for place, name in enumerate(class_order)}
    order = sorted(range(len(names)), key=lambda label: places.get(names[label], len(places)))
    return [names[label] for label in order], np.argsort(order)[labels]


def validating_units(
    units: Sequence[str], positions: Mapping[str, float], share: float, least: int = 2
) -> tuple[list[str], bool]:
    """Which training classes, given in official order, validate, and whether those are `least` or
    more, and two or more are left to fit (or none validates on purpose). Without classes the units
    are images.

    Those whose position lies in the highest `share`, whatever other units there are; without
    positions the last ones: `share` of them, rounded. 0.5 gives the paper's second half.
    """
    if positions:
        chosen = [name for name in units if positions[name] > 1 - share]
    else:
        chosen = list(units[len(units) - round(share * len(units)) :])
    return chosen, share == 0 or least <= len(chosen) <= len(units) - 2


def validation_split(pack: Pack, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Training rows as (fitting rows, validation rows), by `validating_units`.

    Raises ValueError when a share above 0 leaves too few classes, or images, on either side.
    """
    rows = pack.rows("train")
    if pack.labelled:
        units, least = [pack.class_names[label] for label in np.unique(pack.labels[rows])], 2
    else:
        units, least = [pack.names[row] for row in rows], LEAST_IMAGES
    chosen, is_enough = validating_units(units, pack.positions, share, least)
    if not is_enough:
        raise ValueError(
            f"validation_share = {share}: "
            f"{validation_fault(len(chosen), len(units), is_labelled=pack.labelled)}"
        )
    held_out = set(chosen)
    if pack.labelled:
        validates = np.array([name in held_out for name in pack.class_names])[pack.labels[rows]]
    else:
        validates = np.array([name in held_out for name in units])
    return rows[~validates], rows[validates]


def validation_fault(validating: int, units: int, *, is_labelled: bool) -> str:
    """Why so many training classes, or without classes images, cannot validate, in words."""
    if is_labelled:
        what, needs = "classes", "both sides need two"
    else:
        what, needs = "images", f"{LEAST_IMAGES} are the least, with two more to train on"
    return (
        f"{validating} of {units} training {what} would validate, and {needs} "
        "(0 turns validation off)"
    )
