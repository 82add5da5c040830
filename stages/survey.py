"""Describe what lies at a data set's entry of `inputs`: names, sizes, contents.

DVC watches the files themselves. This stage says whether what matters of them has changed.
"""

from pathlib import Path

from pipeline.config import load_params
from pipeline.config_sources import CsvSource, EmblemsSource, FolderSource
from pipeline.data.own_images import image_manifest, list_own_images
from pipeline.data.published import describe_files, given_files
from pipeline.data.sources import find_form, find_source
from pipeline.files import write_json
from pipeline.workspace import DatasetPaths, run_stage


def survey(name: str) -> None:
    params = load_params()
    given = Path(params.inputs[name])
    source = params.datasets[name].source
    if isinstance(source, FolderSource | CsvSource):
        table = source.table if isinstance(source, CsvSource) else None
        listing = list_own_images(given, table)
        found = {"images": image_manifest(listing), "passed_over": listing.passed_over}
    else:
        assert not isinstance(source, EmblemsSource), "load_params refuses it"
        form = find_form(find_source(source.kind), source.layout)
        found = describe_files(given_files(form, given, accept_subset=source.accept_subset))
    write_json(DatasetPaths(name).given, found)


if __name__ == "__main__":
    run_stage(survey)
