"""How far losses, GeM, metrics and views are from numbers that other programs made.

The numbers are those of ../shared/reference: the authors' losses (sums over the batch, 1e-6 inside
each square, for which nothing is allowed here), plain loops and the authors' metrics, their
evaluation view of a photograph. Told is the largest difference of each.
Run: python -m benchmarks.reference [--shared ../shared]
"""

import argparse
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.models.embedder import gem
from pipeline.training.losses import absolute_distillation, relational_distillation
from pipeline.views.evaluation import evaluation_view

Arrays = Mapping[str, np.ndarray]


def loss_differences(file: Arrays) -> dict[str, float]:
    """Relative, of the sums over the batch."""
    largest: dict[str, float] = {}
    for case in range(4):
        student, teacher = (
            torch.from_numpy(file[f"{who}_{case}"]) for who in ("student", "teacher")
        )
        to_teacher, to_student = relational_distillation(student, teacher)
        ours = {
            "absolute": absolute_distillation(student, teacher),
            "relational_ts": to_teacher,
            "relational_ss": to_student,
        }
        for name, mean in ours.items():
            theirs = float(file[f"raml_{name}_sum_{case}"])
            difference = abs(float(mean) * len(student) - theirs) / abs(theirs)
            largest[name] = max(largest.get(name, 0.0), difference)
    return largest


def gem_differences(file: Arrays) -> dict[str, float]:
    pooled = torch.from_numpy(file["gem_input"])
    powers = ("3", "2.2")
    return {
        p: float(np.abs(gem(pooled, float(p)).numpy() - file[f"gem_p{p}"]).max()) for p in powers
    }


def metric_differences(file: Arrays) -> dict[str, float]:
    """Absolute, of the values of each query and of the means."""
    found = {}
    for kind in ("asymmetric", "symmetric"):
        query = torch.from_numpy(file["query" if kind == "asymmetric" else "database"])
        database, labels = torch.from_numpy(file["database"]), torch.from_numpy(file["labels"])
        ours = evaluate_retrieval(query, database, labels)
        pairs = {
            "average precision": (
                ours.query_metrics["average_precision"],
                file[f"{kind}_average_precision"],
            ),
            "trapezoid": (
                ours.query_metrics["average_precision_trapezoid"],
                file[f"{kind}_raml_ap_trapezoid_per_query"],
            ),
            "at R": (ours.query_metrics["average_precision_at_r"], file[f"{kind}_map_at_r"]),
            "recall": (list(ours.recall_at.values()), file[f"{kind}_raml_recall_at_1_2_4_8"]),
        }
        for name, (own, theirs) in pairs.items():
            found[f"{kind} {name}"] = float(np.nanmax(np.abs(np.subtract(own, theirs))))
    return found


def view_differences(file: Arrays, archive: Path) -> dict[str, int]:
    """Largest difference in grey levels at each size."""
    wanted = f"CUB_200_2011/images/{file['image']}"
    with tarfile.open(archive) as members, members.extractfile(wanted) as content:  # type: ignore[union-attr]
        image = Image.open(content).convert("RGB")
    found = {}
    for size_px in (56, 112, 224):
        ours = evaluation_view(image, size_px).permute(1, 2, 0).numpy().astype(int)
        found[f"{size_px} px"] = int(np.abs(ours - file[f"view_{size_px}"]).max())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    shared = parser.parse_args().shared
    losses, metrics, views = (
        np.load(shared / "reference" / f"{name}.npz")
        for name in ("losses", "retrieval", "eval_transform")
    )
    archive = shared / "data" / "CUB_200_2011_sample.tgz"
    for title, differences in (
        ("losses, relative", loss_differences(losses)),
        ("GeM, absolute", gem_differences(losses)),
        ("metrics, absolute", metric_differences(metrics)),
        ("evaluation views, grey levels", view_differences(views, archive)),
    ):
        told = ", ".join(f"{name} {value:.2g}" for name, value in differences.items())
        print(f"{title}: {told}")


if __name__ == "__main__":
    main()
