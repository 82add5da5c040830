"""Every kind of damaged archive, list or image ends in one clear line and leaves nothing behind."""

import gzip
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from pipeline.datasets.archives import ArchiveError
from pipeline.datasets.reader import DatasetError, read_records
from tests import made_archives as made
from tests.damaged_archives import (
    BOMB_BYTES,
    CUB,
    ROOTS,
    SOP,
    Maker,
    annotated,
    break_header,
    cars,
    csv_text,
    cut,
    cut_before_end_marker,
    devkit_without,
    edited,
    encrypted,
    file_of,
    flip,
    float_tiff,
    folder_with,
    image,
    overlapping,
    parquet,
    parquet_bytes,
    png_of_size,
    png_with_a_wrong_checksum,
    png_with_damaged_data,
    tar_bomb,
    tar_member,
    tar_of,
    text_of,
    unknown_compression,
    zip_member,
)


class Damaged(NamedTuple):
    """A damaged source: its layout, its files, and what its error must be and say."""

    layout: str
    make: Maker
    error: type[ValueError]
    says: str


IMAGE_TXT = b"1 001.Bird_1/a.jpg\n"
SOP_HEADER = b"image_id class_id super_class_id path\n"
GOOD_CELLS = made.image_cells([1, 2])

CASES: dict[str, Damaged] = {
    # The file is no archive, or not a whole one.
    "tgz: absent": Damaged("cub", lambda d: {CUB: d / CUB}, ArchiveError, "is not a file"),
    "tgz: a folder": Damaged("cub", lambda d: {CUB: d}, ArchiveError, "is not a file"),
    "tgz: empty": Damaged("cub", file_of(CUB, lambda b: b""), ArchiveError, r"empty \(0 bytes\)"),
    "tgz: one byte": Damaged("cub", file_of(CUB, lambda b: b[:1]), ArchiveError, "is neither"),
    "tgz: two bytes": Damaged("cub", file_of(CUB, lambda b: b[:2]), ArchiveError, "truncated"),
    "tgz: a web page": Damaged(
        "cub", file_of(CUB, lambda b: b"<!doctype html>"), ArchiveError, "is neither"
    ),
    "tgz: not compressed": Damaged("cub", file_of(CUB, gzip.decompress), ArchiveError, "neither"),
    "tgz: compressed text": Damaged(
        "cub", tar_of(lambda b: b"text " * 999), ArchiveError, "damaged: invalid header"
    ),
    "tgz: compressed nothing": Damaged("cub", tar_of(lambda b: b""), ArchiveError, "truncated"),
    "tgz: half": Damaged(
        "cub", file_of(CUB, lambda b: b[: len(b) // 2]), ArchiveError, "member '.+': is truncated"
    ),
    "tgz: last byte missing": Damaged(
        "cub", file_of(CUB, lambda b: b[:-1]), ArchiveError, "is truncated or damaged"
    ),
    "tgz: byte altered": Damaged("cub", file_of(CUB, flip(0.5)), ArchiveError, "or damaged"),
    "tgz: checksum altered": Damaged(
        "cub", file_of(CUB, lambda b: b[:-8] + b"abcd" + b[-4:]), ArchiveError, "damaged: CRC"
    ),
    "tgz: garbage after it": Damaged(
        "cub", file_of(CUB, lambda b: b + b"garbage"), ArchiveError, "Not a gzipped"
    ),
    "tar: no end marker": Damaged("cub", tar_of(cut_before_end_marker), ArchiveError, "truncated"),
    "tar: header altered": Damaged("cub", tar_of(break_header), ArchiveError, "bad checksum"),
    "tar: data after the end": Damaged(
        "cub", tar_of(lambda b: b + b"more".ljust(512)), ArchiveError, "after its end marker"
    ),
    "tar: padding without end": Damaged(
        "cub", tar_of(lambda b: b + bytes(2 << 20)), ArchiveError, "after its end marker"
    ),
    # Members that are not let through.
    "tar: absolute path": Damaged(
        "cub", tar_member(name="/etc/cron"), ArchiveError, "'/etc/cron': has an absolute path"
    ),
    "tar: parent path": Damaged(
        "cub", tar_member(name="../up"), ArchiveError, "'../up': points outside"
    ),
    "tar: inner parent path": Damaged(
        "cub", tar_member(name="a/../../up"), ArchiveError, "'a/../../up': points outside"
    ),
    "tar: folder outside": Damaged(
        "cub",
        tar_member(name="../up", type=tarfile.DIRTYPE, content=b""),
        ArchiveError,
        "points outside",
    ),
    "tar: backslashes": Damaged("cub", tar_member(name="a\\b"), ArchiveError, "has a backslash"),
    "tar: drive letter": Damaged("cub", tar_member(name="C:/b"), ArchiveError, "absolute path"),
    "tar: control character": Damaged(
        "cub", tar_member(name="a\nb"), ArchiveError, r"'a\\nb': has .* control character"
    ),
    "tar: symbolic link": Damaged(
        "cub",
        tar_member(type=tarfile.SYMTYPE, linkname="/etc/passwd", content=b""),
        ArchiveError,
        "'CUB_200_2011/extra': is a link",
    ),
    "tar: hard link": Damaged(
        "cub",
        tar_member(type=tarfile.LNKTYPE, linkname="CUB_200_2011/README", content=b""),
        ArchiveError,
        "is a link",
    ),
    "tar: character device": Damaged(
        "cub", tar_member(type=tarfile.CHRTYPE, content=b""), ArchiveError, "a device or"
    ),
    "tar: block device": Damaged(
        "cub", tar_member(type=tarfile.BLKTYPE, content=b""), ArchiveError, "a device or"
    ),
    "tar: pipe": Damaged(
        "cub", tar_member(type=tarfile.FIFOTYPE, content=b""), ArchiveError, "special file"
    ),
    "tar: sparse file": Damaged(
        "cub", tar_member(type=tarfile.GNUTYPE_SPARSE), ArchiveError, "special file"
    ),
    "tar: name twice": Damaged(
        "cub", tar_member(name="./CUB_200_2011/README"), ArchiveError, "comes twice"
    ),
    "tar: giant member": Damaged(
        "cub", tar_member(size=20 << 30), ArchiveError, "unpacks to 21474836480 bytes, more than"
    ),
    "tar: bomb": Damaged("cub", tar_bomb, ArchiveError, "unpacked bytes to more than 67108864"),
    "tar: damaged extended header": Damaged(
        "cub", tar_member(type=tarfile.XHDTYPE, content=b"no record"), ArchiveError, "damaged"
    ),
    "tar: endless extended header": Damaged(
        "cub", tar_member(type=tarfile.XHDTYPE, content=b"0 a=b\n"), ArchiveError, "invalid header"
    ),
    "tar: giant extended header": Damaged(
        "cub", tar_member(type=tarfile.XHDTYPE, size=2 << 20), ArchiveError, "claims 2097152 bytes"
    ),
    "tar: ends after an extended header": Damaged(
        "cub",
        tar_member(type=tarfile.XHDTYPE, content=b"7 a=bc\n"),
        ArchiveError,
        "end of file header",
    ),
    "tar: size in words": Damaged(
        "cub",
        tar_member(type=tarfile.XHDTYPE, content=b"13 size=many\n", followed=True),
        ArchiveError,
        "'CUB_200_2011/next': has the size 'many'",
    ),
    "tar: outside by extended header": Damaged(
        "cub",
        tar_member(type=tarfile.XHDTYPE, content=b"13 path=../x\n", followed=True),
        ArchiveError,
        "'../x': points outside",
    ),
    "tar: outside by long name": Damaged(
        "cub",
        tar_member(type=tarfile.GNUTYPE_LONGNAME, content=b"/etc/x\0", followed=True),
        ArchiveError,
        "'/etc/x': has an absolute path",
    ),
    # The same of zip.
    "zip: half": Damaged(
        "sop", file_of(SOP, lambda b: b[: len(b) // 2]), ArchiveError, "truncated or damaged"
    ),
    "zip: byte altered": Damaged("sop", file_of(SOP, flip(0.3)), ArchiveError, "damaged: Bad CRC"),
    "zip: unknown compression": Damaged(
        "sop", file_of(SOP, unknown_compression), ArchiveError, "not supported"
    ),
    "zip: encrypted": Damaged("sop", file_of(SOP, encrypted), ArchiveError, "is encrypted"),
    "zip: overlapping members": Damaged("sop", file_of(SOP, overlapping), ArchiveError, "overlaps"),
    "zip: absolute path": Damaged("sop", zip_member("/etc/x"), ArchiveError, "absolute path"),
    "zip: parent path": Damaged("sop", zip_member("a/../../x"), ArchiveError, "points outside"),
    "zip: symbolic link": Damaged("sop", zip_member("x", 0o120777), ArchiveError, "is a link"),
    "zip: device": Damaged("sop", zip_member("x", 0o060600), ArchiveError, "a device"),
    "zip: name twice": Damaged(
        "sop", zip_member(ROOTS[SOP] + "Ebay_test.txt", twice=True), ArchiveError, "comes twice"
    ),
    "zip: bomb": Damaged(
        "sop", zip_member("x", content=bytes(BOMB_BYTES)), ArchiveError, "unpacked bytes"
    ),
    # Lists that are missing, damaged or contradictory.
    "cub: no images.txt": Damaged(
        "cub", text_of(CUB, "images.txt", None), ArchiveError, "images.txt is missing"
    ),
    "cub: no labels": Damaged(
        "cub", text_of(CUB, "image_class_labels.txt", None), ArchiveError, "labels.txt is missing"
    ),
    "cub: no classes": Damaged(
        "cub", text_of(CUB, "classes.txt", None), ArchiveError, "classes.txt is missing"
    ),
    "cub: empty list": Damaged("cub", text_of(CUB, "images.txt", b""), ArchiveError, "no line for"),
    "cub: list of no text": Damaged(
        "cub", text_of(CUB, "images.txt", b"1 \xff\xfe"), ArchiveError, "is not UTF-8"
    ),
    "cub: too few columns": Damaged(
        "cub", text_of(CUB, "images.txt", b"1\n"), ArchiveError, "line 1 has 1 columns instead of 2"
    ),
    "cub: no number": Damaged(
        "cub", text_of(CUB, "images.txt", b"x a.jpg\n"), ArchiveError, "line 1: is not a number"
    ),
    "cub: number twice": Damaged(
        "cub", text_of(CUB, "images.txt", IMAGE_TXT * 2), ArchiveError, "line 2: 1 comes twice"
    ),
    "cub: list cut off": Damaged(
        "cub", text_of(CUB, "images.txt", IMAGE_TXT), ArchiveError, "no line for image 2"
    ),
    "cub: unknown class": Damaged(
        "cub", text_of(CUB, "classes.txt", b"1 001.Bird_1\n"), ArchiveError, "has class 2, which"
    ),
    "cub: label in words": Damaged(
        "cub",
        edited(CUB, "image_class_labels.txt", lambda b: b.replace(b"3 1", b"3 one")),
        ArchiveError,
        "line 3: is not a number",
    ),
    "cub: image listed twice": Damaged(
        "cub",
        edited(CUB, "images.txt", lambda b: b.replace(b"0014_2.jpg", b"0021_3.jpg", 1)),
        DatasetError,
        "listed more than once: 001.Bird_1/Bird_001_0021_3.jpg",
    ),
    "cub: image missing": Damaged(
        "cub",
        edited(CUB, "images.txt", lambda b: b.replace(b"0014_2.jpg", b"0014_9.jpg", 1)),
        DatasetError,
        r"1 listed images are missing: 001.Bird_1/.*_9.jpg \(of the classes 001.Bird_1\)",
    ),
    "cub: two classes of a name": Damaged(
        "cub",
        edited(CUB, "classes.txt", lambda b: b.replace(b"002.Bird_2", b"001.Bird_1")),
        ArchiveError,
        "labels contradict the folders",
    ),
    "sop: no test list": Damaged(
        "sop", text_of(SOP, "Ebay_test.txt", None), ArchiveError, "Ebay_test.txt is missing"
    ),
    "sop: no header": Damaged(
        "sop",
        text_of(SOP, "Ebay_train.txt", b"1 1 1 a_0.JPG\n"),
        ArchiveError,
        "first line must be",
    ),
    "sop: empty list": Damaged(
        "sop", text_of(SOP, "Ebay_train.txt", b""), ArchiveError, "first line must be"
    ),
    "sop: header only": Damaged(
        "sop", text_of(SOP, "Ebay_test.txt", SOP_HEADER), DatasetError, "no class is left for test"
    ),
    "sop: too few columns": Damaged(
        "sop", text_of(SOP, "Ebay_test.txt", SOP_HEADER + b"7 4"), ArchiveError, "line 2 has 2 col"
    ),
    "sop: no numbers": Damaged(
        "sop", text_of(SOP, "Ebay_test.txt", SOP_HEADER + b"a b c d_0.JPG"), ArchiveError, "numbers"
    ),
    "sop: no product": Damaged(
        "sop", text_of(SOP, "Ebay_test.txt", SOP_HEADER + b"7 4 1 x/a.JPG"), ArchiveError, "PRODUCT"
    ),
    "sop: class in both lists": Damaged(
        "sop",
        edited(SOP, "Ebay_test.txt", lambda b: b.replace(b"7 4 1 ", b"7 1 2 ")),
        DatasetError,
        "share a name|both in train and in test",
    ),
    "cars: empty annotations": Damaged(
        "cars_whole", cars("cars_annos.mat", b""), DatasetError, "has no MATLAB variable"
    ),
    "cars: annotations of text": Damaged(
        "cars_whole", cars("cars_annos.mat", b"text" * 99), DatasetError, "has no MATLAB variable"
    ),
    "cars: annotations cut off": Damaged(
        "cars_whole", cars("cars_annos.mat", lambda b: b[:400]), DatasetError, "no MATLAB variable"
    ),
    "cars: another variable": Damaged(
        "cars_whole",
        cars("cars_annos.mat", made.mat_bytes({"other": np.ones(3)})),
        DatasetError,
        "has no MATLAB variable 'class_names'",
    ),
    "cars: another field": Damaged(
        "cars_whole",
        cars("cars_annos.mat", annotated([1, 2], field="file")),
        DatasetError,
        "annotation 1 has no relative_im_path or class",
    ),
    "cars: unknown class": Damaged(
        "cars_whole", cars("cars_annos.mat", annotated([1, 5])), DatasetError, "annotation 2 .* 5"
    ),
    "cars: kit without names": Damaged(
        "cars_halves", devkit_without("other"), DatasetError, "devkit/cars_meta.mat is missing"
    ),
    "cars: kit without annotations": Damaged(
        "cars_halves", devkit_without("cars_meta.mat"), DatasetError, "train_annos.mat is missing"
    ),
    "cars: half cut off": Damaged(
        "cars_halves", cars("cars_test.tgz", lambda b: b[:-300]), ArchiveError, "cars_test.tgz"
    ),
    # Parquet.
    "parquet: cut off": Damaged(
        "cars_parquet", parquet_bytes(lambda b: b[:-100]), DatasetError, "parquet"
    ),
    "parquet: text": Damaged(
        "cars_parquet", parquet_bytes(lambda b: b"text" * 9), DatasetError, "parquet"
    ),
    "parquet: empty": Damaged(
        "cars_parquet", parquet_bytes(lambda b: b""), DatasetError, "parquet"
    ),
    "parquet: none": Damaged("cars_parquet", lambda _: {}, DatasetError, "lists no image"),
    "parquet: no labels": Damaged(
        "cars_parquet", parquet({"image": GOOD_CELLS}), DatasetError, "column 'label'"
    ),
    "parquet: no images": Damaged(
        "cars_parquet", parquet({"label": [0, 1]}), DatasetError, "cannot read its images|no bytes"
    ),
    "parquet: label missing": Damaged(
        "cars_parquet",
        parquet({"image": GOOD_CELLS, "label": [0, None]}),
        DatasetError,
        "row 1 has the label None",
    ),
    "parquet: negative label": Damaged(
        "cars_parquet", parquet({"image": GOOD_CELLS, "label": [0, -1]}), DatasetError, "label -1"
    ),
    "parquet: image without bytes": Damaged(
        "cars_parquet",
        parquet({"image": [*GOOD_CELLS[:1], {"bytes": None, "path": "x"}], "label": [0, 1]}),
        DatasetError,
        "row 1: the column 'image' holds no bytes",
    ),
    "parquet: images of numbers": Damaged(
        "cars_parquet", parquet({"image": [1, 2], "label": [0, 1]}), DatasetError, "holds no bytes"
    ),
    "parquet: name of no split": Damaged(
        "cars_parquet",
        parquet({"image": GOOD_CELLS, "label": [0, 1]}, "contrast-0.parquet"),
        DatasetError,
        "names must begin with train or test",
    ),
    "parquet: item and path differ": Damaged(
        "sop_parquet",
        parquet({"image": GOOD_CELLS, "image_path": ["a/1_0.JPG", "a/1_1.JPG"], "item_id": [1, 2]}),
        DatasetError,
        "row 1 has item_id 2, its image_path is 'a/1_1.JPG'",
    ),
    # The user's own images.
    "csv: absent": Damaged("csv", lambda d: {"csv": d / "x.csv"}, DatasetError, "is not a file"),
    "csv: empty": Damaged("csv", csv_text(b""), DatasetError, "must name path, class .* nothing"),
    "csv: header only": Damaged("csv", csv_text(b"path,class\n"), DatasetError, "lists no image"),
    "csv: no header": Damaged("csv", csv_text(b"0.jpg,a\n"), DatasetError, "not 0.jpg, a"),
    "csv: semicolons": Damaged(
        "csv", csv_text(b"path;class\n0.jpg;a\n"), DatasetError, "not path;c"
    ),
    "csv: no text": Damaged(
        "csv", csv_text(b"path,class\n\xff,a\n"), DatasetError, "is not a UTF-8"
    ),
    "csv: open quote": Damaged(
        "csv", csv_text(b'path,class\n"0.jpg,a\n'), DatasetError, "is not a UTF-8 CSV file"
    ),
    "csv: class missing": Damaged(
        "csv",
        csv_text(b"path,class\n0.jpg,a\n1.jpg\n"),
        DatasetError,
        "line 3: path and class must",
    ),
    "csv: too many columns": Damaged(
        "csv", csv_text(b"path,class\n0.jpg,a,b\n"), DatasetError, "line 2: has more columns"
    ),
    "csv: another split": Damaged(
        "csv", csv_text(b"path,class,split\n0.jpg,a,val\n"), DatasetError, "line 2: split is 'val'"
    ),
    "csv: files missing": Damaged(
        "csv", csv_text(b"path,class\n0.jpg,a\n8.jpg,b\n9.jpg,b\n"), DatasetError, "8.jpg, 9.jpg"
    ),
    "csv: file twice": Damaged(
        "csv", csv_text(b"path,class\n0.jpg,a\n0.jpg,b\n"), DatasetError, "more than once: 0.jpg"
    ),
    "csv: class in both splits": Damaged(
        "csv",
        csv_text(b"path,class,split\n0.jpg,a,train\n1.jpg,a,test\n2.jpg,b,test\n"),
        DatasetError,
        "both in train and in test: a",
    ),
    "csv: one class": Damaged("csv", csv_text(b"path,class\n0.jpg,a\n"), DatasetError, "for test"),
    "folder: absent": Damaged(
        "folder", lambda d: {"folder": d / "x"}, FileNotFoundError, "No such file"
    ),
    "folder: no classes": Damaged(
        "folder", folder_with(lambda _: None, classes=1), DatasetError, "no class is left for test"
    ),
    "folder: class without images": Damaged(
        "folder", folder_with(lambda r: (r / "z").mkdir()), DatasetError, "z: is a class without im"
    ),
    "folder: deeper folders": Damaged(
        "folder", folder_with(lambda r: (r / "class5/x").mkdir()), DatasetError, "no deeper"
    ),
    "folder: dangling link": Damaged(
        "folder",
        folder_with(lambda r: (r / "class5/x.jpg").symlink_to(r / "gone.jpg")),
        DatasetError,
        "class5/x.jpg: there is no such file",
    ),
    "folder: broken image": Damaged(
        "folder",
        folder_with(lambda r: (r / "class5/x.jpg").write_bytes(b"x")),
        DatasetError,
        "class5/x.jpg: is not an image",
    ),
    # Images.
    "image: zero bytes": Damaged("cub", image(b""), DatasetError, r"is empty \(0 bytes\)"),
    "image: text": Damaged("cub", image(b"text"), DatasetError, "is not an image"),
    "image: web page": Damaged("cub", image(b"<html></html>"), DatasetError, "not an image"),
    "image: SVG": Damaged("cub", image(b"<svg xmlns=''/>"), DatasetError, "is not an image"),
    "image: EPS": Damaged("cub", image(b"%!PS-Adobe-3.0 EPSF-3.0\n"), DatasetError, "not an im"),
    "image: PDF": Damaged("cub", image(b"%PDF-1.7\n"), DatasetError, "is not an image"),
    "image: zeros": Damaged("cub", image(bytes(5000)), DatasetError, "is not an image"),
    "image: JPEG cut off": Damaged("cub", image(cut("JPEG")), DatasetError, "truncated"),
    "image: JPEG header only": Damaged(
        "cub", image(b"\xff\xd8\xff\xe0"), DatasetError, "not an image|opened"
    ),
    "image: PNG cut off": Damaged("cub", image(cut("PNG")), DatasetError, "truncated|decoded"),
    "image: PNG checksum": Damaged(
        "cub",
        image(png_with_a_wrong_checksum()),
        DatasetError,
        "not an image|opened|decoded",
    ),
    "image: PNG data": Damaged("cub", image(png_with_damaged_data()), DatasetError, "decoded"),
    "image: GIF cut off": Damaged("cub", image(cut("GIF", 0.4)), DatasetError, "Bird_001"),
    "image: WebP cut off": Damaged("cub", image(cut("WEBP")), DatasetError, "Bird_001"),
    "image: TIFF cut off": Damaged("cub", image(cut("TIFF")), DatasetError, "Bird_001"),
    "image: BMP cut off": Damaged("cub", image(cut("BMP")), DatasetError, "truncated"),
    "image: PPM cut off": Damaged("cub", image(cut("PPM")), DatasetError, "truncated|decoded"),
    "image: bomb": Damaged("cub", image(png_of_size(60000, 60000)), DatasetError, "pixels"),
    "image: over the limit": Damaged("cub", image(png_of_size(9000, 9999)), DatasetError, "pixels"),
    "image: too long": Damaged("cub", image(png_of_size(65501, 9)), DatasetError, "a side over"),
    "image: no width": Damaged("cub", image(png_of_size(0, 9)), DatasetError, "Bird_001"),
    "image: 32-bit samples": Damaged("cub", image(float_tiff()), DatasetError, "32-bit samples"),
}


def contents_of(folder: Path) -> dict[Path, int | None]:
    """Every entry below a folder, with the size of the files."""
    return {path: path.stat().st_size if path.is_file() else None for path in folder.rglob("*")}


def count_records(layout: str, paths: Mapping[str, Path], spool: Path) -> int:
    options = {} if layout in ("folder", "csv") else {"spool_dir": spool}
    with made.opened(layout, paths, **options) as reader:
        return sum(1 for _ in read_records(reader))


@pytest.mark.parametrize("case", CASES)
def test_damaged_input(case: str, tmp_path: Path) -> None:
    damaged = CASES[case]
    inputs, spool = tmp_path / "inputs", tmp_path / "spool"
    inputs.mkdir()
    spool.mkdir()
    paths = damaged.make(inputs)
    before = contents_of(tmp_path)
    with pytest.raises(damaged.error, match=damaged.says) as caught:
        count_records(damaged.layout, paths, spool)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) > 20
    assert contents_of(tmp_path) == before


def test_there_are_many_kinds_of_damage() -> None:
    assert len(CASES) >= 50
    assert {damaged.layout for damaged in CASES.values()} == {
        *("cub", "sop", "cars_whole", "cars_halves", "cars_parquet", "sop_parquet"),
        *("csv", "folder"),
    }


def test_the_undamaged_inputs_are_read(tmp_path: Path) -> None:
    """Else every case above would pass for the wrong reason."""
    whole = {
        "cub": file_of(CUB, bytes),
        "sop": file_of(SOP, bytes),
        "cars_whole": cars("cars_annos.mat", bytes),
        "cars_halves": cars("cars_test.tgz", bytes),
        "cars_parquet": parquet_bytes(bytes),
        "csv": csv_text(b"path,class\n0.jpg,a\n1.jpg,b\n"),
        "folder": folder_with(lambda _: None),
    }
    counts = {}
    for layout, make in whole.items():
        folder = tmp_path / layout
        folder.mkdir()
        counts[layout] = count_records(layout, make(folder), tmp_path)
    expected = [12, 10, 8, 9, 9, 2, 8]
    assert counts == dict(zip(whole, expected, strict=True))
    for make in (tar_of(bytes), tar_member(), image(made.encode_picture(1))):
        assert count_records("cub", make(tmp_path), tmp_path) == 12
    assert count_records("sop", zip_member("x")(tmp_path), tmp_path) == 10
