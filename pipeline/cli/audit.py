"""`l2s audit`: what a search in an index loses, and by what."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.errors import errors_in_words

if TYPE_CHECKING:
    from pipeline.evaluation.confidence import Interval

app = typer.Typer()


@app.command()
def audit(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="The folder of the index.")],
    vectors: Annotated[
        str, typer.Option(help="The teacher's vectors, of the same images; or s3://BUCKET/NAME.")
    ],
    queries: Annotated[
        str | None, typer.Option(help="A student's vectors of some of them; else the teacher's.")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Queries that are drawn.")] = 1000,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Neighbours of each.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample and the intervals.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure what an index loses of the teacher's exact search: student, quantisation,
    approximation. The parts add up to the loss.
    """
    with errors_in_words():
        from pipeline.embedding.destination import destination_of
        from pipeline.search.audit import audit_index
        from pipeline.search.upkeep import open_index

        here = Path.cwd()
        with open_index(index) as opened:
            teacher = destination_of(vectors, here, "--vectors").vectors()
            student = destination_of(queries, here, "--queries").vectors() if queries else None
            found = audit_index(opened, teacher, student, sample=sample, k=k, seed=seed)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    typer.echo(
        f"{found.queries} queries among {found.vectors} vectors; overlap with the teacher's exact "
        f"{k} nearest, in % with 95 % intervals"
    )
    kept = 100 * (1 - found.loss.mean)
    typer.echo(f"  kept                {kept:6.2f}")
    for name, part in {"lost": found.loss, **found.parts}.items():
        typer.echo(f"  {name if name == 'lost' else f'  by {name}':18}{_told(part)}")
    typer.echo(f"  recall@{k} of the index against the exact search: {_told(found.found).strip()}")
    if found.missing or found.surplus:
        typer.echo(
            f"the index lacks {found.missing} of the vectors and holds {found.surplus} others, "
            f"which counts as lost by quantisation: `l2s index verify {index}`"
        )


def _told(one: "Interval") -> str:
    if one.low is None or one.high is None:
        return f"  {100 * one.mean:6.2f}  (too few queries for an interval)"
    return f"  {100 * one.mean:6.2f}  ({100 * one.low:.2f} to {100 * one.high:.2f})"
