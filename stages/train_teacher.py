"""Train the teacher of a data set on large images, with labels."""

from pipeline.config.params import load_params
from pipeline.paths import DatasetPaths
from pipeline.training.job import TrainingJob
from pipeline.training.supervised import train_supervised
from stages import run_stage


def train_teacher(name: str) -> None:
    params = load_params()
    dataset = params.datasets[name]
    train_supervised(
        TrainingJob(
            params,
            stage="train_teacher",
            key=name,
            role="teacher",
            dataset=name,
            network=dataset.network,
            size_px=dataset.teacher_px,
            recipe=dataset.teacher,
            output=DatasetPaths(name).teacher,
        )
    )


if __name__ == "__main__":
    run_stage(train_teacher)
