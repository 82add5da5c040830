"""Train the teacher of a data set on large images, with labels."""

from pipeline.training.supervised import train_supervised
from stages import run_stage


def train_teacher(name: str) -> None:
    train_supervised("teacher", name)


if __name__ == "__main__":
    run_stage(train_teacher)
