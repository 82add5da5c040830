"""Coupled views in batches against views one at a time, the peer's way, in pairs a second.

Both sides make the same thing from the same JPEG files on one core: `--images` images with
`--views` coupled views each at two sizes, mixed with the equally augmented view of another random
image (Beta(0.2, 0.2)), as float tensors. The peer's way is written here from METHOD 6: each view by
itself, through PIL and torchvision's transforms, which are seeded and run once a size; a partner's
file is read for each view. Ours reads every image once a batch; "kept" is with the decoded images
in memory, as they are from the second epoch of a data set that fits there.
Run: python -m benchmarks.views
"""

import argparse
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms

from pipeline.datasets.packs import Pack, open_pack, write_pack
from pipeline.datasets.reader import ImageRecord
from pipeline.views.coupled import ViewRecipe, cached_decoder, coupled_views

CPU = torch.device("cpu")
COLOUR = (0.4, 0.4, 0.4, 0.1)
ALPHA = 0.2


def photograph(number: int, width: int, height: int) -> bytes:
    """A made-up JPEG about as busy as a photograph: clouds of several scales, and grain."""
    source = np.random.default_rng(number)
    image = np.zeros((height, width, 3))
    for cells in (4, 16, 64):
        cloud = Image.fromarray(source.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        image += np.asarray(cloud.resize((width, height), Image.Resampling.BICUBIC)) / 3
    image += source.normal(0, 6, image.shape)
    file = BytesIO()
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def made_pack(
    folder: Path, images: int, width: int, height: int, different: int | None = None
) -> Pack:
    """A pack of made-up photographs; only so many are `different`, or all."""
    files = [photograph(n, width, height) for n in range(min(images, different or images))]
    records = (
        ImageRecord(f"{n}.jpg", f"class {n // 4}", "train", files[n % len(files)], width, height)
        for n in range(images)
    )
    write_pack(folder / "pack.arrow", records)
    return open_pack(folder / "pack.arrow")


def views_one_at_a_time(
    pack: Pack, rows: np.ndarray, views: int, sizes_px: tuple[int, ...], seed: int
) -> list[list[Tensor]]:
    """The peer's way: for each view and size a seeded pass of transforms over PIL images."""
    chains = [
        transforms.Compose(
            [
                transforms.RandomResizedCrop(size_px, scale=(0.08, 1.0)),
                transforms.RandomHorizontalFlip(),
                transforms.ColorJitter(*COLOUR),
                transforms.ToTensor(),
            ]
        )
        for size_px in sizes_px
    ]
    made: list[list[Tensor]] = [[] for _ in sizes_px]
    source = np.random.default_rng(seed)
    for row in rows.tolist():
        image = pack.image(row)
        for _ in range(views):
            partner = pack.image(int(source.integers(len(pack.labels))))
            weight = float(source.beta(ALPHA, ALPHA))
            view_seed = int(source.integers(2**31))
            for chain, of_size in zip(chains, made, strict=True):
                torch.manual_seed(view_seed)
                own = chain(image)
                torch.manual_seed(view_seed)
                of_size.append(weight * own + (1 - weight) * chain(partner))
    return made


def seconds(work: Callable[[int], object], repeats: int) -> float:
    """The shortest of some runs."""
    times = []
    for number in range(repeats):
        start = time.perf_counter()
        work(number)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8, help="images of a batch")
    parser.add_argument("--views", type=int, default=8, help="coupled views an image")
    parser.add_argument("--sizes", type=int, nargs=2, default=(448, 224), help="sides in pixels")
    parser.add_argument("--sides", type=int, nargs=2, default=(500, 375), help="of the JPEG files")
    parser.add_argument("--pool", type=int, default=200, help="images to draw partners from")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side, best taken")
    given = parser.parse_args()
    torch.set_num_threads(1)
    recipe = ViewRecipe(given.views, (0.08, 1.0), 0.5, COLOUR, mixup_alpha=ALPHA)
    with TemporaryDirectory() as folder:
        pack = made_pack(Path(folder), given.pool, *given.sides)
        rows = np.arange(given.images)
        kept = cached_decoder(pack)
        for row in range(given.pool):
            kept(row)

        def ours(decode: Callable[[int], Tensor], seed: int) -> object:
            generator = torch.Generator().manual_seed(seed)
            pool = np.arange(given.pool)
            return coupled_views(decode, rows, pool, tuple(given.sizes), recipe, generator, CPU)

        ways = {
            "one at a time, the peer's way": lambda n: views_one_at_a_time(
                pack, rows, given.views, tuple(given.sizes), n
            ),
            "in batches, files read anew": lambda n: ours(cached_decoder(pack, 0), n),
            "in batches, decoded images kept": lambda n: ours(kept, n),
        }
        size = sum(len(pack.encoded(row)) for row in range(given.pool)) / given.pool
        width, height = given.sides
        print(
            f"{given.images} images x {given.views} views at {given.sizes[0]} and "
            f"{given.sizes[1]} px, JPEG of {width} x {height} in {size / 1000:.0f} kB, one thread, "
            f"best of {given.repeats}"
        )
        pairs = given.images * given.views
        first = None
        for name, way in ways.items():
            pair_s = seconds(way, given.repeats) / pairs
            first = first or pair_s
            print(
                f"{name:34}{1000 * pair_s:8.2f} ms a pair{1 / pair_s:9.1f} pairs/s"
                f"{first / pair_s:7.1f}x"
            )


if __name__ == "__main__":
    main()
