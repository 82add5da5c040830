"""Teachers that are not trained here: written as a training would write them, and recorded."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pipeline.config.params import load_params
from pipeline.config.recipes import FrozenTeacher, OnnxTeacher, VectorsTeacher
from pipeline.datasets.packs import open_pack
from pipeline.datasets.vector_stores import open_store
from pipeline.devices import computed_with, resolve_device
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.files import file_md5, write_text
from pipeline.models.weights import save_network
from pipeline.paths import further_seeds, history_path
from pipeline.teachers import teacher_card
from pipeline.teachers.onnx_teacher import read_onnx_teacher, save_onnx_teacher
from pipeline.teachers.stored_vectors import write_stored_vectors
from pipeline.teachers.whitening import whitening_layer
from pipeline.tracking.record import fingerprint
from pipeline.tracking.runs import tracked_run
from pipeline.training.job import NO_EPOCHS, TrainingJob, dataset_facts, new_network, set_up


def take_teacher(name: str) -> None:
    """Write the teacher of a data set as it comes, one for all seeds, and an empty table of epochs.

    Raises ValueError for a network or a file that cannot be used.
    """
    params = load_params()
    job = TrainingJob(params, "teacher", name, params.seeds[0])
    device = resolve_device(params.threads)
    with tracked_run(
        stage=job.stage,
        key=name,
        role=job.role,
        fingerprint=fingerprint(job.settings, job.inputs),
        facts={"dataset": name, "network": name, "query_px": job.size_px},
        settings=job.settings,
        dataset=dataset_facts(job),
    ) as run:
        match job.recipe:
            case FrozenTeacher() as recipe:
                _freeze(job, recipe, device)
            case OnnxTeacher() as recipe:
                given, wanted = Path(params.weights[name]), recipe.model_dump(exclude={"kind"})
                read = read_onnx_teacher(given, size_px=job.size_px, **wanted)
                save_onnx_teacher(job.output, *read)
            case VectorsTeacher() as recipe:
                names, store = open_pack(job.paths.pack).names, open_store(params.vectors[name])
                found = write_stored_vectors(
                    job.output, names, store, size_px=job.size_px, view=recipe.view
                )
                sys.stderr.writelines(f"{name}: {line}\n" for line in found.lines())
            case _:
                kind = params.datasets[name].teacher.kind
                raise ValueError(f"datasets.{name}.teacher.kind = {kind!r}: is not taken as it is")
        write_text(history_path(job.output), NO_EPOCHS)
        further_seeds(job.output).mkdir(exist_ok=True)
        made = {
            "output_md5": file_md5(job.output),
            "backbone": teacher_card(job.output)["backbone"],
        }
        run.set_tags({**computed_with(device), **made})


def _freeze(job: TrainingJob, recipe: FrozenTeacher, device: torch.device) -> None:
    """Save the network that the job would train from, without a projection, or whitened."""
    network, card = new_network(job, None)
    network = set_up(network.eval().requires_grad_(False), job.params.compute, device)
    if recipe.whitening is not None:
        pack = open_pack(job.paths.pack)
        order = np.random.default_rng(job.seed).permutation(pack.rows("train"))
        rows = np.sort(order[: recipe.whitening_images])
        views = EvaluationViews(pack, rows, job.size_px)
        vectors = embed_views(network, views, device, name="embedding for the whitening")
        try:
            network.projection = whitening_layer(vectors, recipe.whitening)
        except ValueError as error:
            place = f"datasets.{job.dataset}.teacher.whitening = {recipe.whitening}"
            raise ValueError(f"{place}: {error}") from error
        card = replace(card, dim=recipe.whitening, projection=True)
    save_network(job.output, network, card)
