"""Obtain the files of a data set and describe them, or say why none are needed."""

from pipeline.config.params import load_params
from pipeline.config.sources import CarsSource, CubSource, EmblemsSource, SopSource
from pipeline.datasets.published import describe_files, download_files
from pipeline.datasets.sources import find_form, find_source
from pipeline.files import write_json
from pipeline.paths import ARCHIVES, DatasetPaths, archives_shelf
from stages import run_stage


def download(name: str) -> None:
    """The same files give the same description, from whichever place they came."""
    source = load_params().datasets[name].source
    found: dict[str, object] = {"kind": source.kind}
    match source:
        case EmblemsSource():
            found |= {"origin": "rendered", "licence": "drawn by this program: the user's own"}
        case CubSource() | CarsSource() | SopSource() if source.archives == "downloaded":
            published = find_source(source.kind)
            files = download_files(
                find_form(published, source.layout),
                ARCHIVES,
                archives_dir=archives_shelf(),
                accept_subset=source.accept_subset,
            )
            found |= {"origin": "downloaded", "licence": published.licence, **describe_files(files)}
        case _:
            # What lies there is told by the stage `survey`, which DVC runs when it changes.
            found |= {"origin": "given", "licence": find_source(source.kind).licence}
    write_json(DatasetPaths(name).source, found)


if __name__ == "__main__":
    run_stage(download)
