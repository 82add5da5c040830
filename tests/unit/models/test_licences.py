"""What is said of the licences of images and weights, and that nothing is guessed."""

from typing import Any

import pytest

from pipeline.config.params import ConfigurationError, Params, parse_params
from pipeline.config.studies import preset_text, set_values
from pipeline.models.licences import data_licence, weights_licences

KEY, OWN = "images-64", "datasets.images"
VECTORS = {f"{OWN}.teacher": {"kind": "vectors", "view": "cropped"}, "vectors.images": "vectors"}
ALONE = {f"{OWN}.distillation.mixup_alpha": 0.0, f"students.{KEY}.network": {}}


def images(**values: Any) -> Params:
    student = {"dataset": "images", "query_px": 64, "network": {}}
    given = {"inputs.images": "pictures", "students": {KEY: student}}
    return parse_params(set_values(preset_text("images"), given | values))


@pytest.mark.parametrize(
    ("backbone", "weights", "licence"),
    [
        ("timm/tf_efficientnet_lite0", "package", "Apache-2.0"),
        ("timm/vit_small_patch16_dinov3.lvd1689m", "pretrained", "dinov3-license"),
        ("torchvision/mobilenet_v2", "pretrained", "unknown"),
        ("timm/resnet18", "random", "none: the training began with random weights"),
    ],
)
def test_the_library_says_it_of_a_frozen_teacher_and_of_its_students(
    backbone: str, weights: str, licence: str
) -> None:
    network = {f"{OWN}.network.backbone": backbone, f"{OWN}.network.weights": weights}
    params = images(**network)
    assert weights_licences(params, "images", "teacher") == {"teacher": licence, "network": licence}
    assert weights_licences(params, "images", KEY) == {"teacher": licence, "network": licence}
    student = images(**network, **{f"students.{KEY}.network": {"weights": "teacher"}})
    assert weights_licences(student, "images", KEY)["network"] == licence


def test_stored_vectors_are_of_unknown_licence_until_the_user_says_it() -> None:
    found = weights_licences(images(**VECTORS | ALONE), "images", KEY)
    assert found == {"teacher": "unknown", "network": "Apache-2.0"}  # the student's own package
    said = images(**VECTORS | ALONE, **{f"{OWN}.licences.weights": "CC-BY-NC-4.0"})
    assert weights_licences(said, "images", KEY)["teacher"] == "CC-BY-NC-4.0"
    assert weights_licences(said, "images", KEY)["network"] == "Apache-2.0"


def test_images_have_the_licence_that_the_user_says_or_their_source() -> None:
    assert data_licence(images(), "images", None) == "unknown"
    assert data_licence(images(), "images", "research only") == "research only"
    said = images(**{f"{OWN}.licences.data": "CC0-1.0"})
    assert data_licence(said, "images", "research only") == "CC0-1.0"


@pytest.mark.parametrize("text", ["", "two\nlines", "<b>", "x" * 201])
def test_what_a_card_cannot_show_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"datasets\.images\.licences\.data"):
        images(**{f"{OWN}.licences.data": text})
