"""`l2s search` and `l2s index`: pictures in, the most similar ones out."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline.cli.errors import printable, workspace

if TYPE_CHECKING:
    from pipeline.search.databases import Database
    from pipeline.search.page.sheet import AnsweredQuery
    from pipeline.search.search import QueryNetwork

app = typer.Typer()


@app.command()
def search(
    images: Annotated[
        list[str],
        typer.Argument(help="Files, folders, globs, or - for a list on standard input."),
    ],
    network: Annotated[
        str | None,
        typer.Option(
            help="A key of params.students, or teacher; by default the data set's first student."
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Results a picture.")] = 10,
    dataset: Annotated[
        str | None,
        typer.Option(help="Search its database; by default the network's, or the first one."),
    ] = None,
    index: Annotated[
        str | None, typer.Option(help="Search this index, made by `l2s index`, instead.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page of pictures.")] = None,
    reduced_decode: Annotated[
        bool,
        typer.Option("--reduced-decode", help="Decode large JPEGs to a fraction: faster, inexact."),
    ] = False,
    newest: Annotated[
        bool,
        typer.Option("--newest", help="The student trained last, where a champion leads, too."),
    ] = False,
) -> None:
    """Find the pictures of the database that are most similar to these.

    Exit code 0: all were searched; 1: some could not be read; 2: none could, or a wrong usage.
    """
    with workspace() as study:
        from pipeline.search.pictures import name_pictures
        from pipeline.search.search import open_search

        listed = sys.stdin if "-" in images else ()
        pictures = name_pictures(images, study.here, listed)
        target = study.path(html) if html else None
        if target and not target.parent.is_dir():
            raise ValueError(f"--html {html}: there is no folder {target.parent}")
        opened, database = open_search(
            study.params, network, dataset, index, study.device, newest=newest
        )
        queries = [
            _answer(picture, study.here, opened, database, k, reduced_decode=reduced_decode)
            for picture in pictures
        ]
        if target:
            from pipeline.files import write_text
            from pipeline.search.page.sheet import picture_sheet

            title = f"{len(queries)} pictures by {opened.name} in {database.name}"
            write_text(target, picture_sheet(queries, database, title))
    if as_json:
        _print_json(queries, opened, database)
    else:
        _print_tables(queries, opened, database)
    for query in queries:
        if query.error is not None:
            typer.echo(f"error: {printable(query.name)}: {printable(query.error)}", err=True)
    if target:
        typer.echo(f"pictures  {html}", err=True)
    failed = sum(query.error is not None for query in queries)
    if failed:
        typer.echo(f"{failed} of {len(queries)} pictures could not be searched", err=True)
        raise typer.Exit(2 if failed == len(queries) else 1)


def _answer(
    picture: Path,
    here: Path,
    network: "QueryNetwork",
    database: "Database",
    k: int,
    *,
    reduced_decode: bool,
) -> "AnsweredQuery":
    from pipeline.datasets.decode import UnreadableImage
    from pipeline.search.page.sheet import AnsweredQuery
    from pipeline.search.pictures import read_file
    from pipeline.search.search import search_picture

    name = str(picture.relative_to(here) if picture.is_relative_to(here) else picture)
    try:
        encoded = read_file(picture, name)
        answer = search_picture(encoded, name, network, database, k, reduced_decode=reduced_decode)
    except UnreadableImage as failure:
        return AnsweredQuery(name, b"", (), failure.reason)
    return AnsweredQuery(name, encoded, answer.hits)


def _print_json(
    queries: "Sequence[AnsweredQuery]", network: "QueryNetwork", database: "Database"
) -> None:
    import json
    from dataclasses import asdict

    def entry(query: "AnsweredQuery") -> dict[str, Any]:
        if query.error is not None:
            return {"image": query.name, "error": query.error}
        return {"image": query.name, "results": [asdict(hit) for hit in query.hits]}

    found = {
        "network": network.name,
        "champion_version": network.version,
        "query_px": network.size_px,
        "database": database.name,
        "database_images": len(database),
        "queries": [entry(query) for query in queries],
    }
    typer.echo(json.dumps(found, indent=2))


def _print_tables(
    queries: "Sequence[AnsweredQuery]", network: "QueryNetwork", database: "Database"
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 120)
    leads = f", champion version {network.version}" if network.version else ""
    console.print(
        f"{network.name} ({network.size_px} px{leads}) in {database.name}, "
        f"{len(database)} {database.what}",
        highlight=False,
        markup=False,
    )
    for query in queries:
        if query.error is not None:
            continue
        table = Table(title=Text(printable(query.name)), title_justify="left")
        for column in ("rank", "similarity", "class", "image"):
            table.add_column(
                column, justify="right" if column in ("rank", "similarity") else "left"
            )
        for hit in query.hits:
            table.add_row(
                str(hit.rank),
                f"{hit.similarity:.4f}",
                Text(printable(hit.class_name)),
                Text(printable(hit.name)),
            )
        console.print(table)


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="Images at any depth; CLASS/... names a class.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the index; by default the folder's.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Whose teacher embeds; by default the first data set's.")
    ] = None,
    kind: Annotated[
        Literal["exact", "hnsw", "ivfpq"] | None,
        typer.Option(help="exact (the default), or approximate: hnsw is fast, ivfpq small too."),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="From this folder alone, embedding everything anew.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take images whose content has changed.")
    ] = False,
) -> None:
    """Make or extend an index of new images with the teacher, without training.

    Exit code 0: all are in the index; 1: some could not be read; 2: none could, or a wrong usage.
    """
    with workspace() as study:
        from pipeline.search.indexing import index_folder
        from pipeline.search.search import TEACHER, choose_network, open_network

        named = choose_network(study.params, TEACHER, dataset)
        place = study.path(folder).resolve()
        report = index_folder(
            place,
            place.name if name is None else name,
            named,
            open_network(named, study.device),
            kind=kind,
            rebuild=rebuild,
            take_changed=replace,
            threads=study.params.threads,
        )
    for failure in report.failures:
        typer.echo(f"error: {printable(failure.name)}: {printable(failure.reason)}", err=True)
    typer.echo(
        f"{report.card.images} images ({report.card.kind}): {report.added} added, "
        f"{report.replaced} replaced, {report.unchanged} unchanged, "
        f"{len(report.failures)} unreadable"
    )
    typer.echo(f"search them with: l2s search IMAGE --index {name or place.name}")
    if report.failures:
        raise typer.Exit(1)
