"""Digest a file of initial weights: DVC watches the file, and trainings depend on the digest."""

from pathlib import Path

from pipeline.config.params import load_params
from pipeline.files import file_md5, write_text
from pipeline.paths import weights_digest
from stages import run_stage


def hash_weights(key: str) -> None:
    write_text(weights_digest(key), f"{file_md5(Path(load_params().weights[key]))}\n")


if __name__ == "__main__":
    run_stage(hash_weights)
