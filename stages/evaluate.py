"""Evaluate retrieval: a teacher at full size, or everything at one student's size."""

from pipeline.config.params import load_params
from pipeline.evaluation.evaluating import evaluate_cell
from pipeline.tracking.store import require_store
from stages import run_stage


def evaluate(key: str) -> None:
    """`key` names a student, or a data set, whose teacher is then evaluated."""
    require_store()
    evaluate_cell(load_params(), key)


if __name__ == "__main__":
    run_stage(evaluate)
