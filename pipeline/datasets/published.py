"""The files of a published data set on this machine: given, or downloaded; always verified."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.datasets.fetching import (
    FetchedFile,
    FetchError,
    PublishedFile,
    fetch_file,
    take_file,
)
from pipeline.datasets.sources import SourceForm, parquet_split

_PARQUET_LAYOUTS = ("cars_parquet", "sop_parquet")


def download_files(
    form: SourceForm, folder: Path, *, archives_dir: Path | None, accept_subset: bool
) -> dict[str, FetchedFile]:
    """The files of a form by their published names, each from the first place that has it.

    The places: `archives_dir` (files are used where they lie), `folder` (of earlier downloads), the
    addresses. Two processes that want one file wait for each other.

    Raises FetchError; for a form that no address offers, it names the pages to get it from.
    """
    if not form.files:
        raise FetchError(
            f"the layout {form.layout} has no files that could be downloaded: get them from "
            f"{' or '.join(form.pages)}, and name their folder as an input"
        )
    if archives_dir is not None and not archives_dir.is_dir():
        raise FetchError(f"{archives_dir}: the folder of archives is not a folder")
    files = {}
    for file in form.files:
        if archives_dir is not None and (archives_dir / file.name).is_file():
            files[file.name] = take_file(
                file, archives_dir / file.name, accept_subset=accept_subset
            )
            continue
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{file.name}.lock"):
            try:
                files[file.name] = fetch_file(file, folder)
            except FetchError as error:
                pages = f"; it is offered on {' and '.join(form.pages)}" if form.pages else ""
                raise FetchError(f"{error}{pages}") from error
    return files


def given_files(form: SourceForm, given: Path, *, accept_subset: bool) -> dict[str, FetchedFile]:
    """The files of a form that lie at `given`, verified: a folder, or the form's only file.

    Parquet files are those whose split `parquet_split` knows, in sub-folders too; those of
    unpublished names are taken as a part of the data set. Raises FetchError for a file that is
    missing or another.
    """
    if form.layout in _PARQUET_LAYOUTS:
        return _given_parquet(form, given, accept_subset=accept_subset)
    if not given.is_dir() and len(form.files) > 1:
        names = ", ".join(file.name for file in form.files)
        raise FetchError(f"{given}: must be the folder that holds {names}")
    return {
        file.name: take_file(
            file, given / file.name if given.is_dir() else given, accept_subset=accept_subset
        )
        for file in form.files
    }


def _given_parquet(form: SourceForm, given: Path, *, accept_subset: bool) -> dict[str, FetchedFile]:
    """The parquet files of the folder and its sub-folders whose split is known, by name or path."""
    if not given.is_dir():
        raise FetchError(f"{given}: must be the folder of the files train-* and test-*")
    published = {file.name: file for file in form.files}
    paths = {
        path.name if path.name in published else path.relative_to(given).as_posix(): path
        for path in sorted(given.rglob("*.parquet"))
        if parquet_split(path)
    }
    missing = sorted(published.keys() - paths.keys())
    if not paths or (missing and not accept_subset):
        raise FetchError(f"{given}: misses {', '.join(missing) or 'train-* and test-*.parquet'}")
    return {
        name: take_file(published.get(name, PublishedFile(name)), path, accept_subset=accept_subset)
        for name, path in paths.items()
    }


def describe_files(files: Mapping[str, FetchedFile]) -> dict[str, Any]:
    """What identifies the files, and nothing of this machine: names, sizes, checksums."""
    return {
        "files": [
            {
                "name": name,
                "size_bytes": file.size_bytes,
                "md5": file.md5,
                "sha256": file.sha256,
            }
            for name, file in sorted(files.items())
        ],
        "subset": any(file.subset for file in files.values()),
    }
