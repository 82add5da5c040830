"""A training of a teacher and of a student that a group of processes can run, for torchrun.

python -m tests.group_training FOLDER PACK: writes FOLDER/states.pt, of the main process.
"""

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from pipeline.datasets.packs import open_pack
from pipeline.training.label_losses import label_loss, shared_by
from pipeline.training.loop import Objective, train
from pipeline.training.named_losses import TERMS
from pipeline.training.process_group import joined_group
from pipeline.training.schedule import Proxies
from pipeline.views.evaluation import image_tensor
from tests.made_training import (
    AUGMENTED,
    CPU,
    distillation_objective,
    labelled_objective,
    schedule,
    tiny_embedder,
    triplet_objective,
)

CSD = partial(TERMS["csd"], neighbours=3, student_temperature=0.1, teacher_temperature=0.1)
ONE_VIEW = replace(AUGMENTED, views=1, mixup_alpha=0.0)


def run(folder: Path, pack_file: Path) -> None:
    """Two epochs each of triplets (negatives of batch, data set), two distillations, proxies."""
    torch.set_num_threads(1)
    pack = open_pack(pack_file)
    states = {}
    with joined_group(int(os.environ.get("WORLD_SIZE", "1")), CPU) as group:
        rows = pack.rows("train")

        def embed_pool(network: torch.nn.Module) -> torch.Tensor:
            own = rows[group.part(len(rows))]
            with torch.no_grad():
                vectors = network(
                    torch.stack([image_tensor(pack.image(int(row))) for row in own]) / 255
                )
            return group.gather(vectors, len(rows))

        teacher = tiny_embedder(seed=1).eval().requires_grad_(False)
        objectives: dict[str, Objective] = {
            "batch": triplet_objective(pack, negative_pool="batch", views=ONE_VIEW, group=group),
            "dataset": triplet_objective(pack, embed_pool=embed_pool, group=group),
            # Five images a batch of twelve: the last batch is smaller than a group of three.
            "student": distillation_objective(pack, teacher, images_per_batch=5, group=group),
            # Of a loss between images, and a last batch that joined the one before.
            "rival": distillation_objective(
                pack, teacher, images_per_batch=5, loss=CSD, least_images=4, group=group
            ),
        }
        module = label_loss("proxy_anchor", {"margin": 0.1, "alpha": 4.0}, 4, 8, 0)
        shared_by(group, module)
        objectives["proxies"] = labelled_objective(pack, "proxies", module, group=group)
        for name, objective in objectives.items():
            network = tiny_embedder(batch_norm=True)
            history = train(
                network,
                objective,
                schedule(epochs=2, accumulation_steps=2, batch_norm_frozen=True),
                folder=folder / name,
                validate=lambda _: {"validation_map": 0.5},
                on_epoch=lambda _: None,
                group=group,
                proxies=Proxies(module, 3.0) if name == "proxies" else None,
            )
            learned = network.state_dict() | (module.state_dict() if name == "proxies" else {})
            states[name] = {"network": learned, "history": history}
        if group.is_main:
            torch.save(states, folder / "states.pt")


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
