"""Train the teacher of a data set on large images, with labels."""

from pipeline.config.params import load_params
from pipeline.training.supervised import train_with_labels
from stages import run_stage


def train_teacher(name: str) -> None:
    params = load_params()
    dataset = params.datasets[name]
    train_with_labels(
        params, name, dataset.network, stage="train_teacher", key=name, size_px=dataset.teacher_px
    )


if __name__ == "__main__":
    run_stage(train_teacher)
