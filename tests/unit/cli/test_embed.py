"""`l2s embed`: what it says and writes, and what it refuses in words."""

import shutil
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipeline.cli.__main__ import app
from pipeline.datasets.vectors import read_vectors
from tests.integration.workspace import ROOT
from tests.made_embedding import write_network, write_pictures


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    write_network(tmp_path / "net.safetensors")
    write_pictures(tmp_path / "pictures", range(6))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("L2S_DEVICE", "cpu")
    return tmp_path


def embed(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["embed", *arguments])


def test_embeds_tells_what_is_unreadable_goes_on_and_checks(folder: Path) -> None:
    (folder / "pictures" / "broken.jpg").write_bytes(b"no picture")
    given = ("pictures", "--to", "v", "--network", "net.safetensors", "--workers", "2")
    result = embed(*given)
    assert result.exit_code == 0, result.output
    assert "7 images: 7 new, 0 changed, 0 deleted\nto embed: 7 images in 1 shard, " in result.stderr
    assert " ms an image and worker, 1 worker), " in result.stderr
    assert result.stdout == "7 images embedded in 1 shard: v\n"
    assert result.stderr.endswith(
        "warning: 1 image cannot be read: listed, with the reasons, in v/unreadable.parquet\n"
    )
    (batch,) = read_vectors(folder / "v").batches()
    assert len(batch.ids) == 6
    write_pictures(folder / "pictures", [6])
    assert embed(*given).stdout == "1 image embedded in 1 shard: v\n"
    checked = embed(*given, "--check")
    assert checked.stdout.startswith("2 shards checked, 0 without an image that is as it was; ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("absent", "--to", "v", "--network", "net.safetensors"), "absent: is not a file"),
        (("pictures", "--to", "v", "--network", "no.safetensors"), "there is no such file"),
        (("pictures", "--to", "v", "--network", "params.yaml"), "no such network; known: "),
        (("pictures", "--to", "v"), "teacher is not trained yet"),
        (("pictures", "--to", "pictures", "--network", "net.safetensors"), "name a new folder"),
        (("http://host/x", "--to", "v", "--network", "net.safetensors"), "must be SCHEME://"),
        (("pictures", "--to", "ftp://v", "--network", "net.safetensors"), "must be SCHEME://"),
    ],
)
def test_refuses_in_words(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    result = embed(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert not (folder / "v" / "card.json").exists()


def test_there_is_nothing_to_check_where_nothing_was_embedded(folder: Path) -> None:
    result = embed("pictures", "--to", "v", "--network", "net.safetensors", "--check")
    assert result.exit_code == 2
    assert "v: holds no manifest.parquet: `l2s embed` did not write it" in result.stderr
    assert not (folder / "v").exists()


def test_ray_that_is_not_installed_is_told_with_its_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    result = embed(*("pictures", "--to", "v", "--network", "net.safetensors", "--engine", "ray"))
    assert result.exit_code == 2
    assert "ray is not installed: pip install 'large-to-small[ray]'" in result.stderr
