"""A database that fails while it is used, as on a full disk: words, and no traceback."""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.tracking.store import TrackingError, open_store, tracking_errors

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own


def test_a_database_that_fails_is_told_in_words_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    store = open_store()
    run_id = store.client.create_run(store.experiment_id).info.run_id
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        connection.execute("ALTER TABLE tags RENAME TO others")
    told: list[logging.LogRecord] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", told.append)
    logger = logging.getLogger("mlflow.store.db.utils")
    logger.addHandler(handler)
    with pytest.raises(TrackingError, match="no such table"), tracking_errors():
        store.client.set_tag(run_id, "a", "b")
    logger.removeHandler(handler)
    assert told == []
