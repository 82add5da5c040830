"""The optimiser: what trains, at which rate."""

import pytest
import torch
from torch import nn

from pipeline.training.schedule import Proxies, build_optimiser
from tests.made_training import equal_states, schedule, tiny_embedder


def build(network: nn.Module, *, steps: int = 20, **changes: float):
    values = {"learning_rate": 0.5, "weight_decay": 0.25} | changes
    return build_optimiser(network, schedule(**values), steps)


def test_only_what_requires_a_gradient_trains() -> None:
    network = tiny_embedder()
    network.features.requires_grad_(False)
    optimiser, _ = build(network)
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    assert {id(p) for p in trained} == {id(network.p), *map(id, network.projection.parameters())}
    assert [group["weight_decay"] for group in optimiser.param_groups] == [0.25]


def test_proxies_have_a_rate_of_their_own_all_the_way() -> None:
    network, module = tiny_embedder(), nn.Linear(3, 2)
    optimiser, rates = build_optimiser(network, schedule(), 20, Proxies(module, 7.0))
    assert len(optimiser.param_groups) == 2
    assert {id(p) for p in optimiser.param_groups[1]["params"]} == set(map(id, module.parameters()))
    for _ in range(20):
        own, of_proxies = rates.get_last_lr()
        assert of_proxies == pytest.approx(7 * own)
        optimiser.step()
        rates.step()


def test_the_first_rate_is_the_divided_peak() -> None:
    optimiser, rates = build(tiny_embedder())
    assert rates.get_last_lr()[0] == pytest.approx(0.05)
    optimiser.step()
    rates.step()
    assert rates.get_last_lr()[0] > 0.05


def test_a_step_of_adamw_by_hand() -> None:
    """The first step moves by the rate against the gradient's sign, after decay by rate x decay."""
    network = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(network.weight, 2.0)
    optimiser, _ = build(network)
    (3 * network.weight).sum().backward()
    optimiser.step()
    assert network.weight.item() == pytest.approx(2 * (1 - 0.05 * 0.25) - 0.05, rel=1e-7)


@pytest.mark.parametrize(
    ("steps", "share"), [(10, 0.1), (1, 0.3), (2, 0.5), (4, 0.25), (3, 0.3), (50, 0.02)]
)
def test_any_number_of_steps_can_be_scheduled(steps: int, share: float) -> None:
    """A warm-up of a single step, or of less than one, is no division by zero."""
    optimiser, rates = build(tiny_embedder(), steps=steps, warmup_share=share)
    seen = []
    for _ in range(steps):
        seen.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        rates.step()
    assert len(seen) == steps
    assert max(seen) > 0.5 / 10 / 2  # of one step, too, which would have the last rate of a cycle
    assert all(0 < rate <= 0.5 + 1e-12 for rate in seen)
    assert torch.isfinite(torch.tensor(rates.get_last_lr()[0]))


def test_the_fused_step_repeats_bit_by_bit_and_is_adamw() -> None:
    """Against PyTorch's plain loop over the parameters, to rounding."""
    networks = [tiny_embedder(seed=3) for _ in range(3)]
    optimisers = [build(network)[0] for network in networks[:2]]
    optimisers.append(
        torch.optim.AdamW(networks[2].parameters(), lr=0.05, weight_decay=0.25, foreach=False)
    )
    assert optimisers[0].param_groups[0]["fused"]
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        gradients = [torch.randn(p.shape, generator=generator) for p in networks[0].parameters()]
        for network, optimiser in zip(networks, optimisers, strict=True):
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.grad = gradient.clone()
            optimiser.param_groups[0].update(lr=0.05, betas=(0.95, 0.999))
            optimiser.step()
    assert equal_states(networks[0], networks[1])
    for ours, plain in zip(networks[0].parameters(), networks[2].parameters(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)
