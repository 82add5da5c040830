"""Distillation on a GPU: view pairs a second, the share of the chip's limit, the paper's hours.

For each pair of sizes, number of images of a batch and with or without torch.compile: the step
on ready-made tensors (teacher and student one after the other), and the library's own training
loop with its loader over a pack of made-up JPEG files as large as CUB200's training set. Shares of
the chip's limit are of a large product in bfloat16 and of the network's own convolutions, alone, in
the same run. At the end exact evaluation at the size of SOP against the bare product. Needs torch,
torchvision, timm, numpy, pandas, pyarrow, safetensors, pillow, jaxtyping and tqdm, nothing else.
Run on a machine with a GPU: python -m benchmarks.accelerator --output accelerator.json
Anywhere, in seconds: python -m benchmarks.accelerator --toy
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.distillation import Setting
from benchmarks.throughput import (
    FULL,
    TOY,
    Scale,
    filled_decoder,
    measure_evaluation,
    measure_setting,
)
from benchmarks.views import made_pack
from pipeline.devices import loading_threads

NO_GPU = "there is no GPU here: nothing is measured (--toy runs all of it at toy size anywhere)"


def settings_of(given: argparse.Namespace, scale: Scale) -> list[Setting]:
    return [
        Setting(
            given.backbone or scale.backbone,
            *sizes,
            images,
            scale.views,
            min(given.batches, scale.pack_images // images),
            scale.accumulation,
            scale.dim,
            "bfloat16",
            compiled == "on",
        )
        for sizes in given.pairs
        for compiled in given.compile
        for images in given.images
    ]


def sizes_of(text: str) -> tuple[int, int]:
    teacher_px, student_px = map(int, text.split(":"))
    return teacher_px, student_px


def show(row: dict[str, Any]) -> None:
    name = f"{row['teacher_px']} -> {row['student_px']} px, {row['images']} x {row['views']} views"
    name += ", compiled" if row["compile"] else ""
    if "fault" in row:
        print(f"{name}: {row['fault']}", flush=True)
        return
    memory = "-" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"
    print(
        f"{name:42}{row['ready_pairs_per_s']:9.0f}{row['pairs_per_s']:9.0f}"
        f"{row['speed_of_ready']:8.2f}{row['tflops']:8.1f}{row['product_tflops']:9.1f}"
        f"{row['share_of_product']:8.2f}{row['share_of_convolutions']:8.2f}"
        f"{row['paper_hours']:8.2f}{memory:>8}",
        flush=True,
    )


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--toy", action="store_true", help="everything tiny, on any device")
    parser.add_argument("--backbone")
    parser.add_argument("--pairs", type=sizes_of, nargs="+", help="as 448:224")
    parser.add_argument("--images", type=int, nargs="+", help="of a batch")
    parser.add_argument("--compile", nargs="+", choices=("off", "on"))
    parser.add_argument("--batches", type=int, help="of an epoch; one is run, the next measured")
    parser.add_argument("--threads", type=int, help="loading threads; else as the library has")
    parser.add_argument("--autotune", action="store_true", help="cuDNN tries its algorithms out")
    parser.add_argument("--output", type=Path, help="a JSON file, written after each measurement")
    given = parser.parse_args(arguments)
    toy = given.toy
    given.pairs = given.pairs or ([(64, 32), (64, 48)] if toy else [(448, 224), (448, 112)])
    given.images = given.images or ([2] if toy else [8, 32])
    given.compile = given.compile or (["off"] if toy else ["off", "on"])
    given.batches = given.batches or (2 if toy else 200)
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    given = parsed(arguments)
    if not torch.cuda.is_available() and not given.toy:
        print(NO_GPU, file=sys.stderr)
        return 2
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = given.autotune
    scale = TOY if given.toy else FULL
    threads = loading_threads(device) if given.threads is None else given.threads
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    results: dict[str, Any] = {
        "device": chip,
        "torch": torch.__version__,
        "toy": given.toy,
        "autotune": given.autotune,
        "training": [],
    }
    print(f"{chip}, torch {torch.__version__}, {threads} loading threads, bfloat16")
    print(
        f"{'':42}{'ready/s':>9}{'pairs/s':>9}{'ratio':>8}{'TFLOP/s':>8}{'product':>9}"
        f"{'share':>8}{'convs':>8}{'paper h':>8}{'GiB':>8}"
    )
    with TemporaryDirectory() as folder:
        pack = made_pack(
            Path(folder), scale.pack_images, *scale.sides, different=scale.different_images
        )
        decode = filled_decoder(pack)
        for setting in settings_of(given, scale):
            try:
                row = measure_setting(setting, pack, decode, device, scale, threads)
            except torch.OutOfMemoryError:
                row = {**asdict(setting), "fault": "does not fit into the GPU's memory"}
            show(row)
            results["training"].append(row)
            write(given.output, results)
    results["evaluation"] = evaluation = measure_evaluation(device, scale)
    print(
        f"exact evaluation of {evaluation['rows']} x {evaluation['rows']} x {evaluation['dim']}: "
        f"{evaluation['evaluation_s']:.3f} s, bare product {evaluation['bare_product_s']:.3f} s, "
        f"ratio {evaluation['ratio']:.2f}"
    )
    write(given.output, results)
    return 0


def write(path: Path | None, results: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
