"""Cores and GPUs among stages."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.flows.resources import Gpus, share_cores, study_shares, visible_gpus


@pytest.mark.parametrize(
    ("asked", "threads", "cores", "jobs", "is_told"),
    [
        (None, 1, 2, 2, False),
        (None, 1, 1, 1, False),
        (None, 1, 64, 4, False),
        (None, 2, 6, 3, False),
        (None, 4, 2, 1, False),
        (1, 1, 2, 1, False),
        (16, 1, 64, 16, False),
        (4, 1, 2, 2, True),
        (3, 2, 4, 2, True),
        (2, 8, 4, 1, True),
    ],
)
def test_threads_do_not_outnumber_cores(
    asked: int | None, threads: int, cores: int, jobs: int, is_told: bool
) -> None:
    shared, word = share_cores(asked, threads, cores)
    assert shared == jobs
    assert bool(word) == is_told
    assert shared == 1 or shared * threads <= cores


def test_word_names_what_to_change() -> None:
    _, word = share_cores(8, 2, 4)
    assert word == (
        "2 at a time instead of 8: each computes with 2 threads "
        "(threads x compute.processes in params.yaml), the cores are 4"
    )


def test_shares_are_those_of_params_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("threads: 3\ncompute: {processes: 2}\n")
    shares = study_shares()
    assert (shares.threads, shares.processes, shares.cores) == (3, 2, 6)
    Path("params.yaml").write_text("")
    assert study_shares().cores == 1


@pytest.mark.parametrize(
    ("given", "names"),
    [("0,2", ["0", "2"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"]), ("", []), ("-1", [])],
)
def test_gpus_are_those_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, given: str, names: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == names


def test_gpus_are_counted_by_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf 'GPU 0: x (UUID: a)\\nGPU 1: x (UUID: b)\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert visible_gpus() == []


def test_each_gpu_is_lent_before_one_is_lent_twice() -> None:
    gpus = Gpus(["0", "1"])
    with ExitStack() as first:
        lent = [first.enter_context(gpus.some()) for _ in range(3)]
        assert lent == ["0", "1", "0"]
    with ExitStack() as second:
        with gpus.some() as given_back:
            assert given_back == "0"
            assert second.enter_context(gpus.some()) == "1"
        assert second.enter_context(gpus.some()) == "0"


def test_each_process_of_a_stage_gets_a_gpu() -> None:
    gpus = Gpus(["0", "1", "2", "3"], each=2)
    with gpus.some() as first, gpus.some() as second:
        assert (first, second) == ("0,1", "2,3")
        with gpus.some() as third:
            assert third == "0,1"


@pytest.mark.parametrize("names", [[], ["0"]])
def test_no_choice_of_gpus_is_no_assignment(names: list[str]) -> None:
    with Gpus(names).some() as gpu:
        assert gpu is None
