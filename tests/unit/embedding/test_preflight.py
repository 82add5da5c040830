"""Each usual way to differ is made on purpose, detected and named."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from pipeline.datasets.vector_batches import VectorBatch, VectorsError
from pipeline.datasets.vector_stores import VectorStore
from pipeline.embedding.golden import SAME
from pipeline.embedding.preflight import FITS, Subject, compare_with_stored
from pipeline.embedding.preprocessing import SUSPECTS, Preprocessing, Suspect, network_input
from pipeline.models.backbones import IMAGENET_MEAN, IMAGENET_STD
from pipeline.models.weights import build_embedder
from pipeline.training.attaching import native_px
from pipeline.views.evaluation import evaluation_view
from tests.icc_profiles import rgb_profile

CPU, PX, LARGEST_PX = torch.device("cpu"), 32, 160
# Neither family's, so that both are suspects.
WAY = Preprocessing(PX, (0.4, 0.5, 0.45), (0.2, 0.25, 0.3))
WEIGHTS = Path(__file__).parents[4] / "shared/weights/efficientnet_lite0_imagenet.safetensors"


class Sensitive(nn.Module):
    """A network that sees every pixel: random weights of a library's hardly tell colours apart."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.filters = torch.randn(24, 3, 2, 2, generator=generator)
        self.mix = torch.randn(64, 24 * 16**2, generator=generator)
        self.mean, self.std = (torch.tensor(c).view(3, 1, 1) for c in (WAY.mean, WAY.std))

    def forward(self, images: Tensor) -> Tensor:
        features = nn.functional.conv2d((images - self.mean) / self.std, self.filters, stride=2)
        pooled = nn.functional.adaptive_avg_pool2d(features.tanh(), 16).flatten(1)
        return normalize(pooled @ self.mix.T)


def picture(number: int, *, exif: int | None = None, profile: bytes | None = None) -> bytes:
    """A picture of coloured noise at three scales, 90 by 60 pixels."""
    rng = np.random.default_rng(number)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)).resize((90, 60)), float
        )
        for h, w in ((2, 3), (20, 30), (60, 90))
    ]
    mixed = 0.2 * layers[0] + 0.4 * layers[1] + 0.4 * layers[2]
    image = Image.fromarray((mixed * np.array([1.0, 0.7, 0.4])).astype(np.uint8))
    tags = Image.Exif()
    if exif:
        tags[0x0112] = exif
    image.save(buffer := BytesIO(), "PNG", exif=tags.tobytes(), icc_profile=profile)
    return buffer.getvalue()


def pictures(count: int = 12) -> list[tuple[str, bytes]]:
    wide = rgb_profile("prophoto")
    return [
        (f"{n:02}.png", picture(n, exif=(6, 3, None)[n % 3], profile=wide)) for n in range(count)
    ]


PICTURES = pictures()


def embedded(network: Callable[[Tensor], Tensor], way: Preprocessing) -> np.ndarray:
    images = [network_input(content, name, way, (WAY.mean, WAY.std)) for name, content in PICTURES]
    with torch.inference_mode():
        return network(torch.stack(images)).numpy()


def store(vectors: np.ndarray, ids: list[str] | None = None) -> VectorStore:
    names = ids or [name for name, _ in PICTURES]
    return VectorStore("here", lambda: iter([VectorBatch(names, vectors, [""] * len(names))]))


def subject(network: Callable[[Tensor], Tensor]) -> Subject:
    return Subject(network, WAY, CPU, lambda size_px: size_px <= LARGEST_PX)


def test_our_way_is_the_evaluation_view() -> None:
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 256, (50, 71, 3), np.uint8))
    image.save(buffer := BytesIO(), "PNG")
    made = network_input(buffer.getvalue(), "one", WAY, (WAY.mean, WAY.std))
    torch.testing.assert_close(made, evaluation_view(image, PX) / 255, rtol=0, atol=1e-6)


def test_the_same_teacher_passes_and_is_told() -> None:
    network = Sensitive()
    found = compare_with_stored(subject(network), PICTURES, store(embedded(network, WAY)))
    assert found.cosine == pytest.approx(1, abs=1e-5)
    assert found.differences == ()
    assert found.lines()[-1] == "the teacher is the one that made the vectors"
    found.require(force=False)


def test_a_teacher_whose_numbers_are_not_finite_is_refused() -> None:
    network = Sensitive()

    def overflows(images: Tensor) -> Tensor:
        vectors = network(images)
        vectors[0] = torch.nan
        return vectors

    with pytest.raises(VectorsError, match=r"not finite, or zeros, for 00\.png$"):
        compare_with_stored(subject(overflows), PICTURES, store(embedded(network, WAY)))


def test_a_picture_that_only_our_decoder_mends_is_no_obstacle() -> None:
    Image.open(BytesIO(picture(0))).save(buffer := BytesIO(), "JPEG")
    cut = buffer.getvalue().removesuffix(b"\xff\xd9")
    for changes in ({"heeds_profile": False}, {"heeds_orientation": False}):
        assert (
            network_input(cut, "cut", replace(WAY, **changes), (WAY.mean, WAY.std)).isfinite().all()
        )


MADE = [one for one in SUSPECTS if one.changes.get("size_px", PX) <= LARGEST_PX]


@pytest.mark.parametrize("suspect", MADE, ids=lambda one: one.words)
def test_each_suspect_is_detected_and_named(suspect: Suspect) -> None:
    network = Sensitive()
    way = replace(WAY, **suspect.changes)
    vectors = embedded(network, way)
    found = compare_with_stored(subject(network), PICTURES, store(vectors))
    if suspect.words == "filter: bicubic":  # so near to Lanczos that it does no harm
        assert FITS < found.cosine < SAME
        assert found.lines()[-2].startswith("nearer still: filter: bicubic: mean cosine ")
        found.require(force=False)
    else:
        assert found.cosine < FITS
        assert found.lines()[-1].startswith(f"what fits: {suspect.words}: mean cosine ")
    assert found.differences == (suspect.words,)
    assert found.explained > 0.999


@pytest.mark.parametrize(
    "name",
    [
        "vit_small_patch14_dinov2.lvd142m",
        "vit_small_patch16_dinov3.lvd1689m",
        "vit_so400m_patch14_siglip_378.webli",
        "vit_pe_core_large_patch14_336.fb",
    ],
)
def test_the_own_sizes_of_foundation_models_are_suspects(name: str) -> None:
    assert native_px(f"timm/{name}") in {one.changes.get("size_px") for one in SUSPECTS}


def test_two_differences_together_are_named() -> None:
    network = Sensitive()
    way = replace(WAY, channels="bgr", is_squashed=True)
    found = compare_with_stored(subject(network), PICTURES, store(embedded(network, way)))
    assert set(found.differences) == {
        "the channels are blue, green, red (BGR)",
        "squashed to a square, not cropped",
    }


@pytest.mark.parametrize("shift", [1, 7])
def test_rows_out_of_step_are_detected_and_named(shift: int) -> None:
    network = Sensitive()
    vectors = np.roll(embedded(network, WAY), shift, axis=0)
    found = compare_with_stored(subject(network), PICTURES, store(vectors))
    (words,) = found.differences
    assert words.startswith("rows out of step with ids: the vector of ")
    assert words.split()[-4] == "stored" or " is stored under " in words


def test_another_model_altogether_is_refused_unless_forced() -> None:
    vectors = embedded(Sensitive(seed=1), WAY)
    found = compare_with_stored(subject(Sensitive()), PICTURES, store(vectors))
    assert found.differences == ()
    assert "another model altogether" in found.lines()[-1]
    with pytest.raises(
        VectorsError, match=r"another model altogether.*--teacher-px.*--teacher none.*--force"
    ):
        found.require(force=False)
    found.require(force=True)


def test_a_model_of_another_length_is_told() -> None:
    with pytest.raises(VectorsError, match="have 3 numbers, those of the teacher 64: another mod"):
        compare_with_stored(subject(Sensitive()), PICTURES, store(np.ones((12, 3))))


def test_norms_and_number_types_are_no_fault() -> None:
    network = Sensitive()
    vectors = np.round(embedded(network, WAY) * 200).astype(np.int8)
    found = compare_with_stored(subject(network), PICTURES, store(vectors))
    assert found.differences == ()
    assert found.cosine > FITS
    assert found.lines()[0].endswith("int8")
    assert found.lines()[1].startswith("not of unit length")


def test_images_without_a_vector_are_named() -> None:
    vectors = embedded(Sensitive(), WAY)
    ids = [f"x{number}" for number in range(12)]
    with pytest.raises(VectorsError, match=r"12 of 12 images have no vector: 00\.png, "):
        compare_with_stored(subject(Sensitive()), PICTURES, store(vectors, ids))


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="needs shared/weights")
def test_a_real_network_tells_them_apart() -> None:
    network = build_embedder("timm/tf_efficientnet_lite0", 64, weights=str(WEIGHTS), seed=0).eval()
    own = tuple(network.mean.flatten().tolist()), tuple(network.std.flatten().tolist())
    way = replace(WAY, size_px=64, mean=own[0], std=own[1])
    trial = Subject(network.pooled, way, CPU)
    for changes, words in (
        ({"channels": "bgr"}, "the channels are blue, green, red (BGR)"),
        ({"is_squashed": True}, "squashed to a square, not cropped"),
        ({"largest": 255}, "pixels from 0 to 255 where 0 to 1 is meant"),
        ({"mean": IMAGENET_MEAN, "std": IMAGENET_STD}, "mean and deviation of ImageNet"),
    ):
        other = replace(way, **changes)
        images = [network_input(c, n, other, own) for n, c in PICTURES]
        with torch.inference_mode():
            vectors = network.pooled(torch.stack(images)).numpy()
        found = compare_with_stored(trial, PICTURES, store(vectors))
        assert found.differences == (words,)
