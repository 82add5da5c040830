"""The device is named once, and never guessed at where one was asked for."""

import pytest
import torch

from pipeline.devices import computed_with, loading_threads, resolve_device


def test_the_named_device_and_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L2S_DEVICE", "cpu")
    before = torch.get_num_threads()
    try:
        assert resolve_device(3) == torch.device("cpu")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_without_a_gpu_it_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device(1) == torch.device("cpu")
    monkeypatch.setenv("L2S_DEVICE", "")
    assert resolve_device(1) == torch.device("cpu")


def test_the_record_says_what_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    here = computed_with(torch.device("cpu"))
    assert here.keys() == {"device", "torch", "timm"}
    assert here["device"] == "cpu"
    assert torch.__version__.startswith(here["torch"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100")
    assert computed_with(torch.device("cuda", 1))["device"] == "NVIDIA H100"


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "nonsense:0"])
def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("L2S_DEVICE", name)
    with pytest.raises(ValueError, match=f"^L2S_DEVICE = '{name}': ") as caught:
        resolve_device(1)
    assert "\n" not in str(caught.value)


def test_loading_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("L2S_LOADING_THREADS", raising=False)
    assert loading_threads(torch.device("cpu")) == 1
    assert 1 <= loading_threads(torch.device("cuda")) <= 8
    for given, number in (("0", 0), ("5", 5)):
        monkeypatch.setenv("L2S_LOADING_THREADS", given)
        assert loading_threads(torch.device("cpu")) == number
    for given in ("-1", "many", "1.5", ""):
        monkeypatch.setenv("L2S_LOADING_THREADS", given)
        with pytest.raises(ValueError, match=f"L2S_LOADING_THREADS = '{given}'"):
            loading_threads(torch.device("cpu"))
