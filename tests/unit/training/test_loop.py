"""The training loop on a linear network, whose gradients are known."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.training.checkpoints import load_checkpoint
from pipeline.training.loading import LOADED_AHEAD
from pipeline.training.loop import train
from pipeline.training.process_group import ProcessGroup
from tests.made_training import Regression, equal_states, schedule


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear() -> nn.Linear:
    network = nn.Linear(3, 1).double()
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[0.1, -0.2, 0.3]]))
        network.bias.zero_()
    return network


def regression(batch_rows: list[list[int]]) -> Regression:
    inputs = torch.randn(24, 3, generator=generator(), dtype=torch.float64)
    targets = inputs @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64) + 0.7
    return Regression(inputs, targets, batch_rows)


def consecutive(size: int, rows: int = 24) -> list[list[int]]:
    return [list(range(start, min(start + size, rows))) for start in range(0, rows, size)]


def run(network: nn.Module, objective: object, folder: Path, **changes: object) -> list[dict]:
    options = {"validate": lambda _: {}, "on_epoch": lambda _: None, "loading_threads": 1}
    options |= {"end": None}
    options |= {name: changes.pop(name) for name in list(changes) if name in options}
    return train(network, objective, schedule(**changes), folder=folder, **options)


def steps_seen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Each step of AdamW: the rate of every group, and the gradients."""
    seen: list[dict[str, object]] = []
    step = torch.optim.AdamW.step

    def recorded(self: torch.optim.AdamW, closure: object = None) -> object:
        parameters = [p for group in self.param_groups for p in group["params"]]
        seen.append(
            {
                "rates": [group["lr"] for group in self.param_groups],
                "parameters": sum(p.numel() for p in parameters),
                "gradient": torch.cat([p.grad.flatten().clone() for p in parameters]),
            }
        )
        return step(self, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", recorded)
    return seen


def test_a_row_an_epoch_with_means_over_images(tmp_path: Path) -> None:
    objective = regression([[0, 1, 2, 3], [4]])
    network = linear()
    with torch.no_grad():
        errors = (network(objective.inputs) - objective.targets).square().flatten()
    told = []
    options = {"validate": lambda _: {"validation_map": 0.25}, "on_epoch": told.append}
    history = run(network, objective, tmp_path, epochs=2, accumulation_steps=2, **options)
    assert told == history
    assert [row["epoch"] for row in history] == [1, 2]
    # One step an epoch: the loss of the first is that of the initial weights, an image one vote.
    assert history[0]["squared"] == pytest.approx(errors[:5].mean().item(), rel=1e-12)
    assert history[0]["loss"] == history[0]["squared"]
    assert history[0]["validation_map"] == 0.25
    assert list(tmp_path.iterdir()) == [tmp_path / "checkpoint.pt"]


def test_what_ends_a_training_is_measured_kept_and_done_once(tmp_path: Path) -> None:
    ended: list[nn.Module] = []

    def end(network: nn.Module) -> None:
        ended.append(network)
        with torch.no_grad():
            network.bias.fill_(7.0)

    network = linear()
    options = {"end": end, "validate": lambda net: {"validation_map": net.bias.item()}}
    history = run(network, regression(consecutive(4)), tmp_path, epochs=3, **options)
    assert ended == [network]
    assert [row["validation_map"] == 7.0 for row in history] == [False, False, True]
    again = linear()
    assert run(again, regression(consecutive(4)), tmp_path, epochs=3, **options) == history
    assert (len(ended), again.bias.item()) == (1, 7.0)


def test_it_learns(tmp_path: Path) -> None:
    network = linear()
    history = run(network, regression(consecutive(4)), tmp_path, epochs=60, learning_rate=0.2)
    assert history[-1]["loss"] < history[0]["loss"] / 1000
    assert network.bias.item() == pytest.approx(0.7, abs=0.02)
    assert not network.training


@pytest.mark.parametrize(
    ("batches", "accumulation", "steps"),
    [
        (6, 1, 6),
        (6, 2, 3),
        (6, 4, 2),
        (6, 5, 2),
        (6, 6, 1),
        (6, 25, 1),
        (5, 2, 3),
    ],
)
def test_no_window_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: int, accumulation: int, steps: int
) -> None:
    seen = steps_seen(monkeypatch)
    objective = regression(consecutive(4)[:batches])
    run(linear(), objective, tmp_path, epochs=3, accumulation_steps=accumulation)
    assert len(seen) == 3 * steps == 3 * math.ceil(batches / accumulation)


def test_a_short_last_window_is_the_mean_over_its_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of images 0..8 and 9..14, in batches of different sizes; no momentum in gradients."""
    seen = steps_seen(monkeypatch)
    windows = [[[0, 1, 2, 3], [4, 5, 6], [7, 8]], [[9], [10, 11, 12, 13, 14]]]
    objective = regression([rows for window in windows for rows in window])
    network = linear()
    # A rate next to 0 leaves the weights where they are, so that both gradients are of them.
    run(network, objective, tmp_path, epochs=1, accumulation_steps=3, learning_rate=1e-15)
    assert len(seen) == 2
    for step, window in zip(seen, windows, strict=True):
        rows = [row for batch in window for row in batch]
        reference = linear()
        loss = (reference(objective.inputs[rows]) - objective.targets[rows]).square().mean()
        loss.backward()
        expected = torch.cat([p.grad.flatten() for p in reference.parameters()])
        torch.testing.assert_close(step["gradient"], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_equal_micro_batches_are_one_large_batch(tmp_path: Path, size: int) -> None:
    networks = linear(), linear()
    for network, batch, folder in zip(networks, (size, 12), ("small", "large"), strict=True):
        run(
            network,
            regression(consecutive(batch)),
            tmp_path / folder,
            accumulation_steps=12 // batch,
            epochs=5,
        )
    for small, large in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(small, large, rtol=1e-6, atol=1e-9)
    assert not equal_states(networks[0], linear())


@pytest.mark.parametrize("threads", [0, 1])
def test_a_step_begins_with_its_first_batch(tmp_path: Path, threads: int) -> None:
    """It does not wait until all batches of its window are loaded."""
    objective = regression(consecutive(2))
    loaded: list[int] = []
    seen: list[int] = []
    load, terms = objective.load, objective.terms

    def counted(epoch: int, number: int, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        loaded.append(number)
        return load(epoch, number, rows)

    def told(network: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        seen.append(len(loaded))
        return terms(network, batch)

    objective.load, objective.terms = counted, told  # type: ignore[method-assign]
    run(linear(), objective, tmp_path, epochs=1, accumulation_steps=12, loading_threads=threads)
    assert len(seen) == 12
    assert seen[0] <= 1 + LOADED_AHEAD * threads
    assert loaded == list(range(12))


def test_every_groups_rate_follows_one_cycle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 steps: the first is a tenth of the peak, step 12 the peak, the last nearly nothing."""
    seen = steps_seen(monkeypatch)
    network = linear()
    history = run(network, regression(consecutive(3)), tmp_path, epochs=5, learning_rate=0.01)
    assert len(seen) == 40
    assert all(step["parameters"] == 4 for step in seen)
    rates = []
    for step in seen:
        assert len(set(step["rates"])) == 1  # GeM's exponent has no rate of its own
        rates.append(step["rates"][0])
    assert rates[0] == pytest.approx(0.01 / 10, rel=1e-12)
    assert max(rates) == pytest.approx(0.01, rel=1e-12)
    assert rates.index(max(rates)) == 0.3 * 40 - 1
    # Smith's cycle with cosine arms, restated.
    for step, rate in enumerate(rates):
        start, end, share = (
            (0.001, 0.01, step / 11) if step <= 11 else (0.01, 0.001 / 1e4, (step - 11) / 28)
        )
        expected = end + (start - end) / 2 * (1 + math.cos(math.pi * share))
        assert rate == pytest.approx(expected, rel=1e-9)
    assert [row["learning_rate"] for row in history[:-1]] == [rates[8 * n] for n in range(1, 5)]


class InterruptError(Exception):
    pass


@pytest.mark.parametrize("where", ["validate", "on_epoch", "load"])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_resumed_is_uninterrupted(tmp_path: Path, where: str, after: int) -> None:
    straight = linear()
    expected = run(straight, regression(consecutive(5)), tmp_path / "straight", epochs=4)

    calls = 0

    def fail(*_: object) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls > after:
            raise InterruptError
        return {}

    objective = regression(consecutive(5))
    options = {} if where == "load" else {where: fail}
    if where == "load":  # in the middle of an epoch of five batches
        load = objective.load

        def failing(epoch: int, number: int, rows: np.ndarray) -> tuple[Tensor, Tensor]:
            if (epoch, number) == (after, 2):
                raise InterruptError
            return load(epoch, number, rows)

        objective.load = failing  # type: ignore[method-assign]
    folder = tmp_path / "interrupted"
    with pytest.raises(InterruptError):
        run(linear(), objective, folder, epochs=4, **options)
    kept = load_checkpoint(folder)
    assert kept is not None
    epochs = after + 1 if where == "on_epoch" else after
    assert kept["history"] == expected[:epochs]

    resumed = linear()
    told: list[dict] = []
    history = run(resumed, regression(consecutive(5)), folder, epochs=4, on_epoch=told.append)
    assert history == expected
    assert told == expected[epochs:]
    assert equal_states(resumed, straight)


def test_a_finished_training_is_not_run_again(tmp_path: Path) -> None:
    first, second = linear(), linear()
    history = run(first, regression(consecutive(5)), tmp_path)
    seen: list[dict] = []
    assert run(second, regression(consecutive(5)), tmp_path, on_epoch=seen.append) == history
    assert seen == []
    assert equal_states(first, second)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    tmp_path: Path, bad: float
) -> None:
    objective = regression(consecutive(4))
    load = objective.load

    def spoiled(epoch: int, number: int, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        inputs, targets = load(epoch, number, rows)
        return inputs, targets * bad if (epoch, number) == (1, 3) else targets

    objective.load = spoiled  # type: ignore[method-assign]
    states: list[dict[str, Tensor]] = []

    def keep(network: nn.Module) -> dict[str, float]:
        states.append({name: value.clone() for name, value in network.state_dict().items()})
        return {}

    # Three windows of two batches an epoch: batch 3 of the second epoch is in window 5.
    with pytest.raises(FloatingPointError) as caught:
        run(linear(), objective, tmp_path / "bad", epochs=3, accumulation_steps=2, validate=keep)
    message = str(caught.value)
    assert "'squared'" in message
    assert f" is {bad} at step 5," in message
    assert "learning rate 0.00" in message
    kept = load_checkpoint(tmp_path / "bad")
    assert kept is not None
    assert len(kept["history"]) == 1
    assert all(torch.equal(kept["network"][name], value) for name, value in states[0].items())
    # From there the training goes on once the data are whole.
    history = run(
        linear(), regression(consecutive(4)), tmp_path / "bad", epochs=3, accumulation_steps=2
    )
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert all(math.isfinite(row["loss"]) for row in history)


def test_a_gradient_that_is_not_finite_spoils_no_checkpoint(tmp_path: Path) -> None:
    """A finite loss with an infinite gradient, on the very last step of an epoch."""

    class Edge(Regression):
        def terms(self, network: nn.Module, loaded: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
            edge = (network(loaded[0]) * 0).sum().sqrt() if len(loaded[0]) == 1 else 0
            return {"squared": super().terms(network, loaded)["squared"] + edge}

    made = regression([[0, 1, 2], [3]])
    objective = Edge(made.inputs, made.targets, made.batch_rows)
    with pytest.raises(FloatingPointError):
        run(linear(), objective, tmp_path, epochs=2)
    kept = load_checkpoint(tmp_path)
    assert kept is None or all(torch.isfinite(value).all() for value in kept["network"].values())


def test_an_error_while_loading_is_the_callers(tmp_path: Path) -> None:
    objective = regression(consecutive(5))

    def broken(*_: object) -> tuple[Tensor, Tensor]:
        raise OSError("the pack is gone")

    objective.load = broken  # type: ignore[method-assign]
    with pytest.raises(OSError, match="the pack is gone"):
        run(linear(), objective, tmp_path)
    assert load_checkpoint(tmp_path) is None


def with_dropout(folder: Path, *, global_seed: int = 0, **changes: object) -> nn.Module:
    """A network with dropout, trained from the same weights as every other one."""
    torch.manual_seed(global_seed)
    network = nn.Sequential(linear(), nn.Dropout(0.5))
    objective = regression(consecutive(4))
    options = {"folder": folder, "validate": lambda _: {}, "on_epoch": lambda _: None}
    seed = changes.pop("seed", 0)
    train(network, objective, schedule(seed=seed), **options, **changes)
    return network


def test_layers_that_draw_random_numbers_repeat_too(tmp_path: Path) -> None:
    """Dropout, and the stochastic depth of torchvision's EfficientNets, hang on the seed too."""
    first, second = (with_dropout(tmp_path / str(n), global_seed=100 + n) for n in range(2))
    assert equal_states(first, second)


def test_the_seed_reaches_layers_that_draw_random_numbers(tmp_path: Path) -> None:
    """The batches of this objective do not depend on it: only dropout can make the difference."""
    first, second = (with_dropout(tmp_path / str(seed), seed=seed) for seed in (0, 1))
    assert not equal_states(first, second)


def test_every_epoch_and_every_process_draws_its_own_dropout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: set[int] = set()

    class Watched(Regression):
        def begin_epoch(self, epoch: int, network: nn.Module) -> None:
            drawn.add(torch.initial_seed())

    monkeypatch.setattr(ProcessGroup, "share", lambda _, value: value)
    monkeypatch.setattr(ProcessGroup, "sum_gradients", lambda *_: None)
    made = regression(consecutive(4))
    for rank in range(2):
        objective = Watched(made.inputs, made.targets, made.batch_rows)
        options = {"validate": lambda _: {}, "on_epoch": lambda _: None}
        group = ProcessGroup(rank, 2)
        folder = tmp_path / str(rank)
        train(linear(), objective, schedule(epochs=3), folder=folder, group=group, **options)
    assert len(drawn) == 6
