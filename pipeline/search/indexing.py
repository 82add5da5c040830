"""Build or extend an index from a folder of images: no training, the teacher embeds them."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.datasets.listings import enumerate_names
from pipeline.datasets.normalisation import UnreadableImage, decode_image
from pipeline.progress import track
from pipeline.search.databases import image_id
from pipeline.search.image_index import (
    COLUMNS,
    IndexCard,
    file_sha256,
    held,
    index_home,
    read_card,
    read_images,
    read_vectors,
    write_generation,
)
from pipeline.search.index import IndexKind
from pipeline.search.pictures import image_names, read_file
from pipeline.search.search import NamedNetwork, QueryNetwork
from pipeline.views.evaluation import evaluation_view

BATCH_IMAGES = 64


@dataclass(frozen=True)
class IndexingReport:
    """What became of the images of a folder; `card` is that of the index now in force."""

    card: IndexCard
    added: int
    replaced: int
    unchanged: int
    failures: Sequence[UnreadableImage]


@dataclass(frozen=True)
class _Content:
    """Images and their vectors, row by row."""

    images: pd.DataFrame
    vectors: Float[np.ndarray, "database dim"]


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
    with held(home):
        present = read_card(home)
        if present is not None:
            card = replace(card, generation=present.generation + 1, kind=kind or present.kind)
        base = None if rebuild else present
        if base is not None:
            _check_origin(name, base, card)
        old = _read_content(home, base)
        failures: list[UnreadableImage] = []
        digests = dict(_digests(folder, names, failures))
        noted = dict(zip(old.images["name"], old.images["sha256"], strict=True)) if old else {}
        changed = {n for n, digest in digests.items() if noted.get(n, digest) != digest}
        if changed and not take_changed:
            raise ValueError(
                f"index {name} holds other images of these names: "
                f"{enumerate_names(sorted(changed))}; --replace takes the new ones, another --name "
                "keeps both"
            )
        wanted = {n: digest for n, digest in digests.items() if noted.get(n) != digest}
        new = _embedded(folder, wanted, teacher, failures)
        if new is None and (old is None or len(failures) == len(names)):
            first = f"{failures[0].name} {failures[0].reason}"
            raise ValueError(f"{folder}: no image can be read ({len(names)} tried; {first})")
        content = _merged(old, new)
        card = replace(card, images=len(content.images))
        if new is None and base is not None and base.kind == card.kind:
            card = base
        else:
            write_generation(home, card, content.images, content.vectors, threads=threads)
    embedded = set() if new is None else set(new.images["name"])
    return IndexingReport(
        card,
        added=len(embedded - changed),
        replaced=len(embedded & changed),
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


def _read_content(home: Path, card: IndexCard | None) -> _Content | None:
    if card is None:
        return None
    return _Content(read_images(home, card), read_vectors(home, card))


def _digests(
    folder: Path, names: Iterable[str], failures: list[UnreadableImage]
) -> Iterator[tuple[str, str]]:
    """SHA-256 of each file that can be read."""
    for name in names:
        try:
            name.encode()
            yield name, hashlib.sha256(read_file(folder / name, name)).hexdigest()
        except UnicodeEncodeError:
            failures.append(UnreadableImage(name, "its name is not UTF-8"))
        except UnreadableImage as failure:
            failures.append(failure)


def _embedded(
    folder: Path,
    digests: dict[str, str],
    teacher: QueryNetwork,
    failures: list[UnreadableImage],
) -> _Content | None:
    """The images that can be decoded, and their vectors; None where there is none."""
    views = _views(folder, digests, teacher.size_px, failures)
    names: list[str] = []
    vectors = []
    while batch := list(islice(views, BATCH_IMAGES)):
        names += [name for name, _ in batch]
        vectors.append(teacher.embed(torch.stack([view for _, view in batch])))
    if not names:
        return None
    rows = [
        (image_id(name), name, _class_name(name), digests[name], str(folder.resolve()))
        for name in names
    ]
    return _Content(pd.DataFrame(rows, columns=COLUMNS), np.concatenate(vectors))


def _views(
    folder: Path, names: Iterable[str], size_px: int, failures: list[UnreadableImage]
) -> Iterator[tuple[str, Tensor]]:
    listed = list(names)
    for name in track(listed, "embedding images", len(listed), "image") if listed else ():
        try:
            picture = decode_image(read_file(folder / name, name), name)
        except UnreadableImage as failure:
            failures.append(failure)
        else:
            yield name, evaluation_view(picture, size_px)


def _class_name(name: str) -> str:
    """The first folder of an image's path, or nothing."""
    return name.partition("/")[0] if "/" in name else ""


def _merged(old: _Content | None, new: _Content | None) -> _Content:
    """Both, the new images in place of the old ones of their names."""
    if old is None or new is None:
        content = old or new
        assert content is not None, "an index has images"
        return content
    kept = ~old.images["name"].isin(new.images["name"]).to_numpy()
    return _Content(
        pd.concat([old.images[kept], new.images], ignore_index=True),
        np.concatenate([old.vectors[kept], new.vectors]),
    )
