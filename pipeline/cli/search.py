"""`l2s search` and `ui`: pictures in, the most similar ones out."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.errors import printable, workspace
from pipeline.files import write_text

app = typer.Typer()


@app.command()
def search(
    images: Annotated[
        list[str], typer.Argument(help="Files, folders, globs, or - for a list on standard input.")
    ],
    network: Annotated[
        str | None,
        typer.Option(
            help="A key of params.students, teacher, or for an index of vectors a network's file. "
            "By default the first student."
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Results a picture.")] = 10,
    dataset: Annotated[
        str | None, typer.Option(help="Search its database; by default the network's or the first.")
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(help="Search this index of `l2s index` instead: its name, or folder."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page of pictures.")] = None,
    reduced_decode: Annotated[
        bool, typer.Option("--reduced-decode", help="Decode large JPEGs smaller: faster, inexact.")
    ] = False,
    newest: Annotated[
        bool, typer.Option("--newest", help="The student trained last, even if a champion leads.")
    ] = False,
) -> None:
    """Find the pictures of the database that are most similar to these.

    Exit code 0: all were searched; 1: some could not be read; 2: none could, or a wrong usage.
    """
    is_file = network is not None and network.endswith(".safetensors")
    with workspace(is_needed=not is_file) as study:
        from pipeline.search.index import find_index
        from pipeline.search.search import open_searcher

        here = study.here
        place = None if index is None else find_index(index, study.path(Path(index)))
        with open_searcher(
            study.params_for, network, dataset, place, here=here, newest=newest
        ) as searcher:
            named, database = searcher.named, searcher.database
            listed = sys.stdin if "-" in images else ()
            queries = searcher.search(images, here, listed, k, reduced_decode=reduced_decode)
            if html:
                from pipeline.datasets.reader import read_file
                from pipeline.search.page.sheet import picture_sheet

                title = f"{len(queries)} pictures by {named.key} in {database.name}"
                page = picture_sheet(
                    queries, lambda name: read_file(here / name, name), database.read, title
                )
                write_text(study.path(html), page)
            found = {
                "network": named.key,
                "champion_version": named.version,
                "query_px": searcher.encoder.size_px,
                "database": database.name,
                "database_images": len(database),
                "queries": queries,
            }
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        _print_tables(found, database.what)
    failures = [query for query in queries if "error" in query]
    for query in failures:
        typer.echo(f"error: {printable(query['image'])}: {printable(query['error'])}", err=True)
    if html:
        typer.echo(f"pictures  {html}", err=True)
    if failures:
        typer.echo(f"{len(failures)} of {len(queries)} pictures could not be searched", err=True)
        raise typer.Exit(2 if len(failures) == len(queries) else 1)


def _print_tables(found: dict[str, Any], what: str) -> None:
    version = found["champion_version"]
    leads = f", champion version {version}" if version else ""
    typer.echo(
        f"{found['network']} ({found['query_px']} px{leads}) in {found['database']}, "
        f"{found['database_images']} {what}"
    )
    for query in found["queries"]:
        if hits := query.get("results"):
            width = max(5, *(len(hit["class_name"]) for hit in hits))
            typer.echo(f"\n{printable(query['image'])}")
            typer.echo(f"rank  similarity  {'class':{width}}  image")
            for hit in hits:
                class_name, name = printable(hit["class_name"]), printable(hit["name"])
                place = f"{hit['rank']:4}  {hit['similarity']:10.4f}"
                typer.echo(f"{place}  {class_name:{width}}  {name}")
        elif "results" in query:
            typer.echo(f"\n{printable(query['image'])}: there is nothing to be found")


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8765,
    host: Annotated[
        str, typer.Option(help="Listen at this address; off loopback only with a token.")
    ] = "127.0.0.1",
    token_file: Annotated[
        Path | None,
        typer.Option(help="A file with the token of all requests; or L2S_TOKEN. No page then."),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(help="A network's file, for the indexes of vectors that it embedded, too."),
    ] = None,
) -> None:
    """Open a page on this machine: drop a picture, see what a network finds, and the teacher.

    Other programs ask the same server: POST /search, POST /embed; /openapi.json describes them. It
    ends with Ctrl-C. MLflow's pages are those of `l2s mlflow`.
    """
    with workspace() as study:
        from pipeline.search.page.access import grant_access
        from pipeline.search.page.server import create_app, listen, serve
        from pipeline.search.page.service import SearchService
        from pipeline.search.search import named_file

        access = grant_access(host, token_file and study.path(token_file))
        file = named_file(network, study.here)
        if network and file is None:
            raise ValueError(
                f"--network {network}: must be a file, NAME.safetensors; the page has the study's"
            )
        service = SearchService(study.all_params, file)
        if next(service.catalogue(), None) is None:
            raise ValueError("there is no database to search yet: run `l2s study`")
        with listen(port, access) as listener:
            what = (
                "search page " if access.token is None else "search, for requests with the token "
            )
            at = f"[{host}]" if ":" in host else host
            typer.echo(f"{what} http://{at}:{listener.getsockname()[1]}")
            typer.echo("Ctrl-C ends it")
            serve(create_app(service, access), listener)
