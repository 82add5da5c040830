"""ONNX teachers: what a file takes and gives is checked, and it embeds as it says."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn.functional import conv2d, normalize

from pipeline.evaluation.cost import query_cost
from pipeline.models.onnx import write_onnx
from pipeline.models.weights import NetworkCard, build_embedder, read_card, save_network
from pipeline.teachers import teacher_card
from pipeline.teachers.onnx_file import read_onnx
from pipeline.teachers.onnx_teacher import OnnxCard, read_onnx_teacher, save_onnx_teacher
from pipeline.teachers.teacher import open_teacher
from tests.made_onnx import DIM, averaging_model, kernel, write_model
from tests.made_training import CPU

SIZE_PX = 16
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
PLAIN: dict[str, Any] = {
    "size_px": SIZE_PX,
    "layout": "channels_first",
    "channels": "rgb",
    "white": 1,
    "mean": MEAN,
    "std": STD,
    "output": None,
}


def images(count: int = 3, size_px: int = SIZE_PX) -> torch.Tensor:
    return torch.rand(count, 3, size_px, size_px, generator=torch.Generator().manual_seed(1))


def embedded(values: torch.Tensor) -> torch.Tensor:
    """What the file computes of pixels as it wants them, channels first, at unit length."""
    return normalize(conv2d(values, torch.from_numpy(kernel()), padding=1).mean((2, 3)))


def opened(folder: Path, model: Any, **spec: Any) -> Any:
    """The teacher of a model, written and read as a stage does."""
    file = write_model(folder / "theirs.onnx", model)
    save_onnx_teacher(folder / "t.safetensors", *read_onnx_teacher(file, **PLAIN | spec))
    return open_teacher(folder / "t.safetensors", CPU)


def refused(folder: Path, model: Any, message: str, **spec: Any) -> None:
    file = write_model(folder / "theirs.onnx", model)
    with pytest.raises(ValueError, match=message) as caught:
        read_onnx_teacher(file, **PLAIN | spec)
    assert str(caught.value).startswith(f"{file}: ")


def test_it_embeds_what_it_is_told_to_take(tmp_path: Path) -> None:
    teacher = opened(tmp_path, averaging_model())
    values = (images() - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(teacher(images()), embedded(values), atol=1e-6, rtol=0)
    assert (teacher.dim, teacher.size_px, teacher.card.backbone) == (DIM, SIZE_PX, "onnx/theirs")
    assert teacher.takes(8)
    assert teacher_card(tmp_path / "t.safetensors")["kind"] == "onnx"
    with pytest.raises(ValueError, match=r"not a network .* \(it is a teacher of kind 'onnx'\)"):
        read_card(tmp_path / "t.safetensors")


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8])
def test_the_order_of_channels_the_layout_and_the_range(tmp_path: Path, kind: int) -> None:
    """Raw pixels from 0 to 255, blue first, channels last, as OpenCV hands them out."""
    shape = ("batch", SIZE_PX, SIZE_PX, 3)
    raw = {"white": 255, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    teacher = opened(
        tmp_path,
        averaging_model(shape, kind=kind, channels_last=True),
        layout="channels_last",
        channels="bgr",
        **raw,
    )
    views = np.random.default_rng(0).integers(0, 256, (2, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    expected = embedded(torch.from_numpy(views).float().permute(0, 3, 1, 2).flip(1))
    found = torch.from_numpy(teacher.embed(views))
    torch.testing.assert_close(
        found, expected, atol=2e-3 if kind == TensorProto.FLOAT16 else 1e-6, rtol=0
    )
    assert (teacher.card.fixed_px, teacher.takes(8), teacher.takes(SIZE_PX)) == (16, False, True)


def test_a_file_that_says_it_takes_any_size_and_does_not_is_found_out(tmp_path: Path) -> None:
    """As exports of transformers do, whose position embeddings are of one size."""
    model = averaging_model()
    place = numpy_helper.from_array(np.ones((1, 3, SIZE_PX, SIZE_PX), np.float32), "place")
    model.graph.initializer.append(place)
    model.graph.node[0].input[0] = "placed"
    model.graph.node.insert(0, helper.make_node("Add", ["pixels", "place"], ["placed"]))
    teacher = opened(tmp_path, model)
    assert teacher.card.fixed_px is None
    assert (teacher.takes(8), teacher.takes(SIZE_PX)) == (False, True)


def test_one_image_at_a_time(tmp_path: Path) -> None:
    teacher = opened(tmp_path, averaging_model((1, 3, SIZE_PX, SIZE_PX)))
    free = opened(tmp_path / "free", averaging_model())
    assert teacher.card.fixed_batch == 1
    torch.testing.assert_close(teacher(images(5)), free(images(5)))


REFUSED: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "another layout": (
        averaging_model(("batch", SIZE_PX, SIZE_PX, 3), channels_last=True),
        r"takes pixels .*, not 3 channels as teacher\.layout = 'channels_first' says",
        {},
    ),
    "another size": (
        averaging_model(("batch", 3, 32, 32)),
        r"takes images of 32 x 32 pixels: teacher_px = 16 must be its size",
        {},
    ),
    "several images": (averaging_model((4, 3, 16, 16)), "takes 4 images at a time", {}),
    "another type": (
        averaging_model(kind=TensorProto.INT64),
        r"takes pixels tensor\(int64\) .*: must be one batch of images",
        {},
    ),
    "no choice of outputs": (
        averaging_model(outputs=("first", "second")),
        r"which output gives the vectors\? teacher\.output must be: first, second",
        {},
    ),
    "an unknown output": (averaging_model(), r"teacher\.output must be: vectors", {"output": "x"}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_another_file_is_refused_in_words(tmp_path: Path, what: str) -> None:
    model, message, spec = REFUSED[what]
    refused(tmp_path, model, message, **spec)


def test_an_output_is_chosen_by_its_name(tmp_path: Path) -> None:
    teacher = opened(tmp_path, averaging_model(outputs=("first", "second")), output="second")
    assert teacher.card.output == "second"


def with_output(node: Any, shape: list[int | str]) -> Any:
    """The model with its last node replaced."""
    model = averaging_model()
    model.graph.node[-1].CopyFrom(node)
    model.graph.output[0].type.tensor_type.shape.CopyFrom(
        helper.make_tensor_value_info("x", 1, shape).type.tensor_type.shape
    )
    return model


def test_what_gives_no_vectors_is_refused(tmp_path: Path) -> None:
    maps = with_output(helper.make_node("Identity", ["maps"], ["vectors"]), ["b", DIM, "h", "w"])
    refused(tmp_path, maps, r"output vectors is \[2, 5, 16, 16\] of two images: must be \[image")
    logs = with_output(helper.make_node("Log", ["means"], ["vectors"]), ["b", DIM, 1, 1])
    logs.graph.node.append(helper.make_node("Flatten", ["vectors"], ["rows"]))
    logs.graph.output[0].name = "rows"
    logs.graph.output[0].type.tensor_type.ClearField("shape")
    refused(tmp_path, logs, "gives numbers that are not finite")


def test_what_is_no_onnx_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "theirs.onnx"
    with pytest.raises(ValueError, match=r"theirs\.onnx: there is no such file"):
        read_onnx_teacher(file, **PLAIN)
    for content in (b"not a model", b""):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"theirs\.onnx: "):
            read_onnx_teacher(file, **PLAIN)


def test_a_missing_extra_is_told_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_model(tmp_path / "theirs.onnx", averaging_model())
    for name in ("onnxruntime", "onnx"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ValueError, match=rf"{name}, .*pip install 'large-to-small\[export\]'"):
            read_onnx_teacher(file, **PLAIN)


def test_data_in_other_files_is_read_from_a_named_folder(tmp_path: Path) -> None:
    """And from nowhere else: DVC watches what is named."""
    file = write_model(tmp_path / "m" / "theirs.onnx", averaging_model(), external="theirs.data")
    card = read_onnx_teacher(file.parent, **PLAIN)[1]
    assert (card.backbone, card.dim) == ("onnx/theirs", DIM)
    whole = onnx.load_model_from_string(read_onnx(file.parent))
    assert onnx.numpy_helper.to_array(whole.graph.initializer[0]).tolist() == kernel().tolist()
    with pytest.raises(ValueError, match="keeps data in other files: name its folder"):
        read_onnx(file)
    (file.parent / "other.onnx").touch()
    with pytest.raises(ValueError, match=r"holds 2 files \*\.onnx: must be one"):
        read_onnx(file.parent)


@pytest.mark.parametrize("location", ["../theirs.data", "/tmp/theirs.data", "missing.data", "link"])  # noqa: S108
def test_data_that_lies_elsewhere_is_refused(tmp_path: Path, location: str) -> None:
    file = write_model(tmp_path / "m" / "theirs.onnx", averaging_model(), external="theirs.data")
    (tmp_path / "theirs.data").write_bytes((tmp_path / "m" / "theirs.data").read_bytes())
    (file.parent / "link").symlink_to(tmp_path / "theirs.data")
    model = onnx.load(str(file), load_external_data=False)
    entry = next(e for e in model.graph.initializer[0].external_data if e.key == "location")
    entry.value = location
    file.write_bytes(model.SerializeToString())
    for given in (file, file.parent):
        with pytest.raises(ValueError, match="must be plain files in its own folder"):
            read_onnx(given)


def test_sizes_have_a_bound_in_files_that_others_hand_over_too(tmp_path: Path) -> None:
    refused(tmp_path, averaging_model(), "teacher_px = 1025 must be at most 1024", size_px=1025)
    file = write_model(tmp_path / "theirs.onnx", averaging_model())
    content, card = read_onnx_teacher(file, **PLAIN)
    path = tmp_path / "t.safetensors"
    save_onnx_teacher(path, content, replace(card, size_px=100_000))
    with pytest.raises(ValueError, match=r"is no ONNX teacher .*size_px is 100000"):
        open_teacher(path, CPU)


def test_a_network_is_a_teacher_as_it_is(tmp_path: Path) -> None:
    network = build_embedder("timm/test_resnet", 8, weights="random", seed=0).eval()
    path = tmp_path / "teacher.safetensors"
    save_network(path, network, NetworkCard("timm/test_resnet", 8, 32))
    teacher = open_teacher(path, CPU)
    with torch.no_grad():
        assert torch.equal(teacher(images(2, 32)), network(images(2, 32)))
    assert (teacher.dim, teacher.size_px, teacher.takes(8)) == (8, 32, True)
    assert teacher_card(path)["kind"] == "network"
    path.write_bytes(b"x")
    with pytest.raises(ValueError, match="is no teacher of this program"):
        open_teacher(path, CPU)


def test_costs_by_hand_and_those_that_are_not_known(tmp_path: Path) -> None:
    teacher = opened(tmp_path, averaging_model())
    for size_px in (SIZE_PX, 8):
        found = query_cost(teacher.network, size_px)
        assert found["gmacs"] == size_px**2 * DIM * 27 / 1e9
        assert (found["parameters"], found["input_bytes"]) == (DIM * 27, 3 * size_px**2)
    einsum = with_output(
        helper.make_node("Einsum", ["means"], ["vectors"], equation="ncij->nc"), ["batch", DIM]
    )
    assert query_cost(opened(tmp_path, einsum).network, SIZE_PX)["gmacs"] is None


@pytest.mark.parametrize("backbone", ["timm/test_resnet", "timm/test_vit"])
def test_an_export_of_ours_costs_and_embeds_as_the_network(tmp_path: Path, backbone: str) -> None:
    network = build_embedder(backbone, 8, weights="random", seed=0, pooling="native").eval()
    write_onnx(tmp_path / "ours.onnx", network, 32)
    raw = {"white": 255, "mean": (0.0,) * 3, "std": (1.0,) * 3, "layout": "channels_last"}
    read = read_onnx_teacher(tmp_path / "ours.onnx", **PLAIN | raw | {"size_px": 32})
    assert isinstance(read[1], OnnxCard)
    save_onnx_teacher(tmp_path / "t.safetensors", *read)
    teacher = open_teacher(tmp_path / "t.safetensors", CPU)
    views = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = network(torch.from_numpy(views).permute(0, 3, 1, 2) / 255)
    torch.testing.assert_close(torch.from_numpy(teacher.embed(views)), expected, atol=1e-5, rtol=0)
    counted, known = query_cost(network, 32)["gmacs"], query_cost(teacher.network, 32)["gmacs"]
    assert known == pytest.approx(counted, rel=1e-3)
