"""Draw docs/mlflow.png: the current results of a finished study in MLflow, in a real browser.

Run in the workspace of the study, with the repository on the path:
python docs/mlflow_screenshot.py [--output docs/mlflow.png]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.tracking.pages import answers, results_address
from pipeline.tracking.store import open_store, tracking_uri
from tests.browser import open_page
from tests.integration.test_schedule import free_port

PATIENCE_S = 120
CHARTS = 3


def wait_until_up(server: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not answers(server):
        if time.monotonic() > deadline_s:
            raise SystemExit(f"{server}: does not answer after {PATIENCE_S} s")
        time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("docs/mlflow.png"))
    options = parser.parse_args()
    server = f"http://127.0.0.1:{free_port()}"
    address = results_address(server, open_store().experiment_id)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", tracking_uri()]
    process = subprocess.Popen([*command, "--port", server.rpartition(":")[2]])  # noqa: S603
    try:
        wait_until_up(server)
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
            open_page(address, Path(profile)) as page,
        ):
            page.resize(1280, 720)
            page.wait_for(f"document.querySelectorAll('.scatterlayer').length >= {CHARTS}")
            close = "document.elementFromPoint(innerWidth - 36, 42).closest('button').click()"
            page.value(close)  # of the assistant's pane
            time.sleep(3)  # the plots take its room
            page.screenshot(options.output)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


if __name__ == "__main__":
    main()
