"""Embed the test images of a data set with its teacher, once, and index them."""

import numpy as np

from pipeline.config.params import load_params
from pipeline.datasets.packs import open_pack
from pipeline.devices import resolve_device
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.files import replacing
from pipeline.paths import DatasetPaths
from pipeline.search.index import write_exact_index
from pipeline.teachers.teacher import open_teacher
from stages import run_stage


def embed_database(name: str) -> None:
    paths = DatasetPaths(name)
    device = resolve_device(load_params().threads)
    pack = open_pack(paths.pack)
    teacher = open_teacher(paths.teacher, device)
    views = EvaluationViews(pack, pack.rows("test"), teacher.size_px)
    vectors = embed_views(teacher, views, device, name="embedding the database").numpy()
    with replacing(paths.database) as temporary, temporary.open("wb") as file:
        np.save(file, vectors)
    write_exact_index(paths.index, vectors)


if __name__ == "__main__":
    run_stage(embed_database)
