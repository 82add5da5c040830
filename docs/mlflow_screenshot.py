"""Draw docs/mlflow.png: the students of a finished study compared in MLflow, in a real browser.

Run in the workspace of the study, with the repository on the path:
python docs/mlflow_screenshot.py [--role asymmetric] [--output docs/mlflow.png]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

from pipeline.tracking.store import open_store, tracking_uri
from tests.browser import Page, open_page
from tests.integration.test_schedule import free_port

METRICS = ("gmacs", "map")
PATIENCE_S = 120


def compare_address(server: str, role: str) -> str:
    """MLflow's page that compares the runs of a role in the current study."""
    runs = open_store().runs(f"tags.role = '{role}' and tags.current = 'yes'")
    if len(runs) < 2:
        raise SystemExit(f"{len(runs)} runs of role {role!r}: a comparison needs two or more")
    ids = quote(json.dumps([run.info.run_id for run in runs]))
    experiments = quote(json.dumps(sorted({run.info.experiment_id for run in runs})))
    return f"{server}/#/compare-runs?runs={ids}&experiments={experiments}"


def choose_metrics(page: Page) -> None:
    """In the second of the two lists, accuracy and cost in place of what stands there."""
    lists = "document.querySelectorAll('.ant-select, [class*=select-multiple]')"
    page.wait_for(f"{lists}.length >= 2")
    page.value("[...document.querySelectorAll('[class*=selection-item-remove]')].at(-1).click()")
    for name in METRICS:
        page.value("[...document.querySelectorAll('input[role=combobox]')].at(-1).focus()")
        page.call("Input.insertText", text=name)
        time.sleep(0.5)  # the list narrows
        page.press("Enter")


def wait_until_up(server: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urlopen(f"{server}/health"):  # noqa: S310  (our own server on loopback)
                return
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--role", default="asymmetric")
    parser.add_argument("--output", type=Path, default=Path("docs/mlflow.png"))
    options = parser.parse_args()
    port = free_port()
    server = f"http://127.0.0.1:{port}"
    address = compare_address(server, options.role)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", tracking_uri()]
    process = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)])  # noqa: S603
    try:
        wait_until_up(server)
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
            open_page(address, Path(profile)) as page,
        ):
            page.resize(1280, 720)
            page.wait_for("document.querySelector('.js-plotly-plot .parcoords') !== null")
            close = "document.elementFromPoint(innerWidth - 36, 42).closest('button').click()"
            page.value(close)  # of the assistant's pane
            choose_metrics(page)
            page.value("document.activeElement.blur()")
            time.sleep(3)  # the plot fades in
            page.screenshot(options.output)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


if __name__ == "__main__":
    main()
