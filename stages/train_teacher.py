"""Train the teacher of a data set on large images, with labels."""

from functools import partial

from pipeline.training.supervised import train_supervised
from stages import run_stage

if __name__ == "__main__":
    run_stage(partial(train_supervised, "teacher"))
