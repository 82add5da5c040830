"""Obtain the files of a data set and describe them, or say why none are needed."""

from pipeline.config.params import load_params
from pipeline.config.sources import CarsSource, CsvSource, CubSource, FolderSource, SopSource
from pipeline.datasets.fetching import describe_files
from pipeline.datasets.sources import DATASETS, find_files
from pipeline.files import write_json
from pipeline.paths import DatasetPaths
from stages import run_stage


def download(name: str) -> None:
    """The same files give the same description, from whichever place they came."""
    source = load_params().datasets[name].source
    found: dict[str, object] = {"kind": source.kind}
    match source:
        case CubSource() | CarsSource() | SopSource():
            found |= {"origin": source.archives, "licence": DATASETS[source.kind].licence}
            # What is given is told by the stage `survey`, which DVC runs when it changes.
            if source.archives == "downloaded":
                found |= describe_files(find_files(source, None))
        case FolderSource() | CsvSource():
            found |= {"origin": "given", "licence": "the user's own images"}
        case _:
            found |= {"origin": "rendered", "licence": "drawn by this program: the user's own"}
    write_json(DatasetPaths(name).source, found)


if __name__ == "__main__":
    run_stage(download)
