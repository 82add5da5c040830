"""Images of every kind become 8-bit RGB JPEGs; a plain JPEG stays as it is, byte for byte."""

import io
import struct
import tracemalloc
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import decode as decoding
from pipeline.datasets.decode import UnreadableImage, decode_image, normalise_image
from pipeline.datasets.picture_files import MOST_READS, MOST_SCANS
from tests.made_archives import encode_picture

RED, GREEN, BLUE, WHITE = (254, 0, 0), (0, 255, 1), (0, 0, 254), (255, 255, 255)
ORIENTATION_TAG = 0x0112


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def decode(encoded: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(encoded))
    image.load()
    assert (image.format, image.mode) == ("JPEG", "RGB")
    return image


def test_plain_jpeg_is_kept_byte_for_byte() -> None:
    original = encode_picture(1, size=(30, 20))
    assert normalise_image(original, "a.jpg") == (original, 30, 20, False)


def test_progressive_jpeg_and_upright_exif_are_plain() -> None:
    image = Image.open(io.BytesIO(encode_picture(1)))
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 1
    original = encode(image, "JPEG", progressive=True, exif=exif)
    assert normalise_image(original, "a.jpg")[0] == original


def test_unreadable_exif_counts_as_upright() -> None:
    image = Image.open(io.BytesIO(encode_picture(1)))
    original = encode(image, "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert normalise_image(original, "a.jpg")[0] == original


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF"])
def test_other_formats_keep_their_colours(file_format: str) -> None:
    options = {"lossless": True} if file_format == "WEBP" else {}
    encoded = encode(Image.new("RGB", (12, 9), (200, 40, 90)), file_format, **options)
    result, width, height, _ = normalise_image(encoded, "a")
    assert (width, height) == (12, 9)
    assert np.abs(np.asarray(decode(result), int) - (200, 40, 90)).max() <= 6


def test_greyscale_jpeg_becomes_equal_channels() -> None:
    encoded = normalise_image(encode(Image.new("L", (8, 8), 77), "JPEG"), "grey.jpg").encoded
    assert np.abs(np.asarray(decode(encoded), int) - 77).max() <= 1


def test_bilevel_image() -> None:
    encoded = normalise_image(encode(Image.new("1", (8, 8), 1), "PNG"), "a.png").encoded
    assert np.asarray(decode(encoded)).min() == 255


def test_cmyk_jpeg_is_not_inverted() -> None:
    # CMYK (0, 255, 255, 0) is no cyan, all magenta and yellow: red.
    encoded = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")
    result = normalise_image(encoded, "a.jpg").encoded
    assert np.abs(np.asarray(decode(result), int) - RED).max() <= 3


def test_palette_is_looked_up() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    result = normalise_image(encode(image, "PNG"), "a.png").encoded
    assert np.abs(np.asarray(decode(result), int) - (10, 200, 30)).max() <= 3


def test_alpha_is_composited_on_white() -> None:
    image = Image.new("RGBA", (16, 8), (*BLUE, 255))
    image.paste((0, 0, 0, 0), (0, 0, 8, 8))
    result = normalise_image(encode(image, "PNG"), "a.png").encoded
    pixels = np.asarray(decode(result), int)
    assert np.abs(pixels[:, :8] - WHITE).max() <= 3
    assert np.abs(pixels[:, 8:] - BLUE).max() <= 3


def test_half_transparent_black_is_middle_grey() -> None:
    encoded = encode(Image.new("LA", (8, 8), (0, 128)), "PNG")
    result = normalise_image(encoded, "a.png").encoded
    assert np.abs(np.asarray(decode(result), int) - 127).max() <= 2


def test_transparent_palette_entry_is_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    for transparency in (1, b"\xff\x00"):
        encoded = encode(image, "PNG", transparency=transparency)
        result = normalise_image(encoded, "a.png").encoded
        assert np.asarray(decode(result)).min() >= 253


def test_16_bit_greyscale_is_scaled_not_clipped() -> None:
    ramp = np.tile(np.arange(0, 65536, 4096, dtype=np.uint16), (16, 1))
    for file_format in ("PNG", "TIFF"):
        result = normalise_image(encode(Image.fromarray(ramp), file_format), "a").encoded
        assert np.abs(np.asarray(decode(result), int)[..., 0] - (ramp >> 8)).max() <= 2


def tiff_with(tag: int, was: int, value: int) -> bytes:
    """A TIFF of three samples of 16 bits, with another number in a tag."""
    tiff = encode(Image.fromarray(np.array([[0, 0x1234, 0xFFFF]], np.uint16)), "TIFF")
    entry = struct.pack("<HHI", tag, 3, 1)
    assert tiff.count(entry + bytes([was])) == 1
    return tiff.replace(entry + bytes([was]), entry + bytes([value]))


def test_a_16_bit_tiff_whose_white_is_zero_is_turned_round() -> None:
    picture = decode_image(tiff_with(262, 1, 0), "a.tif")  # PhotometricInterpretation
    assert np.asarray(picture)[0, :, 0].tolist() == [255, 0xFFFF - 0x1234 >> 8, 0]


def test_12_bit_tiff_is_scaled() -> None:
    tiff = tiff_with(258, 16, 12).replace(b"\0\0\x34\x12\xff\xff", b"\0\x01\x23\xff\xf0\0")
    picture = decode_image(tiff, "a.tif")  # by BitsPerSample
    assert np.asarray(picture)[0, :, 0].tolist() == [0, 0x12, 255]


def test_16_bit_pgm_is_a_16_bit_png() -> None:
    ramp = np.tile(np.array([0, 255, 256, 30000, 65535], np.uint16), (4, 1))
    png = encode(Image.fromarray(ramp), "PNG")
    pgm = b"P5 5 4 65535\n" + ramp.astype(">u2").tobytes()
    expected = np.asarray(decode_image(png, "a.png"))
    assert np.array_equal(np.asarray(decode_image(pgm, "a.pgm")), expected)
    assert expected[0, :, 0].tolist() == [0, 0, 1, 117, 255]


def test_10_bit_pgm_is_scaled_to_its_largest_value() -> None:
    pgm = b"P5 3 1 1023\n" + np.array([0, 512, 1023], ">u2").tobytes()
    assert np.asarray(decode_image(pgm, "a.pgm"))[0, :, 0].tolist() == [0, 128, 255]


def test_the_transparent_value_of_a_16_bit_png_is_white() -> None:
    """Only the exact value is transparent: 30001 has the same high byte."""
    image = Image.fromarray(np.array([[30000, 30001]], np.uint16))
    encoded = encode(image, "PNG", transparency=30000)
    assert np.asarray(decode_image(encoded, "a.png"))[0, :, 0].tolist() == [255, 117]


def test_a_damaged_avif_is_unreadable() -> None:
    """Its decoder raises other errors than those of the other formats."""
    whole = encode_picture(1, file_format="AVIF", size=(96, 64))
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[generator.integers(len(whole))] = generator.integers(256)
        try:
            decode_image(bytes(damaged), "a.avif")
        except UnreadableImage:
            refused += 1
    assert 20 < refused < 200


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_carried_out(orientation: int, file_format: str) -> None:
    """Each orientation stores the same scene differently; decoded, it is the same again."""
    scene = np.zeros((32, 48, 3), np.uint8)
    scene[:16, :24], scene[:16, 24:], scene[16:, :24] = RED, GREEN, BLUE
    stored = {
        1: scene,
        2: scene[:, ::-1],
        3: scene[::-1, ::-1],
        4: scene[::-1],
        5: scene.transpose(1, 0, 2),
        6: scene.transpose(1, 0, 2)[::-1],
        7: scene[::-1, ::-1].transpose(1, 0, 2),
        8: scene.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    result, width, height, _ = normalise_image(encode(image, file_format, exif=exif), "a.jpg")
    decoded = decode(result)
    assert (width, height) == decoded.size == (48, 32)
    assert decoded.getexif().get(ORIENTATION_TAG, 1) == 1
    assert np.abs(np.asarray(decoded, int)[4:12:4, 4:20:4] - RED).max() <= 12
    assert np.abs(np.asarray(decoded, int)[4:12:4, 28:44:4] - GREEN).max() <= 12
    assert np.abs(np.asarray(decoded, int)[20:28:4, 4:20:4] - BLUE).max() <= 12


def test_a_foreign_colour_profile_is_not_written_again() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    encoded = encode(image, "JPEG", icc_profile=b"a profile for four inks")
    assert "icc_profile" not in decode(normalise_image(encoded, "a.jpg")[0]).info


def smooth(size: tuple[int, int] = (64, 48)) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}]
)
def test_a_jpeg_that_lacks_its_end_marker_only_is_whole(options: dict[str, object]) -> None:
    whole = encode(smooth(), "JPEG", **options)
    for cut in (1, 2):
        picture = decode_image(whole[:-cut], "a.jpg")
        assert np.array_equal(np.asarray(picture), np.asarray(decode_image(whole, "a.jpg")))
        stored = normalise_image(whole[:-cut], "a.jpg")
        assert stored.encoded == whole  # so that every other program can read it
    for cut in (3, 4, 8, 20, 100, len(whole) // 2):
        with pytest.raises(UnreadableImage, match=r"a\.jpg: cannot be decoded: .* truncated"):
            normalise_image(whole[:-cut], "a.jpg")


def test_a_truncated_jpeg_is_not_taken_for_a_whole_one_at_a_restart_marker() -> None:
    whole = encode(smooth(), "JPEG", restart_marker_rows=1)
    accepted = []
    for cut in range(1, len(whole) - 700):
        with suppress(UnreadableImage):
            decode_image(whole[:-cut], "a.jpg")
            accepted.append(cut)
    assert accepted == [1, 2]


def test_words_behind_a_picture_are_no_fault() -> None:
    whole = encode(smooth(), "JPEG")
    assert normalise_image(whole + b"words" * 1000, "a.jpg").encoded.startswith(whole)


@pytest.mark.parametrize(("file_format", "cuts"), [("PNG", (1, 4, 8, 12)), ("GIF", (1,))])
def test_other_formats_without_their_end_mark(file_format: str, cuts: tuple[int, ...]) -> None:
    whole = encode(smooth(), file_format)
    for cut in cuts:
        picture = decode_image(whole[:-cut], "a")
        assert np.array_equal(np.asarray(picture), np.asarray(decode_image(whole, "a")))


@pytest.mark.parametrize("is_behind", [False, True])
@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_a_long_text_in_a_png_is_never_inflated(kind: bytes, is_behind: bool) -> None:
    """64 MB of words in 64 kB, before the pixels or behind them."""
    whole, words = encode(smooth(), "PNG"), zlib.compress(b" " * (1 << 26))
    head = b"Comment\0\0" if kind == b"zTXt" else b"Comment\0\1\0\0\0"
    data = head + words
    check = struct.pack(">I", zlib.crc32(kind + data))
    at = len(whole) - 12 if is_behind else 33
    encoded = whole[:at] + struct.pack(">I", len(data)) + kind + data + check + whole[at:]
    tracemalloc.start()
    picture = decode_image(encoded, "a.png")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(np.asarray(picture), np.asarray(smooth()))
    assert peak_bytes < 8 << 20


def test_a_profile_that_inflates_too_far_is_left_out() -> None:
    whole, data = encode(smooth(), "PNG"), b"icc\0\0" + zlib.compress(bytes(1 << 24))
    chunk = struct.pack(">I", len(data)) + b"iCCP" + data
    chunk += struct.pack(">I", zlib.crc32(b"iCCP" + data))
    picture = decode_image(whole[:33] + chunk + whole[33:], "a.png")
    assert np.array_equal(np.asarray(picture), np.asarray(smooth()))


def progressive(scans_more: int, size: tuple[int, int] = (64, 48)) -> bytes:
    """A JPEG of twelve scans, and its last one so many times more."""
    whole = encode(
        Image.new("RGB", size, "teal"), "JPEG", progressive=True, comment=b"\xff\xda" * 99
    )
    last = whole[whole.rfind(b"\xff\xda") : -2]
    return whole[:-2] + last * scans_more + whole[-2:]


def test_the_scans_of_a_jpeg_are_few() -> None:
    """Each goes over the whole picture: 159 kB took seconds."""
    whole = progressive(0)
    scans = whole.count(b"\xff\xda") - 99
    assert scans == 10
    for encoded in (whole, progressive(MOST_SCANS - scans)):
        assert decode_image(encoded + b"\xff\xda" * 99, "a").size == (64, 48)
    for encoded in (progressive(MOST_SCANS - scans + 1), progressive(1000)):
        with pytest.raises(UnreadableImage, match=f"a.jpg: has more than {MOST_SCANS} scans"):
            decode_image(encoded, "a.jpg")


def many_parts(file_format: str, count: int) -> bytes:
    """A picture with so many parts that say nothing, of 4 to 12 bytes."""
    whole = encode(smooth().quantize() if file_format == "GIF" else smooth(), file_format)
    chunk = bytes(4) + b"prVt" + struct.pack(">I", zlib.crc32(b"prVt"))
    part, at = {
        "JPEG": (b"\xff\xfe\0\2", 2),
        "PNG": (chunk, 33),
        "GIF": (b"\x21\xfe\1a\0", whole.find(b"\x2c" + bytes(4))),
    }[file_format]
    return whole[:at] + part * count + whole[at:]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF"])
def test_the_parts_of_a_file_are_bounded(file_format: str) -> None:
    assert decode_image(many_parts(file_format, 10_000), "a").size == smooth().size
    with pytest.raises(UnreadableImage, match=f"more than {MOST_READS}|too many parts"):
        decode_image(many_parts(file_format, 500_000), "a")


@pytest.mark.parametrize(
    ("head", "samples", "is_slow"),
    [
        ("P5 {} 255", b"1", False),
        ("P5 {} 9", b"1", True),
        ("P6 {} 1000", b"123456", True),
        ("P2 {} 9", b"1 ", True),
    ],
)
def test_ppm_files_that_take_long_are_small(head: str, samples: bytes, is_slow: bool) -> None:
    small = head.format("4 4").encode() + b"\n" + samples * 16
    assert decode_image(small, "a").size == (4, 4)
    large = head.format("2500 2500").encode() + b"\n" + samples * 6_250_000
    if not is_slow:
        assert decode_image(large, "a").size == (2500, 2500)
        return
    with pytest.raises(UnreadableImage, match="of an odd depth, of more than 5000000 samples"):
        decode_image(large, "a")


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    encoded = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    result = normalise_image(encoded, "a.gif").encoded
    assert np.abs(np.asarray(decode(result), int) - RED).max() <= 3


def test_the_pixel_limit_is_exact() -> None:
    encoded = encode_picture(1, size=(30, 20))
    assert normalise_image(encoded, "a.jpg", max_pixels=600)[1:3] == (30, 20)
    with pytest.raises(UnreadableImage, match=r"a\.jpg: has 30 x 20 pixels, more than 599"):
        normalise_image(encoded, "a.jpg", max_pixels=599)


def test_normalised_twice_is_normalised_once() -> None:
    once = normalise_image(encode_picture(1, file_format="PNG", mode="L"), "a.png")
    assert normalise_image(once[0], "a.png") == once


def test_decoded_and_stored_are_the_same_picture() -> None:
    """What a query shows is what `prepare` would store of it, before JPEG's losses."""
    pictures = {
        "plain": (encode_picture(1, size=(30, 20)), 0),
        "grey": (encode(Image.new("L", (16, 8), 77), "JPEG"), 1),
        "alpha": (encode(Image.new("LA", (8, 8), (0, 128)), "PNG"), 2),
        "ink": (encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"), 3),
        "deep": (encode(Image.fromarray(np.full((8, 8), 40000, np.uint16)), "PNG"), 2),
    }
    for name, (encoded, tolerance) in pictures.items():
        picture = decode_image(encoded, name)
        stored = decode(normalise_image(encoded, name)[0])
        assert (picture.mode, picture.size) == ("RGB", stored.size), name
        difference = np.asarray(picture, int) - np.asarray(stored, int)
        assert np.abs(difference).max() <= tolerance, name


def test_a_picture_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = encode_picture(1, size=(30, 20))
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(1) or real(*a, **k))
    np.asarray(decode_image(encoded, "a.jpg"))
    assert opened == [1]


def test_a_foreign_colour_profile_is_not_kept() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    encoded = encode(image, "JPEG", icc_profile=b"a profile for four inks")
    assert "icc_profile" not in decode_image(encoded, "a.jpg").info


@pytest.mark.parametrize(
    ("least_px", "size"),
    [
        (None, (401, 303)),
        (304, (401, 303)),  # shorter than that: never enlarged
        (152, (401, 303)),  # half would be 151.5
        (151, (201, 152)),
        (76, (201, 152)),
        (75, (101, 76)),
        (37, (51, 38)),
        (1, (51, 38)),  # an eighth at the most
    ],
)
def test_a_reduced_decode_keeps_the_shorter_side(
    least_px: int | None, size: tuple[int, int]
) -> None:
    encoded = encode_picture(1, size=(401, 303))
    assert decode_image(encoded, "a.jpg", least_px=least_px).size == size


def test_a_reduced_decode_shows_the_same_scene_turned_upright() -> None:
    ramp = np.linspace(0, 255, 256).astype(np.uint8)
    scene = np.stack([np.tile(ramp, (128, 1))] * 3, 2)  # dark left, light right
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6  # stored lying: turned by 90 degrees to be seen
    stored = Image.fromarray(np.ascontiguousarray(scene.transpose(1, 0, 2)[::-1]))
    picture = decode_image(encode(stored, "JPEG", quality=95, exif=exif), "a.jpg", least_px=32)
    assert picture.size == (64, 32)
    means = scene.reshape(32, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(np.asarray(picture) - means).max() <= 4


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_reduced_decode_converts_as_a_full_one(mode: str) -> None:
    encoded = encode(Image.new(mode, (64, 64), (0, 255, 255, 0) if mode == "CMYK" else 77), "JPEG")
    full, reduced = (decode_image(encoded, "a.jpg", least_px=px) for px in (None, 8))
    assert (full.size, reduced.size) == ((64, 64), (8, 8))
    assert np.abs(np.asarray(full, int)[:8, :8] - np.asarray(reduced, int)).max() <= 1


def test_other_formats_are_decoded_in_full() -> None:
    for file_format in ("PNG", "GIF", "WEBP"):
        encoded = encode(Image.new("RGB", (64, 64)), file_format)
        assert decode_image(encoded, "a", least_px=8).size == (64, 64)


@pytest.mark.parametrize("least_px", [None, 8])
def test_a_reduced_decode_refuses_what_a_full_one_refuses(least_px: int | None) -> None:
    encoded = encode_picture(1, size=(64, 48))
    bad = {
        "is empty": b"",
        "is not an image": b"text",
        "cannot be decoded: ": encoded[:-20],
        "has 64 x 48 pixels, more than 99": encoded,
    }
    for words, given in bad.items():
        with pytest.raises(UnreadableImage, match=f"a: {words}"):
            decode_image(
                given, "a", max_pixels=99 if given is encoded else 10**6, least_px=least_px
            )


@pytest.mark.parametrize(
    ("size", "stored"),
    [((90, 60), (30, 20)), ((60, 90), (20, 30)), ((31, 5), (30, 5)), ((900, 2), (30, 1))],
)
def test_a_side_longer_than_the_largest_is_shrunk(
    size: tuple[int, int], stored: tuple[int, int]
) -> None:
    encoded = encode_picture(1, size=size)
    small = normalise_image(encoded, "a.jpg", largest_side_px=30)
    assert small.is_shrunk
    assert (small.width, small.height) == decode(small.encoded).size == stored
    expected = np.asarray(decode(encoded).resize(stored, Image.Resampling.LANCZOS), dtype=int)
    assert np.abs(np.asarray(decode(small.encoded), dtype=int) - expected).mean() < 3


def test_sides_up_to_the_largest_are_stored_byte_for_byte() -> None:
    encoded = encode_picture(1, size=(30, 20))
    assert normalise_image(encoded, "a.jpg", largest_side_px=30) == (encoded, 30, 20, False)
    turned = encode_picture(2, size=(40, 20), file_format="PNG")
    stored = normalise_image(turned, "a.png", largest_side_px=40)
    assert (stored.width, stored.height, stored.is_shrunk) == (40, 20, False)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "RGB", "L", "1"])
def test_alpha_is_composited_strip_by_strip_as_a_whole(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (23, 17, 4), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image = image if mode == "RGBA" else image.convert("LA" if mode == "PA" else "RGB")
    image = image.convert(mode)
    see_through = {"P": 3, "RGB": tuple(pixels[4, 4, :3].tolist()), "L": 7, "1": 0}.get(mode)
    if see_through is not None:
        image.info["transparency"] = see_through
    whole = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    assert image.has_transparency_data
    for pixels_at_once in (1, 40, 1 << 20):
        monkeypatch.setattr(decoding, "STRIP_PIXELS", pixels_at_once)
        assert decoding._on_white(image, None).tobytes() == whole.convert("RGB").tobytes()


def test_decoding_leaves_the_filters_of_warnings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """They belong to the whole process: threads that set them would undo one another's."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format="PNG")
    filters, opened = warnings.filters, Image.open

    def open_and_look(*args: object, **settings: object) -> Image.Image:
        assert warnings.filters is filters
        return opened(*args, **settings)

    monkeypatch.setattr(decoding.Image, "open", open_and_look)
    assert decode_image(buffer.getvalue(), "picture").size == (8, 8)
    assert decoding.pixel_count(buffer.getvalue()) == 64
    assert decoding.pixel_count(b"no picture") == decoding.MAX_PIXELS
