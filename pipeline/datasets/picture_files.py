"""Files of pictures by their parts, before they are decoded: scans, chunks, and how many there are.

A file of a few megabytes may have a million parts, or ask for a thousand passes over its picture.
"""

import io
import re
from itertools import islice, product

JPEG_START, PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
# Of a JPEG. Encoders write ten, 18 for four inks; one of 89 million pixels takes 0.06 s.
MOST_SCANS = 30
# Pieces in which Pillow reads the parts of a file, in Python, a microsecond each: three a chunk or
# a segment, one a tag. 256 MiB of PNG chunks of 8 kB take a third of them.
MOST_READS = 400_000
_SCAN, _END = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")  # but those amid pixels, and the start


class BoundedFile(io.BytesIO):
    """A file that can be read in `MOST_READS` pieces; then reading raises OSError."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > MOST_READS:
            raise OSError(f"it has too many parts, read in more than {MOST_READS} pieces")
        return super().read(size)


def parts_fault(encoded: bytes) -> str:
    """Why a file is not to be decoded; empty where it may be, as for what is no JPEG.

    A scan of an empty picture takes 60 bytes, and a decoder goes over the whole picture for it.
    """
    if not encoded.startswith(JPEG_START):
        return ""
    scans = at = 0
    for _ in range(MOST_READS):
        if (found := _MARKER.search(encoded, at)) is None or found[1][0] == _END:
            return ""
        scans += found[1][0] == _SCAN
        if scans > MOST_SCANS:
            return f"has more than {MOST_SCANS} scans"
        at = found.end() + int.from_bytes(encoded[found.end() : found.end() + 2])
    return f"has more than {MOST_READS} parts"


def has_all_scans(jpeg: bytes) -> bool:
    """Whether the scans of a JPEG bring every coefficient of every component to its last bit."""
    frame = max(jpeg.rfind(mark) for mark in (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2"))
    missing_bits: dict[tuple[int, int], int] = {}
    scans = re.finditer(rb"\xff\xda..([\1-\4])", jpeg[frame:], re.DOTALL)
    for scan in islice(scans, MOST_SCANS):
        count, start = scan[1][0], frame + scan.end()
        said = jpeg[start : start + 2 * count + 3]
        if len(said) == 2 * count + 3:
            *components, first, last, bits = *said[: 2 * count : 2], *said[-3:]
            spectrum = range(first, last + 1)
            missing_bits.update(dict.fromkeys(product(components, spectrum), bits & 15))
    wanted = 64 * sum(jpeg[frame + 9 : frame + 10])  # the number of components
    return len(missing_bits) == wanted and not any(missing_bits.values())


def without_chunks(encoded: bytes, left_out: tuple[bytes, ...]) -> bytes:
    """A PNG file without its chunks of some kinds; any other file, or of too many, as it is."""
    if not encoded.startswith(PNG_START):
        return encoded
    kept, at = [encoded[: len(PNG_START)]], len(PNG_START)
    while at < len(encoded) and len(kept) <= MOST_READS:
        end = at + 12 + int.from_bytes(encoded[at : at + 4])
        if encoded[at + 4 : at + 8] not in left_out:
            kept.append(encoded[at:end])
        at = end
    return b"".join(kept) if at >= len(encoded) else encoded
