"""Search the best values for a student and its baseline on validation classes, or leave them."""

from pipeline.config.params import load_params
from pipeline.files import write_json, write_text
from pipeline.paths import DatasetPaths
from stages import run_stage


def tune(key: str) -> None:
    """Without trials the values of params.yaml hold, and nothing is loaded."""
    params = load_params()
    if params.tuning.trials:
        from pipeline.training.tuning import tune_student

        tune_student(params, key)
        return
    output = DatasetPaths(params.students[key].dataset).tuning(key)
    write_json(output, {})
    write_text(output.with_suffix(".csv"), "trial,student,baseline\n")


if __name__ == "__main__":
    run_stage(tune)
