"""The untrained figures of the CUB sample: GeM features of an ImageNet MobileNetV2, no projection.

Every image of classes 26-50 is a query against all others. The database has 224 pixels, queries
224, 112 or 64. DESIGN states the figures of another program; ours differ by 0.3 points or less.
Run: python -m benchmarks.untrained_reference [--shared ../shared] [--threads 1]
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.datasets.cub200 import CUB200
from pipeline.datasets.packs import Pack, open_pack, write_pack
from pipeline.datasets.published import open_published
from pipeline.datasets.reader import read_records
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.models.weights import build_embedder

DATABASE_PX = 224
# map and recall@1 in percent by query size, from DESIGN, section "Real data".
REFERENCE = {224: (42.0, 67.9), 112: (31.6, 52.0), 64: (13.2, 21.3)}
TOLERANCE = 0.3


@dataclass(frozen=True)
class Figure:
    """What was measured at one query size, in percent."""

    query_px: int
    map: float
    recall_at_1: float

    def differences(self) -> tuple[float, float]:
        """Ours less the reference."""
        expected = REFERENCE[self.query_px]
        return self.map - expected[0], self.recall_at_1 - expected[1]


class PooledFeatures(nn.Module):
    """An embedder up to its pooling: unit GeM features."""

    def __init__(self, shared: Path) -> None:
        super().__init__()
        self.network = build_embedder(
            "torchvision/mobilenet_v2",
            dim=8,
            weights=str(shared / "weights" / "mobilenet_v2_imagenet.safetensors"),
            seed=0,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ).eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.network.pooled(images)


def sample_pack(shared: Path, folder: Path) -> Pack:
    """The CUB sample as a pack."""
    paths = {"CUB_200_2011.tgz": shared / "data" / "CUB_200_2011_sample.tgz"}
    with open_published(CUB200, "cub", paths, accept_subset=True, spool_dir=folder) as reader:
        write_pack(folder / "pack.arrow", read_records(reader))
    return open_pack(folder / "pack.arrow")


def measure(pack: Pack, network: nn.Module) -> list[Figure]:
    """A figure for each query size; the database is embedded once."""
    test = pack.rows("test")
    labels = torch.from_numpy(pack.labels[test])
    device = torch.device("cpu")
    vectors = {
        size_px: embed_views(
            network, EvaluationViews(pack, test, size_px), device, name=f"embedding at {size_px} px"
        )
        for size_px in REFERENCE
    }
    figures = []
    for size_px, queries in vectors.items():
        result = evaluate_retrieval(queries, vectors[DATABASE_PX], labels, recall_at=(1,))
        figures.append(Figure(size_px, 100 * result.map, 100 * result.recall_at[1]))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    started_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(sample_pack(given.shared, Path(folder)), PooledFeatures(given.shared))
    for figure in figures:
        expected = REFERENCE[figure.query_px]
        print(
            f"{figure.query_px:4d} px: map {figure.map:.2f} (reference {expected[0]}), "
            f"recall@1 {figure.recall_at_1:.2f} (reference {expected[1]})"
        )
    worst = max(abs(difference) for figure in figures for difference in figure.differences())
    print(f"largest difference {worst:.2f}, {time.perf_counter() - started_s:.0f} s")
    assert worst <= TOLERANCE


if __name__ == "__main__":
    main()
