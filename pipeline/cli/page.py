"""`l2s ui`: the search page."""

from typing import Annotated

import typer

from pipeline.cli.errors import workspace

app = typer.Typer()


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8765,
) -> None:
    """Open a page on this machine: drop a picture, see what a network finds, and the teacher.

    It listens on loopback only, and ends with Ctrl-C. MLflow's pages are those of `l2s mlflow`.
    """
    with workspace() as study:
        from pipeline.search.page.server import HOST, create_app, listen, serve
        from pipeline.search.page.service import SearchService

        service = SearchService(study.params, study.device)
        if not service.owners():
            raise ValueError("there is no database to search yet: run `l2s study`")
        service.catalogue()
        with listen(port) as listener:
            typer.echo(f"search page  http://{HOST}:{listener.getsockname()[1]}")
            typer.echo("Ctrl-C ends it")
            serve(create_app(service), listener)
