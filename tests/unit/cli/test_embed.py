"""`l2s embed`: what it says and writes, and what it refuses in words."""

import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pipeline.cli.__main__ import app
from pipeline.datasets.vectors import read_vectors
from pipeline.models.weights import NetworkCard, build_embedder, save_network
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
    assert result.stdout == "6 images embedded in 1 shard: v\n"
    assert result.stderr.endswith(
        "warning: 1 image cannot be read: listed, with the reasons, in v/unreadable.parquet\n"
    )
    (batch,) = read_vectors(folder / "v").batches()
    assert len(batch.ids) == 6
    write_pictures(folder / "pictures", [6])
    assert embed(*given).stdout == "1 image embedded in 1 shard: v\n"
    checked = embed(*given, "--check")
    assert checked.stdout.startswith("2 shards checked, 0 without an image that is as it was; ")


def built(folder: Path, *arguments: str) -> list[str]:
    """The command that `l2s index build` tells, of vectors by net.safetensors."""
    vectors = str(folder / "v")
    if not (folder / "v").exists():
        done = embed("pictures", "--to", "v", "--network", "net.safetensors", "--workers", "1")
        assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["index", "build", vectors, "--to", "my index", *arguments])
    assert done.exit_code == 0, done.output
    _, told = done.stdout.split("search it with: ")
    return shlex.split(told.partition("\n")[0])


@pytest.mark.parametrize("is_in_a_study", [True, False])
def test_the_told_command_searches_by_the_network_that_embedded(
    folder: Path, is_in_a_study: bool
) -> None:
    if not is_in_a_study:
        (folder / "params.yaml").unlink()
    told = built(folder)
    assert told[:5] == ["l2s", "search", "IMAGE", "--index", "my index"]
    assert told[5:] == ["--network", str(folder / "net.safetensors")]
    image = "pictures/0/0000.jpg"
    done = CliRunner().invoke(app, ["search", image, *told[3:], "-k", "2", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["network"], found["query_px"]) == ("net.safetensors", 24)
    assert found["queries"][0]["results"][0]["name"] == "0/0000.jpg"
    assert found["queries"][0]["results"][0]["similarity"] == pytest.approx(1, abs=1e-3)


def test_a_network_that_embedded_other_vectors_is_refused(folder: Path) -> None:
    built(folder)
    write_network(folder / "other.safetensors", seed=1)
    longer = build_embedder("timm/test_resnet", 8, weights="random", seed=0)
    card = NetworkCard("timm/test_resnet", 8, 24)
    save_network(folder / "short.safetensors", longer, card)
    for name, words in {
        "other.safetensors": "its vectors are not of other.safetensors as it is now",
        "short.safetensors": "vectors have 16 numbers, and those of short.safetensors 8: they come",
        "none.safetensors": "--network none.safetensors: there is no such file",
    }.items():
        given = ["search", "pictures/0/0000.jpg", "--index", "my index", "--network", name]
        done = CliRunner().invoke(app, given)
        assert (done.exit_code, done.stdout) == (2, "")
        assert words in done.stderr
    for others in (["--index", "nowhere"], [], ["--index", "my index", "--dataset", "emblems"]):
        given = ["search", "pictures/0/0000.jpg", "--network", "net.safetensors", *others]
        done = CliRunner().invoke(app, given)
        assert done.exit_code == 2
        assert "a file searches an index of vectors: name its folder with --index" in done.stderr


def test_what_is_told_names_no_network_that_does_not_fit(folder: Path) -> None:
    built(folder)
    write_network(folder / "net.safetensors", seed=1)
    assert built(folder, "--unchecked")[5:] == ["--network", "FILE"]
    teacher = folder / "models" / "birds" / "teacher.safetensors"
    teacher.parent.mkdir(parents=True)
    teacher.write_bytes(b"damaged")
    assert built(folder, "--unchecked")[5:] == ["--network", "FILE"]
    write_network(teacher)
    assert built(folder, "--unchecked")[5:] == ["--dataset", "birds"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("absent", "--to", "v", "--network", "net.safetensors"), "absent: there is no such fold"),
        (("pictures", "--to", "dvc.yaml", "--network", "net.safetensors"), "yaml: is a file: name"),
        (("t.csv", "--to", "w", "--network", "net.safetensors", "--allow", "s3://b/x"), "(of `l2s"),
        (("pictures", "--to", "v", "--network", "no.safetensors"), "there is no such file"),
        (("pictures", "--to", "v", "--network", "params.yaml"), "no such network; known: "),
        (("pictures", "--to", "v"), "teacher is not trained yet"),
        (("pictures", "--to", "pictures", "--network", "net.safetensors"), "name a new folder"),
        (("http://host/x", "--to", "v", "--network", "net.safetensors"), "must be SCHEME://"),
        (("pictures", "--to", "ftp://v", "--network", "net.safetensors"), "must be SCHEME://"),
    ],
)
def test_refuses_in_words(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    (folder / "t.csv").write_text("id,uri\n1,s3://b/x.jpg\n")
    result = embed(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert not (folder / "v").exists()


def test_workers_are_as_many_as_the_cores_that_may_be_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(*_: object, workers: int, **__: object) -> None:
        raise ValueError(f"{workers} workers")

    monkeypatch.setattr("pipeline.embedding.sharded.embed_source", told)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
    result = embed("pictures", "--to", "v", "--network", "net.safetensors")
    assert result.stderr == "error: 3 workers\n"


def test_the_help_speaks_of_what_is_given() -> None:
    assert "DEST" not in embed("--help").output


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
