"""Distil a student for one query size from the fixed teacher, without labels."""

from pipeline.config.params import load_params
from pipeline.training.students import student_training
from pipeline.training.trainings import train_seeds
from stages import run_stage


def distill(key: str) -> None:
    train_seeds(load_params(), "student", key, student_training)


if __name__ == "__main__":
    run_stage(distill)
