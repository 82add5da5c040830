"""The files of a published data set on this machine: given, or downloaded; always verified."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock

from pipeline.datasets.download import DownloadError, ObtainedFile, obtain_file
from pipeline.datasets.sources import SourceFile, SourceForm, parquet_split
from pipeline.progress import Progress

_LARGE_BYTES = 50_000_000
_PARQUET_LAYOUTS = ("cars_parquet", "sop_parquet")


class TransferBar:
    """The progress of one download, for `obtain_file` to tell."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bar: Progress | None = None
        self.unit_bytes = 1

    def __enter__(self) -> "TransferBar":
        return self

    def tell(self, done_bytes: int, total_bytes: int | None) -> None:
        """Show how far the transfer is; one that begins anew gets a new bar."""
        if self.bar is None or done_bytes < self.bar.done * self.unit_bytes:
            self._close()
            is_large = total_bytes is None or total_bytes > _LARGE_BYTES
            self.unit_bytes, unit = (1_000_000, "MB") if is_large else (1000, "kB")
            done = done_bytes // self.unit_bytes
            self.bar = Progress(f"downloading {self.name}", done, done=done, unit=unit)
        done = done_bytes // self.unit_bytes
        self.bar.total = (total_bytes or done_bytes) // self.unit_bytes
        if self.bar.bar is not None:
            self.bar.bar.total = self.bar.total
        if done > self.bar.done:
            self.bar.advance(done - self.bar.done)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.__exit__(None, None, None)
            self.bar = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()


def download_files(
    form: SourceForm, folder: Path, *, archives_dir: Path | None, accept_subset: bool
) -> dict[str, ObtainedFile]:
    """The files of a form by their published names, each from the first place that has it.

    The places: `archives_dir` (files are used where they lie), `folder` (of earlier downloads), the
    addresses. Two processes that want one file wait for each other.

    Raises DownloadError; for a form that no address offers, it names the pages to get it from.
    """
    if not form.files:
        raise DownloadError(
            f"the layout {form.layout} has no files that could be downloaded: get them from "
            f"{' or '.join(form.pages)}, and name their folder as an input"
        )
    files = {}
    for file in form.files:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{file.name}.lock"), TransferBar(file.name) as bar:
            try:
                files[file.name] = obtain_file(
                    file,
                    folder,
                    archives_dir=archives_dir,
                    accept_subset=accept_subset,
                    on_progress=bar.tell,
                )
            except DownloadError as error:
                pages = f"; it is offered on {' and '.join(form.pages)}" if form.pages else ""
                raise DownloadError(f"{error}{pages}") from error
    return files


def given_files(form: SourceForm, given: Path, *, accept_subset: bool) -> dict[str, ObtainedFile]:
    """The files of a form that lie at `given`, verified: a folder, or the form's only file.

    Parquet files are those whose split `parquet_split` knows, in sub-folders too; those of
    unpublished names are taken as a part of the data set. Raises DownloadError for a file that is
    missing or another.
    """
    if form.layout in _PARQUET_LAYOUTS:
        return _given_parquet(form, given, accept_subset=accept_subset)
    if not given.is_dir() and len(form.files) > 1:
        names = ", ".join(file.name for file in form.files)
        raise DownloadError(f"{given}: must be the folder that holds {names}")
    return {
        file.name: obtain_file(
            file,
            given,
            archive=given / file.name if given.is_dir() else given,
            accept_subset=accept_subset,
        )
        for file in form.files
    }


def _given_parquet(
    form: SourceForm, given: Path, *, accept_subset: bool
) -> dict[str, ObtainedFile]:
    """The parquet files of the folder and its sub-folders whose split is known, by name or path."""
    if not given.is_dir():
        raise DownloadError(f"{given}: must be the folder of the files train-* and test-*")
    published = {file.name: file for file in form.files}
    paths = {
        path.name if path.name in published else path.relative_to(given).as_posix(): path
        for path in sorted(given.rglob("*.parquet"))
        if parquet_split(path)
    }
    missing = sorted(published.keys() - paths.keys())
    if not paths or (missing and not accept_subset):
        raise DownloadError(f"{given}: misses {', '.join(missing) or 'train-* and test-*.parquet'}")
    return {
        name: obtain_file(
            published.get(name, SourceFile(name)),
            given,
            archive=path,
            accept_subset=accept_subset,
        )
        for name, path in paths.items()
    }


def describe_files(files: Mapping[str, ObtainedFile]) -> dict[str, Any]:
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
