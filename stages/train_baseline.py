"""Train a network of a student's size with labels: what one would do without the method."""

from pipeline.config.params import load_params
from pipeline.paths import DatasetPaths
from pipeline.training.job import TrainingJob
from pipeline.training.supervised import train_supervised
from stages import run_stage


def train_baseline(key: str) -> None:
    params = load_params()
    student = params.students[key]
    train_supervised(
        TrainingJob(
            params,
            stage="train_baseline",
            key=key,
            role="baseline",
            dataset=student.dataset,
            network=params.student_network(key),
            size_px=student.query_px,
            recipe=params.datasets[student.dataset].teacher,
            output=DatasetPaths(student.dataset).baseline(key),
        )
    )


if __name__ == "__main__":
    run_stage(train_baseline)
