"""Gather what the report shows of one data set: its rows, and queries with what they find."""

from pipeline.datasets.packs import open_pack
from pipeline.files import write_json
from pipeline.paths import DatasetPaths
from pipeline.report.gallery import report_part
from stages import run_stage


def gallery(name: str) -> None:
    paths = DatasetPaths(name)
    write_json(paths.report_part, report_part(paths, open_pack(paths.pack)))


if __name__ == "__main__":
    run_stage(gallery)
