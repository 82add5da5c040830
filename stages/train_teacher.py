"""Train the teacher of a data set on large images, with labels; or take one as it is."""

from pipeline.config.params import load_params
from pipeline.training.supervised import train_supervised
from pipeline.training.untrained import take_teacher
from stages import run_stage


def train_teacher(name: str) -> None:
    if load_params().datasets[name].teacher.kind == "trained":
        train_supervised("teacher", name)
    else:
        take_teacher(name)


if __name__ == "__main__":
    run_stage(train_teacher)
