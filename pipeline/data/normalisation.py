"""Any still image -> an 8-bit RGB JPEG, decoded once to prove that it is whole."""

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

# Pillow's own limit: above it, Pillow warns of a decompression bomb.
MAX_PIXELS = 89_478_485
MAX_SIDE_PX = 65_500  # libjpeg's limit
JPEG_QUALITY = 95
# Formats whose decoders are part of Pillow; EPS, for one, would start another program.
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
_ORIENTATION_TAG = 0x0112
_UPRIGHT = 1
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
    struct.error,
    zlib.error,
)


class UnreadableImage(ValueError):  # noqa: N818  # it names an image, one of possibly many
    """An image that cannot be decoded, with its name and the reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


def normalise_image(
    encoded: bytes, name: str, *, max_pixels: int = MAX_PIXELS
) -> tuple[bytes, int, int]:
    """The image as an 8-bit RGB JPEG file, its width and its height in pixels.

    A JPEG that is RGB and upright comes back byte for byte. Everything else is encoded again at
    quality 95 without chroma subsampling: greyscale, palette, CMYK and 16-bit images are
    converted, alpha is composited on white, an EXIF rotation is carried out. Of several frames
    the first is taken. EXIF data that cannot be parsed is taken to say "upright".

    max_pixels: images with more pixels are refused before they are decoded.

    Raises UnreadableImage, which names the image: empty, no image, truncated, damaged, too large,
    or with 32-bit samples, for which white is not defined.
    """
    if not encoded:
        raise UnreadableImage(name, "is empty (0 bytes)")
    with warnings.catch_warnings():
        # What Pillow only warns of must not change the result with the caller's filters.
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with _open_image(encoded, name) as image:
            _check_size(image, name, max_pixels)
            return _normalise(image, encoded, name)


def _open_image(encoded: bytes, name: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(encoded), formats=_FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnreadableImage(name, "has more pixels than are allowed") from error
    except UnidentifiedImageError as error:
        raise UnreadableImage(name, "is not an image of a known format") from error
    except _DECODER_FAULTS as error:
        raise UnreadableImage(name, f"cannot be opened: {_one_line(error)}") from error


def _normalise(image: Image.Image, encoded: bytes, name: str) -> tuple[bytes, int, int]:
    try:
        image.load()
        turn = _TURNS.get(_orientation(image))
        if image.format in ("JPEG", "MPO") and image.mode == "RGB" and turn is None:
            return encoded, image.width, image.height
        converted = _to_rgb(image, name)
    except UnreadableImage:
        raise
    except _DECODER_FAULTS as error:
        raise UnreadableImage(name, f"cannot be decoded: {_one_line(error)}") from error
    return _encode(converted if turn is None else converted.transpose(turn))


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise UnreadableImage(name, f"has {width} x {height} pixels, more than {max_pixels}")
    if max(width, height) > MAX_SIDE_PX:
        raise UnreadableImage(name, f"is {width} x {height}, a side over {MAX_SIDE_PX} pixels")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, _UPRIGHT))
    except _DECODER_FAULTS:
        return _UPRIGHT


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow would clip to 255 instead of scaling; the high byte is what it takes of 16-bit RGB.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise UnreadableImage(name, f"has 32-bit samples (mode {image.mode}): save it with 8 or 16")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _encode(image: Image.Image) -> tuple[bytes, int, int]:
    image.info.clear()  # else the colour profile of, say, a CMYK source would be written too
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue(), image.width, image.height


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
