"""`l2s study` and `l2s retrain` with Prefect's record where its server answers, and without."""

import threading
import time
from collections.abc import Callable, Sequence

from pipeline.flows.retraining import Request, RetrainResult, retrain
from pipeline.flows.run_state import holder, running_study
from pipeline.flows.server import ServerError, prefect_server
from pipeline.flows.study import Study, planned_study
from pipeline.flows.terminal import Terminal
from pipeline.tracking.store import import_mlflow

RECORD_PATIENCE_S = 30  # after the last stage, for a server that is to take the record only


def run_study(
    *, jobs: int | None = None, targets: Sequence[str] = (), fresh: bool = False
) -> Study:
    """Run what is out of date: all, or the targets and what they need; by force what is not, too.

    Returns the study, which has ended. Stages run before Prefect is ready: that hides its start.
    Raises ValueError for unknown targets, a held workspace, or a graph that DVC refuses, and
    ServerError where a configured server is gone.
    """
    with planned_study(jobs=jobs, targets=targets, fresh=fresh) as study:
        if study.dirty and study.stop.event.is_set():
            study.finish()
        elif study.dirty:
            with prefect_server() as server:
                # No daemon: libraries that are being loaded as Python ends may abort it.
                library = threading.Thread(target=_import_libraries)
                library.start()
                if _start_without(study, lambda: server.is_up() and not library.is_alive()):
                    from pipeline.flows.prefect_flows import run_reported

                    run_reported(study, server.url)
                else:
                    study.advance()
                    study.finish()
        return study


def _import_libraries() -> None:
    """What the end of a study needs, while its first stages run and a core is often free."""
    import pipeline.flows.prefect_flows  # noqa: F401

    import_mlflow()


def _start_without(study: Study, is_ready: Callable[[], bool]) -> bool:
    """Run stages until Prefect is ready; whether it is, in the end."""
    try:
        if study.advance(until=is_ready):
            study.finish()
        until_s = time.monotonic() + RECORD_PATIENCE_S
        while not study.stop.event.is_set():
            if is_ready():
                return True
            if time.monotonic() > until_s:
                raise ServerError("Prefect's server is not up yet, and all stages have ended")
            time.sleep(0.1)
    except ServerError as error:
        study.terminal.note(f"{error}: no record of this study in Prefect")
    return False


def run_retrain(request: Request) -> RetrainResult:
    """Retrain under Prefect's eyes; without them where its server does not start."""
    if (other := running_study()) is not None:
        raise ValueError(f"a study runs here already: {holder(other)}")
    with prefect_server() as server:
        try:
            server.wait()
        except ServerError as error:
            Terminal().note(f"{error}; the retraining goes on without Prefect's record")
            return retrain(request)
        from pipeline.flows.prefect_flows import retrain_reported

        return retrain_reported(request, server.url)
