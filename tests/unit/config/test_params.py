"""params.yaml: every fault in words, all at once; what is right becomes frozen values."""

import re
from pathlib import Path
from typing import Any

import pydantic
import pytest

from pipeline.config.params import ConfigurationError, Params, load_params
from pipeline.datasets.packs import validating_units
from tests.made_params import ABSENT, PARAMS, edited_params

STUDENT = {"dataset": "emblems", "query_px": 32}


def faults_of(folder: Path, changes: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_params(edited_params(folder, changes))
    lines = str(caught.value).splitlines()
    faults = caught.value.faults
    assert lines[0] == (
        f"{folder / 'params.yaml'}: {len(faults)} fault{'s' if len(faults) > 1 else ''}"
    )
    assert lines[1:] == [f"  {fault}" for fault in faults]
    return faults


def test_the_committed_file_is_right() -> None:
    params = load_params(PARAMS)
    assert params.datasets.keys() == {"emblems"}
    assert len(params.students) >= 3
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        params.seeds = (1,)


# One fault each: what is changed, and how its message begins.
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt at the top": ({"sede": 1}, "sede: unknown key; allowed here: seeds, threads, "),
    "misspelt deep": (
        {"datasets.emblems.teacher.optimisation.epoch": 3},
        "datasets.emblems.teacher.optimisation.epoch: unknown key; allowed here: epochs, "
        "learning_rate, weight_decay, warmup_share, initial_division",
    ),
    "misspelt in a source": (
        {"datasets.emblems.source.family": 3},
        "datasets.emblems.source.family: unknown key; allowed here: kind, families, members, ",
    ),
    "misspelt in an override": (
        {"students": {"a": STUDENT | {"network": {"backbon": "timm/resnet18"}}}},
        "students.a.network.backbon: unknown key; allowed here: backbone, weights, batch_norm",
    ),
    "missing": ({"threads": ABSENT}, "threads: is missing"),
    "missing deep": (
        {"datasets.emblems.distillation.augmentation.hue": ABSENT},
        "datasets.emblems.distillation.augmentation.hue: is missing",
    ),
    "unknown source": (
        {"datasets.emblems.source": {"kind": "cub"}},
        "datasets.emblems.source.kind = 'cub': must be one of emblems, ",
    ),
    "text for a number": (
        {"datasets.emblems.teacher_px": "large"},
        "datasets.emblems.teacher_px = 'large': input should be a valid integer",
    ),
    "a fraction for a count": ({"threads": 1.5}, "threads = 1.5: input should be a valid integer"),
    "yes for a count": ({"threads": True}, "threads = True: input should be a valid integer"),
    "zero": ({"threads": 0}, "threads = 0: input should be greater than 0"),
    "negative": ({"seeds": [0, -1]}, "seeds.1 = -1: input should be greater than or equal to 0"),
    "no seed": ({"seeds": []}, "seeds = []: tuple should have at least 1 item"),
    "the same seed twice": ({"seeds": [0, 1, 0]}, "seeds = [0, 1, 0]: must differ from each other"),
    "an older file": (
        {"seed": 3},
        "seed = 3: is `seeds` now, a list: write seeds: [3] in its place",
    ),
    "a space turned round": (
        {"tuning.learning_rate_factor": [3.0, 0.3]},
        "tuning.learning_rate_factor = [3, 0.3]: must be smallest <= largest",
    ),
    "trials that nothing scores": (
        {"tuning.trials": 4, "datasets.emblems.validation_share": 0.0},
        "datasets.emblems.validation_share = 0: must be above 0 where tuning.trials = 4, since",
    ),
    "trials that are all the same": (
        {"tuning.trials": 4, "tuning.learning_rate_factor": [2.0, 2.0]},
        "tuning.learning_rate_factor = [2, 2]: must have two ends where tuning.trials = 4, since "
        "else all trials of emblems-64, emblems-48, emblems-40 would be one training",
    ),
    "trials of a loss that has nothing to scale": (
        {
            "tuning.trials": 4,
            "tuning.learning_rate_factor": [2.0, 2.0],
            "tuning.loss_factor": [0.5, 2.0],
            "students": {
                "a": STUDENT | {"distillation": {"loss": {"kind": "absolute"}}},
                "b": STUDENT,
            },
        },
        "tuning.learning_rate_factor = [2, 2]: must have two ends where tuning.trials = 4, since "
        "else all trials of a would be one training",
    ),
    "no rate": (
        {"datasets.emblems.teacher.optimisation.learning_rate": 0},
        "datasets.emblems.teacher.optimisation.learning_rate = 0: input should be greater than 0",
    ),
    "an infinite rate": (
        {"datasets.emblems.teacher.optimisation.learning_rate": float("inf")},
        "datasets.emblems.teacher.optimisation.learning_rate = inf: input should be a finite",
    ),
    "an infinite weight": (
        {"datasets.emblems.distillation.loss.student_temperature": float("inf")},
        "datasets.emblems.distillation.loss.student_temperature = inf: input should be a finite",
    ),
    "an infinite decay": (
        {"datasets.emblems.teacher.optimisation.weight_decay": float("inf")},
        "datasets.emblems.teacher.optimisation.weight_decay = inf: input should be a finite",
    ),
    "a mixup that would never be drawn": (
        {"datasets.emblems.distillation.mixup_alpha": 50.0},
        "datasets.emblems.distillation.mixup_alpha = 50.0: input should be less than or equal to",
    ),
    "a choice": (
        {"datasets.emblems.network.batch_norm": "warm"},
        "datasets.emblems.network.batch_norm = 'warm': input should be 'live' or 'frozen'",
    ),
    "a share above 1": (
        {"datasets.emblems.distillation.augmentation.flip_probability": 1.5},
        "datasets.emblems.distillation.augmentation.flip_probability = 1.5: input should be less",
    ),
    "one number of two": (
        {"datasets.emblems.teacher.augmentation.crop_scale": [0.5]},
        "datasets.emblems.teacher.augmentation.crop_scale.1: is missing",
    ),
    "a crop turned round": (
        {"datasets.emblems.teacher.augmentation.crop_scale": [1.0, 0.5]},
        "datasets.emblems.teacher.augmentation.crop_scale = [1.0, 0.5]: must be 0 < smallest",
    ),
    "a crop of nothing": (
        {"datasets.emblems.distillation.augmentation.crop_scale": [0.0, 1.0]},
        "datasets.emblems.distillation.augmentation.crop_scale = [0.0, 1.0]: must be 0 <",
    ),
    "no cut-offs": (
        {"datasets.emblems.recall_at": []},
        "datasets.emblems.recall_at = []: tuple should have at least 1 item",
    ),
    "a cut-off of zero": (
        {"datasets.emblems.recall_at": [1, 0]},
        "datasets.emblems.recall_at.1 = 0: input should be greater than 0",
    ),
    "no students": ({"students": {}}, "students: dictionary should have at least 1 item"),
    "a list for a section": (
        {"students": ["a"]},
        "students = ['a']: input should be a valid dictionary",
    ),
    "an unknown data set": (
        {"students": {"a": {"dataset": "cub", "query_px": 32}}},
        "students.a.dataset = 'cub': no such data set; known: emblems",
    ),
    "a share that leaves one class to validate": (
        {"datasets.emblems.validation_share": 0.02},
        "datasets.emblems.validation_share = 0.02: 1 of ",
    ),
    "a share that leaves one class to train on": (
        {"datasets.emblems.validation_share": 0.98},
        "datasets.emblems.validation_share = 0.98: ",
    ),
    "a size above the teacher's": (
        {"students": {"a": {"dataset": "emblems", "query_px": 97}}},
        "students.a.query_px = 97: must be at most datasets.emblems.teacher_px = 96",
    ),
    "a student of other embeddings": (
        {"students": {"a": STUDENT | {"network": {"dim": 64}}}},
        "students.a.network.dim = 64: a student's embeddings are as long as its teacher's",
    ),
    "a deviation of pixels up to 255": (
        {"datasets.emblems.network.std": [58.4, 0.2, 0.2]},
        "datasets.emblems.network.std.0 = 58.4: input should be less than or equal to 1",
    ),
    "a seed beyond 32 bits": (
        {"seeds": [0, 2**32]},
        "seeds.1 = 4294967296: input should be less than 4294967296",
    ),
    "a student called teacher": (
        {"students": {"teacher": STUDENT}},
        "students.teacher: this name is taken",
    ),
    "a student called as a data set": (
        {"students": {"emblems": STUDENT}},
        "students.emblems: this name is taken",
    ),
    "a name that is a path": (
        {"students": {"../a": STUDENT}},
        "students.../a = '../a': string should match pattern",
    ),
    "a name that is a number": ({"students": {3: STUDENT}}, "students.3 = 3: input should be a"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_told_with_its_key(tmp_path: Path, fault: str) -> None:
    changes, start = FAULTS[fault]
    faults = faults_of(tmp_path, changes)
    assert len(faults) == 1
    assert faults[0].startswith(start)


@pytest.mark.parametrize("trials", [0, 1])
def test_one_trial_or_none_needs_no_space(tmp_path: Path, trials: int) -> None:
    fixed = {"tuning.trials": trials, "tuning.learning_rate_factor": [2.0, 2.0]}
    assert load_params(edited_params(tmp_path, fixed)).tuning.trials == trials


@pytest.mark.parametrize("share", [0.0, 0.1, 0.24, 0.26, 0.5, 0.74, 0.76, 0.9])
def test_a_share_is_refused_before_rendering_where_training_would_refuse_it(
    tmp_path: Path, share: float
) -> None:
    size = {"datasets.emblems.source.families": 4, "datasets.emblems.source.members": 4}
    path = edited_params(tmp_path, size | {"datasets.emblems.validation_share": share})
    if validating_units("abcdefgh", {}, share)[1]:
        assert load_params(path).datasets["emblems"].validation_share == share
    else:
        with pytest.raises(ConfigurationError, match=r"both sides need two \(0 turns"):
            load_params(path)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "sede": 1,
        "threads": 0,
        "evaluation.confidence": ABSENT,
        "datasets.emblems.teacher.augmentation.crop_scale": [0.9, 0.1],
        "students": {
            "a": {"dataset": "cub", "query_px": 32},
            "b": {"dataset": "emblems", "query_px": 1000},
            "c": {"dataset": "emblems", "query_px": 0},
        },
    }
    faults = faults_of(tmp_path, changes)
    keys = [fault.partition(":")[0].partition(" =")[0] for fault in faults]
    assert sorted(keys) == [
        "datasets.emblems.teacher.augmentation.crop_scale",
        "evaluation.confidence",
        "sede",
        "students.a.dataset",
        "students.b.query_px",
        "students.c.query_px",
        "threads",
    ]


def test_a_data_set_may_be_called_as_a_section_is(tmp_path: Path) -> None:
    """Its misspelt keys are told with the keys of a data set, not of that section."""
    emblems = load_params(PARAMS).datasets["emblems"].model_dump(mode="json")
    changes = {
        "datasets": {"teacher": emblems | {"teacher_pxs": 3}},
        "students": {"a": {"dataset": "teacher", "query_px": 32}},
    }
    faults = faults_of(tmp_path, changes)
    assert faults == [
        "datasets.teacher.teacher_pxs: unknown key; allowed here: source, teacher_px, "
        "validation_share, recall_at, network, teacher, distillation, licences"
    ]


def loaded_text(folder: Path, text: str) -> Params:
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return load_params(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold keys and values"),
        ("- 1\n- 2\n", "must hold keys and values"),
        ("just words\n", "must hold keys and values"),
        ("seed: [1\nthreads: 2\n", "not YAML: "),
        ("seed: 1\n\tthreads: 2\n", "not YAML: "),
        ("seed: 1\nseed: 2\n", "duplicate key"),
        ("datasets:\n  a: {}\n  a: {}\n", "duplicate key"),
        ("seed: 1\n---\nseed: 2\n", "not YAML: "),
        ("seed: \x07\n", "not YAML: "),
        ("seed: 2024-99-99\n", "not YAML: month"),
        (f"seed: {'9' * 5000}\n", "not YAML: Exceeds"),
        ("seed: !!int x\n", "not YAML: invalid literal"),
    ],
)
def test_what_is_not_such_a_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        loaded_text(tmp_path, text)
    assert len(caught.value.faults) == 1
    assert str(caught.value).startswith(f"{tmp_path / 'params.yaml'}: 1 fault\n")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"seed: \xff\xfe\n")
    with pytest.raises(ConfigurationError, match="1 fault"):
        load_params(tmp_path / "params.yaml")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read: .* No such file"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("written", ["1e-4", "1.0e-4", "0.0001", "1E-4", "+1e-4"])
def test_numbers_are_read_as_dvc_does(tmp_path: Path, written: str) -> None:
    """YAML 1.2: an exponent makes a number, with or without a point before it."""
    text = PARAMS.read_text(encoding="utf-8")
    text, count = re.subn(
        r"learning_rate: \S+ +# peak", f"learning_rate: {written} # peak", text, count=1
    )
    assert count == 1
    params = loaded_text(tmp_path, text)
    assert params.datasets["emblems"].teacher.optimisation.learning_rate == 1e-4


def test_words_of_yaml_1_1_are_words(tmp_path: Path) -> None:
    text = PARAMS.read_text(encoding="utf-8").replace("\n- 0\n", "\n- no\n", 1)
    with pytest.raises(ConfigurationError, match=r"seeds\.0 = 'no'"):
        loaded_text(tmp_path, text)


def test_comments_and_layout_do_not_matter(tmp_path: Path) -> None:
    lines = PARAMS.read_text(encoding="utf-8").splitlines()
    bare = "\n".join(line.partition("#")[0].rstrip() for line in lines if line.strip())
    assert "#" not in bare
    assert loaded_text(tmp_path, bare) == load_params(PARAMS)


def test_a_student_overrides_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    own = STUDENT | {
        "network": {"batch_norm": "frozen"},
        "distillation": {
            "loss": {"student_temperature": 0.25},
            "optimisation": {"learning_rate": 0.5},
        },
    }
    params = load_params(edited_params(tmp_path, {"students": {"own": own, "plain": STUDENT}}))
    dataset = params.datasets["emblems"]
    assert params.student_network("plain") == dataset.network
    assert params.student_distillation("plain") == dataset.distillation
    network, recipe = params.student_network("own"), params.student_distillation("own")
    assert network.model_dump() == dataset.network.model_dump() | {"batch_norm": "frozen"}
    expected = dataset.distillation.model_dump()
    expected["loss"]["student_temperature"] = 0.25
    expected["optimisation"]["learning_rate"] = 0.5
    assert recipe.model_dump() == expected
    assert (
        dataset.distillation.loss.student_temperature != 0.25
    )  # the data set's own recipe is as it was


def test_an_override_may_be_zero(tmp_path: Path) -> None:
    own = STUDENT | {"distillation": {"loss": {"kind": "raml", "lambda_ts": 0.0, "lambda_ss": 0}}}
    params = load_params(edited_params(tmp_path, {"students": {"own": own}}))
    recipe = params.student_distillation("own")
    assert (recipe.loss.lambda_ts, recipe.loss.lambda_ss) == (0, 0)


D3STILL = {"kind": "d3still", "neighbours": 7, "alpha": 100.0, "beta": 5.0, "gamma": 1.0}


def test_a_student_may_have_a_loss_of_its_own(tmp_path: Path) -> None:
    own = STUDENT | {"distillation": {"loss": D3STILL, "view_pairs": "independent"}}
    params = load_params(edited_params(tmp_path, {"students": {"own": own, "plain": STUDENT}}))
    recipe, common = params.student_distillation("own"), params.datasets["emblems"].distillation
    assert recipe.loss.model_dump() == D3STILL | {"gallery": "batch"}
    assert recipe.view_pairs == "independent"
    changed = {"loss": recipe.loss, "view_pairs": "independent"}
    assert recipe == common.model_copy(update=changed)
    assert params.student_distillation("plain") == common


def test_a_bank_needs_no_batch_of_neighbours(tmp_path: Path) -> None:
    loss = D3STILL | {"neighbours": 40, "gallery": "bank"}
    own = STUDENT | {"distillation": {"loss": loss, "images_per_batch": 2}}
    params = load_params(edited_params(tmp_path, {"students": {"own": own}}))
    assert params.student_distillation("own").loss.gallery == "bank"


def test_the_faults_of_a_loss_are_told_at_their_place(tmp_path: Path) -> None:
    """The kind decides the keys; what compares images needs more of them than neighbours."""
    key = "datasets.emblems.distillation"
    few = {"images_per_batch": 2, "loss": D3STILL | {"neighbours": 4}}
    rkd = {"kind": "rkd", "distance_weight": 25.0, "angle_weight": 50.0}
    cases = {
        f"{key}.loss.kind = 'kd': must be one of absolute, raml, raml_batch, csd": (
            {f"{key}.loss": {"kind": "kd"}}
        ),
        f"{key}.loss.neighbour: unknown key; allowed here: kind, neighbours, alpha": (
            {f"{key}.loss": D3STILL | {"neighbour": 3}}
        ),
        f"{key}.images_per_batch = 8: must be at least 9 for {key}.loss, d3still": (
            {f"{key}.loss": D3STILL | {"neighbours": 8}, f"{key}.images_per_batch": 8}
        ),
        f"{key}.loss.gallery = 'all': input should be 'batch' or 'bank'": (
            {f"{key}.loss": D3STILL | {"gallery": "all"}}
        ),
        f"{key}.images_per_epoch = 2: must be at least 3 for {key}.loss, rkd": (
            {f"{key}.loss": rkd, f"{key}.images_per_epoch": 2}
        ),
        "students.own.distillation.images_per_batch = 2: must be at least 5 for": (
            {"students": {"own": STUDENT | {"distillation": few}}}
        ),
        f"{key}.loss.lambda_ts: is missing": {f"{key}.loss": {"kind": "raml", "lambda_ss": 1.0}},
    }
    for start, changes in cases.items():
        (fault,) = faults_of(tmp_path, changes)
        assert fault.startswith(start)


def test_cells_of_a_data_set(tmp_path: Path) -> None:
    students = {"b": STUDENT, "a": STUDENT}
    params = load_params(edited_params(tmp_path, {"students": students}))
    assert params.cells_of("emblems") == ["teacher", "b", "a"]
    assert params.cells_of("other") == ["teacher"]
