"""Embed the test images of a data set with its teachers, once, and index them."""

import numpy as np

from pipeline.config.params import load_params
from pipeline.datasets.packs import open_pack
from pipeline.devices import resolve_device
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.files import replacing
from pipeline.paths import DatasetPaths, further_seeds
from pipeline.search.index import write_exact_index
from pipeline.teachers.stored_vectors import StoredVectors, write_database
from pipeline.teachers.teacher import open_teacher_or_vectors
from stages import run_stage


def embed_database(name: str) -> None:
    """The database of the first seed's teacher with its index, and those of the further teachers.

    How many there are is read from their folder: a teacher that is not trained has no other seeds.
    """
    paths = DatasetPaths(name)
    _embed(paths, with_index=True)
    further_seeds(paths.database).mkdir(parents=True, exist_ok=True)
    for file in sorted(further_seeds(paths.teacher).glob(f"*{paths.teacher.suffix}")):
        _embed(DatasetPaths(name, teacher_seed=int(file.stem)), with_index=False)


def _embed(paths: DatasetPaths, *, with_index: bool) -> None:
    device = resolve_device(load_params().threads)
    pack = open_pack(paths.pack)
    teacher, test = open_teacher_or_vectors(paths.teacher, device), pack.rows("test")
    if isinstance(teacher, StoredVectors):
        # Without classes all stored vectors are searched; with them, those of known classes.
        database = write_database(paths.database, teacher, test, with_others=not pack.labelled)
        write_exact_index(paths.index, database[: len(test)])
        return
    views = EvaluationViews(pack, test, teacher.size_px)
    vectors = embed_views(teacher, views, device, name="embedding the database").numpy()
    with replacing(paths.database) as temporary, temporary.open("wb") as file:
        np.save(file, vectors)
    if with_index:
        write_exact_index(paths.index, vectors)


if __name__ == "__main__":
    run_stage(embed_database)
