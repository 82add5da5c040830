"""Embed the test images of a data set with its teachers, once, and index them."""

import numpy as np
import torch
from jaxtyping import Float

from pipeline.config.params import load_params
from pipeline.datasets.packs import Pack, open_pack
from pipeline.datasets.vector_stores import open_store
from pipeline.devices import resolve_device
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.files import replacing
from pipeline.paths import DatasetPaths, further_seeds
from pipeline.search.structures import write_exact_index
from pipeline.teachers.stored_vectors import write_database
from pipeline.teachers.teacher import open_teacher, open_teacher_or_vectors
from stages import run_stage


def embed_database(name: str) -> None:
    """The database of the first seed's teacher with its index, and those of the further teachers.

    How many there are is read from their folder: a teacher that is not trained has no other seeds.
    """
    params, paths = load_params(), DatasetPaths(name)
    device = resolve_device(params.threads)
    pack = open_pack(paths.pack)
    if name in params.vectors:
        own = _stored(paths, pack, params.vectors[name], device)
    else:
        own = _embed(paths, pack, device)
    write_exact_index(paths.index, own)
    further_seeds(paths.database).mkdir(parents=True, exist_ok=True)
    for file in sorted(further_seeds(paths.teacher).glob(f"*{paths.teacher.suffix}")):
        _embed(DatasetPaths(name, teacher_seed=int(file.stem)), pack, device)


def _embed(paths: DatasetPaths, pack: Pack, device: torch.device) -> Float[np.ndarray, "image dim"]:
    """The test images as a teacher embeds them."""
    teacher = open_teacher(paths.teacher, device)
    views = EvaluationViews(pack, pack.rows("test"), teacher.size_px)
    vectors: np.ndarray = embed_views(teacher, views, device, name="embedding the database").numpy()
    with replacing(paths.database) as temporary, temporary.open("wb") as file:
        np.save(file, vectors)
    return vectors


def _stored(
    paths: DatasetPaths, pack: Pack, folder: str, device: torch.device
) -> Float[np.ndarray, "image dim"]:
    """The test images as they are stored. Without classes all stored vectors are searched after
    them; with classes those alone whose class is known.
    """
    test, dim = pack.rows("test"), open_teacher_or_vectors(paths.teacher, device).dim
    names = [pack.names[row] for row in test]
    store, with_others = open_store(folder), not pack.labelled
    return write_database(paths.database, names, store, dim, with_others=with_others)[: len(test)]


if __name__ == "__main__":
    run_stage(embed_database)
