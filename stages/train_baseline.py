"""Train the labelled network of a student's size: what one would do without the method."""

from pipeline.config.params import load_params
from pipeline.training.supervised import train_with_labels
from stages import run_stage


def train_baseline(key: str) -> None:
    params = load_params()
    student = params.students[key]
    train_with_labels(
        params,
        student.dataset,
        params.student_network(key),
        stage="train_baseline",
        key=key,
        size_px=student.query_px,
    )


if __name__ == "__main__":
    run_stage(train_baseline)
