"""Images in tar shards: keys, classes, places; what is damaged or unsafe is refused."""

import io
import tarfile
from pathlib import Path

import pytest

from pipeline.config.sources import TarsSource
from pipeline.datasets.archives import ArchiveError
from pipeline.datasets.own_images import list_own_images
from pipeline.datasets.reader import DatasetError, DatasetReader
from tests import made_archives as made

CONTENT = {f"{number:04}": made.encode_picture(number) for number in range(7)}


def write_shard(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write_shards(folder: Path, *, with_classes: bool = False) -> None:
    keys = list(CONTENT)
    for number, some in enumerate((keys[:4], keys[4:])):
        members = {}
        for key in some:
            members[f"{key}.jpg"] = CONTENT[key]
            members[f"{key}.json"] = b"{}"
            if with_classes:
                members[f"{key}.cls"] = f"{int(key) // 2}\n".encode()
        write_shard(folder / f"shard-{number}.tar", members)


def listed(folder: Path) -> DatasetReader:
    return list_own_images(folder, TarsSource(kind="tars", skip_unreadable=False))


def test_keys_are_names_and_images_are_read_in_any_order(tmp_path: Path) -> None:
    write_shards(tmp_path)
    reader = listed(tmp_path)
    assert [image.name for image in reader.images] == list(CONTENT)
    assert {image.class_name for image in reader.images} == {""}
    assert {key: reader.read(key) for key in reversed(CONTENT)} == CONTENT
    assert reader.passed_over == tuple(f"{key}.json" for key in CONTENT)


def test_classes_are_their_members(tmp_path: Path) -> None:
    write_shards(tmp_path, with_classes=True)
    found = {
        image.name: (image.class_name, image.class_number) for image in listed(tmp_path).images
    }
    assert found["0000"] == found["0001"] == ("0", 1)
    assert found["0006"] == ("3", 4)


def test_shards_come_in_natural_order_and_keys_may_have_folders(tmp_path: Path) -> None:
    write_shard(tmp_path / "s10.tar", {"b/2.seg.png": CONTENT["0001"], "b/2.jpg": CONTENT["0002"]})
    write_shard(tmp_path / "s9.tar", {"a/1.JPG": CONTENT["0003"]})
    reader = listed(tmp_path)
    assert [image.name for image in reader.images] == ["a/1", "b/2"]
    assert reader.passed_over == ("b/2.seg.png",)
    assert reader.read("b/2") == CONTENT["0002"]


def test_classes_that_differ_by_case_are_refused(tmp_path: Path) -> None:
    members = {"1.jpg": CONTENT["0001"], "1.cls": b"Dog", "2.jpg": CONTENT["0002"], "2.cls": b"dog"}
    write_shard(tmp_path / "a.tar", members)
    with pytest.raises(DatasetError, match="names of classes differ by case"):
        listed(tmp_path)


def test_faults_in_words(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no \.tar file"):
        listed(tmp_path)
    write_shard(tmp_path / "a.tar", {"1.txt": b""})
    with pytest.raises(DatasetError, match="its shards hold no image"):
        listed(tmp_path)
    write_shard(tmp_path / "a.tar", {"1.jpg": b"", "2.jpg": b"", "2.cls": b"x"})
    with pytest.raises(DatasetError, match=r"without a member \.cls, which others have: 1$"):
        listed(tmp_path)
    write_shard(tmp_path / "a.tar", {"1.jpg": b"", "1.cls": b"caf\xe9"})
    with pytest.raises(DatasetError, match=r"a\.tar: 1\.cls: is no name of a class in UTF-8"):
        listed(tmp_path)
    write_shard(tmp_path / "a.tar", {"1.jpg": b""})
    write_shard(tmp_path / "b.tar", {"1.png": b""})
    with pytest.raises(DatasetError, match=r"the key 1 has images in a\.tar and b\.tar"):
        listed(tmp_path)
    (tmp_path / "c.tar.gz").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"holds packed shards: c\.tar\.gz: unpack them"):
        listed(tmp_path)


def test_unsafe_and_damaged_shards(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", {"../1.jpg": b"x"})
    with pytest.raises(ArchiveError, match="points outside the archive"):
        listed(tmp_path)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("1.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(ArchiveError, match="is a link, a device or a special file"):
        listed(tmp_path)
    write_shard(tmp_path / "a.tar", {"1.jpg": CONTENT["0000"], "2.jpg": CONTENT["0001"]})
    whole = (tmp_path / "a.tar").read_bytes()
    for cut in (0, 300, 700, len(CONTENT["0000"]) + 1300):
        (tmp_path / "a.tar").write_bytes(whole[:cut])
        with pytest.raises(ArchiveError, match="truncated or damaged"):
            listed(tmp_path)
    (tmp_path / "a.tar").write_bytes(b"no archive at all" * 100)
    with pytest.raises(ArchiveError, match="truncated or damaged"):
        listed(tmp_path)


@pytest.mark.parametrize("fault", ["two in a row", "a header of zeros"])
def test_images_behind_an_end_marker_are_not_lost_in_silence(tmp_path: Path, fault: str) -> None:
    write_shards(tmp_path)
    shard = tmp_path / "shard-0.tar"
    content = bytearray(shard.read_bytes())
    if fault == "two in a row":
        content += (tmp_path / "shard-1.tar").read_bytes()
    else:
        header = content.index(b"0002.jpg")
        content[header : header + 512] = bytes(512)
    shard.write_bytes(content)
    with pytest.raises(ArchiveError, match=r"shard-0\.tar: has data after its end marker"):
        listed(tmp_path)


@pytest.mark.parametrize("name", ["beside.jpg", "below/deep/one.PNG"])
def test_images_beside_shards_are_not_passed_over(tmp_path: Path, name: str) -> None:
    write_shards(tmp_path)
    (tmp_path / ".hidden").mkdir()
    for other in (".hidden/a.jpg", ".b.jpg", "words.txt"):
        (tmp_path / other).write_bytes(b"")
    assert len(listed(tmp_path).images) == len(CONTENT)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(CONTENT["0000"])
    with pytest.raises(DatasetError, match=rf"holds shards, and images beside them \({name}\)"):
        listed(tmp_path)
