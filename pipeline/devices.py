"""The device that networks run on, resolved once at the edge."""

import os
from importlib.metadata import version

import torch

GPU_LOADING_THREADS = 8


def resolve_device(threads: int) -> torch.device:
    """The device named by L2S_DEVICE, or a GPU if there is one, or the CPU with `threads` threads.

    Of several processes that torchrun started on a machine each gets a GPU of its own. Raises
    ValueError for a device that is not there.
    """
    torch.set_num_threads(threads)
    name = os.environ.get("L2S_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "cuda" and "LOCAL_RANK" in os.environ:
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"L2S_DEVICE = {name!r}: {str(error).splitlines()[0]}") from None
    return device


def computed_with(device: torch.device) -> dict[str, str]:
    """For the record, what may change a result's last digits: the device, and the libraries."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, **{library: version(library) for library in ("torch", "timm")}}


def loading_threads(device: torch.device) -> int:
    """Threads that make batches ready: L2S_LOADING_THREADS, else 1 beside a CPU, more with a GPU.

    0 loads in the thread that trains or embeds. The results are the same with any number.
    Raises ValueError for what is no number from 0 on.
    """
    given = os.environ.get("L2S_LOADING_THREADS")
    if given is None:
        cores = os.cpu_count() or 1
        return 1 if device.type == "cpu" else max(1, min(GPU_LOADING_THREADS, cores - 1))
    if not given.isdecimal():
        raise ValueError(f"L2S_LOADING_THREADS = {given!r}: must be a number from 0 on")
    return int(given)
