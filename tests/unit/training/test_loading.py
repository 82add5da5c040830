"""Batches in order and ahead of time; on a GPU, here a made-up one, each thread on its stream."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.training.loading import LOADED_AHEAD, loaded_ahead
from tests.made_training import CPU

BATCHES = [np.array([number, number + 1]) for number in range(9)]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_batches_come_in_order_and_only_so_many_ahead(threads: int) -> None:
    begun: list[int] = []

    def load(number: int, rows: np.ndarray) -> tuple[int, int]:
        begun.append(number)
        time.sleep(0.01 * (number % 2))
        return number, int(rows.sum())

    for number, loaded in enumerate(loaded_ahead(load, BATCHES, threads, CPU)):
        assert loaded == (number, 2 * number + 1)
        assert len(begun) <= number + 1 + LOADED_AHEAD * threads
    assert number == 8
    assert sorted(begun) == list(range(9))


def test_the_first_batch_is_loaded_alone() -> None:
    """What it compiles is there for all the others."""
    begun: list[int] = []
    beside_first: list[int] = []

    def load(number: int, _: np.ndarray) -> int:
        begun.append(number)
        if number == 0:
            time.sleep(0.05)
            beside_first.extend(begun)
        return number

    assert list(loaded_ahead(load, BATCHES, 4, CPU)) == list(range(9))
    assert beside_first == [0]


def test_what_is_not_wanted_any_more_is_not_loaded() -> None:
    begun: list[int] = []

    def load(number: int, _: np.ndarray) -> int:
        begun.append(number)
        time.sleep(0.02)
        return number

    batches = loaded_ahead(load, BATCHES, 1, CPU)
    assert next(batches) == 0
    del batches
    assert len(begun) <= 3


class Event:
    """A point in the work of a stream."""


@dataclass
class Stream:
    """What a CUDA stream is asked for."""

    waited: list[Event] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def wait_event(self, event: Event) -> None:
        self.waited.append(event)

    def record_event(self) -> Event:
        self.events.append(Event())
        return self.events[-1]


class OnGpu(Tensor):
    """A tensor that says it is on a GPU, and by which streams it is used."""

    is_cuda = True  # type: ignore[assignment]

    def record_stream(self, stream: Stream) -> None:
        self.__dict__.setdefault("used_by", []).append(stream)


@dataclass
class Batch:
    views: Tensor
    targets: Tensor
    labels: Tensor
    number: int
    stream: Stream
    ready: Event | None = None


def test_loading_has_streams_of_its_own_and_hands_over(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    own = threading.local()
    own.stream = training = Stream()
    made: list[Stream] = []

    def new_stream(device: torch.device) -> Stream:
        assert device == gpu
        made.append(Stream())
        return made[-1]

    @contextmanager
    def using(stream: Stream) -> Iterator[None]:
        own.stream = stream
        yield
        own.stream = None

    monkeypatch.setattr(torch.cuda, "Stream", new_stream)
    monkeypatch.setattr(torch.cuda, "stream", using)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: own.stream)
    both = threading.Barrier(2, timeout=30)

    def load(number: int, _: np.ndarray) -> Batch:
        if number > 0:
            both.wait()  # so that both threads load
        stream = own.stream
        assert stream.waited[-1:] == training.events[-1:] != []
        tensors = [torch.zeros(1).as_subclass(OnGpu) for _ in range(2)]
        return Batch(*tensors, torch.zeros(1), number, stream)

    for epoch in (1, 2):
        for number, batch in enumerate(loaded_ahead(load, BATCHES, 2, gpu)):
            assert batch.number == number
            assert training.waited[-1] in batch.stream.events
            assert batch.views.used_by == batch.targets.used_by == [training]
            assert "used_by" not in batch.labels.__dict__
        assert number == 8
        assert len(made) == 2  # those of the first epoch
        assert all(stream is not training for stream in made)
        # One event of the training's stream an epoch, and each batch's own waited for once.
        assert len(training.events) == epoch
        assert len(set(map(id, training.waited))) == len(training.waited) == 9 * epoch
        assert [len(stream.events) for stream in made] == [5 * epoch, 4 * epoch]
