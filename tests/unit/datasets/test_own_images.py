"""The user's own folders and tables: odd files are refused or counted, never lost in silence."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.datasets.own_images import list_csv, list_folder
from pipeline.datasets.reader import DatasetError, DatasetReader, read_records
from pipeline.datasets.splits import assign_reader
from tests import made_archives as made


def written_table(folder: Path, *lines: str) -> Path:
    for k in range(2):
        (folder / f"{k}.jpg").write_bytes(made.encode_picture(k))
    table = folder / "images.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def settled(reader: DatasetReader) -> DatasetReader:
    return assign_reader("images", reader, {}, {})


def names_of(images: Sequence[object]) -> set[str]:
    return {image.name for image in images}  # type: ignore[attr-defined]


def test_every_image_suffix_counts(tmp_path: Path) -> None:
    root = made.write_folder(tmp_path / "images")
    (root / "class5/a.jfif").write_bytes(made.encode_picture(1))
    (root / "class5/b.AVIF").write_bytes(made.encode_picture(2, file_format="AVIF"))
    reader = list_folder(root)
    assert {"class5/a.jfif", "class5/b.AVIF"} <= names_of(reader.images)
    assert {"class5/a.jfif", "class5/b.AVIF"} <= names_of(list(read_records(settled(reader))))


@pytest.mark.parametrize("name", ["c.heic", "c.HEIF"])
def test_what_cannot_be_decoded_is_refused_or_counted(name: str, tmp_path: Path) -> None:
    root = made.write_folder(tmp_path / "images")
    (root / "class5" / name).write_bytes(b"\0\0\0\x18ftypheic")
    table = root / "images.csv"
    table.write_text(f"path,class\nclass5/{name},a\nclass5/image0.jpg,a\nclass10/image0.jpg,b\n")
    for reader in (list_folder(root), list_csv(table)):
        with pytest.raises(match=f"class5/{name}: is not an image"):
            list(read_records(settled(reader)))
        skipped: dict[str, str] = {}
        list(read_records(settled(reader), skipped=skipped))
        assert list(skipped) == [f"class5/{name}"]


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [make_pipe, make_link_to_zeros])
def test_pipes_and_devices_are_refused_by_name(make, tmp_path: Path) -> None:
    root = made.write_folder(tmp_path / "images")
    make(root / "class5/odd.jpg")
    with pytest.raises(DatasetError, match=r"1 unreadable images: class5/odd\.jpg: is not a plain"):
        list(read_records(settled(list_folder(root))))
    table = root / "images.csv"
    table.write_text("path,class\nclass5/image0.jpg,a\nclass5/odd.jpg,a\nclass10/image0.jpg,b\n")
    with pytest.raises(DatasetError, match=r"images\.csv: files are .*: class5/odd\.jpg"):
        list_csv(table)


def test_links_to_regular_files_count(tmp_path: Path) -> None:
    root = made.write_folder(tmp_path / "images")
    (tmp_path / "far.jpg").write_bytes(made.encode_picture(9))
    (root / "class5/link.jpg").symlink_to(tmp_path / "far.jpg")
    reader = list_folder(root)
    assert reader.read("class5/link.jpg") == made.encode_picture(9)
    assert "class5/link.jpg" in names_of(reader.images)


@pytest.mark.parametrize("place", [b"class5/caf\xe9.jpg", b"class5/caf\xe9.txt", b"caf\xe9"])
def test_a_name_that_is_no_text_is_refused_by_name(place: bytes, tmp_path: Path) -> None:
    root = made.write_folder(tmp_path / "images")
    path = os.path.join(os.fsencode(root), place)  # noqa: PTH118  # a path of bytes
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(made.encode_picture(1))
    with pytest.raises(
        DatasetError, match=r"holds names that are not UTF-8: 'caf\\udce9"
    ) as caught:
        list_folder(root)
    str(caught.value).encode()


def test_a_table_names_a_file_once(tmp_path: Path) -> None:
    for other in ("./0.jpg", "x/../0.jpg"):
        lines = ("path,class,split", "0.jpg,a,train", f"{other},b,test", "1.jpg,b,test")
        with pytest.raises(DatasetError, match=r"images listed more than once: 0\.jpg"):
            list_csv(written_table(tmp_path, *lines))


def test_a_table_names_no_file_elsewhere(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "0.jpg").write_bytes(made.encode_picture(0))
    (inner / "link").symlink_to(tmp_path)
    for other in ("../0.jpg", str(tmp_path / "0.jpg"), "link/0.jpg"):
        lines = ("path,class", f"{other},a", "1.jpg,b")
        with pytest.raises(DatasetError, match=f"names files outside of .*: {other}"):
            list_csv(written_table(inner, *lines))


def test_a_table_names_files_absolutely_and_in_any_normal_form(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "way").symlink_to("real")
    composed, decomposed = (unicodedata.normalize(form, "café.jpg") for form in ("NFC", "NFD"))
    (tmp_path / "real" / decomposed).write_bytes(made.encode_picture(5))
    lines = (
        "path,class",
        f"{tmp_path}/real/0.jpg,a",
        f"{tmp_path}/way/./1.jpg,b",
        f"{composed},b",
    )
    written_table(tmp_path / "real", *lines)
    for folder in ("real", "way"):
        reader = list_csv(tmp_path / folder / "images.csv")
        assert [image.name for image in reader.images] == ["0.jpg", "1.jpg", decomposed]
        assert reader.read(decomposed) == made.encode_picture(5)


@pytest.mark.parametrize("head", ["path, class", "Path,Class", " PATH ,CLASS , Split"])
def test_a_header_may_have_blanks_and_capitals(head: str, tmp_path: Path) -> None:
    more = [", train", ", Test"] if "Split" in head else ["", ""]
    table = written_table(tmp_path, head, f'0.jpg, "a, b"{more[0]}', f"1.jpg, c{more[1]}")
    found = [(image.name, image.class_name) for image in list_csv(table).images]
    assert found == [("0.jpg", "a, b"), ("1.jpg", "c")]
    with pytest.raises(DatasetError, match="once, not path, class, path"):
        list_csv(written_table(tmp_path, "path,class,Path", "0.jpg,a,x"))


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", "$RECYCLE.BIN", "Thumbs.db", "desktop.ini"])
@pytest.mark.parametrize("place", ["", "class5"])
def test_what_systems_put_into_folders_is_passed_over(
    name: str, place: str, tmp_path: Path
) -> None:
    root = made.write_folder(tmp_path / "images")
    plain = list_folder(root)
    odd = root / place / name
    if "." in name and not name.startswith("$"):
        odd.write_bytes(b"thumbnails")
    else:
        (odd / "deep").mkdir(parents=True)
        (odd / "deep/a.jpg").write_bytes(made.encode_picture(1))
    for hidden in (".DS_Store", "._image0.jpg", ".#labels.csv", ".Trashes"):
        (root / place / hidden).write_bytes(b"")
    found = list_folder(root)
    assert found.images == plain.images
    assert {*found.passed_over} - {*plain.passed_over} == {str(Path(place, name))}


def test_a_class_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """DVC does not look behind it, and it may be another class once more."""
    root = made.write_folder(tmp_path / "images")
    (root / "again").symlink_to("class5")
    with pytest.raises(DatasetError, match="links to folders, whose changes go unnoticed: again"):
        list_folder(root)


@pytest.mark.parametrize(
    "names",
    [("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"), ("Dog", "dog")],
)
def test_one_name_in_two_spellings_is_told(names: tuple[str, str], tmp_path: Path) -> None:
    root = made.write_folder(tmp_path / "images")
    for name in names:
        (root / name).mkdir()
        (root / name / "0.jpg").write_bytes(made.encode_picture(1))
    table = root / "images.csv"
    table.write_text("path,class\n" + "".join(f"{name}/0.jpg,{name}\n" for name in names))
    words = " and ".join(map(ascii, names))
    for listing, given in ((list_folder, root), (list_csv, table)):
        with pytest.raises(DatasetError) as caught:
            listing(given)
        assert all(word in str(caught.value) for word in words.split(" and "))
        assert "merge or rename" in str(caught.value)


def test_a_table_names_a_column_once(tmp_path: Path) -> None:
    table = written_table(tmp_path, "path,class,class", "0.jpg,a,x", "1.jpg,b,y")
    with pytest.raises(
        DatasetError, match=r"must name path, class .* once, not path, class, class"
    ):
        list_csv(table)


def test_columns_without_a_name_are_no_fault(tmp_path: Path) -> None:
    table = written_table(tmp_path, "path,class,,", "0.jpg,a,,", "1.jpg,b,,")
    assert names_of(list_csv(table).images) == {"0.jpg", "1.jpg"}
