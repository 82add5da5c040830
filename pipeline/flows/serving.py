"""The program that serves a schedule: it starts the flow at its times. Imports prefect.

Run by `schedule`, in a session of its own, with its orders as JSON in the first argument.
"""

import json
import sys
from typing import Any

from prefect import Flow
from prefect.schedules import Cron, Interval, Schedule

from pipeline.flows.retrain_flow import retrain_flow, study_flow
from pipeline.flows.timetable import Timetable, interval


def prefect_schedule(timetable: Timetable) -> Schedule:
    """Raises ValueError for a cron expression that is none."""
    if timetable.cron is None:
        return Interval(interval(timetable), timezone=timetable.zone)
    try:
        return Cron(timetable.cron, timezone=timetable.zone)
    except ValueError as error:
        raise ValueError(f"--cron {timetable.cron!r}: {error}") from None


def serve_schedule(orders: dict[str, Any]) -> None:
    """Serve until a signal ends it; the schedule is paused then. One run at a time."""
    served: Flow[..., Any] = study_flow if orders["study"] else retrain_flow
    served.serve(
        name=orders["name"],
        schedule=prefect_schedule(Timetable(**orders["timetable"])),
        parameters=orders["parameters"],
        limit=1,
        print_starting_message=False,
    )


if __name__ == "__main__":
    serve_schedule(json.loads(sys.argv[1]))
