"""Data sets with one thing wrong with them. Each function gives a maker: folder -> files."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests import made_archives as made

Maker = Callable[[Path], Mapping[str, Path]]
Damage = Callable[[bytes], bytes]

CUB, SOP = "CUB_200_2011.tgz", "Stanford_Online_Products.zip"
ROOTS = {CUB: "CUB_200_2011/", SOP: "Stanford_Online_Products/"}
BOMB_BYTES = 80 << 20


# ---- whole files


def file_of(name: str, damage: Damage) -> Maker:
    """A good archive whose bytes are damaged."""

    def make(folder: Path) -> Mapping[str, Path]:
        path = folder / name
        if name == CUB:
            made.write_tgz(path, made.cub_members())
        else:
            made.write_zip(path, made.sop_members())
        path.write_bytes(damage(path.read_bytes()))
        return {name: path}

    return make


def tar_of(damage: Damage) -> Maker:
    """A good tar stream that is damaged and then compressed, so that gzip's checksum holds."""
    return file_of(CUB, lambda packed: gzip.compress(damage(gzip.decompress(packed)), 1))


def flip(place: float) -> Damage:
    def damage(content: bytes) -> bytes:
        at = int(place * len(content))
        return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]

    return damage


def break_header(content: bytes) -> bytes:
    """Alter the name in the second header that carries a file."""
    at = content.index(b"CUB_200_2011/classes.txt")
    return content[:at] + b"X" + content[at + 1 :]


def cut_before_end_marker(content: bytes) -> bytes:
    """Whole members only, as if the rest had never been written."""
    return content.rstrip(b"\0").ljust(-(-len(content.rstrip(b"\0")) // 512) * 512, b"\0")


def unknown_compression(content: bytes) -> bytes:
    """Every member claims compression method 99."""
    for signature, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        pieces = content.split(signature)
        content = signature.join(
            [pieces[0], *(p[: at - 4] + b"\x63\x00" + p[at - 2 :] for p in pieces[1:])]
        )
    return content


def encrypted(content: bytes) -> bytes:
    """The first member of the directory claims to be encrypted."""
    at = content.index(b"PK\x01\x02") + 8
    return content[:at] + b"\x01\x00" + content[at + 2 :]


def overlapping(content: bytes) -> bytes:
    """The last member's place is the first one's."""
    at = content.rindex(b"PK\x01\x02") + 42
    return content[:at] + struct.pack("<I", 0) + content[at + 4 :]


# ---- members


def tar_member(*, followed: bool = False, **properties: object) -> Maker:
    """A good archive with one more member of these properties, and, if wanted, a good one."""
    content = properties.pop("content", b"abc")
    assert isinstance(content, bytes)

    def make(folder: Path) -> Mapping[str, Path]:
        path = made.write_tgz(folder / CUB, made.cub_members())
        stream = gzip.decompress(path.read_bytes()).rstrip(b"\0")
        stream += bytes(-len(stream) % 512)
        info = tarfile.TarInfo("CUB_200_2011/extra")
        info.size = len(content)
        for name, value in properties.items():
            setattr(info, name, value)
        body = content + bytes(-len(content) % 512)
        stream += info.tobuf(tarfile.GNU_FORMAT) + body
        if followed:
            stream += tarfile.TarInfo("CUB_200_2011/next").tobuf()
        stream += bytes(1024)
        path.write_bytes(gzip.compress(stream, 1))
        return {CUB: path}

    return make


def tar_bomb(folder: Path) -> Mapping[str, Path]:
    members = {f"CUB_200_2011/{k}.bin": bytes(BOMB_BYTES // 8) for k in range(8)}
    return {CUB: made.write_tgz(folder / CUB, members)}


def zip_member(name: str, mode: int = 0, content: bytes = b"abc", twice: bool = False) -> Maker:
    """A good archive with one more member of this name and Unix mode."""

    def make(folder: Path) -> Mapping[str, Path]:
        path = made.write_zip(folder / SOP, made.sop_members())
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            info = zipfile.ZipInfo("placeholder" if twice else name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
            if twice:
                archive.infolist()[-1].filename = name
        return {SOP: path}

    return make


# ---- text files of columns


def text_of(archive: str, file: str, content: bytes | None) -> Maker:
    """A good archive in which one text file is replaced, or missing where `content` is None."""
    return edited(archive, file, lambda _: content)


def edited(archive: str, file: str, edit: Callable[[bytes], bytes | None]) -> Maker:
    def make(folder: Path) -> Mapping[str, Path]:
        members = made.cub_members() if archive == CUB else made.sop_members()
        name = ROOTS[archive] + file
        new = edit(members.pop(name))
        members |= {} if new is None else {name: new}
        write = made.write_tgz if archive == CUB else made.write_zip
        return {archive: write(folder / archive, members)}

    return make


# ---- MATLAB files, parquet, CSV, folders


def cars(file: str, damage: Damage | bytes | None) -> Maker:
    def make(folder: Path) -> Mapping[str, Path]:
        whole = file.startswith("cars_annos")
        paths = made.write_cars_whole(folder) if whole else made.write_cars_halves(folder)
        if damage is None:
            paths[file].unlink()
        elif isinstance(damage, bytes):
            paths[file].write_bytes(damage)
        else:
            paths[file].write_bytes(damage(paths[file].read_bytes()))
        return paths

    return make


def devkit_without(file: str) -> Maker:
    def make(folder: Path) -> Mapping[str, Path]:
        paths = made.write_cars_halves(folder)
        made.write_tgz(paths["car_devkit.tgz"], {f"devkit/{file}": b"x"})
        return paths

    return make


def annotated(classes: Sequence[int], field: str = "relative_im_path") -> bytes:
    paths = [f"car_ims/{k:06d}.jpg" for k in range(1, len(classes) + 1)]
    listed = made.annotations(field, paths, classes)
    return made.mat_bytes({"annotations": listed, "class_names": made.class_name_cells()})


def parquet(columns: Mapping[str, list[object]], name: str = "train-0.parquet") -> Maker:
    return lambda folder: {name: made.write_parquet(folder / name, columns, ())}


def parquet_bytes(damage: Damage) -> Maker:
    def make(folder: Path) -> Mapping[str, Path]:
        paths = made.write_cars_parquet(folder)
        path = paths["train-00000-of-00002.parquet"]
        path.write_bytes(damage(path.read_bytes()))
        return paths

    return make


def csv_text(text: bytes) -> Maker:
    def make(folder: Path) -> Mapping[str, Path]:
        for k in range(3):
            (folder / f"{k}.jpg").write_bytes(made.encode_picture(k))
        (folder / "images.csv").write_bytes(text)
        return {"csv": folder / "images.csv"}

    return make


def folder_with(change: Callable[[Path], object], classes: int = 4) -> Maker:
    def make(folder: Path) -> Mapping[str, Path]:
        root = made.write_folder(folder / "images", classes=classes)
        change(root)
        return {"folder": root}

    return make


# ---- images


def image(content: bytes) -> Maker:
    """A CUB archive in which one image is this file."""

    def make(folder: Path) -> Mapping[str, Path]:
        members = made.cub_members()
        name = next(name for name in members if name.endswith("_2.jpg"))
        return {CUB: made.write_tgz(folder / CUB, members | {name: content})}

    return make


def cut(file_format: str, keep: float = 0.6) -> bytes:
    encoded = made.encode_picture(7, file_format=file_format, size=(96, 64))
    return encoded[: int(keep * len(encoded))]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds almost no data."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(b"\0"))
    return b"\x89PNG\r\n\x1a\n" + header + data + png_chunk(b"IEND", b"")


def png_with_a_wrong_checksum() -> bytes:
    encoded = bytearray(made.encode_picture(7, file_format="PNG"))
    encoded[30] ^= 0xFF  # in the checksum of the header chunk
    return bytes(encoded)


def png_with_damaged_data() -> bytes:
    encoded = bytearray(made.encode_picture(7, file_format="PNG", size=(96, 64)))
    place = encoded.index(b"IDAT") + 40
    encoded[place : place + 40] = bytes(40)
    return bytes(encoded)


def float_tiff() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(buffer, "TIFF")
    return buffer.getvalue()
