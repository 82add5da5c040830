"""What networks start from, and what a teacher can be: faults in words."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.params import ConfigurationError, Params, load_params
from tests.made_params import edited_params

TEACHER, NETWORK = "datasets.emblems.teacher", "datasets.emblems.network"
STUDENT = {"dataset": "emblems", "query_px": 32}
FROM_NOTHING = {"students": {"emblems-40": {"dataset": "emblems", "query_px": 40}}}
ONNX = {
    "kind": "onnx",
    "layout": "channels_first",
    "channels": "rgb",
    "white": 1,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}
GIVEN = {TEACHER: ONNX, "weights.emblems": "theirs.onnx"}


def loaded(folder: Path, changes: dict[str, Any]) -> Params:
    return load_params(edited_params(folder, FROM_NOTHING | changes))


def student_of(network: dict[str, Any]) -> dict[str, Any]:
    return {"students": {"own": STUDENT | {"network": network}}}


def test_every_kind_of_teacher_is_read_with_its_own_keys(tmp_path: Path) -> None:
    for changes, has_baseline in (
        ({}, True),
        ({TEACHER: {"kind": "frozen"}}, False),
        ({TEACHER: {"kind": "frozen", "whitening": 64, "whitening_images": 100}}, False),
        (GIVEN, False),
        ({TEACHER: {"kind": "vectors", "view": "cropped"}, "vectors.emblems": "v"}, False),
    ):
        params = loaded(tmp_path, changes)
        assert params.datasets["emblems"].teacher.kind == changes.get(TEACHER, {}).get(
            "kind", "trained"
        )
        assert params.has_baseline("emblems-40") is has_baseline


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown kind": (
        {TEACHER: {"kind": "rented"}},
        f"{TEACHER}.kind = 'rented': must be one of trained, frozen, onnx, vectors",
    ),
    "a key of another kind": (
        {TEACHER: {"kind": "frozen", "margin": 0.7}},
        f"{TEACHER}.margin: unknown key; allowed here: kind, whitening, whitening_images",
    ),
    "an ONNX file that is not named": (
        {TEACHER: ONNX},
        f"weights.emblems: is missing with {TEACHER}.kind = 'onnx': must be the path of its file",
    ),
    "vectors that are not named": (
        {TEACHER: {"kind": "vectors", "view": "cropped"}},
        f"vectors.emblems: is missing with {TEACHER}.kind = 'vectors': must be the folder of its",
    ),
    "stored vectors of a teacher that is yet to be trained": (
        {"vectors.emblems": "v"},
        f"vectors.emblems: {TEACHER}.kind = 'trained' has not made them: must be frozen, onnx or ",
    ),
    "stored vectors of no data set": (
        {"vectors.other": "v"},
        "vectors.other: no such data set; known: emblems",
    ),
    "whitened vectors beside stored ones": (
        {TEACHER: {"kind": "frozen", "whitening": 8}, "vectors.emblems": "v"},
        f"{TEACHER}.whitening = 8: must be empty with vectors.emblems: whitened vectors are not",
    ),
    "mixtures, of which no vector is stored": (
        {
            TEACHER: {"kind": "vectors", "view": "cropped"},
            "vectors.emblems": "v",
            "datasets.emblems.distillation.mixup_alpha": 0.2,
        },
        "datasets.emblems.distillation.mixup_alpha = 0.2: must be 0 with teacher.kind = 'vectors'",
    ),
    "students that would start from the ONNX file": (
        GIVEN | {f"{NETWORK}.weights": "file", "weights.emblems": "a.safetensors"},
        f"{NETWORK}.weights = 'file': weights.emblems is the teacher's with {TEACHER}.kind = ",
    ),
    "a teacher that starts from itself": (
        {f"{NETWORK}.weights": "teacher"},
        f"{NETWORK}.weights = 'teacher': must be random, pretrained, package or file, whose path "
        "stands at weights.emblems",
    ),
    "a student with an unknown start": (
        student_of({"weights": "mine"}),
        "students.own.network.weights = 'mine': must be random, pretrained, package, teacher or "
        "file, whose path stands at weights.own",
    ),
    "a start from another architecture": (
        student_of(
            {"backbone": "timm/test_vit", "weights": "teacher", "batch_norm": "live", "dim": 128}
        ),
        "students.own.network.weights = 'teacher': students.own.network.backbone = 'timm/test_vit' "
        "must be the teacher's, 'timm/test_resnet'",
    ),
    "a start with another pooling": (
        student_of({"weights": "teacher", "pooling": "native"}),
        "students.own.network.weights = 'teacher': students.own.network.pooling = 'native' must be "
        "the teacher's, 'gem'",
    ),
    "a start from what is no network": (
        GIVEN | student_of({"weights": "teacher"}),
        f"students.own.network.weights = 'teacher': {TEACHER}.kind = 'onnx' is no network",
    ),
    "an unknown pooling": (
        {f"{NETWORK}.pooling": "max"},
        f"{NETWORK}.pooling = 'max': input should be 'gem' or 'native'",
    ),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_named_with_its_key(tmp_path: Path, what: str) -> None:
    changes, start = FAULTS[what]
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, changes)
    assert len(caught.value.faults) == 1
    assert caught.value.faults[0].startswith(start)


def test_a_student_may_start_from_a_frozen_teacher(tmp_path: Path) -> None:
    changes = {TEACHER: {"kind": "frozen"}, **student_of({"weights": "teacher"})}
    with pytest.raises(ConfigurationError, match="offset = 'fitted': must be learned where"):
        loaded(tmp_path, changes)
    bare = changes | {"datasets.emblems.distillation.offset": "learned"}
    whitened = changes | {TEACHER: {"kind": "frozen", "whitening": 8}}
    for allowed in (bare, whitened):
        assert loaded(tmp_path, allowed).student_network("own").weights == "teacher"
