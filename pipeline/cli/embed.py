"""`l2s embed`: any number of images to vectors on disk, resumed wherever it was stopped."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.cli.errors import Workspace, workspace

app = typer.Typer()


@app.command()
def embed(
    source: Annotated[
        str, typer.Argument(help="A folder, a table, a folder of tar shards, or s3://BUCKET/NAME.")
    ],
    to: Annotated[str, typer.Option(help="A folder of vectors, or s3://BUCKET/NAME.")],
    network: Annotated[
        str, typer.Option(help="teacher, a key of params.students, or a file.safetensors.")
    ] = "teacher",
    dataset: Annotated[
        str | None, typer.Option(help="Whose network; by default the first data set's.")
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="ray: also several machines (RAY_ADDRESS).")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="By default one a core, or one beside a GPU.")
    ] = None,
    number: Annotated[
        Literal["float16", "float32"], typer.Option(help="Of the vectors on disk.")
    ] = "float16",
    reduced_decode: Annotated[
        bool, typer.Option("--reduced-decode", help="Decode large JPEGs smaller: faster, inexact.")
    ] = False,
    allow: Annotated[
        list[str] | None, typer.Option(help="s3://BUCKET that a table names; may be repeated.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only embed one image a shard anew, and compare.")
    ] = False,
) -> None:
    """Embed what --to lacks of SOURCE: new images, changed ones; deleted ones get tombstones.

    Stopped or killed, the same command goes on where it was, and ends with the same bytes. Images
    that cannot be read stand in unreadable.parquet; they are counted, and are no failure.
    """
    with workspace(is_needed=not network.endswith(".safetensors")) as study:
        from pipeline.datasets.picture_sources import picture_source
        from pipeline.devices import resolve_device
        from pipeline.embedding.destination import destination_of
        from pipeline.embedding.golden import check_golden
        from pipeline.embedding.local import LocalEngine
        from pipeline.embedding.ray_engine import RayEngine
        from pipeline.embedding.sharded import embed_source
        from pipeline.embedding.shards import Job
        from pipeline.processes import own_cores
        from pipeline.progress import count_text

        is_cpu = resolve_device(1).type == "cpu"
        job = Job(
            picture_source(source, study.here, allow or ()),
            destination_of(to, study.here),
            _network(network, dataset, study),
            number,
            reduced_decode,
            is_cpu,
        )
        if check:
            typer.echo(check_golden(job))
            return
        report = embed_source(
            job,
            engine=RayEngine if engine == "ray" else LocalEngine,
            workers=workers or (own_cores() if is_cpu else 1),
            tell=lambda line: typer.echo(line, err=True),
        )
    embedded = count_text(report.embedded, "image")
    typer.echo(f"{embedded} embedded in {count_text(report.shards, 'shard')}: {to}")
    if report.unreadable:
        typer.echo(
            f"warning: {count_text(report.unreadable, 'image')} cannot be read: listed, with the "
            f"reasons, in {to.rstrip('/')}/unreadable.parquet",
            err=True,
        )


def _network(given: str, dataset: str | None, study: Workspace) -> Path:
    """The file of a network. Raises ValueError for one that is not there."""
    from pipeline.search.search import choose_network, named_file

    named = named_file(given, study.here)
    named = named or choose_network(study.params_for(dataset, given), given, dataset)
    return named.trained().resolve()
