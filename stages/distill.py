"""Distil a student for one query size from the fixed teacher, without labels."""

from pipeline.config.params import load_params
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.models.folding import folded
from pipeline.models.weights import load_network
from pipeline.paths import DatasetPaths
from pipeline.training.distillation import DistillationObjective
from pipeline.training.job import TrainingJob, run_training, set_up, training_data
from pipeline.views.coupled import cached_decoder
from stages import run_stage

FROM_RECIPE = {"images_per_batch", "images_per_epoch", "lambda_ts", "lambda_ss"}


def distill(key: str) -> None:
    params = load_params()
    student = params.students[key]
    paths = DatasetPaths(student.dataset)
    job = TrainingJob(
        params,
        stage="distill",
        key=key,
        role="student",
        dataset=student.dataset,
        network=params.student_network(key),
        size_px=student.query_px,
        recipe=params.student_distillation(key),
        output=paths.student(key),
        reads=(paths.teacher,),
    )
    with training_data(params, student.dataset) as data:
        teacher, card = load_network(paths.teacher, data.device)
        teacher = set_up(folded(teacher, card.size_px), params.compute, data.device)
        database = None
        if len(data.val) and data.group.is_main:
            large_views = EvaluationViews(data.pack, data.val, card.size_px)
            database = embed_views(teacher, large_views, data.device)
        objective = DistillationObjective(
            decode=cached_decoder(data.pack),
            rows=data.train,
            teacher=teacher,
            teacher_px=card.size_px,
            student_px=student.query_px,
            recipe=job.view_recipe,
            seed=params.seed,
            device=data.device,
            group=data.group,
            **job.recipe.model_dump(include=FROM_RECIPE),
        )
        run_training(job, data, objective, card.dim, database)


if __name__ == "__main__":
    run_stage(distill)
