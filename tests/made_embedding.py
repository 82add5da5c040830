"""Folders of small pictures, a random network, and an engine within the process."""

import io
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets.picture_sources import PictureSource
from pipeline.embedding.destination import Destination
from pipeline.embedding.manifest import ShardSummary
from pipeline.embedding.sharded import embed_source
from pipeline.embedding.shards import Job, Sample, ShardEmbedder, ShardReport
from pipeline.models.weights import NetworkCard, build_embedder, save_network

SIZE_PX, DIM = 24, 16


def write_network(file: Path, seed: int = 0, dim: int = DIM) -> Path:
    network = build_embedder("timm/test_resnet", dim, weights="random", seed=seed)
    save_network(file, network, NetworkCard("timm/test_resnet", dim, SIZE_PX))
    return file


def picture(seed: int, side_px: int = 40) -> bytes:
    grey = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).resize((side_px, side_px)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_pictures(folder: Path, numbers: Iterable[int]) -> None:
    for number in numbers:
        file = folder / f"{number % 3}" / f"{number:04}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))


def make_job(folder: Path, **changes: object) -> Job:
    """From `folder`/images to `folder`/vectors by `folder`/net.safetensors."""
    given = {
        "source": PictureSource(str(folder / "images")),
        "destination": Destination(str(folder / "vectors")),
        "network": folder / "net.safetensors",
        "number": "float32",
    }
    return Job(**(given | changes))  # type: ignore[arg-type]


def images_of(job: Job) -> Path:
    return Path(job.source.address)


class InProcess:
    """An engine that needs no other process; `written` are the shards in their order."""

    def __init__(self, job: Job, workers: int) -> None:
        self.opened, self.written = ShardEmbedder(job), 0

    def __enter__(self) -> "InProcess":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def sample(self, shard: ShardSummary, images: int) -> Sample:
        return self.opened.sample(shard.number, shard.digest, images)

    def write(self, shards: Iterable[ShardSummary]) -> Iterator[ShardReport]:
        for shard in shards:
            self.written += 1
            yield self.opened.write(shard.number, shard.digest)


embed = partial(embed_source, engine=InProcess, shard_images=4)


def files_of(folder: Path) -> dict[str, bytes]:
    """The visible files of a folder with their bytes."""
    files = sorted(one for one in folder.iterdir() if not one.name.startswith("."))
    return {file.name: file.read_bytes() for file in files}
