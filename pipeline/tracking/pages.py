"""MLflow's pages: a flat table of the current results, and the server that shows it here."""

import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable

# A saved view of an experiment's page: a row for each current evaluation, the best map first.
VIEW_TAG = "mlflow.sharedViewState.current"
COMPARED = ("map", "recall_at_1", "overlap_at_10", "gmacs")
COLUMNS = [f"metrics.`{name}`" for name in (*COMPARED, "latency_ms")]
COLUMNS += ["tags.`role`", "tags.`query_px`"]
SECTION = "accuracy for cost"  # of the same page's charts: x and y of each
CHARTS = (("gmacs", "map"), ("gmacs", "recall_at_1"), ("gmacs", "overlap_at_10"))
STATE = {
    "searchFilter": "tags.current = 'yes' and tags.dvc_stage LIKE 'evaluate@%'",
    "orderByKey": COLUMNS[0],
    "orderByAsc": False,
    "selectedColumns": COLUMNS,
    "columnOrder": COLUMNS,
    "runsHiddenMode": "SHOWALL",
    "compareRunCharts": [
        {
            "type": "SCATTER",
            "uuid": f"{x}-{y}",
            "metricSectionId": SECTION,
            "deleted": False,
            "isGenerated": False,
            "xaxis": {"key": x, "type": "METRIC"},
            "yaxis": {"key": y, "type": "METRIC"},
            "runsCountToCompare": 100,
        }
        for x, y in CHARTS
    ],
    "compareRunSections": [
        {
            "uuid": SECTION,
            "name": SECTION,
            "display": True,
            "isReordered": False,
            "deleted": False,
            "isGenerated": False,
        }
    ],
}
NOTE_TAG = "mlflow.note.content"  # the experiment's description, in Markdown
NOTE_LENGTH = 20_000  # characters: MLflow refuses a longer one
NOTE = """\
The runs `evaluate@...` are the rows of the tables below, the others trainings with a checkpoint an
epoch. The view [current results]({address}) has a row for each, with its accuracy, and charts of
accuracy for what a query costs. The page of the study is `report/index.html` in its workspace."""
LEFT_OUT = "\n\nThere is no room for {count} more tables: they stand in `results/`."
VIEW = json.dumps({"name": "current results", "createdAt": 0, "state": json.dumps(STATE)})


def show_pages(uri: str, experiment_id: str, port: int, say: Callable[[str], None]) -> None:
    """Say where the page of the current results is; where no server has the store, become one.

    It is said when the page answers. Raises ValueError where another server answers at the port.
    """
    is_served = uri.startswith(("http://", "https://"))
    server = uri.rstrip("/") if is_served else f"http://127.0.0.1:{port}"
    message = f"MLflow's pages: {results_address(server, experiment_id)}"
    if is_served:
        say(message)
        return
    if answers(server):
        raise ValueError(f"--port {port}: a server of MLflow answers there already")
    own = os.getpid()
    if os.fork() == 0:
        while os.getppid() == own and not answers(server):
            time.sleep(0.2)
        if os.getppid() == own:
            say(f"{message} (Ctrl-C ends them)")
        os._exit(0)
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # eight processes for other uses
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    os.execv(command[0], command)  # noqa: S606  (signals then reach MLflow itself)


def results_address(server: str, experiment_id: str) -> str:
    """Where a server of MLflow shows the current results, as charts beside the rows."""
    view = f"viewStateShareKey={VIEW_TAG.rpartition('.')[2]}&compareRunsMode=CHART"
    return f"{server}/#/experiments/{experiment_id}/runs?workflowType=machine_learning&{view}"


def answers(url: str, patience_s: float = 2) -> bool:
    """Whether a server is in health, asked at its `/health`; False also for what is no address."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=patience_s):  # noqa: S310
            return True
    except (OSError, ValueError):
        return False
