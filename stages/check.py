"""Refuse a params.yaml that cannot work before any other stage runs."""

from pathlib import Path

from pipeline.config.params import load_params
from pipeline.files import write_json
from pipeline.models.requirements import check_networks
from stages import run_stage


def check(_: str) -> None:
    params = load_params()
    absent = [
        f"inputs.{name} = {given!r}: there is no such file or folder"
        for name, given in params.inputs.items()
        if not Path(given).exists()
    ]
    check_networks(params, others=absent)
    # Always the same bytes: a good change of params.yaml does not re-run what hangs on this file.
    write_json(Path("data/params.json"), {"params": "accepted"})


if __name__ == "__main__":
    run_stage(check)
