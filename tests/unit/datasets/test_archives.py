"""Archives: what is read, in which order, within which limits."""

import gzip
import io
import pickle
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from pipeline.datasets import archives
from pipeline.datasets.archives import ArchiveError, open_archive, read_table
from pipeline.datasets.decode import UnreadableImage
from tests.made_archives import write_tgz, write_zip

MEMBERS = {"a/one.txt": b"first", "a/b/two.bin": bytes(range(256)) * 9, "three": b""}


def read_all(archive: Path) -> dict[str, bytes]:
    with open_archive(archive) as members:
        return {name: members.read(name) for name in members.names}


@pytest.mark.parametrize("write", [write_tgz, write_zip])
def test_members_are_read_by_name_in_any_order(write, tmp_path: Path) -> None:
    archive = write(tmp_path / "archive", MEMBERS)
    with open_archive(archive) as members:
        assert members.names == tuple(MEMBERS)
        for name in reversed(MEMBERS):
            assert members.read(name) == MEMBERS[name]


@pytest.mark.parametrize(
    "file_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_long_names_in_every_tar_format(file_format: int, tmp_path: Path) -> None:
    name = "/".join(["folder" * 8] * 3) + "/image.jpg"
    assert len(name) > 100
    archive = tmp_path / "a.tgz"
    with tarfile.open(archive, "w:gz", format=file_format) as opened:
        info = tarfile.TarInfo(name)
        info.size = 3
        opened.addfile(info, io.BytesIO(b"abc"))
    with open_archive(archive) as members:
        assert members.names == (name,)
        assert members.read(name) == b"abc"


def test_names_in_other_scripts(tmp_path: Path) -> None:
    for write in (write_tgz, write_zip):
        archive = write(tmp_path / "a", {"тест/ü.txt": b"x"})
        with open_archive(archive) as members:
            assert members.names == ("тест/ü.txt",)


def pax_record(key: bytes, value: bytes) -> bytes:
    """`length key=value newline`, the length counting itself."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def write_pax(path: Path, records: bytes) -> Path:
    """A .tgz file whose only member follows an extended header with these records."""
    with tarfile.open(path, "w:gz") as opened:
        header, member = tarfile.TarInfo("header"), tarfile.TarInfo("short")
        header.type, header.size, member.size = tarfile.XHDTYPE, len(records), 3
        for info, content in ((header, records), (member, b"abc")):
            opened.fileobj.write(info.tobuf(tarfile.USTAR_FORMAT))
            opened.fileobj.write(content.ljust(-(-len(content) // 512) * 512, b"\0"))
    return path


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"uname", b"Ren\xe9"),
        (b"SCHILY.xattr.user.x", b"\x00\xff=\n\xfe"),
        (b"caf\xe9", b"any"),
    ],
)
def test_extended_headers_may_hold_any_bytes_that_are_not_used(
    key: bytes, value: bytes, tmp_path: Path
) -> None:
    records = pax_record(key, value) + pax_record(b"path", "long/ü.txt".encode())
    assert read_all(write_pax(tmp_path / "a.tgz", records)) == {"long/ü.txt": b"abc"}


def test_a_path_of_an_extended_header_is_utf_8(tmp_path: Path) -> None:
    archive = write_pax(tmp_path / "a.tgz", pax_record(b"path", b"caf\xe9"))
    with pytest.raises(ArchiveError, match="bytes that are not UTF-8"):
        read_all(archive)


def test_a_sparse_file_of_an_extended_header_is_refused(tmp_path: Path) -> None:
    archive = write_pax(tmp_path / "a.tgz", pax_record(b"GNU.sparse.major", b"1"))
    with pytest.raises(ArchiveError, match="a special file"):
        read_all(archive)


def test_a_chain_of_extended_headers_is_refused(tmp_path: Path) -> None:
    """Each is read within the one before, so that their number is bounded by the interpreter."""
    info = tarfile.TarInfo("header")
    info.type, info.size = tarfile.XGLTYPE, 512
    one = info.tobuf(tarfile.USTAR_FORMAT) + pax_record(b"comment", b"x" * 499)
    archive = tmp_path / "a.tgz"
    archive.write_bytes(gzip.compress(one * 3000 + bytes(1024)))
    with pytest.raises(ArchiveError, match=r"damaged: maximum recursion depth"):
        read_all(archive)


def test_a_header_may_name_its_user_in_any_encoding_but_not_its_file(tmp_path: Path) -> None:
    archive = tmp_path / "a.tgz"
    for name, user in (("plain", "Ren\udce9"), ("caf\udce9", "root")):
        with tarfile.open(archive, "w:gz", format=tarfile.GNU_FORMAT) as opened:
            info = tarfile.TarInfo(name)
            info.size, info.uname = 3, user
            opened.addfile(info, io.BytesIO(b"abc"))
        if name == "plain":
            assert read_all(archive) == {"plain": b"abc"}
        else:
            with pytest.raises(ArchiveError, match=r"'caf\\udce9': has .* not UTF-8"):
                read_all(archive)


@pytest.mark.parametrize("write", [write_tgz, write_zip])
def test_blanks_of_every_width_may_stand_in_names(write, tmp_path: Path) -> None:
    members = {f"a{blank}b.txt": b"x" for blank in " \u00a0\u2009\u202f\u3000"}
    assert read_all(write(tmp_path / "a", members)) == members
    for character in "\n\x7f\u2028\u202e\u200b":  # control, line and direction marks
        with pytest.raises(ArchiveError, match="a control character"):
            read_all(write(tmp_path / "a", {f"a{character}b.txt": b"x"}))


def test_a_leading_dot_is_dropped(tmp_path: Path) -> None:
    archive = write_tgz(tmp_path / "a.tgz", {"./x/y.txt": b"x"})
    with open_archive(archive) as members:
        assert members.names == ("x/y.txt",)


def test_the_spool_leaves_nothing(tmp_path: Path) -> None:
    archive = write_tgz(tmp_path / "a.tgz", MEMBERS)
    spool = tmp_path / "spool"
    spool.mkdir()
    with open_archive(archive, spool_dir=spool) as members:
        assert members.read("a/one.txt") == b"first"
    assert list(spool.iterdir()) == []


def test_memory_holds_one_member_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "RATIO", 1_000_000)
    size_bytes, count = 1 << 20, 24
    archive = tmp_path / "a.tgz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as opened:
        for k in range(count):
            info = tarfile.TarInfo(f"{k}.bin")
            info.size = size_bytes
            opened.addfile(info, io.BytesIO(bytes([k]) * size_bytes))
    tracemalloc.start()
    with open_archive(archive) as members:
        total = sum(len(members.read(name)) for name in members.names)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == count * size_bytes
    assert peak < 5 * size_bytes


@pytest.mark.parametrize("write", [write_tgz, write_zip])
@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"UNPACKED_BYTES": 8, "MEMBER_BYTES": 5}, None),
        ({"UNPACKED_BYTES": 7}, "member 'b': brings the unpacked bytes to more than 7"),
        ({"MEMBER_BYTES": 4}, "member 'a': unpacks to 5 bytes, more than 4"),
        ({"MEMBERS": 1}, "has more than 1 members"),
    ],
)
def test_limits_hold_exactly(
    write, limits: dict[str, int], reason: str | None, tmp_path: Path, monkeypatch
) -> None:
    archive = write(tmp_path / "a", {"a": b"12345", "b": b"123"})
    for name, limit in limits.items():
        monkeypatch.setattr(archives, name, limit)
    if reason is None:
        assert len(read_all(archive)) == 2
    else:
        with pytest.raises(ArchiveError, match=reason):
            read_all(archive)


@pytest.mark.parametrize("write", [write_tgz, write_zip])
def test_every_truncation_is_noticed(write, tmp_path: Path) -> None:
    """The standard library passes over many of these in silence."""
    whole = write(tmp_path / "whole", MEMBERS).read_bytes()
    part = tmp_path / "part"
    cuts = range(1, len(whole), 7)
    for length in cuts:
        part.write_bytes(whole[:length])
        with pytest.raises(ArchiveError, match="part"):
            read_all(part)
    assert len(cuts) > 20


def test_every_flipped_byte_of_a_tar_is_noticed_or_harmless(tmp_path: Path) -> None:
    whole = write_tgz(tmp_path / "whole.tgz", MEMBERS).read_bytes()
    part = tmp_path / "part.tgz"
    noticed = 0
    for place in range(10, len(whole)):
        part.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            assert read_all(part) == MEMBERS
        except ArchiveError:
            noticed += 1
    assert noticed > 0.9 * (len(whole) - 10)


TABLE = [["1", "a b.jpg"], ["2", "c.jpg"]]


def table_of(content: bytes, folder: Path) -> list[list[str]]:
    archive = write_tgz(folder / "a.tgz", {"list.txt": content})
    with open_archive(archive) as members:
        return read_table(archive, members, "list.txt", columns=2)


@pytest.mark.parametrize(
    "content",
    [
        b"1 a b.jpg\n2 c.jpg\n",
        b"1 a b.jpg\r\n2 c.jpg",
        b"\xef\xbb\xbf1 a b.jpg\n2 c.jpg\n",
        b"1 a b.jpg\n2 c.jpg\n\n \r\n\t\n",
    ],
)
def test_the_same_table(content: bytes, tmp_path: Path) -> None:
    assert table_of(content, tmp_path) == TABLE


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"1 a.jpg\n\n2 c.jpg\n", 2),
        (b"\n1 a.jpg\n", 1),
        (b"1 a.jpg\n2\n\n", 2),
    ],
)
def test_blank_lines_elsewhere_are_refused(content: bytes, line: int, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=f"line {line} has . columns instead of 2"):
        table_of(content, tmp_path)


@pytest.mark.parametrize(
    "fault", [ArchiveError(Path("a.tar"), "is cut", "b"), UnreadableImage("a.jpg", "is empty")]
)
def test_a_fault_comes_whole_out_of_another_process(fault: ValueError) -> None:
    """A pool of processes ends where it cannot make what was raised anew."""
    come = pickle.loads(pickle.dumps(fault))  # noqa: S301  # our own
    assert (type(come), str(come), vars(come)) == (type(fault), str(fault), vars(fault))
