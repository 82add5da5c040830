"""Downloads from a loopback FTP server: resumed by REST where the bytes can belong together."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.datasets.download import DownloadError, Patience, obtain_file
from pipeline.datasets.sources import SourceFile
from tests.loopback_ftp import FtpSite, serve_ftp
from tests.loopback_web import CONTENT, HASTE, published, serve_website

ONCE = Patience(attempts=1, timeout_s=0.5)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[FtpSite]:
    monkeypatch.setenv("no_proxy", "*")
    with serve_ftp(CONTENT) as ftp_site:
        yield ftp_site


def of_unknown_length(site: FtpSite) -> SourceFile:
    return SourceFile("file.bin", (site.address(),), md5=published().md5)


def leave_part(folder: Path, address: str) -> None:
    """400000 bytes that an earlier call had from an address."""
    (folder / "file.bin.part").write_bytes(CONTENT[:400000])
    origin = {"address": address, "validator": None, "total_bytes": len(CONTENT)}
    (folder / "file.bin.part.json").write_text(json.dumps(origin))


def assert_left(folder: Path, address: str) -> None:
    """The part as `leave_part` left it, and nothing else."""
    assert sorted(p.name for p in folder.iterdir()) == ["file.bin.part", "file.bin.part.json"]
    assert (folder / "file.bin.part").read_bytes() == CONTENT[:400000]
    assert json.loads((folder / "file.bin.part.json").read_text())["address"] == address


def test_a_whole_download_with_progress(site: FtpSite, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    file = published(site.address())
    obtained = obtain_file(file, tmp_path, on_progress=lambda *done: seen.append(done))
    assert obtained.path.read_bytes() == CONTENT
    assert obtained.origin == site.address()
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert site.commands[0] == "USER anonymous"
    assert site.asked("CWD") == ["cs"]
    assert site.asked("TYPE") == ["I"]
    assert site.asked("RETR") == ["file.bin"]
    assert site.asked("REST") == []


def test_the_address_names_user_and_path(site: FtpSite, tmp_path: Path) -> None:
    address = site.address("a%20b/%C3%A9.bin").replace("//", "//me:se%20cret@")
    obtain_file(published(address), tmp_path, patience=ONCE)
    assert site.asked("USER") == ["me"]
    assert site.asked("PASS") == ["se cret"]
    assert site.asked("CWD") == ["a b"]
    assert site.asked("RETR") == ["é.bin"]


@pytest.mark.parametrize("length_known", [True, False])
def test_cut_transfers_are_resumed(length_known: bool, site: FtpSite, tmp_path: Path) -> None:
    site.behaviours = ["cut:104858"] * 10
    file = published(site.address()) if length_known else of_unknown_length(site)
    obtained = obtain_file(file, tmp_path, patience=HASTE)
    assert obtained.path.read_bytes() == CONTENT
    assert site.asked("REST") == [str(104858 * tenth) for tenth in range(1, 10)]
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_a_part_of_another_address_needs_a_published_length(site: FtpSite, tmp_path: Path) -> None:
    for file, offsets in (
        (of_unknown_length(site), []),
        (published(site.address()), ["400000"]),
    ):
        leave_part(tmp_path, "http://first.example")
        obtained = obtain_file(file, tmp_path, patience=ONCE)
        assert obtained.path.read_bytes() == CONTENT
        assert site.asked("REST") == offsets
        obtained.path.unlink()


def test_a_length_that_changed_begins_anew(site: FtpSite, tmp_path: Path) -> None:
    leave_part(tmp_path, site.address())
    site.content = CONTENT + b"more"
    file = SourceFile("file.bin", (site.address(),), md5=published(content=site.content).md5)
    assert obtain_file(file, tmp_path, patience=ONCE).size_bytes == len(CONTENT) + 4
    assert site.asked("REST") == []


def test_a_wrong_length_is_refused_and_leaves_the_part(site: FtpSite, tmp_path: Path) -> None:
    leave_part(tmp_path, "http://first.example")
    site.content = CONTENT[:-1]
    with pytest.raises(DownloadError, match=r"offers 1048575 bytes, expected 1048576 \(1 attempt"):
        obtain_file(published(site.address()), tmp_path, patience=HASTE)
    assert_left(tmp_path, "http://first.example")


@pytest.mark.parametrize("refusal", ["502 not implemented", None])
def test_a_server_without_rest_begins_anew(
    refusal: str | None, site: FtpSite, tmp_path: Path
) -> None:
    """It refuses, or accepts and sends the file from its first byte."""
    leave_part(tmp_path, "http://first.example")
    file = published(site.address())
    site.replies = {"REST": refusal} if refusal else {}
    site.behaviours = ["cut:1000"] if refusal else ["ignores_rest", "cut:1000"]
    with pytest.raises(DownloadError, match="cut off after 1000 of 1048576 bytes"):
        obtain_file(file, tmp_path, patience=ONCE)
    assert_left(tmp_path, "http://first.example")
    site.behaviours = [] if refusal else ["ignores_rest"]
    assert obtain_file(file, tmp_path, patience=ONCE).path.read_bytes() == CONTENT
    assert site.asked("REST") == ["400000"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin"]


def test_without_size_a_published_length_is_enough_to_resume(site: FtpSite, tmp_path: Path) -> None:
    site.replies = {"SIZE": "502 not implemented"}
    site.behaviours = ["cut:300000"]
    obtained = obtain_file(published(site.address()), tmp_path, patience=HASTE)
    assert obtained.path.read_bytes() == CONTENT
    assert site.asked("REST") == ["300000"]


def test_without_any_length_the_server_must_say_that_all_was_sent(
    site: FtpSite, tmp_path: Path
) -> None:
    site.replies = {"SIZE": "502 not implemented"}
    site.behaviours = ["aborted:300000"]
    totals: list[int | None] = []
    file = of_unknown_length(site)
    with pytest.raises(DownloadError, match=r"FTP 426 aborted \(1 attempt\)"):
        obtain_file(file, tmp_path, patience=ONCE)
    obtained = obtain_file(
        file, tmp_path, patience=ONCE, on_progress=lambda _, total: totals.append(total)
    )
    assert obtained.path.read_bytes() == CONTENT
    assert set(totals) == {None}
    assert site.asked("REST") == []


def test_the_length_in_the_opening_reply_counts(site: FtpSite, tmp_path: Path) -> None:
    site.replies = {"SIZE": "502 not implemented"}
    site.opening = "150 opening file.bin (1048576 bytes)."
    site.behaviours = ["cut:300000"]
    with pytest.raises(DownloadError, match="cut off after 300000 of 1048576 bytes"):
        obtain_file(of_unknown_length(site), tmp_path, patience=ONCE)


@pytest.mark.parametrize(
    ("verb", "reply", "reason"),
    [
        ("RETR", "550 no such file", r"FTP 550 no such file \(1 attempt\)"),
        ("CWD", "550 no such folder", r"FTP 550 no such folder \(1 attempt\)"),
        ("PASS", "530-not\r\n530 in", r"FTP 530-not 530 in \(1 attempt\)"),
        ("USER", "421 too many users", r"FTP 421 too many users \(3 attempts\)"),
        ("RETR", "425 no connection", r"FTP 425 no connection \(3 attempts\)"),
        ("PASV", "hang_up", r"FTP: the server closed the connection \(3 attempts\)"),
        ("TYPE", "what?", r"FTP what\? \(3 attempts\)"),
    ],
)
def test_refusals_are_final_or_tried_again(
    verb: str, reply: str, reason: str, site: FtpSite, tmp_path: Path
) -> None:
    leave_part(tmp_path, "http://first.example")
    site.replies = {verb: reply}
    with pytest.raises(DownloadError, match=reason):
        obtain_file(published(site.address()), tmp_path, patience=HASTE)
    assert_left(tmp_path, "http://first.example")


def test_a_silent_server_is_given_up_and_the_next_attempt_succeeds(
    site: FtpSite, tmp_path: Path
) -> None:
    site.behaviours = ["stall"]
    patience = Patience(attempts=2, backoff_s=0.0, timeout_s=0.2)
    assert obtain_file(published(site.address()), tmp_path, patience=patience).size_bytes
    assert len(site.asked("RETR")) == 2


def test_a_proxy_for_ftp_is_asked_in_its_own_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_website() as proxy:
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("ftp_proxy", f"http://127.0.0.1:{proxy.port}")
        proxy.behaviours = ["cut:300000"]
        file = published("ftp://nowhere.invalid/cs/file.bin")
        assert obtain_file(file, tmp_path, patience=HASTE).path.read_bytes() == CONTENT
        assert proxy.ranges == [None, "bytes=300000-"]
