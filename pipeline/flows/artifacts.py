"""What a study leaves in Prefect's pages: plan, stage table, trade-off table and figure."""

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from pipeline.flows.graph import StageGraph
from pipeline.flows.stage_runs import Outcome
from pipeline.paths import locked_outputs

if TYPE_CHECKING:
    from pipeline.search.promotion import Verdict

RESULTS = Path("results")


def plan_rows(graph: StageGraph, dirty: Sequence[str]) -> list[dict[str, str]]:
    """One row a stage: whether it runs, and why."""
    rows = []
    for name, upstreams in graph.upstreams.items():
        row = {"stage": name, "to run": "no", "why": "", "reads from": ", ".join(upstreams)}
        if name in dirty:
            after = [f"after {other}" for other in upstreams if other in dirty]
            row |= {"to run": "yes", "why": "; ".join([*graph.changes.get(name, ()), *after])}
        rows.append(row)
    return rows


def stage_rows(
    graph: StageGraph, outcomes: Mapping[str, Outcome], not_run: Sequence[str]
) -> list[dict[str, str]]:
    """One row a stage: how it ended, and how long it took."""
    rows = []
    for name in graph.names:
        row = {"stage": name, "result": "not run" if name in not_run else "up to date"}
        row |= {"seconds": "", "ended": ""}
        if one := outcomes.get(name):
            row |= {"result": one.result, "seconds": f"{one.seconds:.1f}", "ended": one.ended}
        rows.append(row)
    return rows


def publish_plan(graph: StageGraph, dirty: Sequence[str]) -> None:
    create_table_artifact(
        table=plan_rows(graph, dirty), key="plan", description="The stages of dvc.yaml, in order"
    )


def publish_results(
    graph: StageGraph, outcomes: Mapping[str, Outcome], not_run: Sequence[str]
) -> None:
    """The stage table; and for each data set its trade-off table and figure."""
    rows = stage_rows(graph, outcomes, not_run)
    create_table_artifact(table=rows, key="stages", description="How the stages ended")
    # What another study left lies beside it; dvc.lock knows this study's results alone.
    known = {Path(out).parts[:2] for outs in locked_outputs().values() for out in outs}
    for table in sorted(RESULTS.glob("*/tradeoff.md")):
        name = table.parent.name
        if table.parent.parts not in known:
            continue
        create_markdown_artifact(
            markdown=table.read_text(encoding="utf-8"),
            key=f"tradeoff-{_key(name)}",
            description=f"{name}: accuracy and cost of a query",
        )
        figure = table.with_suffix(".svg")
        if figure.exists():
            create_image_artifact(
                image_url=_data_url(figure),
                key=f"figure-{_key(name)}",
                description=f"{name}: accuracy against cost",
            )


def publish_retraining(verdicts: "Mapping[str, Sequence[Verdict]]", lines: Sequence[str]) -> None:
    """For each data set the decisions on its query resolutions; and what was done, in lines."""
    for name, decided in verdicts.items():
        rows = [
            {
                "resolution": verdict.model,
                "candidate": verdict.candidate,
                "decision": verdict.decision.result,
                "reason": verdict.decision.reason,
                "champion": verdict.champion,
            }
            for verdict in decided
        ]
        create_table_artifact(
            table=rows, key=f"champions-{_key(name)}", description=f"{name}: who leads now, and why"
        )
    done = "\n".join(f"- {line}" for line in lines)
    create_markdown_artifact(markdown=done, key="retraining", description="What was done")


def _key(name: str) -> str:
    """A name as Prefect takes it: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _data_url(figure: Path) -> str:
    """The figure itself as an address, so that the page needs no other file."""
    return f"data:image/svg+xml;base64,{base64.b64encode(figure.read_bytes()).decode()}"
