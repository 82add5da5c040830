"""`l2s ui`: the search page, and MLflow's page beside it."""

from contextlib import nullcontext
from typing import Annotated

import typer

from pipeline.cli.errors import enter_workspace, plain_errors

app = typer.Typer()


@app.command()
def ui(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the search page; 0: any free one.")
    ] = 8765,
    mlflow: Annotated[
        bool, typer.Option("--mlflow", help="Start MLflow's page beside it, and stop it with it.")
    ] = False,
    mlflow_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of MLflow's page; 0: any free one.")
    ] = 5000,
) -> None:
    """Open a page on this machine: drop a picture, see what a network finds, and the teacher.

    It listens on loopback only, and ends with Ctrl-C.
    """
    import os

    with plain_errors():
        enter_workspace()
        from pipeline.config.params import load_params
        from pipeline.devices import resolve_device
        from pipeline.search.page.desk import Desk
        from pipeline.search.page.server import MAX_UPLOAD_PIXELS, create_app
        from pipeline.search.page.service import HOST, free_port, listen, mlflow_server, serve

        params = load_params()
        desk = Desk(params, resolve_device(params.threads), MAX_UPLOAD_PIXELS)
        if not desk.owners():
            raise ValueError("there is no database to search yet: run `l2s study`")
        desk.catalogue()
        store = os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
        beside = mlflow_port or free_port()
        if mlflow:
            listen(beside).close()  # MLflow itself would end unseen
        with listen(port) as listener:
            typer.echo(f"search page  http://{HOST}:{listener.getsockname()[1]}")
            if mlflow:
                typer.echo(f"MLflow       http://{HOST}:{beside} (takes some seconds)")
            typer.echo("Ctrl-C ends it")
            with mlflow_server(store, beside) if mlflow else nullcontext():
                serve(create_app(desk), listener)
