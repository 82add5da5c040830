"""Packs of real data sets: what their source said, and images read at a fraction of their size."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.packs import open_pack, write_pack
from pipeline.datasets.reader import ImageRecord
from tests.made_training import records


def encoded_record(name: str, side_px: int, file_format: str) -> ImageRecord:
    ramp = np.linspace(0, 255, side_px).astype(np.uint8)
    picture = np.stack([np.tile(ramp, (side_px, 1)), np.tile(ramp[:, None], (1, side_px))], axis=2)
    image = Image.fromarray(np.concatenate([picture, picture[:, :, :1] // 2], axis=2))
    buffer = BytesIO()
    image.save(buffer, format=file_format, quality=95)
    return ImageRecord(name, name, "test", buffer.getvalue(), side_px, side_px)


def test_facts_of_the_source_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "pack.arrow"
    write_pack(path, records(2, 2, px=4))
    assert not open_pack(path).is_subset
    write_pack(path, records(2, 2, px=4), {"subset": "yes"})
    assert open_pack(path).is_subset
    write_pack(path, records(2, 2, px=4), {"subset": "no"})
    assert not open_pack(path).is_subset


@pytest.mark.parametrize(("least_px", "expected_px"), [(1, 32), (32, 32), (33, 64), (256, 256)])
def test_a_jpeg_is_decoded_at_a_fraction(tmp_path: Path, least_px: int, expected_px: int) -> None:
    """1, 1/2, 1/4 or 1/8 of 256 pixels, never under what is asked for."""
    write_pack(tmp_path / "pack.arrow", [encoded_record("a", 256, "JPEG")])
    image = open_pack(tmp_path / "pack.arrow").small_image(0, least_px)
    assert image.mode == "RGB"
    assert image.size == (expected_px, expected_px)
    whole = open_pack(tmp_path / "pack.arrow").image(0)
    shrunk = np.asarray(whole.resize(image.size, Image.Resampling.BOX), dtype=float)
    assert np.abs(np.asarray(image, dtype=float) - shrunk).max() <= 6


def test_other_formats_are_decoded_in_full(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack.arrow", [encoded_record("a", 64, "PNG")])
    pack = open_pack(tmp_path / "pack.arrow")
    assert pack.small_image(0, 8).tobytes() == pack.image(0).tobytes()
