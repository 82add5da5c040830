"""What a reduced decode, and an encoder in 8 bits, cost in accuracy of asymmetric search.

Queries are decoded in full, or by the decoder's scaling to a shorter side of at least 2 or 1 times
what the view needs, and searched in the same database. The encoder in 8 bits takes queries decoded
in full; its scales come from training images. With --workspace: a finished study's student and its
database. Without: GeM features of the untrained MobileNetV2 on the CUB sample, of
`benchmarks.untrained_reference`, whose photographs (shorter side 288 px) are reduced at 56 px.
Run: python -m benchmarks.reduced_decode [--workspace FOLDER --network STUDENT]
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.untrained_reference import DATABASE_PX, PooledFeatures, sample_pack
from pipeline.config.params import load_params
from pipeline.datasets.decode import decode_image
from pipeline.datasets.packs import Pack, open_pack
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.export.folder import CALIBRATION_IMAGES, calibration_views
from pipeline.export.quantisation import quantise_onnx
from pipeline.models.embedder import unit_range
from pipeline.models.onnx import write_onnx
from pipeline.models.query_encoder import QueryEncoder, least_decoded_px, square_view
from pipeline.models.weights import load_network
from pipeline.paths import DatasetPaths
from pipeline.search.databases import open_study_database
from pipeline.search.search import choose_network

CPU = torch.device("cpu")
BATCH_IMAGES = 64
MARGINS = (None, 2, 1)  # of the reduced decode; None: in full


@dataclass(frozen=True)
class Subject:
    """A network that embeds queries, and the database of the test images of a pack."""

    name: str
    pack: Pack
    network: nn.Module
    size_px: int
    database: Tensor


def study_subject(dataset: str | None, network: str | None) -> Subject:
    """A network of the study in the current folder, by default the data set's first student."""
    named = choose_network(load_params(), network, dataset)
    opened, card = load_network(named.path, CPU)
    vectors = torch.from_numpy(np.array(open_study_database(named.dataset).vectors))
    pack = open_pack(DatasetPaths(named.dataset).pack)
    return Subject(f"{named.key} of {named.dataset}", pack, opened, card.size_px, vectors)


def untrained_subjects(shared: Path, folder: Path, sizes_px: list[int]) -> Iterator[Subject]:
    """GeM features of the CUB sample, one for each size of the queries."""
    pack, network = sample_pack(shared, folder), PooledFeatures(shared)
    views = EvaluationViews(pack, pack.rows("test"), DATABASE_PX)
    database = embed_views(network, views, CPU, name=f"database at {DATABASE_PX} px")
    for size_px in sizes_px:
        yield Subject(f"untrained MobileNetV2, {size_px} px", pack, network, size_px, database)


def measure(subject: Subject, folder: Path, calibration: int) -> None:
    """Print map and recall@1 of each decode, and of the encoder in 8 bits."""

    def plain(views: np.ndarray) -> Tensor:
        images = torch.from_numpy(views).permute(0, 3, 1, 2)
        with torch.inference_mode():
            return subject.network(unit_range(images, CPU)).clone()

    quantised = quantised_encoder(subject, folder, calibration)
    print(
        f"{subject.name}: {len(subject.database)} queries in the database of as many, percent\n"
        f"{'queries':20}{'map':>8}{'R@1':>8}{'reduced':>9}{'least cosine':>14}"
    )
    full = None
    for margin in MARGINS:
        vectors, reduced = embed_queries(subject, plain, margin)
        full = vectors if full is None else full
        name = "decoded in full" if margin is None else f"decoded to x{margin}"
        print_row(name, subject, vectors, reduced, full)
    vectors, reduced = embed_queries(subject, quantised, None)
    assert full is not None, "there are margins"
    print_row("in full, int8", subject, vectors, reduced, full)


def quantised_encoder(
    subject: Subject, folder: Path, calibration: int
) -> Callable[[np.ndarray], Tensor]:
    """The network exported and quantised."""
    onnx, int8 = folder / "encoder.onnx", folder / "encoder_int8.onnx"
    write_onnx(onnx, subject.network, subject.size_px)
    quantise_onnx(onnx, int8, calibration_views(subject.pack, subject.size_px, calibration))
    encoder = QueryEncoder(int8, threads=torch.get_num_threads())
    return lambda views: torch.from_numpy(encoder.embed(views))


def embed_queries(
    subject: Subject, embed: Callable[[np.ndarray], Tensor], margin: int | None
) -> tuple[Tensor, float]:
    """Unit vectors of the test images, and the share of them that was not decoded in full."""
    least_px = None if margin is None else least_decoded_px(subject.size_px, margin)
    rows = subject.pack.rows("test")
    parts, reduced = [], 0
    for start in range(0, len(rows), BATCH_IMAGES):
        views = []
        for row in rows[start : start + BATCH_IMAGES].tolist():
            picture = decode_image(subject.pack.encoded(row), str(row), least_px=least_px)
            reduced += picture.width < subject.pack.widths[row]
            views.append(square_view(picture, subject.size_px))
        parts.append(embed(np.stack(views)))
    return torch.cat(parts), reduced / len(rows)


def print_row(name: str, subject: Subject, vectors: Tensor, reduced: float, full: Tensor) -> None:
    """One way of embedding; `full` are the vectors of queries decoded in full, in PyTorch."""
    labels = torch.from_numpy(subject.pack.labels[subject.pack.rows("test")])
    result = evaluate_retrieval(vectors, subject.database, labels, recall_at=(1,))
    cosine = float((vectors * full).sum(1).min())
    print(
        f"{name:20}{100 * result.map:8.2f}{100 * result.recall_at[1]:8.2f}{reduced:9.0%}"
        f"{cosine:14.4f}",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", type=Path, help="the folder of a finished study")
    parser.add_argument("--dataset", help="of the study; by default the first")
    parser.add_argument("--network", help="of the study; by default the first student")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[112, 56], help="without a study")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--calibration", type=int, default=CALIBRATION_IMAGES)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    with TemporaryDirectory() as passing:
        folder = Path(passing)
        if given.workspace:
            with contextlib.chdir(given.workspace):
                measure(study_subject(given.dataset, given.network), folder, given.calibration)
        else:
            for subject in untrained_subjects(given.shared, folder, given.sizes):
                measure(subject, folder, given.calibration)


if __name__ == "__main__":
    main()
