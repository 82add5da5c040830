"""Build or extend an index from a folder of images: no training, the teacher embeds them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock

from pipeline.datasets.decode import UnreadableImage
from pipeline.datasets.reader import enumerate_names, read_file
from pipeline.embedding.embeddings import embed_pictures
from pipeline.models.torch_encoder import TorchEncoder
from pipeline.search.databases import class_of, image_id
from pipeline.search.index import (
    IMAGE_COLUMNS,
    IndexCard,
    file_sha256,
    index_home,
    read_card,
    read_content,
    write_generation,
)
from pipeline.search.pictures import image_names
from pipeline.search.search import NamedNetwork
from pipeline.search.structures import IndexKind
from pipeline.teachers.teacher import Teacher


@dataclass(frozen=True)
class IndexingReport:
    """What became of the images of a folder; `card` is that of the index now in force."""

    card: IndexCard
    added: int
    replaced: int
    unchanged: int
    failures: Sequence[UnreadableImage]


def index_folder(
    folder: Path,
    name: str,
    named: NamedNetwork,
    teacher: TorchEncoder | Teacher,
    *,
    kind: IndexKind | None = None,
    rebuild: bool = False,
    take_changed: bool = False,
    threads: int = 1,
) -> IndexingReport:
    """Embed the images of a folder that an index lacks, and put them in; or make the index.

    An image is known by its path in the folder. kind: None keeps that of the index, or is exact.
    rebuild: from this folder alone. take_changed: an image whose content has changed takes the
    place of the one of its name. Unreadable images are left out and reported.

    Raises ValueError for a folder without readable images, an index of another data set or
    teacher, images that have changed without `take_changed`; the index then stays as it was.
    """
    home = index_home(name)
    names = image_names(folder)
    if not names:
        raise ValueError(f"{folder}: this folder holds no image")
    teacher_sha256 = file_sha256(named.path)
    home.parent.mkdir(exist_ok=True)
    with FileLock(home.with_name(f".{name}.lock")):  # the next writer waits
        present = read_card(home) or IndexCard(0, named.dataset, teacher_sha256, "exact", 0)
        kind = kind or present.kind
        is_new = rebuild or not present.generation
        if is_new:
            images, vectors = IMAGE_COLUMNS.empty_table(), np.empty((0, 0), dtype=np.float32)
        else:
            if (present.dataset, present.teacher_sha256) != (named.dataset, teacher_sha256):
                raise ValueError(
                    f"index {name} was embedded by another teacher of {present.dataset}: "
                    f"--rebuild embeds the folder anew, by that of {named.dataset}; another "
                    "--name keeps both"
                )
            images, vectors = read_content(home, present)
        digests, failures = _read_digests(folder, names)
        noted = dict(zip(images["name"].to_pylist(), images["sha256"].to_pylist(), strict=True))
        wanted = [n for n, digest in digests.items() if noted.get(n) != digest]
        changed = noted.keys() & wanted
        if changed and not take_changed:
            raise ValueError(
                f"index {name} holds other images of these names: "
                f"{enumerate_names(sorted(changed))}; --replace takes the new ones, another --name "
                "keeps both"
            )

        def read(image: str) -> bytes:
            return read_file(folder / image, image)

        new = embed_pictures(teacher.network, wanted, read, teacher.size_px, teacher.device)
        failures += new.failures
        if len(failures) == len(names):
            raise ValueError(f"{folder}: no image can be read ({len(names)} tried; {failures[0]})")
        card = present
        if is_new or new.names or kind != present.kind:
            taken = set(new.names)
            kept = np.array([n not in taken for n in noted], dtype=bool)
            added = [_entry(n, digests[n], folder) for n in new.names]
            rows = pa.Table.from_pylist(added, schema=IMAGE_COLUMNS)
            images = pa.concat_tables([images.filter(kept), rows])
            parts = [part for part in (vectors[kept], new.vectors) if len(part)]
            generation = present.generation + 1
            card = IndexCard(generation, named.dataset, teacher_sha256, kind, len(images))
            write_generation(home, card, images, np.concatenate(parts), threads=threads)
    replaced = len(changed.intersection(new.names))
    return IndexingReport(
        card,
        added=len(new.names) - replaced,
        replaced=replaced,
        unchanged=len(digests) - len(wanted),
        failures=failures,
    )


def _read_digests(
    folder: Path, names: Sequence[str]
) -> tuple[dict[str, str], list[UnreadableImage]]:
    """SHA-256 of each file that can be read, and those that cannot."""
    digests: dict[str, str] = {}
    failures: list[UnreadableImage] = []
    for name in names:
        try:
            name.encode()
            digests[name] = hashlib.sha256(read_file(folder / name, name)).hexdigest()
        except UnicodeEncodeError:
            failures.append(UnreadableImage(name, "its name is not UTF-8"))
        except UnreadableImage as failure:
            failures.append(failure)
    return digests, failures


def _entry(name: str, sha256: str, folder: Path) -> dict[str, Any]:
    """A row of the table of images."""
    return {
        "id": image_id(name),
        "name": name,
        "class_name": class_of(name),
        "sha256": sha256,
        "folder": str(folder.resolve()),
    }
