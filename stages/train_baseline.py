"""Train a network of a student's size with labels: what one would do without the method."""

from pipeline.config.params import load_params
from pipeline.files import write_text
from pipeline.paths import DatasetPaths, further_seeds, history_path
from pipeline.training.job import NO_EPOCHS
from pipeline.training.supervised import train_supervised
from stages import run_stage


def train_baseline(key: str) -> None:
    """Where there is nothing to compare with, the network's file is empty."""
    params = load_params()
    if params.has_baseline(key):
        train_supervised("baseline", key)
        return
    output = DatasetPaths(params.students[key].dataset).baseline(key)
    write_text(output, "")
    further_seeds(output).mkdir(exist_ok=True)
    write_text(history_path(output), NO_EPOCHS)


if __name__ == "__main__":
    run_stage(train_baseline)
