"""From what params.yaml says of a source to its files and its images."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from pipeline.config.sources import PublishedSource
from pipeline.datasets.cars196 import CARS196
from pipeline.datasets.cub200 import CUB200
from pipeline.datasets.fetching import FetchedFile, download_files, given_files
from pipeline.datasets.published import PublishedDataset
from pipeline.datasets.sop import SOP
from pipeline.paths import ARCHIVES, archives_folder

DATASETS: Mapping[str, PublishedDataset] = MappingProxyType(
    {dataset.name: dataset for dataset in (CUB200, CARS196, SOP)}
)


def find_files(source: PublishedSource, given: str | None) -> dict[str, FetchedFile]:
    """The verified files of a published data set, by their published names.

    given: where they lie; None: in the folder L2S_ARCHIVES, among earlier downloads, or at their
    addresses. Raises FetchError.
    """
    archive = DATASETS[source.kind].archives[source.layout]
    if given is not None:
        return given_files(archive, Path(given), accept_subset=source.accept_subset)
    return download_files(
        archive, ARCHIVES, archives_dir=archives_folder(), accept_subset=source.accept_subset
    )
