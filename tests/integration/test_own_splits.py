"""The user's own images through the real stages, again and again: a split stays what it was."""

import hashlib
import io
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.config.params import ConfigurationError, load_params
from pipeline.datasets.emblems import render_emblems
from pipeline.datasets.own_checks import check_own_images
from pipeline.datasets.packs import open_pack, validation_split, write_pack
from pipeline.datasets.reader import ImageRecord
from tests import made_archives as made
from tests.integration.test_real_layouts import described, fail, stage, succeed, use
from tests.integration.workspace import ROOT, dvc, make_workspace, run, set_params

FOLDER = {"kind": "folder", "skip_unreadable": False}
TABLE = {"kind": "csv", "table": "images.csv", "skip_unreadable": False}
OLD = [f"m{number:02d}" for number in range(8)]
NEW = [f"a{number:02d}" for number in range(6)]
RECORD = "splits/emblems.json"


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder with params.yaml alone, whose data set is the folder of images beside it."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    draw(tmp_path / "images", OLD)
    use(folder, FOLDER, tmp_path / "images")
    succeed(folder, "inputs")
    return folder


def draw(images: Path, classes: Iterable[str], count: int = 3) -> None:
    for name in classes:
        (images / name).mkdir(parents=True)
        for number in range(count):
            seed = int(hashlib.sha256(f"{name}/{number}".encode()).hexdigest()[:6], 16)
            (images / name / f"{number}.jpg").write_bytes(made.encode_picture(seed))


def packed(workspace: Path) -> tuple[dict[str, str], list[str]]:
    """Survey and pack; the split of each class, and the classes that validate (a half)."""
    succeed(workspace, "hash_inputs", "prepare")
    pack = open_pack(workspace / "data/emblems/pack.arrow")
    splits = {}
    for split in ("train", "test"):
        splits |= {pack.class_names[label]: split for label in pack.labels[pack.rows(split)]}
    _, rows = validation_split(pack, 0.5)
    return splits, sorted({pack.class_names[label] for label in pack.labels[rows]})


def test_added_classes_leave_the_old_ones_where_they_were(workspace: Path, tmp_path: Path) -> None:
    """Before, a00 to a05 moved m01 to m03, which the teacher had learned, into the test."""
    before, validating = packed(workspace)
    assert sorted(before.values()) == ["test"] * 4 + ["train"] * 4
    assert len(validating) == 2
    draw(tmp_path / "images", [*NEW, "m03x", "z"])
    after, validating_after = packed(workspace)
    assert {name: after[name] for name in OLD} == before
    assert [name for name in validating_after if name in OLD] == validating
    assert {after[name] for name in NEW} == {"train", "test"}
    record = (workspace / RECORD).read_bytes()
    assert packed(workspace) == (after, validating_after)
    assert (workspace / RECORD).read_bytes() == record

    for name in (OLD[1], OLD[5], NEW[1]):
        shutil.rmtree(tmp_path / "images" / name)
    removed, _ = packed(workspace)
    assert removed == {name: after[name] for name in removed}
    draw(tmp_path / "images", (OLD[1], OLD[5], NEW[1]))
    assert packed(workspace) == (after, validating_after)


def test_known_images_are_known_by_content(workspace: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    before, _ = packed(workspace)
    train = [name for name in OLD if before[name] == "train"]
    test = [name for name in OLD if before[name] == "test"]
    (images / train[0]).rename(images / "a01")  # a name whose hash is for testing
    (images / train[1] / "0.jpg").rename(images / test[0] / "moved.jpg")
    code, told = stage(workspace, "hash_inputs")
    assert code == 0
    assert f"the new class a01 trains: 3 of its images were trained on ({train[0]})" in told
    kept_out = f"1 test images are training images, and are kept out: {test[0]}/moved.jpg"
    assert f"emblems: {kept_out} (in {train[1]})" in told
    after, _ = packed(workspace)
    assert after == {**{n: before[n] for n in OLD if n != train[0]}, "a01": "train"}
    pack = open_pack(workspace / "data/emblems/pack.arrow")
    assert f"{test[0]}/moved.jpg" not in pack.names
    assert len(pack) == 23
    assert described(workspace, "pack.json")["kept_out_of_test"] == {
        f"{test[0]}/moved.jpg": train[1]
    }


def test_pictures_that_stand_in_two_classes_are_told_and_no_test_images(
    workspace: Path, tmp_path: Path
) -> None:
    """Encoded anew, so that their contents differ."""
    images = tmp_path / "images"
    splits, _ = packed(workspace)
    train, test, other = (
        next(name for name in order if splits[name] == split)
        for order, split in ((OLD, "train"), (OLD, "test"), (OLD[::-1], "test"))
    )
    drawn = render_emblems(
        families=2, members=1, images_per_class=1, image_px=64, jpeg_quality=92, seed=0
    )
    copies = ((train, f"{test}/learned.jpg"), (other, f"{test}/other.jpg"))
    for record, (source, copy) in zip(drawn, copies, strict=True):
        (images / source / "0.jpg").write_bytes(record.encoded)
        with Image.open(io.BytesIO(record.encoded)) as picture:
            picture.save(images / copy, quality=70)
    succeed(workspace, "hash_inputs")
    code, told = stage(workspace, "prepare")
    assert code == 0
    assert "emblems: 4 images nearly show the same as one of another class: " in told
    assert f"{test}/learned.jpg as {train}/0.jpg" in told
    assert "3 test images are left out (source.near_duplicates: leave_out)" in told
    found = described(workspace, "pack.json")["near_duplicates"]
    assert (found["images"], found["left_out_of_test"]) == (4, 3)
    assert found["first"][f"{test}/other.jpg"] == f"{other}/0.jpg"
    names = open_pack(workspace / "data/emblems/pack.arrow").names
    assert len(names) == 23
    assert not {f"{test}/learned.jpg", f"{test}/other.jpg", f"{other}/0.jpg"} & set(names)
    use(workspace, FOLDER | {"near_duplicates": "keep"}, images)
    assert (
        "0 test images are left out (source.near_duplicates: keep)"
        in stage(workspace, "prepare")[1]
    )
    assert len(open_pack(workspace / "data/emblems/pack.arrow")) == 26


def test_a_test_of_nothing_but_doubles_is_refused(workspace: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    splits, _ = packed(workspace)
    drawn = render_emblems(
        families=2, members=1, images_per_class=2, image_px=64, jpeg_quality=92, seed=0
    )
    train = next(name for name in OLD if splits[name] == "train")
    tests = [name for name in OLD if splits[name] == "test"]
    for number, record in enumerate(list(drawn)[:3]):
        (images / train / f"{number}.jpg").write_bytes(record.encoded)
        for quality, name in enumerate(tests, start=80):
            with Image.open(io.BytesIO(record.encoded)) as picture:
                picture.save(images / name / f"{number}.jpg", quality=quality)
    succeed(workspace, "hash_inputs")
    message = fail(workspace, "prepare")
    assert "source.near_duplicates = 'leave_out': leaves no test class of two images" in message


def test_a_test_of_nothing_but_training_images_and_single_ones_is_refused(
    workspace: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    splits, _ = packed(workspace)
    train = next(name for name in OLD if splits[name] == "train")
    for name in (name for name in OLD if splits[name] == "test"):
        for number in range(2):
            shutil.copy(images / train / f"{number}.jpg", images / name)
    succeed(workspace, "hash_inputs")
    message = fail(workspace, "prepare")
    assert (
        "datasets.emblems: images that cannot be read, or were trained on, leave no te" in message
    )


def old_pack(workspace: Path, images: Path) -> None:
    """A pack as it was made before there was a record: the first half by name trains."""
    records = [
        ImageRecord(f"{c}/{n}.jpg", c, "train" if c < "m04" else "test", encoded, 24, 16)
        for c in OLD
        for n in range(3)
        for encoded in [(images / c / f"{n}.jpg").read_bytes()]
    ]
    write_pack(workspace / "data/emblems/pack.arrow", records, {"subset": "no"})
    (workspace / "data/emblems/pack.json").write_text('{"kind": "folder"}')


def old_manifest(workspace: Path, images: Path) -> None:
    entries = [
        {
            "name": f"{c}/{n}.jpg",
            "class_name": c,
            "split": "train" if c < "m04" else "test",
            "sha256": hashlib.sha256((images / c / f"{n}.jpg").read_bytes()).hexdigest(),
        }
        for c in OLD
        for n in range(3)
    ]
    manifest = {"images": entries, "passed_over": []}
    (workspace / "data/emblems/source/input.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("left", [[old_pack], [old_manifest], [old_pack, old_manifest]])
def test_a_workspace_without_a_record_keeps_what_it_trained_on(
    left: list[Any], workspace: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    for make in left:
        make(workspace, images)
    draw(images, NEW)
    (images / "m01").rename(images / "a01b")
    (images / "m02" / "0.jpg").rename(images / "m05" / "moved.jpg")
    after, validating = packed(workspace)
    assert {n: after[n] for n in OLD if n in after} == {
        n: "train" if n < "m04" else "test" for n in OLD if n != "m01"
    }
    assert after["a01b"] == "train"
    assert [name for name in validating if name in OLD] == ["m02", "m03"]
    assert described(workspace, "pack.json")["kept_out_of_test"] == {"m05/moved.jpg": "m02"}


def test_a_lost_record_is_written_anew_as_it_was(workspace: Path, tmp_path: Path) -> None:
    packed(workspace)
    draw(tmp_path / "images", NEW)
    after = packed(workspace)
    record = (workspace / RECORD).read_bytes()
    for lost in ([RECORD], [RECORD, "data/emblems/pack.arrow", "data/emblems/pack.json"]):
        for file in lost:
            (workspace / file).unlink()
        assert packed(workspace) == after
        assert (workspace / RECORD).read_bytes() == record
    for file in (RECORD, "data/emblems/source/input.json"):  # JPEG files are in the pack as given
        (workspace / file).unlink()
    assert packed(workspace) == after
    known = json.loads(record)["classes"]
    written = json.loads((workspace / RECORD).read_text())["classes"]
    assert {name: one["trained"] for name, one in written.items()} == {
        name: one["trained"] for name, one in known.items()
    }
    (workspace / RECORD).write_text("<<<<<<< HEAD\n")
    assert f"{RECORD}: is not a record of splits" in fail(workspace, "hash_inputs")


def test_a_table_without_and_with_splits(workspace: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    table = images / "images.csv"
    use(workspace, TABLE, images)

    def rows(classes: list[str], splits: dict[str, str] | None = None) -> None:
        lines = ["path,class" + (",split" if splits else "")]
        for name in classes:
            tail = f",{splits[name]}" if splits else ""
            lines += [f"{name}/{number}.jpg,{name}{tail}" for number in range(3)]
        table.write_text("\n".join(lines) + "\n")

    rows(OLD)
    before, validating = packed(workspace)
    draw(images, NEW)
    rows([*NEW, *reversed(OLD)])
    after, validating_after = packed(workspace)
    assert {name: after[name] for name in OLD} == before
    assert [name for name in validating_after if name in OLD] == validating

    wanted = {name: "train" if after[name] == "train" or name in NEW else "test" for name in after}
    rows([*OLD, *NEW], wanted)
    assert packed(workspace)[0] == wanted
    trained = next(name for name in OLD if before[name] == "train")
    rows([*OLD, *NEW], {**wanted, trained: "test"})
    told = stage(workspace, "hash_inputs")[1]
    assert "3 test images are training images, and are kept out" in told
    assert trained not in packed(workspace)[0]


def test_the_early_check_uses_the_same_splits(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = packed(workspace)
    monkeypatch.chdir(workspace)
    set_params(workspace, {"datasets.emblems.validation_share": 0.0})
    for name, split in before.items():
        if split == "test":
            shutil.rmtree(tmp_path / "images" / name)
    with pytest.raises(ConfigurationError, match="no class is left for test"):
        check_own_images(load_params())
    draw(tmp_path / "images", ["a01"])  # for testing, by its hash
    check_own_images(load_params())
    set_params(workspace, {"datasets.emblems.validation_share": 0.2})
    with pytest.raises(ConfigurationError, match="1 of 4 training classes"):
        check_own_images(load_params())


def test_dvc_restores_no_older_split(tmp_path: Path) -> None:
    """A folder as it once was, in which an image tests again that has been trained on since."""
    folder = make_workspace(tmp_path / "workspace")
    images = tmp_path / "images"
    draw(images, OLD)
    set_params(folder, {"datasets.emblems.source": FOLDER, "inputs": {"emblems": "../images"}})
    dvc(folder, "repro", "prepare@emblems")
    noted = described(folder, "source/input.json")
    test, train = (next(i for i in noted["images"] if i["split"] == s) for s in ("test", "train"))
    moved = images / train["class_name"] / "moved.jpg"
    (images / test["name"]).rename(moved)
    dvc(folder, "repro", "prepare@emblems")
    moved.rename(images / test["name"])
    told = dvc(folder, "repro", "prepare@emblems")
    assert "Running stage 'hash_inputs@emblems'" in told.stdout
    assert "1 test images are training images, and are kept out" in told.stdout + told.stderr
    assert described(folder, "pack.json")["kept_out_of_test"] == {test["name"]: train["class_name"]}
    status = run(folder, "git", "status", "--porcelain", "--untracked-files=all").stdout
    assert f"?? {RECORD}" in status  # the user's to keep

    (folder / RECORD).unlink()  # as in a clone where it was not committed
    assert "Running" not in dvc(folder, "repro", "prepare@emblems").stdout
    assert not (folder / RECORD).exists()
    shutil.rmtree(folder / "data")
    dvc(folder, "checkout", "inputs@emblems", "hash_inputs@emblems", "prepare@emblems")
    draw(images, NEW)
    before = described(folder, "source/input.json")
    dvc(folder, "repro", "prepare@emblems")
    after = {i["name"]: i["split"] for i in described(folder, "source/input.json")["images"]}
    assert {i["name"]: after[i["name"]] for i in before["images"]} == {
        i["name"]: i["split"] for i in before["images"]
    }
