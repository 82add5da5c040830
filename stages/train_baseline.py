"""Train a network of a student's size with labels: what one would do without the method."""

from pipeline.training.supervised import train_supervised
from stages import run_stage


def train_baseline(key: str) -> None:
    train_supervised("baseline", key)


if __name__ == "__main__":
    run_stage(train_baseline)
