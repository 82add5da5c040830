"""Files appear whole or not at all."""

import errno
import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.files import (
    content_md5,
    file_md5,
    read_json,
    replacing,
    replacing_folder,
    unreadable_files,
    user_path,
    write_json,
    write_text,
)


def test_text_and_json_are_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file"
    for text in ("first\n", "zweiter: ä\n"):
        write_text(path, text)
        assert path.read_text(encoding="utf-8") == text
    write_json(path, {"b": [1, 2.5], "a": None})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": None, "b": [1, 2.5]}
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_equal_values_are_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"x": 1, "y": 2})
    write_json(tmp_path / "b", {"y": 2, "x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        assert path.read_text() == "old"
        raise error

    with pytest.raises(error), replacing(path) as temporary:
        fail(temporary)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("told", "free"), [("write error (No space left on device)", 1 << 30), ("unexpected pos", 0)]
)
def test_a_full_disk_is_told_in_words_whatever_a_library_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, free: int
) -> None:
    """As faiss and safetensors say it, and torch, which does not."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))

    def write_with(path: Path) -> None:
        with replacing(path):
            raise RuntimeError(told)

    path = tmp_path / "file"
    with pytest.raises(OSError, match=f"the disk is full: make room on it: '{path}'") as caught:
        write_with(path)
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_with_room_on_the_disk_an_error_is_what_it_was(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^unexpected pos$"), replacing(tmp_path / "file"):
        raise RuntimeError("unexpected pos")


def test_a_number_that_json_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file", {"map": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_takes_the_place_of_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder"
    for text in ("first", "second"):
        with replacing_folder(path) as folder:
            (folder / "file").write_text(text)
            (folder / text).write_text("")
            assert not (path / "file").exists() or (path / "file").read_text() == "first"
        assert {file.name for file in path.iterdir()} == {"file", text}
        assert [file.name for file in path.parent.iterdir()] == ["folder"]


def test_an_error_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder"
    with replacing_folder(path) as folder:
        (folder / "old").write_text("")
    with pytest.raises(FileNotFoundError), replacing_folder(path) as folder:
        (folder / "no" / "new").write_text("")
    assert [file.name for file in path.iterdir()] == ["old"]
    rename = Path.rename

    def fails_for_the_new_one(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new_one)
    with pytest.raises(OSError, match="No space"), replacing_folder(path) as folder:
        (folder / "new").write_text("")
    assert [file.name for file in path.iterdir()] == ["old"]
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_what_a_killed_process_left_aside_is_put_back(tmp_path: Path) -> None:
    (tmp_path / ".folder.former").mkdir()
    (tmp_path / ".folder.former" / "old").write_text("")
    with pytest.raises(ValueError, match="wrong"), replacing_folder(tmp_path / "folder"):
        raise ValueError("wrong")
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["old"]


def test_two_processes_do_not_write_one_folder(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "folder") as folder:
        (folder / "first").write_text("")
        with (
            pytest.raises(ValueError, match="another process is writing it"),
            replacing_folder(tmp_path / "folder") as other,
        ):
            (other / "second").write_text("")
    assert [file.name for file in (tmp_path / "folder").iterdir()] == ["first"]
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    disk = tmp_path / "disk" / "folder"
    disk.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(disk)
    for text in ("first", "second"):
        with replacing_folder(link) as folder:
            (folder / text).write_text("")
        assert link.is_symlink()
        assert [file.name for file in disk.iterdir()] == [text]
    assert {file.name for file in tmp_path.rglob("*")} == {"disk", "link", "folder", "second"}


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "good", {"a": 1})
    assert read_json(tmp_path / "good") == {"a": 1}
    for text in ("{", "[1]", ""):
        (tmp_path / "bad").write_text(text)
        with pytest.raises(ValueError, match="bad: is damaged"):
            read_json(tmp_path / "bad")


def test_files_that_cannot_be_read_to_their_end_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    (folder / "whole.jpg").write_bytes(b"x")
    (folder / "link.jpg").symlink_to("whole.jpg")
    (folder / "loop").symlink_to("../images")  # a link to a folder: DVC does not follow it
    assert list(unreadable_files(folder)) == []
    (folder / ".#labels.csv").symlink_to("someone@host.1234:5678")
    (folder / "deep/itself").symlink_to("itself")
    os.mkfifo(folder / "notes")
    (folder / "zeros.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(folder / "deep/socket"))
    odd = os.path.join(os.fsencode(folder), b"caf\xe9.txt")  # noqa: PTH118
    with open(odd, "wb"):  # noqa: PTH123
        pass
    found = dict(line.split(": ", 1) for line in unreadable_files(folder))
    kinds = {
        name.rpartition("/")[2].strip("'"): words.split(":")[0] for name, words in found.items()
    }
    lock, device = (
        "is a link to nowhere, as editors leave as a lock",
        "is a pipe, a socket or a device",
    )
    assert kinds == {
        ".#labels.csv": lock,
        "itself": lock,
        "notes": device,
        "zeros.jpg": device,
        "socket": device,
        "caf\\udce9.txt": "is no name in UTF-8",
    }
    assert list(unreadable_files(folder / "notes")) == [
        line for line in unreadable_files(folder) if "/notes:" in line
    ]
    assert list(unreadable_files(folder / "missing")) == []


def test_a_tilde_is_the_home_unless_something_is_called_so(tmp_path: Path) -> None:
    assert user_path("~/own", tmp_path) == Path.home() / "own"
    for name in ("pictures", "~nobody-of-this-name"):
        assert user_path(name, tmp_path) == tmp_path / name
        assert user_path(name) == Path(name)
    (tmp_path / "~own").mkdir()
    assert user_path("./~own", tmp_path) == tmp_path / "~own"


def test_the_content_of_a_folder_is_names_and_bytes_wherever_it_lies(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "a.bin").write_bytes(b"a")
        (folder / "b.bin").write_bytes(b"b")
    assert content_md5(first) == content_md5(second)
    assert content_md5(first / "b.bin") == file_md5(first / "b.bin")
    (second / "b.bin").write_bytes(b"c")
    changed = content_md5(second)
    (second / "b.bin").rename(second / "c.bin")
    assert len({content_md5(first), changed, content_md5(second)}) == 3
