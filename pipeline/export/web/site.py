"""The folder that searches in a browser: any static server will do, and none is asked anything."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from pipeline.datasets.decode import UnreadableImage, decode_image
from pipeline.export.shorter import eight_bits
from pipeline.export.web.runtime import copy_runtime
from pipeline.files import write_json
from pipeline.models.query_encoder import EXPORTED
from pipeline.progress import track
from pipeline.search.databases import Database

HERE = Path(__file__).parent
PIPELINE = HERE.parents[1]
PAGE = PIPELINE / "search/page"  # whose look this page has, too
SCRIPTS = ("app.js", "folder.js", "nearest.js", "view.js")
FILES = (
    *(HERE / name for name in ("index.html", "app.css", *SCRIPTS)),
    *(PIPELINE / "look.css", PAGE / "page.css", PAGE / "icon.svg"),
)
PICTURE_PX = 128  # the longer side
PICTURE_QUALITY = 75  # of WebP
PICTURES = 2000  # shown by default, at most
PACK_BYTES = 1 << 20  # of a file of pictures, which is loaded as one


@dataclass(frozen=True)
class SiteOptions:
    """runtime: the folder of ONNX Runtime Web. pictures: how many are shown, at most."""

    runtime: Path
    pictures: int


def write_site(
    folder: Path,
    database: Database,
    encoder: Path,
    about: Mapping[str, Any],
    options: SiteOptions,
) -> dict[str, int]:
    """Write the page, the network, the database in 8 bits, and small pictures of it.

    encoder: the ONNX file, by `write_onnx` or `quantise_onnx`. about: what index.json tells of the
    network besides: its name, `size_px`, `nothing_below` and licences.

    All images are searched. Where they are more than `options.pictures`, so many of them, at equal
    distances, have a picture; the others are shown by their names, as are those whose file is gone.
    Returns the number of images, how many bytes each part has, and how many pictures could not be
    read. Raises ValueError for a database without images.
    """
    if not len(database):
        raise ValueError(f"{database.name}: holds no image, and a page would have nothing to find")
    folder.mkdir()
    for file in FILES:
        shutil.copyfile(file, folder / file.name)
    copy_runtime(options.runtime, folder / "runtime")
    shutil.copyfile(encoder, folder / EXPORTED)
    numbers, steps = eight_bits(np.asarray(database.vectors))
    (folder / "vectors.bin").write_bytes(steps.astype("<f4").tobytes() + numbers.tobytes())
    count = min(options.pictures, len(database))
    rows = np.linspace(0, len(database) - 1, count).round().astype(np.int64)
    pictures, unreadable = _write_pictures(folder, database, rows)
    classes = sorted(set(database.class_names))
    places = {name: place for place, name in enumerate(classes)}
    index = {
        **about,
        "names": list(database.names),
        "classes": classes,
        "class_of": [places[name] for name in database.class_names],
        "pictures": pictures,
    }
    write_json(folder / "index.json", index)
    return {"images": len(database), "unreadable": unreadable, **_part_bytes(folder)}


def _write_pictures(
    folder: Path, database: Database, rows: Int[np.ndarray, " row"]
) -> tuple[list[list[tuple[int, int]]], int]:
    """Write pictures-N.bin, WebP files behind one another.

    Returns of each file (row, bytes) of its pictures, in order; and how many could not be read.
    """
    packs: list[list[tuple[int, int]]] = []
    filled, unreadable = PACK_BYTES, 0
    for row in track(rows.tolist(), "small pictures", len(rows), "picture"):
        try:
            picture = _small(database.read(row), database.names[row])
        except UnreadableImage:
            unreadable += 1
            continue
        if filled + len(picture) > PACK_BYTES:
            packs.append([])
            filled = 0
        packs[-1].append((row, len(picture)))
        filled += len(picture)
        with (folder / f"pictures-{len(packs) - 1}.bin").open("ab") as file:
            file.write(picture)
    return packs, unreadable


def _small(encoded: bytes, name: str) -> bytes:
    picture = decode_image(encoded, name, least_px=PICTURE_PX)
    picture.thumbnail((PICTURE_PX, PICTURE_PX))
    buffer = BytesIO()
    picture.save(buffer, format="WEBP", quality=PICTURE_QUALITY)
    return buffer.getvalue()


def _part_bytes(folder: Path) -> dict[str, int]:
    parts = {
        "network": (EXPORTED,),
        "runtime": ("runtime/ort.*",),
        "index": ("index.json", "vectors.bin"),
        "pictures": ("pictures-*.bin",),
    }
    return {
        part: sum(file.stat().st_size for pattern in patterns for file in folder.glob(pattern))
        for part, patterns in parts.items()
    }
