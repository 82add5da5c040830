"""What a study leaves in Prefect's pages: plan, stage table, trade-off tables; and a retraining."""

import re
from collections.abc import Sequence

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from pipeline.flows.study import Study
from pipeline.paths import tradeoff_tables


def publish_plan(study: Study) -> None:
    """One row a stage: whether it runs, how it stood before, and why."""
    rows = [
        {"stage": name, "to run": str(name in study.dirty), "state": state, "why": why}
        for name, (state, why) in study.before.items()
    ]
    create_table_artifact(table=rows, key="plan", description="The stages of dvc.yaml, in order")


def publish_results(study: Study) -> None:
    """One row a stage that was to run; and for each data set its trade-off table."""
    rows = [
        {"stage": one.stage, "result": one.result, "seconds": str(one.seconds), "ended": one.ended}
        for one in study.outcomes.values()
    ]
    rows += [{"stage": name, "result": "not run"} for name in study.not_run]
    create_table_artifact(table=rows, key="stages", description="How the stages ended")
    for table in tradeoff_tables():
        name = table.parent.name
        create_markdown_artifact(
            markdown=table.read_text(encoding="utf-8"),
            key=f"tradeoff-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}",
            description=f"{name}: accuracy and cost of a query",
        )


def publish_retraining(lines: Sequence[str]) -> None:
    """What was done, and the decision on each champion."""
    done = "\n".join(f"- {line}" for line in lines)
    create_markdown_artifact(markdown=done, key="retraining", description="Done and decided")
