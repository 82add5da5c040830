"""Refuse a params.yaml that cannot work; then obtain the files of a data set and describe them."""

from pathlib import Path

from pipeline.config.params import Dataset, load_params
from pipeline.config.sources import EmblemsSource, OwnSource
from pipeline.datasets.fetching import describe_files
from pipeline.datasets.sources import DATASETS, find_files
from pipeline.files import write_json
from pipeline.models.requirements import check_networks
from pipeline.paths import DatasetPaths
from stages import run_stage


def inputs(name: str) -> None:
    """Every other stage waits for this one, so that no fault of params.yaml is found later.

    The same files give the same description, from whichever place they came: a good change of
    params.yaml does not re-run what hangs on it.
    """
    params = load_params()
    absent = [
        f"inputs.{key} = {given!r}: there is no such file or folder"
        for key, given in params.inputs.items()
        if not Path(given).exists()
    ]
    check_networks(params, others=absent)
    write_json(DatasetPaths(name).source, _describe(params.datasets[name]))


def _describe(dataset: Dataset) -> dict[str, object]:
    source = dataset.source
    found: dict[str, object] = {"kind": source.kind}
    if isinstance(source, EmblemsSource):
        return found | {"origin": "rendered", "licence": "drawn by this program: the user's own"}
    if isinstance(source, OwnSource):
        return found | {"origin": "given", "licence": "the user's own images"}
    found |= {"origin": source.archives, "licence": DATASETS[source.kind].licence}
    # What is given is described by the stage `hash_inputs`, which DVC runs when it changes.
    return found | (
        describe_files(find_files(source, None)) if source.archives == "downloaded" else {}
    )


if __name__ == "__main__":
    run_stage(inputs)
