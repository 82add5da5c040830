"""Train a network of a student's size with labels: what one would do without the method."""

from functools import partial

from pipeline.training.supervised import train_supervised
from stages import run_stage

if __name__ == "__main__":
    run_stage(partial(train_supervised, "baseline"))
