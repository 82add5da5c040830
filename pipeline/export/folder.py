"""One folder that takes a query encoder into a service: ONNX, MLflow model, card, database."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int, UInt8

from pipeline.config.params import Params
from pipeline.datasets.packs import Pack, open_pack
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.export.card import ExportedNetwork, model_card
from pipeline.export.figures import figures_of, read_table
from pipeline.export.onnx import write_onnx
from pipeline.export.parity import LARGEST_DIFFERENCE, Parity, embedding_parity
from pipeline.export.quantisation import quantise_onnx
from pipeline.files import replacing, write_json, write_text
from pipeline.models.query_encoder import QueryEncoder
from pipeline.models.weights import read_card
from pipeline.paths import DatasetPaths
from pipeline.progress import track
from pipeline.search.databases import (
    Database,
    image_id,
    open_image_index,
    open_study_database,
)
from pipeline.search.index import require_card
from pipeline.search.search import TEACHER, NamedNetwork, QueryNetwork, open_network
from pipeline.tracking.served_package import (
    load_served_model,
    save_served_model,
    write_served_package,
)

PARITY_IMAGES = 200
CALIBRATION_IMAGES = 128
INT8 = "encoder_int8.onnx"
CONTENT = ("README.md", "database", "encoder.onnx", INT8, "mlflow_model", "parity.json")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class ExportParity:
    """How far from PyTorch the exported encoder is, and the one in 8 bits where there is one."""

    float32: Parity
    int8: Parity | None


def export_network(
    params: Params,
    named: NamedNetwork,
    target: Path,
    *,
    with_database: bool,
    force: bool,
    index: str | None = None,
    int8: bool = False,
) -> ExportParity:
    """Write the folder `target`, whole or not at all.

    with_database: also the vectors of the study's test images, or of `index`, made by `l2s index`.

    int8: also an encoder in 8 bits, whose scales come from training images. How far it is from
    PyTorch is told, and holds nothing up.

    Raises ValueError when the network is not trained or evaluated, the folder is there already
    (unless `force`), or the exported encoder does not embed as PyTorch does.
    """
    _check_target(target, force=force)
    torch.set_num_threads(params.threads)
    network = open_network(named, CPU)
    database = open_study_database(named.dataset)
    exported = _describe(params, named, network)
    vectors = _vectors_to_export(named, database, index) if with_database else None
    exported = replace(exported, vectors=vectors)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{target}: cannot be made here ({error.strerror})") from None
    temporary = target.with_name(f".{target.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        parity = _fill(temporary, exported, network, database, int8=int8)
        if vectors is not None:
            write_database(temporary / "database", vectors)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return parity


def _vectors_to_export(named: NamedNetwork, studied: Database, index: str | None) -> Database:
    """The database that goes out. Raises ValueError for an index of another data set."""
    if index is None:
        return studied
    owner = require_card(index).dataset
    if owner != named.dataset:
        raise ValueError(f"--index {index} belongs to {owner}, not to {named.dataset}")
    return open_image_index(index, DatasetPaths(named.dataset).teacher)


def _check_target(target: Path, *, force: bool) -> None:
    """Raise ValueError unless the folder is free, or holds an export alone and may be replaced."""
    if not target.exists():
        return
    if not target.is_dir() or {path.name for path in target.iterdir()} - set(CONTENT):
        raise ValueError(f"{target}: is there already, and is no export: choose another --output")
    if not force:
        raise ValueError(f"{target}: is there already: --force replaces it")


def _fill(
    folder: Path,
    exported: ExportedNetwork,
    network: QueryNetwork,
    database: Database,
    *,
    int8: bool,
) -> ExportParity:
    """Write everything but the database, and hold the encoder to PyTorch's embeddings."""
    onnx = folder / "encoder.onnx"
    write_onnx(onnx, network.network, network.size_px)
    package = write_served_package(folder / "code")
    save_served_model(folder / "mlflow_model", onnx, package, exported.card.dim)
    shutil.rmtree(folder / "code")  # the model has its own copy
    pack = open_pack(DatasetPaths(database.dataset).pack)
    sample = _embed_sample(network, pack, database)
    parity = _check_parity(load_served_model(folder / "mlflow_model"), sample, database)
    if not parity.holds:
        raise ValueError(
            f"the exported {exported.key} does not embed as PyTorch does: numbers differ by up to "
            f"{parity.largest_difference:.1e} (allowed: {LARGEST_DIFFERENCE:.0e}), and "
            f"{parity.other_first_hits} of {parity.images} images find another first; nothing is "
            "exported"
        )
    told = ExportParity(parity, None)
    written = asdict(parity)
    if int8:
        quantise_onnx(onnx, folder / INT8, calibration_views(pack, network.size_px))
        encode = QueryEncoder(folder / INT8, threads=torch.get_num_threads()).encode
        eight = _check_parity(encode, sample, database)
        told = ExportParity(parity, eight)
        written["int8"] = asdict(eight) | {"same_first_share": eight.same_first_share}
    versions = {name: version(name) for name in ("torch", "onnx", "onnxruntime", "mlflow")}
    write_json(folder / "parity.json", written | {"versions": versions})
    write_text(folder / "README.md", model_card(exported, parity, versions, told.int8))
    return told


@dataclass(frozen=True)
class _Sample:
    """Rows of the database, and PyTorch's embeddings of their images by the exported network."""

    rows: Int[np.ndarray, " query"]
    reference: Float[np.ndarray, "query dim"]


def _spread(length: int, count: int) -> Int[np.ndarray, " row"]:
    """`count` numbers below `length` at equal distances, or all of them."""
    return np.linspace(0, length - 1, min(count, length)).round().astype(np.int64)


def _embed_sample(network: QueryNetwork, pack: Pack, database: Database) -> _Sample:
    """Test images spread over the data set, 200 or all."""
    rows = _spread(len(database), PARITY_IMAGES)
    views = EvaluationViews(pack, pack.rows("test")[rows], network.size_px)
    reference = embed_views(network.network, views, network.device, name="embedding with PyTorch")
    return _Sample(rows, reference.numpy())


def _check_parity(
    embed: Callable[[Sequence[bytes]], np.ndarray], sample: _Sample, database: Database
) -> Parity:
    """Compare an exported encoder with PyTorch, from the encoded images on."""
    batches = np.array_split(sample.rows, -(-len(sample.rows) // 50))
    parts = [
        embed([database.read(int(row)) for row in batch])
        for batch in track(batches, "embedding with ONNX", len(batches), "batch")
    ]
    found = np.concatenate(parts)
    return embedding_parity(sample.reference, found, database.vectors, sample.rows)


def calibration_views(
    pack: Pack, size_px: int, images: int = CALIBRATION_IMAGES
) -> UInt8[np.ndarray, "image size size 3"]:
    """Evaluation views of training images spread over the data set."""
    train = pack.rows("train")
    views = EvaluationViews(pack, train[_spread(len(train), images)], size_px)
    return torch.cat(list(views.batches(64))).permute(0, 2, 3, 1).numpy()


def _describe(params: Params, named: NamedNetwork, network: QueryNetwork) -> ExportedNetwork:
    """What is known of the network. Raises ValueError when it has not been evaluated."""
    paths = DatasetPaths(named.dataset)
    timings = paths.timings(named.key)
    return ExportedNetwork(
        key=named.key,
        dataset=named.dataset,
        card=read_card(named.path),
        rows=figures_of(params, named, network),
        latencies_ms=read_table(timings) if timings.exists() else {},
        data=read_table(paths.pack_summary),
        confidence=params.evaluation.confidence,
        version=network.version,
    )


def write_database(folder: Path, database: Database) -> None:
    """The teacher's vectors for a vector database: database.npy, and database.parquet.

    The table has the columns id (that of `l2s search --json`), name, class_name and vector; row i
    of both files is the same image.
    """
    vectors = np.ascontiguousarray(database.vectors, dtype=np.float32)
    table = pa.table(
        {
            "id": pa.array([image_id(name) for name in database.names], pa.int64()),
            "name": list(database.names),
            "class_name": list(database.class_names),
            "vector": pa.FixedSizeListArray.from_arrays(
                pa.array(vectors.ravel(), pa.float32()), vectors.shape[1]
            ),
        }
    )
    with replacing(folder / "database.parquet") as temporary:
        pq.write_table(table, temporary)
    with replacing(folder / "database.npy") as temporary, temporary.open("wb") as file:
        np.save(file, vectors)


def default_target(named: NamedNetwork) -> Path:
    """exports/KEY, or exports/DATASET-teacher."""
    name = f"{named.dataset}-teacher" if named.key == TEACHER else named.key
    return Path("exports", name)
