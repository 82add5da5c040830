"""The tournament of losses and the record of a GPU, at toy size."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from benchmarks import tournament, tournament_cells
from benchmarks.tournament import COUPLED, ENTRIES, FULL, TOY
from benchmarks.tournament_cells import SCHEDULE, STUDENT_VIEWS, TEACHER_VIEWS, TRIPLETS, Cell
from pipeline.config.params import load_params, parse_params
from pipeline.config.recipes import DistillationRecipe
from pipeline.config.studies import preset_text
from pipeline.datasets.emblems import render_emblems
from pipeline.datasets.packs import open_pack, write_pack
from tests.made_params import PARAMS
from tests.unit.test_benchmarks_training import MISSING_THERE

FEW = [one for one in COUPLED if one.name == "d3still"] + list(tournament.UNALIGNED[:1])

FAMILIES, MEMBERS = TOY.emblems["families"], TOY.emblems["members"]
TEST_CLASSES = {
    MEMBERS * family + member
    for family in range(FAMILIES)
    for member in range(MEMBERS)
    if (family + member) % 2
}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "tournament.json").read_text(encoding="utf-8"))["rows"]


def test_the_recipes_are_those_of_the_preset() -> None:
    dataset = parse_params(preset_text("tournament")).datasets["tournament"]
    source = dataset.source.model_dump()
    triplets = dataset.teacher.model_dump() | dataset.teacher.loss.model_dump()
    assert source.items() >= FULL.emblems.items()
    assert triplets.items() >= TRIPLETS.items()
    assert (dataset.teacher_px, dataset.network.dim) == (FULL.teacher_px, FULL.dim)
    assert dataset.network.backbone == FULL.backbone
    assert dataset.teacher.optimisation.epochs == FULL.teacher_epochs
    assert dataset.distillation.optimisation.epochs == FULL.epochs
    assert (
        asdict(SCHEDULE).items()
        >= (dataset.teacher.optimisation.model_dump() | {"epochs": SCHEDULE.epochs}).items()
    )
    for recipe, views in ((dataset.teacher, TEACHER_VIEWS), (dataset.distillation, STUDENT_VIEWS)):
        look = recipe.augmentation
        colours = look.brightness, look.contrast, look.saturation, look.hue
        expected = look.crop_scale, look.flip_probability, colours
        assert (views.crop_scale, views.flip_probability, views.colour_ranges) == expected


def test_every_entry_is_a_loss_of_params_yaml_with_as_many_view_pairs() -> None:
    recipe = load_params(PARAMS).datasets["emblems"].distillation.model_dump()
    assert len({entry.title for entry in ENTRIES}) == len(ENTRIES) == len(COUPLED) + 3 + 2
    for entry in ENTRIES:
        counts = {"centroids": FULL.centroids} if entry.kind == "anchors" else {}
        own = {"loss": {"kind": entry.kind, **entry.values, **counts}, "view_pairs": entry.pairs}
        DistillationRecipe.model_validate(recipe | own | {"images_per_batch": entry.images})
        assert entry.images * entry.views == 32
        assert entry.images >= entry.least_images > entry.values.get("neighbours", 0)
        assert FULL.epochs * STUDENT_VIEWS.views % entry.views == 0


def test_validation_classes_are_training_classes_that_a_trial_does_not_see(tmp_path: Path) -> None:
    pack = tmp_path / "pack.arrow"
    write_pack(pack, render_emblems(**TOY.emblems, jpeg_quality=92, seed=0))
    labels = open_pack(pack).labels
    fit, validation, train, test = (
        set(labels[tournament_cells.rows_of(pack, part)])
        for part in ("fit", "validation", "train", "test")
    )
    assert test == TEST_CLASSES
    assert fit | validation == train
    assert (len(fit), len(validation)) == (7, 2)
    assert not fit & validation
    assert not train & test


def test_trials_choose_the_rate_and_students_meet_the_test_classes_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tournament, "ENTRIES", FEW)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tournament.main(["--output", str(tmp_path), "--toy", "--seeds", "2"]) == 0
    assert capsys.readouterr().out.endswith("complete\n")
    rows = rows_of(tmp_path)
    trials = [row for row in rows if row["role"] == "validation"]
    assert len(trials) == len(FEW) * len(TOY.rates)
    assert {row["seed"] for row in trials} == {0}
    students = [row for row in rows if row["role"] == "asymmetric"]
    assert len(students) == 2 * len(FEW)
    for row in students:
        own = [trial for trial in trials if trial["entry"] == row["entry"]]
        best = max(own, key=lambda trial: trial["map"])
        assert row["learning_rate"] == best["learning_rate"]
    queries = pd.read_parquet(tmp_path / "queries.parquet")
    assert set(queries["role"]) == {"teacher", "naive", "asymmetric", "symmetric"}
    means = queries.groupby(["entry", "role", "seed"])["average_precision"].mean()
    assert len(means) == 2 * (2 + 2 * len(FEW))
    assert set(queries["label"]) == TEST_CLASSES
    for row in rows:
        if row["role"] != "validation":
            found = means[row["entry"], row["role"], row["seed"]]
            assert found == pytest.approx(row["map"])
    assert len({row["map"] for row in students}) > 1


def test_it_ends_in_time_with_what_is_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Time runs out with the second trial."""
    monkeypatch.setattr(tournament, "ENTRIES", FEW)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plain, begun = tournament_cells.train_student, list[Cell]()

    def counted(place: tournament_cells.Place, cell: Cell) -> list[tournament_cells.Result]:
        begun.append(cell)
        late = time.time() - 1 if len(begun) > 1 else place.until
        return plain(replace(place, until=late), cell)

    monkeypatch.setattr(tournament, "train_student", counted)
    assert tournament.main(["--output", str(tmp_path), "--toy", "--seeds", "1"]) == 0
    assert capsys.readouterr().out.endswith("ended after 60 minutes\n")
    assert [row["role"] for row in rows_of(tmp_path)] == ["teacher", "naive", "validation"]


def test_a_rate_that_spoils_a_training_is_told_and_not_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tournament, "ENTRIES", FEW[:1])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(tournament, "TOY", replace(TOY, rates=(1e-3, 1e30)))
    assert tournament.main(["--output", str(tmp_path), "--toy", "--seeds", "1"]) == 0
    record = json.loads((tmp_path / "tournament.json").read_text(encoding="utf-8"))
    (fault,) = record["faults"]
    assert fault["learning_rate"] == 1e30
    assert "at step" in fault["fault"]
    assert {row["learning_rate"] for row in record["rows"] if "learning_rate" in row} == {1e-3}


def test_the_record_on_a_bare_machine(tmp_path: Path) -> None:
    """In a process that lacks what such a machine lacks, and on two workers."""
    path = tmp_path / "program.py"
    path.write_text(
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({MISSING_THERE!r}))\n"
        "from benchmarks import gpu_record, tournament\n"
        "tournament.ENTRIES = tournament.ENTRIES[:1]\n"
        "if __name__ == '__main__':\n"
        f"    options = ['--output', {str(tmp_path)!r}, '--toy', '--seeds', '2']\n"
        "    sys.exit(gpu_record.main([*options, '--workers', '2']))\n",
        encoding="utf-8",
    )
    root = str(Path(tournament.__file__).parents[1])
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": root}
    command = [sys.executable, "-W", "error", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "64 -> 32 px, 2 x 2 views" in done.stdout
    assert "raml" in done.stdout
    assert done.stdout.endswith("complete\n")
    assert {row["seed"] for row in rows_of(tmp_path)} == {0, 1}
    assert (tmp_path / "accelerator.json").exists()
