"""The benchmarks of training, accelerator and growth at toy size, and what their figures mean."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import accelerator, growth, training_step
from benchmarks.chip import convolution_work, product_tflops
from benchmarks.distillation import (
    Catcher,
    Setting,
    embed_ready,
    library_epochs,
    made_student,
    made_teacher,
    objective_of,
    ready_batches,
    train_ready,
)
from benchmarks.throughput import PAPER_PAIRS
from benchmarks.views import made_pack
from pipeline.evaluation.cost import query_cost
from pipeline.training.distillation import DistillationObjective
from pipeline.views.coupled import cached_decoder
from tests.made_training import CPU, tiny_embedder

SETTING = Setting("timm/test_resnet", 48, 32, images=2, views=3, batches=2, dim=8)
# Of pyproject.toml, but not of a bare machine with a GPU.
MISSING_THERE = [
    "dvc",
    "faiss",
    "fastapi",
    "jinja2",
    "mlflow",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "prefect",
    "pydantic",
    "rich",
    "ruamel.yaml",
    "scipy",
    "sqlalchemy",
    "typer",
    "uvicorn",
]


@pytest.fixture(scope="module")
def objective(tmp_path_factory: pytest.TempPathFactory) -> DistillationObjective:
    pack = made_pack(tmp_path_factory.mktemp("pack"), 8, 50, 40)
    return objective_of(SETTING, pack, cached_decoder(pack), CPU, Catcher(SETTING.dim))


def test_the_step_and_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "--sizes 48 32 --images 2 --views 2 --steps 2 --rounds 1 --sides 50 40"
    training_step.main(["--backbone", SETTING.backbone, *arguments.split()])
    shown = capsys.readouterr()
    assert shown.err == ""
    lines = shown.out.splitlines()
    assert len(lines) == 1 + 1 + 6 + 1 + 4
    times = {name: [float(n) for n in re.findall(r"[\d.]+", text)] for name, text in rows(lines)}
    assert set(times) > {training_step.TEACHER, training_step.VIEWS, training_step.PEER}
    assert all(len(figures) == 3 and min(figures) > 0 for figures in times.values())
    for line in lines[-4:]:
        assert all(0.05 < float(ratio) < 50 for ratio in line.split()[-2:])


def rows(lines: list[str]) -> list[tuple[str, str]]:
    return [(line[:36].strip(), line[36:]) for line in lines[2:8]]


def test_only_the_peers_teacher_gets_gradients(objective: DistillationObjective) -> None:
    ready = ready_batches(objective, 2)
    teacher, student = made_teacher(SETTING, ready[0]), made_student(SETTING, ready[0])
    before = [parameter.clone() for parameter in student.parameters()]
    targets = embed_ready(teacher, ready)
    assert [tuple(target.shape) for target in targets] == [(6, 8), (6, 8)]
    train_ready(SETTING, student, list(zip(ready, targets, strict=True)))
    assert all(parameter.grad is None for parameter in teacher.parameters())
    moved = [not torch.equal(*pair) for pair in zip(before, student.parameters(), strict=True)]
    assert all(moved)
    learning = made_teacher(SETTING, ready[0]).requires_grad_(True)
    train_ready(SETTING, student, [(batch, None) for batch in ready], learning)
    gradients = [parameter.grad for parameter in learning.parameters()]
    assert gradients
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


def test_made_networks_have_no_dead_branch(objective: DistillationObjective) -> None:
    """Their last batch norms begin at 0 in timm's residual networks; here every norm is alive."""
    batch = ready_batches(objective, 1)[0]
    student = made_student(SETTING, batch)
    norms = [module for module in student.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) > 5
    assert all((norm.weight == 1).all() and (norm.running_var != 1).any() for norm in norms)
    assert not student.training
    assert torch.isfinite(student(batch.small)).all()


def test_ready_batches_are_those_of_the_loader(objective: DistillationObjective) -> None:
    ready = ready_batches(objective, 2)
    assert [tuple(batch.large.shape) for batch in ready] == [(6, 3, 48, 48)] * 2
    loaded = objective.load(0, 1, objective.batches(0)[1])
    assert torch.equal(ready[1].small, loaded.views)
    assert not ready[0].large.is_inference()


@pytest.mark.parametrize("threads", [0, 1])
def test_an_epoch_of_the_library_takes_time(objective: DistillationObjective, threads: int) -> None:
    student = tiny_embedder(dim=SETTING.dim)
    before = student.projection.weight.clone()
    epochs = library_epochs(SETTING, objective, student, threads=threads, epochs=3)
    assert len(epochs) == 3
    assert all(epoch.wall_s > 0 and epoch.cpu_s > 0 for epoch in epochs)
    assert not torch.equal(student.projection.weight, before)


def test_convolutions_alone_have_the_operations_of_the_network() -> None:
    network = tiny_embedder(dim=8).eval()
    forward = convolution_work(
        network.features, torch.rand(2, 3, 32, 32), batch=5, backward=False, repeats=1
    )
    # Two convolutions with stride 2: 3 -> 8 channels at 16 px, 8 -> 16 at 8 px.
    first, second = 2 * 9 * 3 * 8 * 16**2, 2 * 9 * 8 * 16 * 8**2
    assert forward.operations == 5 * (first + second)
    whole = 2e9 * query_cost(network, 32)["gmacs"]
    assert whole == pytest.approx(first + second + 2 * 16 * 8)
    assert forward.seconds > 0
    both = convolution_work(
        network.features, torch.rand(1, 3, 32, 32), batch=1, backward=True, repeats=1
    )
    assert both.operations == 2 * first + 3 * second  # the images themselves get no gradient
    assert product_tflops(64, CPU, repeats=2) > 0


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert accelerator.main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "there is no GPU here" in shown.err
    assert "--toy" in shown.err


def test_the_accelerators_figures_on_a_bare_machine(tmp_path: Path) -> None:
    """In a process that lacks what such a machine lacks: the whole of it, at toy size."""
    path = tmp_path / "figures.json"
    blocked = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({MISSING_THERE!r}))\n"
        "from benchmarks.accelerator import main\n"
        f"sys.exit(main(['--toy', '--pairs', '64:32', '--output', {str(path)!r}]))\n"
    )
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-W", "error", "-c", blocked]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "64 -> 32 px, 2 x 2 views" in done.stdout
    assert "exact evaluation of 200 x 200 x 16" in done.stdout
    figures = json.loads(path.read_text(encoding="utf-8"))
    assert figures["device"] == "CPU"
    assert figures["toy"]
    (row,) = figures["training"]
    assert row["pairs_per_s"] > 0
    assert row["precision"] == "bfloat16"
    hours = PAPER_PAIRS / row["pairs_per_s"] / 3600
    assert row["paper_hours"] == pytest.approx(hours)
    assert row["speed_of_ready"] == pytest.approx(row["pairs_per_s"] / row["ready_pairs_per_s"])
    tflops = row["gflop_a_pair"] * row["pairs_per_s"] / 1000
    assert row["tflops"] == pytest.approx(tflops)
    assert row["share_of_product"] == pytest.approx(tflops / row["product_tflops"])
    assert figures["evaluation"]["rows"] == 200


def test_the_papers_schedule_is_9_4_million_view_pairs() -> None:
    assert abs(PAPER_PAIRS - 9.4e6) < 0.02e6


def test_memory_that_runs_out_is_told_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full(*_: object) -> dict[str, object]:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(accelerator, "measure_setting", full)
    path = tmp_path / "figures.json"
    assert accelerator.main(["--toy", "--output", str(path)]) == 0
    assert capsys.readouterr().out.count("does not fit into the GPU's memory") == 2
    assert len(json.loads(path.read_text(encoding="utf-8"))["training"]) == 2


def test_growth_in_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All parts, with their smallest size for all sizes, here instead of in processes apart."""

    def here(step: str, name: str, size: int, folder: Path) -> str:
        growth.main(["--parts", name, "--step", step, "--size", str(size), "--folder", str(folder)])
        return capsys.readouterr().out.splitlines()[-1] if step == "measure" else ""

    monkeypatch.setattr(growth, "apart", here)
    monkeypatch.setattr(growth, "TEACHER_PX", 64)
    monkeypatch.setattr(growth, "STUDENT_PX", 32)
    monkeypatch.setattr(growth, "BACKBONE", SETTING.backbone)
    for name in growth.PARTS:
        capsys.readouterr()
        size = growth.PARTS[name].toy_sizes[0]
        cost = growth.measured(name, size)
        assert cost.seconds > 0
        assert cost.peak_mib >= cost.before_mib > 50
        line = growth.row(name, size, cost)
        assert line.count("|") == 7
        assert str(size) in line


def test_growth_measures_in_a_process_of_its_own(tmp_path: Path) -> None:
    cost = json.loads(growth.apart("measure", "evaluation", 50, tmp_path))
    assert cost["seconds"] > 0
    assert cost["peak_mib"] >= cost["before_mib"] > 50


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(90.0, "90 s"), (1.5, "1.5 s"), (0.01234, "12.3 ms"), (4.5e-5, "45 us"), (7e-9, "7 ns")],
)
def test_times_have_a_fitting_unit(seconds: float, text: str) -> None:
    assert growth.shown(seconds) == text
