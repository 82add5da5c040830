"""One folder that takes a query encoder into a service: ONNX, MLflow model, card, database."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int, UInt8

from pipeline.datasets.packs import Pack, open_pack
from pipeline.embedding.embeddings import EvaluationViews, embed_pictures
from pipeline.export.card import describe_network, model_card
from pipeline.export.parity import LARGEST_DIFFERENCE, embedding_parity
from pipeline.export.quantisation import quantise_onnx
from pipeline.export.shorter import best_similarities, shorter_vectors
from pipeline.export.trained import Trained
from pipeline.export.web.site import SiteOptions, write_site
from pipeline.files import replacing, replacing_folder, write_json, write_text
from pipeline.models.licences import UNKNOWN
from pipeline.models.onnx import write_onnx
from pipeline.models.query_encoder import EXPORTED, QueryEncoder
from pipeline.paths import DatasetPaths
from pipeline.progress import track
from pipeline.search.databases import Database, image_id
from pipeline.search.search import TEACHER, NamedNetwork
from pipeline.tracking.served_package import save_served_model

PARITY_IMAGES = 200
CALIBRATION_IMAGES = 128
INT8 = "encoder_int8.onnx"
CALIBRATION = "calibration.json"
LICENCES = "licences.json"
WEB = "web"
KNOWN_SHARE = 0.99  # of the study's own pictures that the web page calls similar to something
CONTENT = (
    *("README.md", "database", EXPORTED, INT8, "mlflow_model", "parity.json"),
    *(CALIBRATION, LICENCES, WEB),
)


@dataclass(frozen=True)
class Probe:
    """Test images spread over the database: their rows in it, and PyTorch's embeddings of them."""

    rows: Int[np.ndarray, " image"]
    vectors: Float[np.ndarray, "image dim"]


def export_network(
    trained: Trained,
    target: Path,
    *,
    with_database: bool = False,
    force: bool = False,
    int8: bool = False,
    web: SiteOptions | None = None,
) -> dict[str, Any]:
    """Write the folder `target`, whole or not at all; returns what its parity.json holds.

    with_database: the vectors of the open database go out too.
    int8: also an encoder in 8 bits, whose scales come from training images. How far it is from
    PyTorch is told, and holds nothing up.
    web: also a page that searches the open database in a browser, with the encoder in 8 bits where
    that is written.

    Raises ValueError when the network is not evaluated, the folder is there already (unless
    `force`), or the exported encoder does not embed as PyTorch does.
    """
    _check_target(target, force=force)
    described = describe_network(trained.params, trained.named, trained.encoder)
    if trained.database is not trained.studied:  # of an index: pictures from anywhere
        described["licences"]["database"] = UNKNOWN
    database = trained.database if with_database else None
    probe = _embed_probe(trained)
    studied = np.asarray(trained.studied.vectors)
    with replacing_folder(target) as folder:
        if database is not None:
            write_database(folder / "database", database)
        parity = _write_encoders(folder, trained, probe, int8=int8)
        if web is not None:
            encoder = folder / (INT8 if int8 else EXPORTED)
            about = _about(described, trained, probe)
            parity["web"] = write_site(folder / WEB, trained.database, encoder, about, web)
        write_json(folder / "parity.json", parity)
        write_json(folder / LICENCES, described["licences"])
        if described["calibration"]:
            write_json(folder / CALIBRATION, described["calibration"])
        vectors = None if database is None else database.vectors
        shorter = shorter_vectors(probe.vectors, studied, probe.rows)
        write_text(folder / "README.md", model_card(described, parity, vectors, shorter))
    return parity


def _check_target(target: Path, *, force: bool) -> None:
    """Raise ValueError unless the folder is free, or holds an export alone and may be replaced."""
    if not target.exists():
        return
    names = {path.name for path in target.iterdir()} if target.is_dir() else {""}
    if names and not {EXPORTED, "parity.json"} <= names <= set(CONTENT):
        raise ValueError(f"{target}: is there already, and is no export: choose another --output")
    if not force:
        raise ValueError(f"{target}: is there already: --force replaces it")


def _embed_probe(trained: Trained) -> Probe:
    """200 test images, or all."""
    encoder, studied = trained.encoder, trained.studied
    rows = _spread(len(studied), PARITY_IMAGES)
    by_name = {studied.names[row]: int(row) for row in rows}
    embedded = embed_pictures(
        encoder.network,
        list(by_name),
        lambda name: studied.read(by_name[name]),
        encoder.size_px,
        encoder.device,
    )
    assert not embedded.failures, "a pack holds what has been decoded"
    return Probe(rows, embedded.vectors)


def _about(described: Mapping[str, Any], trained: Trained, probe: Probe) -> dict[str, Any]:
    """What the web page tells of the network.

    nothing_below: the similarity that the best results of 99 of 100 test images reach, in the
    database without themselves: below it the page says that there is nothing similar.
    """
    best = best_similarities(probe.vectors, np.asarray(trained.studied.vectors), probe.rows)
    return {
        "network": trained.named.key,
        "size_px": trained.encoder.size_px,
        "nothing_below": float(np.quantile(best, 1 - KNOWN_SHARE)),
        "licences": described["licences"],
    }


def _write_encoders(folder: Path, trained: Trained, probe: Probe, *, int8: bool) -> dict[str, Any]:
    """Write the encoders and the MLflow model, and hold them to PyTorch's embeddings."""
    encoder, studied, rows = trained.encoder, trained.studied, probe.rows
    onnx = folder / EXPORTED
    write_onnx(onnx, encoder.network, encoder.size_px)
    served = save_served_model(folder / "mlflow_model", onnx, studied.vectors.shape[1])

    def parity_of(embed: Callable[[Sequence[bytes]], np.ndarray]) -> dict[str, Any]:
        batches = np.array_split(rows, -(-len(rows) // 50))
        shown = track(batches, "embedding with ONNX", len(batches), "batch")
        parts = [embed([studied.read(int(row)) for row in batch]) for batch in shown]
        return embedding_parity(probe.vectors, np.concatenate(parts), studied.vectors, rows)

    parity = parity_of(served)
    if parity["largest_difference"] > LARGEST_DIFFERENCE or parity["other_first_hits"]:
        raise ValueError(
            f"the exported {trained.named.key} does not embed as PyTorch does: numbers differ by "
            f"up to {parity['largest_difference']:.1e} (allowed: {LARGEST_DIFFERENCE:.0e}), and "
            f"{parity['other_first_hits']} of {len(rows)} images find another first; nothing is "
            "exported"
        )
    if int8:
        pack = open_pack(DatasetPaths(studied.dataset).pack)
        quantise_onnx(onnx, folder / INT8, calibration_views(pack, encoder.size_px))
        eight = parity_of(QueryEncoder(folder / INT8, threads=torch.get_num_threads()).encode)
        eight["same_first_share"] = 1 - eight["other_first_hits"] / len(rows)
        parity["int8"] = eight
    versions = {name: version(name) for name in ("torch", "onnx", "onnxruntime", "mlflow")}
    return parity | {"versions": versions}


def _spread(length: int, count: int) -> Int[np.ndarray, " row"]:
    """`count` numbers below `length` at equal distances, or all of them."""
    return np.linspace(0, length - 1, min(count, length)).round().astype(np.int64)


def calibration_views(
    pack: Pack, size_px: int, images: int = CALIBRATION_IMAGES
) -> UInt8[np.ndarray, "image size size 3"]:
    """Evaluation views of training images spread over the data set."""
    train = pack.rows("train")
    views = EvaluationViews(pack, train[_spread(len(train), images)], size_px)
    return torch.stack([views[i] for i in range(len(views))]).permute(0, 2, 3, 1).numpy()


def write_database(folder: Path, database: Database) -> None:
    """The teacher's vectors for a vector database: database.npy, and database.parquet.

    The table has the columns id (that of `l2s search --json`), name, class_name and vector; row i
    of both files is the same image.
    """
    vectors = np.ascontiguousarray(database.vectors, dtype=np.float32)
    numbers = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])
    ids = [image_id(name) for name in database.names]
    columns = [ids, database.names, database.class_names, numbers]
    table = pa.table(columns, names=["id", "name", "class_name", "vector"])
    with replacing(folder / "database.parquet") as temporary:
        pq.write_table(table, temporary)
    with replacing(folder / "database.npy") as temporary, temporary.open("wb") as file:
        np.save(file, vectors)


def default_target(named: NamedNetwork) -> Path:
    """exports/KEY, or exports/DATASET-teacher."""
    name = f"{named.dataset}-teacher" if named.key == TEACHER else named.key
    return Path("exports", name)
