"""Refuse a params.yaml that cannot work; then obtain the files of a data set and describe them."""

from itertools import chain
from pathlib import Path

from pipeline.config.params import Dataset, Params, load_params
from pipeline.config.recipes import OnnxTeacher, VectorsTeacher
from pipeline.config.sources import EmblemsSource, OwnSource
from pipeline.datasets.fetching import describe_files
from pipeline.datasets.sources import DATASETS, find_files
from pipeline.files import file_md5, unreadable_files, write_json, write_text
from pipeline.models.licences import UNKNOWN
from pipeline.models.packaged_weights import packaged_file
from pipeline.models.requirements import check_networks
from pipeline.paths import DatasetPaths, vectors_digest, weights_digest
from pipeline.teachers.checks import teacher_faults
from stages import run_stage


def inputs(name: str) -> None:
    """Every other stage waits for this one, so that no fault of params.yaml is found later.

    The same files give the same description, from whichever place they came: a good change of
    params.yaml does not re-run what hangs on it.
    """
    params = load_params()
    absent = [
        f"{section}.{key} = {given!r}: there is no such file or folder"
        for section in ("inputs", "weights", "vectors")
        for key, given in getattr(params, section).items()
        if not Path(given).exists()
    ]
    odd = (unreadable_files(Path(given)) for given in params.inputs.values())
    others = [*absent, *chain.from_iterable(odd), *teacher_faults(params)]
    check_networks(params, others=others)
    write_json(DatasetPaths(name).source, _describe(params.datasets[name]))
    for row in params.cells_of(name):
        write_text(DatasetPaths(name).initial(row), _initial(params, name, row))
    database = (
        vectors_digest(name).read_text(encoding="utf-8")
        if name in params.vectors
        else "the teacher's\n"
    )
    write_text(DatasetPaths(name).initial("database"), database)


def _initial(params: Params, name: str, row: str) -> str:
    """What a row's network starts from, so that its training depends on it and no other does."""
    is_teacher = row == "teacher"
    network = params.datasets[name].network if is_teacher else params.student_network(row)
    is_file = network.weights == "file"
    if network.weights == "teacher":  # a baseline then starts where the teacher did
        return f"teacher, from {_initial(params, name, 'teacher')}"
    if is_teacher and isinstance(params.datasets[name].teacher, VectorsTeacher):
        return vectors_digest(name).read_text(encoding="utf-8")
    if is_teacher and isinstance(params.datasets[name].teacher, OnnxTeacher):
        is_file = True  # the teacher itself
    elif network.weights == "package":
        return f"{file_md5(packaged_file(network.backbone))}\n"
    if not is_file:
        return f"{network.weights}\n"
    key = params.weights_key(name if is_teacher else row)
    return weights_digest(key).read_text(encoding="utf-8")


def _describe(dataset: Dataset) -> dict[str, object]:
    source = dataset.source
    found: dict[str, object] = {"kind": source.kind}
    if isinstance(source, EmblemsSource):
        return found | {"origin": "rendered", "licence": "drawn by this program: the user's own"}
    if isinstance(source, OwnSource):
        return found | {"origin": "given", "licence": UNKNOWN}
    found |= {"origin": source.archives, "licence": DATASETS[source.kind].licence}
    # What is given is described by the stage `hash_inputs`, which DVC runs when it changes.
    return found | (
        describe_files(find_files(source, None)) if source.archives == "downloaded" else {}
    )


if __name__ == "__main__":
    run_stage(inputs)
