"""What was deleted in MLflow, deleted for good."""

import subprocess
import sys
from pathlib import Path

from pipeline.tracking.checkpoints import delete_orphans
from pipeline.tracking.store import Store, TrackingError, database_path, files_folder


def free_deleted(store: Store, uri: str) -> str:
    """Delete what MLflow only hides, runs with their checkpoints; what that came to, in words.

    Of a server's store only the machine of the server can free the files. Raises TrackingError.
    """
    delete_orphans(store)
    if (database := database_path(uri)) is None:
        return f"{uri}: `mlflow gc` on the machine of this server frees what was deleted"
    folder = files_folder(database)
    before = _size_bytes(folder)
    command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri]
    command += ["--tracking-uri", uri]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise TrackingError(f"mlflow gc: {done.stderr.strip()}")
    return f"{done.stdout}freed {(before - _size_bytes(folder)) / 1e6:.1f} MB of {folder}"


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
