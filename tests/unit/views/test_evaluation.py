"""The evaluation view, and what one augmented view is made of."""

import io
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.models import query_encoder
from pipeline.views.evaluation import (
    ViewParameters,
    crop_boxes,
    crop_view,
    draw_view_parameters,
    evaluation_view,
    image_tensor,
)
from tests.made_training import picture

IDENTITY = torch.tensor([[1.0, 1.0, 1.0, 0.0]], dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_view(**changes: object) -> ViewParameters:
    values: dict[str, object] = {
        "area": torch.tensor([1.0], dtype=torch.float64),
        "aspect": torch.tensor([1.0], dtype=torch.float64),
        "shift": torch.tensor([[0.0, 0.0]], dtype=torch.float64),
        "flip": torch.tensor([False]),
        "colour": IDENTITY,
    }
    return ViewParameters(**values | changes)


def drawn(views: int = 4000, seed: int = 0, **changes: object) -> ViewParameters:
    values: dict[str, object] = {
        "crop_scale": (0.08, 1.0),
        "flip_probability": 0.5,
        "colour_ranges": (0.4, 0.3, 0.2, 0.1),
    }
    return draw_view_parameters(views, generator(seed), **values | changes)


@pytest.fixture(scope="module")
def reference(shared: Path) -> tuple[Image.Image, dict[str, np.ndarray]]:
    with np.load(shared / "reference" / "eval_transform.npz") as file:
        arrays = {name: file[name] for name in file.files}
    name = f"CUB_200_2011/images/{arrays.pop('image')}"
    with tarfile.open(shared / "data" / "CUB_200_2011_sample.tgz", "r|gz") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.name == name else None
            if content is not None:
                return Image.open(io.BytesIO(content.read())).convert("RGB"), arrays
    pytest.fail(f"{name} is not in the sample archive")


@pytest.mark.parametrize("size_px", [56, 112, 224])
def test_evaluation_view_equals_the_authors_code(reference, size_px: int) -> None:
    # Origin: the evaluation transform of pavelsuma/raml on this photograph.
    image, arrays = reference
    expected = arrays[f"view_{size_px}"].astype(int)
    assert expected.shape == (size_px, size_px, 3)
    ours = evaluation_view(image, size_px).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(ours - expected).max() <= 1


@pytest.mark.parametrize("width", [1, 3, 28, 64, 100, 1000])
@pytest.mark.parametrize("height", [1, 28, 64, 333])
def test_evaluation_view_of_every_form_of_image(width: int, height: int) -> None:
    image = Image.fromarray(picture(0, height, width))
    for size_px in (1, 7, 28):
        view = evaluation_view(image, size_px)
        assert view.shape == (3, size_px, size_px)
        assert view.dtype == torch.uint8
        assert torch.equal(evaluation_view(image_tensor(image), size_px), view)


def test_a_long_picture_is_scaled_in_part_and_looks_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Low contrast, so that no filter overshoots; on both sides of the bound."""
    cases = 0
    for height, width in ((30, 900), (900, 30), (61, 250), (7, 1200), (1201, 8), (90, 361)):
        image = Image.fromarray(picture(height, height, width) // 4 + 96)
        for size_px in (1, 7, 28, 56):
            view = evaluation_view(image, size_px).int()
            with monkeypatch.context() as whole:
                whole.setattr(query_encoder, "WHOLE_ASPECT", 10**9)
                expected = evaluation_view(image, size_px).int()
            assert (view - expected).abs().max() <= 2
            cases += 1
    assert cases == 24


@pytest.mark.parametrize("sides", [(65_500, 1), (1, 65_500), (65_500, 40)])
def test_the_longest_picture_takes_no_more_than_its_view(sides: tuple[int, int]) -> None:
    """Whole, 65500 x 1 at 448 px would be 33.5 million x 512 pixels: 48 GiB, and minutes."""
    image = Image.new("RGB", sides, (10, 130, 250))
    started_s = time.process_time()
    view = evaluation_view(image, 448)
    assert (view == torch.tensor([10, 130, 250]).view(3, 1, 1)).all()
    assert time.process_time() - started_s < 1


def test_evaluation_view_takes_the_centre() -> None:
    """A wide image of three thirds: the view of the middle holds nothing of the outer two."""
    pixels = np.zeros((40, 360, 3), np.uint8)
    pixels[:, :120, 0], pixels[:, 120:240, 1], pixels[:, 240:, 2] = 255, 255, 255
    view = evaluation_view(Image.fromarray(pixels), 21)
    assert view[1].min() == 255
    assert view[0].max() == view[2].max() == 0
    turned = evaluation_view(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 0, 2))), 21)
    assert torch.equal(turned, view.transpose(1, 2))


def test_evaluation_view_shows_the_share_that_the_method_says() -> None:
    """Of a square ramp the view at s shows the central 7/8."""
    ramp = np.repeat(np.linspace(0, 255, 256).round().astype(np.uint8)[None], 256, axis=0)
    view = evaluation_view(Image.fromarray(np.stack([ramp] * 3, axis=2)), 112)[0].float()
    assert view[:, 0].mean().item() == pytest.approx(255 / 16, abs=1.5)
    assert view[:, -1].mean().item() == pytest.approx(255 * 15 / 16, abs=1.5)


def test_a_plain_image_stays_plain_at_every_size() -> None:
    image = Image.new("RGB", (90, 61), (10, 130, 250))
    for size_px in (1, 9, 64, 200):
        view = evaluation_view(image, size_px)
        assert (view == torch.tensor([10, 130, 250]).view(3, 1, 1)).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK", "LA"])
def test_other_modes_are_converted(mode: str) -> None:
    image = Image.fromarray(picture(3, 40, 50)).convert(mode)
    assert torch.equal(evaluation_view(image, 20), evaluation_view(image.convert("RGB"), 20))


@pytest.mark.parametrize("size_px", [0, -5])
def test_evaluation_view_refuses_a_size_below_one(size_px: int) -> None:
    with pytest.raises(ValueError, match=f"size_px = {size_px}: must be 1 or more"):
        evaluation_view(Image.new("RGB", (8, 8)), size_px)


def test_parameters_follow_their_distributions() -> None:
    # 4000 draws: standard errors are 0.0046 of a unit uniform's mean, 0.008 of a share of 1/2.
    views = drawn()
    area = (views.area - 0.08) / 0.92
    aspect = views.aspect.log() / np.log(4 / 3)
    jitter = (views.colour - IDENTITY) / torch.tensor([0.4, 0.3, 0.2, 0.1]).double()
    uniform = torch.stack(
        [area, (aspect + 1) / 2, *views.shift.unbind(1), *((jitter + 1) / 2).unbind(1)], dim=1
    )
    assert uniform.shape == (4000, 8)
    assert uniform.min() >= 0
    assert uniform.max() <= 1
    levels = torch.linspace(0, 1, 21, dtype=torch.float64)
    for column in uniform.T:
        shares = (column[:, None] <= levels).double().mean(0)
        assert (shares - levels).abs().max() < 1.63 / np.sqrt(4000)  # Kolmogorov-Smirnov, 1 %
    correlation = torch.corrcoef(uniform.T) - torch.eye(8)
    assert correlation.abs().max() < 4 / np.sqrt(4000)
    assert views.flip.double().mean().item() == pytest.approx(0.5, abs=0.035)


def test_degenerate_ranges_draw_constants() -> None:
    views = drawn(50, crop_scale=(1.0, 1.0), flip_probability=0.0, colour_ranges=(0, 0, 0, 0))
    assert (views.area == 1).all()
    assert not views.flip.any()
    assert torch.equal(views.colour, IDENTITY.expand(50, 4))
    assert drawn(50, flip_probability=1.0).flip.all()
    share = drawn(flip_probability=0.2).flip.double().mean().item()
    assert share == pytest.approx(0.2, abs=0.03)


def test_parameters_depend_on_the_generator_alone() -> None:
    first, again, other = (drawn(20, seed) for seed in (1, 1, 2))
    for name in vars(first):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))
    assert len(first) == 20


def test_boxes_by_hand() -> None:
    quarter = torch.tensor([0.25], dtype=torch.float64)
    for shift, corner in (((0.0, 0.0), (0, 0)), ((0.999, 0.999), (20, 30)), ((0.5, 0.0), (10, 0))):
        place = torch.tensor([shift], dtype=torch.float64)
        square = torch.tensor([60 / 40], dtype=torch.float64)
        parameters = one_view(area=quarter, aspect=square, shift=place)
        assert crop_boxes(parameters, 40, 60) == [[*corner, 20, 30]]
    assert crop_boxes(one_view(), 40, 40) == [[0, 0, 40, 40]]
    # The whole area with aspect 1 is longer than the short side, and is cut to it.
    assert crop_boxes(one_view(), 10, 1000) == [[0, 0, 10, 100]]
    assert crop_boxes(one_view(area=quarter / 1e6), 10, 10) == [[0, 0, 1, 1]]


def test_boxes_lie_inside_and_have_their_area_and_reach_every_place() -> None:
    views = drawn()
    boxes = torch.tensor(crop_boxes(views, 150, 200)).double()
    top, left, height, width = boxes.unbind(1)
    assert top.min() == left.min() == 0
    assert (top + height).max() == 150
    assert (left + width).max() == 200
    free = (height < 150) & (width < 200)
    assert free.sum() > 2500
    share = (height * width / 30_000 - views.area)[free]
    assert share.abs().max() < 0.01  # rounding to whole pixels
    assert ((width / height) / views.aspect - 1)[free].abs().max() < 0.03


def test_views_of_different_images_are_boxed_each_in_its_own() -> None:
    views = drawn(30)
    heights, widths = torch.arange(30) + 10, 70 - torch.arange(30)
    boxes = crop_boxes(views, heights, widths)
    cases = 0
    for number, box in enumerate(boxes):
        alone = one_view(
            area=views.area[number : number + 1],
            aspect=views.aspect[number : number + 1],
            shift=views.shift[number : number + 1],
        )
        assert crop_boxes(alone, 10 + number, 70 - number) == [box]
        cases += 1
    assert cases == 30


def test_crops_by_hand() -> None:
    """Boxes as large as the view are copied pixel by pixel; a flip mirrors left and right."""
    image = image_tensor(Image.fromarray(picture(1, 16, 24)))
    quarter = torch.tensor([64 / 384], dtype=torch.float64)
    place = torch.tensor([[0.5, 0.99]], dtype=torch.float64)
    for flip in (False, True):
        (box,) = crop_boxes(one_view(area=quarter, shift=place), 16, 24)
        expected = image[:, 4:12, 16:24]
        expected = expected.flip(-1) if flip else expected
        assert torch.equal(crop_view(image, box, flip=flip, size_px=8), expected)


def test_a_crop_halved_is_the_antialiased_bilinear_mean() -> None:
    """At half size every inner pixel is the triangle-weighted mean of 4 x 4: weights 1 3 3 1."""
    image = image_tensor(Image.fromarray(picture(2, 16, 16)))
    small = crop_view(image, [0, 0, 16, 16], flip=False, size_px=8).double()
    kernel = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8
    for y in range(1, 7):
        for x in range(1, 7):
            patch = image[:, 2 * y - 1 : 2 * y + 3, 2 * x - 1 : 2 * x + 3].double()
            expected = torch.einsum("cyx,y,x->c", patch, kernel, kernel)
            assert (small[:, y, x] - expected).abs().max() <= 1
