"""A small web export: pictures of one colour, whose vectors are their colours."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets.decode import UnreadableImage, encode_jpeg
from pipeline.export.web.runtime import PROGRAM, SCRIPT
from pipeline.export.web.site import SiteOptions, write_site
from pipeline.search.databases import Database

COLOURS = {"red": (200, 30, 40), "green": (30, 190, 60), "blue": (40, 50, 210)}
PER_COLOUR = 20
SIZE_PX = 16
ABOUT = {
    "network": "colours-16",
    "size_px": SIZE_PX,
    "nothing_below": 0.9,
    "licences": {"data": "CC0"},
}
# In place of ONNX Runtime Web: the mean colour of the view, as a unit vector.
MEAN_COLOUR = """
export const env = { wasm: {} };
export class Tensor { constructor(kind, data) { this.data = data; } }
const run = async ({ image }) => {
  const sums = new Float32Array(3);
  image.data.forEach((value, i) => { sums[i % 3] += value; });
  const length = Math.hypot(...sums) || 1;
  return { embedding: { data: sums.map((sum) => sum / length) } };
};
export const InferenceSession = { create: async () => ({ run }) };
"""


def made_runtime(folder: Path, script: str = MEAN_COLOUR) -> Path:
    folder.mkdir()
    (folder / SCRIPT).write_text(script)
    (folder / PROGRAM).write_bytes(b"\0asm" + bytes(1000))
    return folder


def colour_database(unreadable: int | None = None) -> Database:
    """60 pictures, from bright to dark ones of each colour; the file of one may be gone."""
    shades = [
        (name, np.array(rgb) * (1 - 0.02 * n) + (0, 0, n))
        for name, rgb in COLOURS.items()
        for n in range(PER_COLOUR)
    ]
    vectors = np.array([shade for _, shade in shades], dtype=np.float32)

    def read(row: int) -> bytes:
        if row == unreadable:
            raise UnreadableImage(f"{row}.jpg", "there is no such file")
        colour = tuple(int(value) for value in shades[row][1])
        return encode_jpeg(Image.new("RGB", (300, 200), colour), quality=95)

    names = [f"{name}/{row}.jpg" for row, (name, _) in enumerate(shades)]
    return Database(
        name="colours",
        dataset="colours",
        index=None,
        is_exact=True,
        vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        ids=np.arange(len(names)),
        names=names,
        class_names=[name for name, _ in shades],
        read=read,
    )


def write_colour_site(
    folder: Path, database: Database, script: str = MEAN_COLOUR, pictures: int = 2000
) -> dict[str, int]:
    """Write the site into `folder`/web, with a runtime that is none."""
    encoder = folder / "encoder.onnx"
    encoder.write_bytes(b"a network")
    options = SiteOptions(made_runtime(folder / "runtime", script), pictures)
    return write_site(folder / "web", database, encoder, ABOUT, options)
