"""ICC profiles as cameras, screens and presses have them, put together from their definitions."""

import struct

import numpy as np

D50 = (0.9642, 1.0, 0.8249)
# White, red, green, blue as x and y, and the gamma of each: of its standard.
D65 = (0.3127, 0.3290)
SPACES = {
    "srgb": ((D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), None),
    "display-p3": ((D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), None),
    "adobe-rgb": ((D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), 563 / 256),
    "prophoto": (((0.3457, 0.3585), (0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), 1.8),
    "gamma-1.4": ((D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), 1.4),
}


def rgb_profile(space: str) -> bytes:
    """A display profile (version 2) of a matrix and one curve."""
    points, gamma = SPACES[space]
    white, *primaries = [np.array((x, y, 1 - x - y)) / y for x, y in points]
    scaled = np.linalg.solve(np.stack(primaries, 1), white) * np.stack(primaries, 1)
    cone = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    adapted = np.linalg.solve(cone, (cone @ D50 / (cone @ white))[:, None] * (cone @ scaled))
    tags = {
        name: _xyz(column) for name, column in zip(("rXYZ", "gXYZ", "bXYZ"), adapted.T, strict=True)
    }
    tags |= dict.fromkeys(("rTRC", "gTRC", "bTRC"), _curve(gamma))
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", {"kTRC": _curve(gamma)})


def ink_profile(lab_of_corners: np.ndarray) -> bytes:
    """A printer's profile; lab_of_corners: `[2, 2, 2, 2, 3]` by cyan, magenta, yellow, black."""
    ramp = bytes(range(256))
    low, high = np.array([0, -128, -128]), np.array([100, 127, 127])
    nodes = np.round((lab_of_corners - low) / (high - low) * 255).astype(np.uint8).tobytes()
    identity = b"".join(struct.pack(">i", 65536 * (k % 4 == 0)) for k in range(9))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + ramp * 4 + nodes + ramp * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {"A2B0": table})


def _xyz(values: object) -> bytes:
    return b"XYZ \0\0\0\0" + np.round(np.asarray(values) * 65536).astype(">i4").tobytes()


def _curve(gamma: float | None) -> bytes:
    """A table of 1024 values; None: the curve of sRGB."""
    x = np.linspace(0, 1, 1024)
    srgb = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    values = np.round((srgb if gamma is None else x**gamma) * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", 1024) + values.tobytes()


def _profile(kind: bytes, channels: bytes, connection: bytes, tags: dict[str, bytes]) -> bytes:
    tags = {"wtpt": _xyz(D50), **tags}
    at = 132 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += struct.pack(">4sII", name.encode(), at + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    header = bytearray(128)
    header[:4] = struct.pack(">I", at + len(data))
    header[8:12] = b"\x02\x40\0\0"
    header[12:24] = kind + channels + connection
    header[36:40] = b"acsp"
    header[68:80] = _xyz(D50)[8:]
    return bytes(header) + table + data
