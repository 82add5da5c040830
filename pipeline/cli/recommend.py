"""`l2s recommend`: the network to take, from the trade-off of a finished study."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from pipeline.cli.errors import OneStudy, workspace

app = typer.Typer()


@app.command()
def recommend(
    max_drop: Annotated[
        float | None,
        typer.Option(help="Points of mAP below the teacher, at the far end of the interval."),
    ] = None,
    min_overlap: Annotated[
        float | None,
        typer.Option(help="Share of the teacher's ten nearest images that it finds, such as 0.9."),
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="Median time of a query, by `l2s latency`.")
    ] = None,
    max_gmacs: Annotated[
        float | None, typer.Option(help="Arithmetic of a query, in billions (0.0164: 16.4 MMACs).")
    ] = None,
    dataset: OneStudy = None,
    roles: Annotated[
        str,
        typer.Option(help="Rows to choose from, by commas; symmetric ones need a new database."),
    ] = "asymmetric",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Name the cheapest network within the bounds; several bounds hold together.

    Without --max-drop and --min-overlap it is the most accurate one within them. Exit code 0:
    found for each data set; 1: not for some, and what comes closest is told; 2: a wrong usage, or
    no study yet.
    """
    with workspace() as space:
        from pipeline.paths import DatasetPaths
        from pipeline.report.recommendation import Bounds
        from pipeline.report.recommendation import recommend as recommended
        from pipeline.report.tradeoff import read_rows

        bounds = Bounds(max_drop, max_latency_ms, max_gmacs, min_overlap)
        chosen = [role.strip() for role in roles.split(",") if role.strip()]
        params, names = space.chosen(dataset)
        answers = {}
        for name in names:
            rows = read_rows(DatasetPaths(name), params.cells_of(name))
            answers[name] = recommended(rows, bounds, chosen)
    if as_json:
        content = {"bounds": asdict(bounds), "roles": chosen, "datasets": answers}
        typer.echo(json.dumps(content, indent=2, allow_nan=False))
    else:
        for name, answer in answers.items():
            typer.echo("\n".join(_lines(name, answer)))
    if any(answer["chosen"] is None for answer in answers.values()):
        raise typer.Exit(1)


def _lines(name: str, answer: dict[str, Any]) -> list[str]:
    """A recommendation as people read it."""
    from pipeline.evaluation.accuracy import accuracy_of
    from pipeline.report.tradeoff import macs, seeds_text

    row = answer["chosen"] or answer["closest"]
    ms, ratio = row["latency_ms"], row["latency_ratio"]
    of_teacher = "" if ratio is None else f" ({ratio:.2f} of the teacher's)"
    latency = "" if ms is None else f", {ms:.3g} ms{of_teacher}"
    cost = "arithmetic unknown" if row["gmacs"] is None else f"{macs(row['gmacs'])}MACs"
    by = accuracy_of(row)
    return [
        f"{name}: {row['network'] if answer['chosen'] else 'no network'}",
        f"  why: {answer['why']}",
        f"  {row['network']}: {row['role']}, {row['query_px']} px, {cost}"
        f"{latency}, {by.name} {_interval(row, by.column, '%')}, "
        f"{_interval(row, f'{by.column}_drop', 'points')} below the teacher"
        f"{f', mean of seeds: {seeds_text(row)}' if row['seeds'] > 1 else ''}",
        *(
            f"  not {other['network']} ({other['role']}, {other['query_px']} px): {other['why']}"
            for other in (*answer["as_good"], *answer["alternatives"])
        ),
        f"  verdict: {answer['verdict']}",
    ]


def _interval(row: dict[str, Any], column: str, unit: str) -> str:
    from pipeline.report.tradeoff import between

    return f"{100 * row[column]:.1f} {unit}{between(row, column)}"
