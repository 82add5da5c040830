"""The same picture in another colour space is the same picture, whatever file it is in."""

import io
import struct
import zlib
from itertools import product

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from pipeline.datasets.colour import MAX_PROFILE_BYTES
from pipeline.datasets.decode import decode_image, normalise_image
from tests.icc_profiles import D65, SPACES, grey_profile, ink_profile, rgb_profile

SRGB = ImageCms.createProfile("sRGB")
OPTIONS = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


def scene(size: tuple[int, int] = (96, 64)) -> Image.Image:
    """Colours well inside of sRGB, so that every wider space has them."""
    noise = np.random.default_rng(0).integers(30, 226, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BILINEAR)


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, **OPTIONS.get(file_format, {}), **options)
    return buffer.getvalue()


def opened(profile: bytes) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile))


def carried(image: Image.Image, space: str) -> Image.Image:
    """The picture's numbers in another space, and no profile."""
    found = ImageCms.profileToProfile(image, SRGB, opened(rgb_profile(space)))
    assert found is not None
    found.info.clear()
    return found


def cosine(first: Image.Image, second: Image.Image) -> float:
    """Of the pixels less middle grey."""
    a, b = (np.asarray(one, float).ravel() - 128 for one in (first, second))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def most(first: Image.Image, second: Image.Image) -> int:
    return int(np.abs(np.asarray(first, int) - np.asarray(second, int)).max())


def with_chunks(png: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file with chunks put in behind its header."""
    made = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return png[:33] + made + png[33:]


def gamma_chunk(gamma: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(gamma * 100000))


def primaries_chunk(space: str) -> tuple[bytes, bytes]:
    numbers = [round(one * 100000) for point in SPACES[space][0] for one in point]
    return b"cHRM", struct.pack(">8I", *numbers)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("space", ["display-p3", "adobe-rgb", "prophoto", "gamma-1.4"])
def test_a_profile_is_carried_out(space: str, file_format: str) -> None:
    numbers = carried(scene(), space)
    plain = encode(numbers, file_format)
    assert cosine(decode_image(plain, "a"), scene()) < 0.99
    told = encode(numbers, file_format, icc_profile=rgb_profile(space))
    query, stored = decode_image(told, "a"), normalise_image(told, "a")
    packed = Image.open(io.BytesIO(stored.encoded))
    assert stored.encoded != told
    for picture in (query, packed):
        assert "icc_profile" not in picture.info
        assert cosine(picture, scene()) > 0.998  # ProPhoto in 8 bits widens JPEG's own losses
    if file_format in ("PNG", "TIFF", "WEBP"):
        assert most(query, scene()) <= 5


def test_a_reduced_decode_carries_it_out_too() -> None:
    told = encode(carried(scene(), "prophoto"), "JPEG", icc_profile=rgb_profile("prophoto"))
    small = decode_image(told, "a", least_px=16)
    assert small.size == (24, 16)
    assert cosine(small, decode_image(told, "a").reduce(4)) > 0.999


@pytest.mark.parametrize("profile", [ImageCms.ImageCmsProfile(SRGB).tobytes(), rgb_profile("srgb")])
def test_a_jpeg_that_says_it_is_srgb_stays_byte_for_byte(profile: bytes) -> None:
    encoded = encode(scene(), "JPEG", icc_profile=profile)
    assert normalise_image(encoded, "a").encoded == encoded


def broken_profiles() -> dict[str, bytes]:
    whole = rgb_profile("prophoto")
    no_columns = whole.replace(b"rXYZ", b"zzzz", 1)
    return {
        "words": b"no profile",
        "cut": whole[:200],
        "header": whole[:128],
        "offsets": whole[:132] + b"\xff" * 60 + whole[192:],
        "tags": no_columns,
        "curve": whole.replace(b"curv", b"vruc"),
        "other channels": grey_profile(1.0),
        "inks": ink_profile(np.zeros((2, 2, 2, 2, 3))),
        "a space": ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
        "large": whole + bytes(MAX_PROFILE_BYTES),
    }


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("kind", list(broken_profiles()))
def test_a_broken_profile_is_harmless(kind: str, file_format: str) -> None:
    plain = encode(scene(), file_format)
    broken = encode(scene(), file_format, icc_profile=broken_profiles()[kind])
    assert most(decode_image(broken, "a"), decode_image(plain, "a")) == 0
    if file_format == "JPEG":
        assert normalise_image(broken, "a").encoded == broken


def test_no_flipped_byte_of_a_profile_makes_a_picture_unreadable() -> None:
    whole = rgb_profile("prophoto")
    generator, count = np.random.default_rng(0), 0
    for at in generator.integers(0, 320, 100):
        flipped = bytearray(whole)
        flipped[at] ^= int(generator.integers(1, 256))
        count += decode_image(encode(scene(), "PNG", icc_profile=bytes(flipped)), "a").mode == "RGB"
    assert count == 100


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_a_grey_profile(mode: str) -> None:
    """A linear 55 of 255 (21.6 %) is 128 in sRGB."""
    encoded = encode(
        Image.new(mode, (8, 8), (55, 255)[: len(mode)]), "PNG", icc_profile=grey_profile(1.0)
    )
    assert most(decode_image(encoded, "a"), Image.new("RGB", (8, 8), (128,) * 3)) <= 1


def test_a_grey_profile_of_16_bits() -> None:
    deep = Image.fromarray(np.full((8, 8), 55 * 257, np.uint16))
    encoded = encode(deep, "PNG", icc_profile=grey_profile(1.0))
    assert most(decode_image(encoded, "a"), Image.new("RGB", (8, 8), (128,) * 3)) <= 1


def test_a_grey_picture_with_a_profile_of_colours() -> None:
    encoded = encode(Image.new("L", (8, 8), 128), "JPEG", icc_profile=rgb_profile("prophoto"))
    expected = 255 * (1.055 * (128 / 255) ** (1.8 / 2.4) - 0.055)
    assert np.abs(np.asarray(decode_image(encoded, "a"), float) - expected).max() <= 1


def test_a_palette_with_a_profile() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette(
        [0, 0, 0, *carried(Image.new("RGB", (1, 1), (200, 60, 90)), "display-p3").getpixel((0, 0))]
    )
    encoded = encode(image, "PNG", icc_profile=rgb_profile("display-p3"))
    assert most(decode_image(encoded, "a"), Image.new("RGB", (8, 8), (200, 60, 90))) <= 2


def test_transparency_with_a_profile() -> None:
    """Colours are carried out before they are laid on white."""
    image = carried(Image.new("RGB", (8, 8), (200, 60, 90)), "display-p3")
    image.putalpha(128)
    encoded = encode(image, "PNG", icc_profile=rgb_profile("display-p3"))
    expected = tuple(round(255 + (one - 255) * 128 / 255) for one in (200, 60, 90))
    assert most(decode_image(encoded, "a"), Image.new("RGB", (8, 8), expected)) <= 2


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF"])
def test_inks_with_a_profile(file_format: str) -> None:
    """Magenta on yellow is the colour that the press's profile says, no pure red."""
    corners = np.zeros((2, 2, 2, 2, 3))
    for cyan, magenta, yellow, black in product((0, 1), repeat=4):
        lightness = max(0, 100 - 30 * (cyan + magenta) - 5 * yellow - 100 * black)
        corners[cyan, magenta, yellow, black] = lightness, 40 * magenta, 20 * yellow
    encoded = encode(
        Image.new("CMYK", (16, 16), (0, 255, 255, 0)), file_format, icc_profile=ink_profile(corners)
    )
    expected = Image.new("RGB", (16, 16), (227, 129, 127))  # CIE Lab 65, 40, 20 by its formulas
    assert most(decode_image(encoded, "a"), expected) <= 4
    stored = Image.open(io.BytesIO(normalise_image(encoded, "a").encoded))
    assert most(stored, expected) <= 6


def test_colours_that_a_png_file_tells_by_numbers() -> None:
    p3, linear = encode(carried(scene(), "display-p3"), "PNG"), encode(scene(), "PNG")
    told = with_chunks(p3, gamma_chunk(0.45455), primaries_chunk("display-p3"))
    assert most(decode_image(told, "a"), scene()) <= 3
    dark = decode_image(with_chunks(linear, gamma_chunk(1.0)), "a")
    expected = np.asarray(scene()) / 255
    expected = np.where(
        expected <= 0.0031308, 12.92 * expected, 1.055 * expected ** (1 / 2.4) - 0.055
    )
    assert np.abs(np.asarray(dark) - 255 * expected).max() <= 1


@pytest.mark.parametrize(
    "chunks",
    [
        [gamma_chunk(0.45455)],
        [gamma_chunk(0.45455), primaries_chunk("srgb")],
        [gamma_chunk(1.0), (b"sRGB", b"\0")],
        [gamma_chunk(0.0)],
        [(b"cHRM", bytes(32))],
        [(b"cHRM", struct.pack(">8I", *[33333] * 8))],
        [(b"cHRM", struct.pack(">8I", *[2**31 - 1] * 8))],
    ],
)
def test_what_a_png_file_tells_of_srgb_or_wrongly_changes_nothing(chunks: list) -> None:
    plain = encode(scene(), "PNG")
    assert most(decode_image(with_chunks(plain, *chunks), "a"), scene()) == 0


def exif_of_camera(colour_space: int | None, interoperability: str | None) -> Image.Exif:
    exif = Image.Exif()
    if colour_space is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = colour_space
    if interoperability is not None:
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        inner[ExifTags.IFD.Interop] = {1: interoperability}
    return exif


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP"])
def test_cameras_mark_adobe_rgb_without_a_profile(file_format: str) -> None:
    numbers = carried(scene(), "adobe-rgb")
    assert cosine(numbers, scene()) < 0.99
    marked = encode(numbers, file_format, exif=exif_of_camera(65535, "R03"))
    stored = Image.open(io.BytesIO(normalise_image(marked, "a").encoded))
    for picture in (decode_image(marked, "a"), stored):
        assert cosine(picture, scene()) > 0.999


@pytest.mark.parametrize("said", [(1, "R03"), (65535, "R98"), (65535, None), (None, None)])
def test_other_marks_of_cameras_change_nothing(said: tuple) -> None:
    encoded = encode(scene(), "JPEG", exif=exif_of_camera(*said))
    assert normalise_image(encoded, "a").encoded == encoded


def test_a_profile_counts_before_the_mark_of_a_camera() -> None:
    srgb = encode(
        scene(), "JPEG", exif=exif_of_camera(65535, "R03"), icc_profile=rgb_profile("srgb")
    )
    assert normalise_image(srgb, "a").encoded == srgb


def test_white_is_white_in_every_space() -> None:
    assert len(SPACES) == 5
    assert {points[0] for points, _ in SPACES.values()} > {D65}
    for space in SPACES:
        encoded = encode(Image.new("RGB", (8, 8), "white"), "PNG", icc_profile=rgb_profile(space))
        assert most(decode_image(encoded, "a"), Image.new("RGB", (8, 8), "white")) == 0
