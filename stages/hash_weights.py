"""Digest what lies at an entry of `weights`: DVC watches it, and trainings depend on the digest."""

from pathlib import Path

from pipeline.config.params import load_params
from pipeline.files import content_md5, write_text
from pipeline.paths import weights_digest
from stages import run_stage


def hash_weights(key: str) -> None:
    write_text(weights_digest(key), f"{content_md5(Path(load_params().weights[key]))}\n")


if __name__ == "__main__":
    run_stage(hash_weights)
