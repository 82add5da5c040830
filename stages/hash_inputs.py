"""Describe what lies at a data set's entry of `inputs`: names, sizes, contents.

DVC watches the files themselves. This stage says whether what matters of them has changed. Of the
user's own images it also settles which classes train, and records that in splits/NAME.json.
"""

import sys
from pathlib import Path

from pipeline.config.params import load_params
from pipeline.config.sources import EmblemsSource, OwnSource
from pipeline.datasets.fetching import describe_files
from pipeline.datasets.own_images import image_manifest, list_own_images
from pipeline.datasets.sources import find_files
from pipeline.datasets.splits import known_classes, settle_images, write_record
from pipeline.files import write_json
from pipeline.paths import STUDY, DatasetPaths
from stages import run_stage


def hash_inputs(name: str) -> None:
    params, paths = load_params(), DatasetPaths(name)
    given = Path(params.inputs[name])
    source = params.datasets[name].source
    if isinstance(source, OwnSource):
        if not paths.splits.exists() and (STUDY / paths.splits).exists():
            raise ValueError(f"{paths.splits}: commit it, that experiments split images as it says")
        known = known_classes(paths)
        reader = list_own_images(given, source)
        found, record, lines = settle_images(str(given), reader, image_manifest(reader), known)
        found["passed_over"] = reader.passed_over
        sys.stderr.writelines(f"{name}: {line}\n" for line in lines)
        write_record(paths.splits, record)
    else:
        assert not isinstance(source, EmblemsSource), "load_params refuses it"
        found = describe_files(find_files(source, params.inputs[name]))
    write_json(paths.given, found)


if __name__ == "__main__":
    run_stage(hash_inputs)
