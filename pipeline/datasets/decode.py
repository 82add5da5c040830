"""Any still image, decoded once: upright in 8-bit RGB for a query, or as such a JPEG to store."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageCms, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from pipeline.datasets.colour import in_srgb, to_srgb_transform
from pipeline.datasets.picture_files import (
    JPEG_START,
    BoundedFile,
    has_all_scans,
    parts_fault,
    without_chunks,
)

# Pillow's own limit: above it, Pillow warns of a decompression bomb.
MAX_PIXELS = 89_478_485
MAX_SIDE_PX = 65_500  # libjpeg's limit
STRIP_PIXELS = 1 << 20  # of a picture with alpha that are composited at a time
JPEG_QUALITY = 95
# Formats whose decoders are part of Pillow; EPS, for one, would start another program.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF")
_ORIENTATION_TAG = 0x0112
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_JPEG_END = b"\xff\xd9"
# Samples of a PPM file of text, or of a depth that Pillow scales in Python: 0.6 s a million.
_SLOW_SAMPLES = 5_000_000
# What in a truncated picture would be read on as pixels, whether or not it has restart markers.
_NONSENSE = b"\xaa" * 64 + b"".join(bytes((255, 208 + n)) + b"\xaa" * 16 for n in range(8))
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders are seen to raise on damaged bytes.
_DECODER_FAULTS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    TypeError,
    LookupError,
    OverflowError,
    RuntimeError,  # of AVIF
    struct.error,
    zlib.error,
)


class UnreadableImage(ValueError):  # noqa: N818  # it names an image, one of possibly many
    """An image that cannot be decoded, with its name and the reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)  # so that it can come from another process
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def decode_image(
    encoded: bytes, name: str, *, max_pixels: int = MAX_PIXELS, least_px: int | None = None
) -> Image.Image:
    """The image upright in 8-bit RGB, with the conversions and refusals of `normalise_image`.

    least_px: a JPEG is decoded to the smallest of 1, 1/2, 1/4 and 1/8 of its size whose shorter
    side is still that long, 1 or more; the decoder then leaves out the high frequencies of each
    block, and most of the work. Other formats, and shorter images, are decoded in full.
    max_pixels: of the full size.
    """
    return _read(encoded, name, max_pixels, least_px)[0]


def pixel_count(encoded: bytes) -> int:
    """Width times height by the head of the file; `MAX_PIXELS` where that cannot be read."""
    try:
        with _opened(encoded, "picture", MAX_PIXELS) as image:
            return image.width * image.height
    except UnreadableImage:
        return MAX_PIXELS


class StoredImage(NamedTuple):
    """An 8-bit RGB JPEG file, its sides in pixels, and whether they were longer before."""

    encoded: bytes
    width: int
    height: int
    is_shrunk: bool = False


def normalise_image(
    encoded: bytes, name: str, *, max_pixels: int = MAX_PIXELS, largest_side_px: int | None = None
) -> StoredImage:
    """The image as a pack stores it.

    A JPEG that is sRGB and upright comes back byte for byte. Everything else is encoded again at
    quality 95 without chroma subsampling: other colours are converted (see `to_srgb_transform`),
    greyscale, palette, CMYK and 16-bit images too, alpha is composited on white, an EXIF rotation
    is carried out. Of several frames the first is taken. EXIF data that cannot be parsed is taken
    to say "upright". Of a JPEG that lacks its end marker only, that is added; texts in a PNG that
    Pillow refuses, which may be short files and inflate to any size, are never inflated.

    max_pixels: images with more pixels are refused before they are decoded. largest_side_px: an
    image with a longer side is shrunk until that side is this long (antialiased Lanczos), and
    encoded again.

    Raises UnreadableImage, which names the image: empty, no image, truncated, damaged, too large,
    or with 32-bit samples, for which white is not defined.
    """
    picture, as_it_is = _read(encoded, name, max_pixels)
    longest = max(picture.size)
    if largest_side_px is not None and longest > largest_side_px:
        width, height = (max(1, round(s * largest_side_px / longest)) for s in picture.size)
        picture, as_it_is = picture.resize((width, height), Image.Resampling.LANCZOS), None
    stored = as_it_is or encode_jpeg(picture, JPEG_QUALITY, subsampling=0)
    return StoredImage(stored, *picture.size, is_shrunk=max(picture.size) < longest)


def _read(
    encoded: bytes, name: str, max_pixels: int, least_px: int | None = None
) -> tuple[Image.Image, bytes | None]:
    """The picture, and its file where that is as a pack stores it."""

    def read(file: bytes) -> tuple[Image.Image, bytes | None]:
        with _opened(file, name, max_pixels) as image:
            picture = upright_rgb(image, name, least_px)
            return picture, file if picture is image else None

    try:
        return read(encoded)
    except UnreadableImage as failure:
        reason = failure.reason  # the failure itself would keep what was read
    for left_out in (_PNG_TEXTS, (*_PNG_TEXTS, b"iCCP")):
        mended = without_chunks(encoded, left_out)
        if len(mended) < len(encoded):
            with suppress(UnreadableImage):
                return read(mended)
    if encoded.startswith(JPEG_START) and has_all_scans(encoded):
        cut = encoded.rstrip(b"\xff")
        with suppress(UnreadableImage):
            found, (other, _) = read(cut + _JPEG_END), read(cut + _NONSENSE + _JPEG_END)
            # Nothing behind the pixels of a whole picture changes one; in a truncated one it does.
            if ImageChops.difference(found[0], other).getbbox() is None:
                return found
    raise UnreadableImage(name, reason)


@contextmanager
def _opened(encoded: bytes, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """The image, its size checked, its pixels not yet read; faults as UnreadableImage."""
    if not encoded:
        raise UnreadableImage(name, "is empty (0 bytes)")
    if fault := parts_fault(encoded):
        raise UnreadableImage(name, fault)
    with _named_faults(name), Image.open(BoundedFile(encoded), formats=_FORMATS) as image:
        width, height = image.size
        if width * height > max_pixels:
            reason = f"has {width} x {height} pixels, more than {max_pixels}"
            raise UnreadableImage(name, reason)
        if max(width, height) > MAX_SIDE_PX:
            reason = f"is {width} x {height}, a side over {MAX_SIDE_PX} pixels"
            raise UnreadableImage(name, reason)
        is_slow = image.format == "PPM" and image.tile[0][0] != "raw"
        if is_slow and width * height * len(image.getbands()) > _SLOW_SAMPLES:
            reason = f"is a PPM file of text, or of an odd depth, of more than {_SLOW_SAMPLES}"
            raise UnreadableImage(name, f"{reason} samples: save it as PNG")
        yield image


@contextmanager
def _named_faults(name: str) -> Iterator[None]:
    """What Pillow raises, as UnreadableImage."""
    try:
        yield
    except UnreadableImage:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnreadableImage(name, "has more pixels than are allowed") from error
    except UnidentifiedImageError as error:
        raise UnreadableImage(name, "is not an image of a known format") from error
    except _DECODER_FAULTS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(name, f"cannot be decoded: {reason}") from error


def upright_rgb(image: Image.Image, name: str, least_px: int | None = None) -> Image.Image:
    """A picture of Pillow as `decode_image` gives one: upright in 8-bit sRGB, alpha on white.

    What Pillow keeps of a file is heeded: EXIF data, colour profile, transparency. `image` itself
    comes back where it is an upright RGB JPEG. least_px: as `decode_image` takes it; only of a
    picture whose pixels are not read yet.

    Raises UnreadableImage, which says `name`: without pixels, damaged, or with 32-bit samples.
    """
    if not all(image.size):
        raise UnreadableImage(name, f"is {image.width} x {image.height}: has no pixels")
    with _named_faults(name):
        if least_px is not None:
            image.draft(None, (least_px, least_px))
        image.load()
        turn, transform = _TURNS.get(_orientation(image)), to_srgb_transform(image)
        is_jpeg = image.format in ("JPEG", "MPO")
        if is_jpeg and image.mode == "RGB" and turn is None and transform is None:
            return image
        converted = _to_rgb(image, name, transform)
        picture = converted if turn is None else converted.transpose(turn)
    picture.info.clear()  # the colour profile does not fit any more
    return picture


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except _DECODER_FAULTS:
        return 1


def _to_rgb(
    image: Image.Image, name: str, transform: ImageCms.ImageCmsTransform | None
) -> Image.Image:
    # Pillow opens a PGM file of more than 8 bits as mode I, its samples scaled to 0 to 65535.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        samples = np.asarray(image)
        if isinstance(image, TiffImageFile):  # whose 12 bits, and white of zero, Pillow leaves so
            samples = samples << (16 - image.tag_v2.get(BITSPERSAMPLE, (16,))[0])
            if image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0:
                samples = np.iinfo(np.uint16).max - samples
        # Pillow would clip to 255 instead of scaling; the high byte is what it takes of 16-bit RGB.
        grey = (samples >> 8).astype(np.uint8)
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            grey[samples == transparent] = 255
        return in_srgb(Image.fromarray(grey), transform)
    if image.mode in ("I", "F"):
        raise UnreadableImage(name, f"has 32-bit samples (mode {image.mode}): save it with 8 or 16")
    if image.has_transparency_data:
        return _on_white(image, transform)
    return in_srgb(image, transform)


def _on_white(image: Image.Image, transform: ImageCms.ImageCmsTransform | None) -> Image.Image:
    """The image composited on white, a strip at a time: whole, it takes five times its memory."""
    picture = Image.new("RGB", image.size)
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        see_through = image.crop((0, top, image.width, bottom)).convert("RGBA")
        strip = in_srgb(see_through.convert("RGB"), transform)
        strip.putalpha(see_through.getchannel("A"))
        white = Image.new("RGBA", strip.size, "white")
        picture.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return picture


def encode_jpeg(image: Image.Image, quality: int, *, subsampling: int = -1) -> bytes:
    """The image as the bytes of a JPEG file; `subsampling` of the colours, 0 for none."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()
