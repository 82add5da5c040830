"""The tables of Prefect's pages."""

from pipeline.flows import artifacts
from pipeline.flows.artifacts import plan_rows, stage_rows
from pipeline.flows.graph import StageGraph
from pipeline.flows.stage_runs import Outcome

RAN = Outcome("teach@a", "ran", 61.0, "2026-01-01T00:00:00+00:00")


def test_tables_have_a_row_a_stage() -> None:
    edges = {"a": (), "b": ("a",), "c": ("a",), "d": ("c",)}
    graph = StageGraph(edges, {"c": ("lr modified",)}, frozenset("abcd"))
    plan = plan_rows(graph, graph.dirty())
    assert [row["to run"] for row in plan] == ["no", "no", "yes", "yes"]
    assert [row["why"] for row in plan] == ["", "", "lr modified", "after c"]
    assert plan[3]["reads from"] == "c"
    rows = stage_rows(graph, {"c": RAN}, ["d"])
    assert [row["result"] for row in rows] == ["up to date", "up to date", "ran", "not run"]
    assert [row["seconds"] for row in rows] == ["", "", "61.0", ""]


def test_keys_are_what_prefect_takes() -> None:
    assert artifacts._key("CUB_200 2011") == "cub-200-2011"
