"""The same picture in two classes is found and told; what only looks alike is not."""

import io
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.duplicates import find_duplicates
from pipeline.datasets.emblems import render_emblems
from pipeline.datasets.packs import Pack, open_pack, remove_rows, write_pack
from pipeline.datasets.reader import ImageRecord, Split

SAMPLE = Path(__file__).parents[4] / "shared/data/CUB_200_2011_sample.tgz"


def photograph(seed: int, size: tuple[int, int] = (240, 160)) -> Image.Image:
    """Smooth shapes on several scales."""
    generator = np.random.default_rng(seed)
    layers = [
        Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        for side in (3, 6, 12, 24)
    ]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 92) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def packed(folder: Path, images: list[tuple[str, Split, Image.Image | bytes]]) -> Pack:
    """A pack of images, each with its class; they are named by their places."""
    records = []
    for number, (class_name, split, image) in enumerate(images):
        encoded = image if isinstance(image, bytes) else jpeg(image)
        width, height = Image.open(io.BytesIO(encoded)).size
        records.append(ImageRecord(str(number), class_name, split, encoded, width, height))
    write_pack(folder / "pack.arrow", records)
    return open_pack(folder / "pack.arrow")


def as_it_is(image: Image.Image) -> Image.Image:
    return image


def encoded_again(image: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(jpeg(image, 40)))


def halved(image: Image.Image) -> Image.Image:
    return image.resize((120, 80))


def lighter(image: Image.Image) -> Image.Image:
    return image.point(lambda level: round(level * 1.05))


def trimmed(image: Image.Image) -> Image.Image:
    return image.crop((2, 1, 238, 159))


@pytest.mark.parametrize("change", [as_it_is, encoded_again, halved, lighter, trimmed])
def test_nearly_the_same_picture_in_two_classes(
    change: Callable[[Image.Image], Image.Image], tmp_path: Path
) -> None:
    images: list[tuple[str, Split, Image.Image | bytes]] = [
        *(("a", "train", photograph(seed)) for seed in range(20)),
        *(("b", "test", photograph(seed)) for seed in range(20, 40)),
        ("b", "test", change(photograph(3))),
        ("b", "test", change(photograph(25))),  # in the same class: no fault
    ]
    assert find_duplicates(packed(tmp_path, images)) == {3: 40, 40: 3}


def test_another_colour_is_another_picture(tmp_path: Path) -> None:
    red, green, blue = photograph(1).split()
    other = Image.merge("RGB", (blue, green, red))
    plain: list[tuple[str, Split, Image.Image | bytes]] = [
        (str(n), "train", Image.new("RGB", (64, 64), (n * 36, 255 - n * 36, 90))) for n in range(7)
    ]
    images = [*plain, ("x", "test", photograph(1)), ("y", "test", other)]
    assert find_duplicates(packed(tmp_path, images)) == {}


def test_emblems_of_one_family_are_told_apart(tmp_path: Path) -> None:
    records = render_emblems(
        families=4, members=4, images_per_class=6, image_px=64, jpeg_quality=92, seed=0
    )
    write_pack(tmp_path / "pack.arrow", records)
    pack = open_pack(tmp_path / "pack.arrow")
    assert len(pack) == 96
    assert find_duplicates(pack) == {}


@pytest.mark.skipif(not SAMPLE.is_file(), reason="the CUB sample is on development machines only")
def test_no_two_photographs_of_birds_are_taken_for_one(tmp_path: Path) -> None:
    """As the sample has it, and with each twelfth photograph in another class once more."""
    images: list[tuple[str, Split, Image.Image | bytes]] = []
    with tarfile.open(SAMPLE) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".jpg") else None
            if file and len(images) < 600:
                images.append((member.name.split("/")[-2], "train", file.read()))
    assert len(images) == 600
    again = range(0, 600, 12)
    photographs = [Image.open(io.BytesIO(bytes(images[row][2]))) for row in again]  # type: ignore[arg-type]
    images += [("again", "test", one.convert("RGB").resize((200, 150))) for one in photographs]
    found = find_duplicates(packed(tmp_path, images))
    assert found == {row: 600 + n for n, row in enumerate(again)} | {
        600 + n: row for n, row in enumerate(again)
    }


def test_a_picture_that_is_everywhere_costs_no_more_than_any(tmp_path: Path) -> None:
    """Such as a shop's "no image": 3000 times in 300 classes."""
    same = jpeg(Image.new("RGB", (64, 64), "white"))
    images: list[tuple[str, Split, Image.Image | bytes]] = [
        (str(n % 300), "train", same) for n in range(3000)
    ]
    pack = packed(tmp_path, images)
    since_s = time.process_time()
    found = find_duplicates(pack)
    assert time.process_time() - since_s < 30
    assert found == {row: int(row % 300 == 0) for row in range(3000)}


def test_rows_are_removed_and_the_rest_stays(tmp_path: Path) -> None:
    images: list[tuple[str, Split, Image.Image | bytes]] = [
        (f"class{n % 5}", "test" if n % 5 > 2 else "train", photograph(n, (24, 16)))
        for n in range(200)
    ]
    before = packed(tmp_path, images)
    remove_rows(tmp_path / "pack.arrow", [8, 64, 199])
    after = open_pack(tmp_path / "pack.arrow")
    kept = [row for row in range(200) if row not in (8, 64, 199)]
    assert after.names == [before.names[row] for row in kept]
    assert (after.labels == before.labels[kept]).all()
    assert (after.is_train == before.is_train[kept]).all()
    assert [after.encoded(row) for row in range(197)] == [before.encoded(row) for row in kept]
    assert after.class_names == before.class_names
    assert [file.name for file in tmp_path.iterdir()] == ["pack.arrow"]
