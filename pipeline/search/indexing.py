"""Build or extend an index from a folder of images: no training, the teacher embeds them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.datasets.decode import UnreadableImage
from pipeline.datasets.reader import enumerate_names
from pipeline.embedding.embeddings import EmbeddedPictures, embed_pictures
from pipeline.search.databases import image_id
from pipeline.search.index import (
    IMAGE_COLUMNS,
    IndexCard,
    IndexContent,
    IndexKind,
    file_sha256,
    index_home,
    locked,
    read_card,
    read_content,
    write_generation,
)
from pipeline.search.pictures import image_names, read_file
from pipeline.search.search import NamedNetwork, QueryNetwork


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
    teacher: QueryNetwork,
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
    card = IndexCard(1, named.dataset, file_sha256(named.path), kind or "exact", 0)
    with locked(home):
        present = read_card(home)
        if present is not None:
            card = replace(card, generation=present.generation + 1, kind=kind or present.kind)
        base = None if rebuild else present
        old = _empty_content()
        if base is not None:
            _check_origin(name, base, card)
            old = read_content(home, base)
        digests, failures = _read_digests(folder, names)
        noted = dict(zip(*(old.images[key].to_pylist() for key in ("name", "sha256")), strict=True))
        changed = {n for n, digest in digests.items() if noted.get(n, digest) != digest}
        if changed and not take_changed:
            raise ValueError(
                f"index {name} holds other images of these names: "
                f"{enumerate_names(sorted(changed))}; --replace takes the new ones, another --name "
                "keeps both"
            )
        wanted = [n for n, digest in digests.items() if noted.get(n) != digest]
        new = embed_pictures(
            teacher.network,
            wanted,
            lambda n: read_file(folder / n, n),
            teacher.size_px,
            teacher.device,
        )
        failures += new.failures
        if len(failures) == len(names) or not (new.names or noted):
            first = f"{failures[0].name} {failures[0].reason}"
            raise ValueError(f"{folder}: no image can be read ({len(names)} tried; {first})")
        if base is not None and not new.names and base.kind == card.kind:
            card = base
        else:
            content = _merged(old, new, folder, digests)
            card = replace(card, images=len(content.images))
            write_generation(home, card, content, threads=threads)
    replaced = len(changed.intersection(new.names))
    return IndexingReport(
        card,
        added=len(new.names) - replaced,
        replaced=replaced,
        unchanged=len(digests) - len(wanted),
        failures=failures,
    )


def _check_origin(name: str, present: IndexCard, card: IndexCard) -> None:
    if present.dataset != card.dataset:
        raise ValueError(
            f"index {name} belongs to {present.dataset}, not to {card.dataset}: choose another "
            "--name"
        )
    if present.teacher_sha256 != card.teacher_sha256:
        raise ValueError(
            f"index {name} was embedded by another teacher of {card.dataset}: --rebuild embeds the "
            "folder anew"
        )


def _empty_content() -> IndexContent:
    return IndexContent(IMAGE_COLUMNS.empty_table(), np.empty((0, 0), dtype=np.float32))


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


def _merged(
    old: IndexContent, new: EmbeddedPictures, folder: Path, digests: dict[str, str]
) -> IndexContent:
    """Both, the new images in place of the old ones of their names."""
    place = str(folder.resolve())
    rows = [
        {
            "id": image_id(name),
            "name": name,
            "class_name": name.partition("/")[0] if "/" in name else "",
            "sha256": digests[name],
            "folder": place,
        }
        for name in new.names
    ]
    taken = set(new.names)
    kept = np.array([name not in taken for name in old.images["name"].to_pylist()], dtype=bool)
    return IndexContent(
        pa.concat_tables(
            [old.images.filter(pa.array(kept)), pa.Table.from_pylist(rows, schema=IMAGE_COLUMNS)]
        ),
        np.concatenate([part for part in (old.vectors[kept], new.vectors) if len(part)]),
    )
