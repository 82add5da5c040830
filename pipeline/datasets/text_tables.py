"""Text files of columns, inside an archive."""

from pathlib import Path

from pipeline.datasets.archives import OpenArchive
from pipeline.datasets.listings import LayoutError


def read_table(archive: Path, members: OpenArchive, file: str, *, columns: int) -> list[list[str]]:
    """The lines of `file`, each cut at blanks into `columns` words; the last may hold blanks.

    A byte order mark at the start and blank lines at the end are left out. Raises LayoutError that
    names the archive, the file and the line.
    """
    if file not in members.names:
        raise LayoutError(f"{archive.name}: {file} is missing")
    try:
        text = members.read(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LayoutError(f"{archive.name}: {file} is not UTF-8 text: {error.reason}") from error
    table = []
    for number, line in enumerate(text.rstrip().splitlines(), start=1):
        words = line.strip().split(maxsplit=columns - 1)
        if len(words) != columns:
            reason = f"line {number} has {len(words)} columns instead of {columns}"
            raise LayoutError(f"{archive.name}: {file}: {reason}")
        table.append(words)
    return table
