"""Refuse a params.yaml that cannot work before any other stage runs."""

from pathlib import Path

from pipeline.config.params import ConfigurationError, load_params
from pipeline.files import write_json
from pipeline.models.requirements import network_faults
from stages import run_stage


def check(_: str) -> None:
    params = load_params()
    faults = network_faults(params) + [
        f"inputs.{name} = {given!r}: there is no such file or folder"
        for name, given in params.inputs.items()
        if not Path(given).exists()
    ]
    if faults:
        raise ConfigurationError(Path("params.yaml"), faults)
    # Always the same bytes: a good change of params.yaml does not re-run what hangs on this file.
    write_json(Path("data/params.json"), {"params": "accepted"})


if __name__ == "__main__":
    run_stage(check)
