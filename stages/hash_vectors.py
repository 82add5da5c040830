"""Digest the stored vectors of a data set: DVC watches them, and its database depends on them."""

from pathlib import Path

from pipeline.config.params import load_params
from pipeline.files import content_md5, write_text
from pipeline.paths import vectors_digest
from stages import run_stage


def hash_vectors(name: str) -> None:
    write_text(vectors_digest(name), f"{content_md5(Path(load_params().vectors[name]))}\n")


if __name__ == "__main__":
    run_stage(hash_vectors)
