"""Distil a student for one query size from the fixed teacher, without labels."""

from pipeline.config.params import load_params
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.models.folding import folded
from pipeline.models.weights import load_network
from pipeline.training.distillation import DistillationObjective
from pipeline.training.job import TrainingJob, run_training, set_up, training_data
from pipeline.views.coupled import cached_decoder
from stages import run_stage

# Of the recipe: what the objective takes.
OBJECTIVE = {"images_per_batch", "images_per_epoch", "lambda_ts", "lambda_ss"}


def distill(key: str) -> None:
    params = load_params()
    job = TrainingJob(params, "student", key)
    with training_data(job) as data:
        teacher, card = load_network(job.paths.teacher, data.device)
        teacher = set_up(folded(teacher, card.size_px), params.compute, data.device)
        large = EvaluationViews(data.pack, data.val, card.size_px)
        database = embed_views(teacher, large, data.device) if data.group.is_main else None
        objective = DistillationObjective(
            decode=cached_decoder(data.pack),
            rows=data.train,
            teacher=teacher,
            teacher_px=card.size_px,
            student_px=job.size_px,
            **job.recipe.model_dump(include=OBJECTIVE),
            views=job.view_recipe,
            seed=params.seed,
            device=data.device,
            group=data.group,
        )
        run_training(job, data, objective, card.dim, database)


if __name__ == "__main__":
    run_stage(distill)
