"""Retraining on new classes: no old one changes sides, and the champion is fairly compared.

Images are read, split, packed and embedded by the real stages; networks are made beforehand.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.emblems import render_emblems
from pipeline.datasets.packs import open_pack, validation_split
from pipeline.evaluation import compare
from pipeline.flows.retraining import Request, retrain
from pipeline.tracking.store import open_store
from tests import quick_study
from tests.quick_study import NAME, environment

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own

OLD = [f"m{number:02d}" for number in range(24)]
NEW = ["a0", "a1", "a2", "m07x", "m15x", "m23x", "z0", "z1", "z2"]  # before, between, after
IMAGES = 3
STAGES = quick_study.STAGES
for stage, target in (
    ("prepare", "pack.arrow data"),
    ("embed_database", "database.npy embeddings"),
):
    name, folder = target.split()
    copied = f"python step.py ${{key}} {name} {folder}/${{key}}/{name}"
    assert copied in STAGES
    STAGES = STAGES.replace(copied, f"python -m stages.{stage} ${{key}}")


def draw(folder: Path, classes: Mapping[str, int]) -> None:
    """The images of classes, each by the number of an emblem of its own."""
    emblems = list(
        render_emblems(
            families=11, members=3, images_per_class=IMAGES, image_px=40, jpeg_quality=92, seed=0
        )
    )
    for name, number in classes.items():
        (folder / name).mkdir(parents=True)
        for image in range(IMAGES):
            encoded = emblems[number * IMAGES + image].encoded
            (folder / name / f"{image}.jpg").write_bytes(encoded)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of the old classes, run once; a retraining of all of them gives another student."""
    monkeypatch.setattr(quick_study, "STAGES", STAGES)
    folder = quick_study.make_study_folder(tmp_path / "study")
    draw(folder / "images", {name: number for number, name in enumerate(OLD)})
    for count, student in ((len(OLD), "good"), (len(OLD) + len(NEW), "bad")):
        quick_study.make_networks(folder / "made" / str(count * IMAGES), count, student)
    origin = {"kind": "folder", "origin": "given", "licence": "the user's own images"}
    (folder / "data" / NAME / "source").mkdir(parents=True)
    (folder / "data" / NAME / "source" / "source.json").write_text(json.dumps(origin))
    quick_study.reproduce(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    for variable in ("PATH", "PYTHONPATH", "L2S_DEVICE"):
        monkeypatch.setenv(variable, environment()[variable])
    return folder


def record() -> dict[str, dict[str, object]]:
    return json.loads(Path("splits", f"{NAME}.json").read_text())["classes"]


def packed() -> tuple[dict[str, str], set[str]]:
    """The split of each class, and the classes that validate."""
    pack = open_pack(Path("data", NAME, "pack.arrow"))
    splits = {
        pack.class_names[label]: split
        for split in ("train", "test")
        for label in pack.labels[pack.rows(split)]
    }
    _, rows = validation_split(pack, 0.34)
    return splits, {pack.class_names[label] for label in pack.labels[rows]}


def test_old_classes_stay_where_they_were_and_both_networks_see_the_same_queries(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, (splits, validating) = record(), packed()
    assert set(splits) == set(OLD)
    draw(workspace / "images", {name: len(OLD) + number for number, name in enumerate(NEW)})
    asked: list[list[str]] = []
    embed = compare._embed_queries

    def noted(pack, path, device):
        asked.append([pack.names[row] for row in pack.rows("test")])
        return embed(pack, path, device)

    monkeypatch.setattr(compare, "_embed_queries", noted)
    result = retrain(Request())
    assert result.is_success
    assert result.lines[0] == f"{NAME}: {len(NEW) * IMAGES} new images, 0 changed, 0 gone"
    after, (splits_after, validating_after) = record(), packed()
    for name in OLD:
        kept = ("split", "position", "trained")
        assert [after[name][key] for key in kept] == [before[name][key] for key in kept]
    assert {name: splits_after[name] for name in OLD} == splits
    assert validating_after & set(OLD) == validating
    assert {splits_after[name] for name in NEW} == {"train", "test"}
    for place in ("a", "m", "z"):  # each stands on the side that its hash says, wherever it sorts
        assert [splits_after[n] for n in NEW if n[0] == place] == [
            after[n]["split"] for n in NEW if n[0] == place
        ]

    champion, candidate, theirs = asked  # the first champion was embedded when it was named
    tests = [name for name, split in splits_after.items() if split == "test"]
    assert candidate == theirs
    assert len(candidate) == len(tests) * IMAGES > len(champion)
    assert set(champion) < set(candidate)
    assert np.load(Path("embeddings", NAME, "database.npy")).shape[0] == len(candidate)
    (verdict,) = result.verdicts[NAME]
    assert (verdict.decision.result, verdict.champion) == ("refused", "1")  # it is a bad one
    runs = [run.data for run in open_store().runs("tags.role = 'decision'")]
    (judged,) = (run for run in runs if "map_gain" in run.metrics)
    assert (judged.metrics["queries"], judged.metrics["classes"]) == (len(candidate), len(tests))
    assert judged.metrics["map_gain_low"] < judged.metrics["map_gain"] < 0
    print(  # noqa: T201
        f"{len(OLD)} old classes ({list(splits.values()).count('test')} test), {len(NEW)} new ones "
        f"({len(tests) - list(splits.values()).count('test')} test): all old ones in their split; "
        f"{verdict.line()}; {len(candidate)} queries of {len(tests)} classes for both"
    )
