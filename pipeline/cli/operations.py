"""`l2s retrain`, `rollback`, `schedule`, `remote`, `ui`: what keeps a study in service."""

from typing import Annotated

import typer

from pipeline.cli.errors import enter_workspace, plain_errors

app = typer.Typer()

Dataset = Annotated[
    str | None,
    typer.Option(help="By default every data set that is read from your own images."),
]
Tolerance = Annotated[
    float,
    typer.Option(min=0, help="Points of map by which a new champion may be worse, at the most."),
]


@app.command()
def retrain(
    dataset: Dataset = None,
    with_teacher: Annotated[
        bool, typer.Option("--with-teacher", help="Retrain teacher and baselines too.")
    ] = False,
    tolerance: Tolerance = 0.5,
    force: Annotated[
        bool, typer.Option("--force", help="Also without new images; judge candidates again.")
    ] = False,
    across_backbones: Annotated[
        bool,
        typer.Option("--across-backbones", help="Let students of another backbone compete, too."),
    ] = False,
) -> None:
    """Retrain the students on new or changed images; let them lead only if they are not worse."""
    from pipeline.flows.launch import run_retrain
    from pipeline.flows.retraining import Request
    from pipeline.flows.stage_runs import exit_code_of

    with plain_errors():
        enter_workspace()
        result = run_retrain(Request(dataset, with_teacher, tolerance, force, across_backbones))
    if result.stop_number is not None:
        raise typer.Exit(128 + result.stop_number)
    if not result.is_success:
        typer.echo("error: the retraining did not finish: see above", err=True)
        outcomes = (one for done in result.retrainings for one in done.outcomes.values())
        raise typer.Exit(exit_code_of(outcomes) or 1)


@app.command()
def rollback(
    dataset: Annotated[str, typer.Argument(help="A data set of params.yaml.")],
    query_px: Annotated[int, typer.Argument(help="The query resolution.")],
) -> None:
    """Let the champion before the present one lead again."""
    from pipeline.search.promotion import roll_back_champion

    with plain_errors():
        enter_workspace()
        now, before = roll_back_champion(dataset, query_px)
    typer.echo(
        f"{now.model}: champion: version {before.version} ({before.network}) again, "
        f"in place of version {now.version}"
    )


@app.command()
def schedule(
    cron: Annotated[
        str | None, typer.Option(help='When, as cron says it, in local time: "0 3 * * 1".')
    ] = None,
    every: Annotated[str | None, typer.Option(help="How often: 30m, 6h, 7d.")] = None,
    study: Annotated[
        bool, typer.Option("--study", help="Run the whole study instead of a retraining.")
    ] = False,
    dataset: Dataset = None,
    with_teacher: Annotated[
        bool, typer.Option("--with-teacher", help="Retrain teacher and baselines too.")
    ] = False,
    tolerance: Tolerance = 0.5,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Of the Prefect server that is started.")
    ] = 4200,
) -> None:
    """Retrain at set times, until Ctrl-C; with a Prefect server of its own where none is set."""
    from pipeline.flows.schedule import read_timetable, run_schedule

    with plain_errors():
        enter_workspace()
        parameters = {"dataset": dataset, "with_teacher": with_teacher, "tolerance": tolerance}
        number = run_schedule(read_timetable(cron, every), None if study else parameters, port)
    raise typer.Exit(128 + number if number else 0)


@app.command()
def remote(
    targets: Annotated[
        list[str], typer.Argument(help="Stages or groups, such as distill or evaluate@KEY.")
    ],
    deployment: Annotated[
        str, typer.Option(help="Of the flow `cell`, on the work pool of the other machines.")
    ] = "cell/cell",
) -> None:
    """Run cells on other machines: a Prefect work pool, with DVC's remote as the exchange."""
    from pipeline.flows.remote import run_remote

    with plain_errors():
        enter_workspace()
        failed, stop_number = run_remote(targets, deployment)
    if stop_number is not None:
        raise typer.Exit(128 + stop_number)
    if failed:
        typer.echo(f"error: failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


@app.command()
def mlflow(
    port: Annotated[int, typer.Option(min=1, max=65535, help="On this machine only.")] = 5000,
) -> None:
    """Show MLflow's pages on this machine: runs, checkpoints, champions."""
    import os
    import sys

    from pipeline.tracking.store import require_store, silence_mlflow, tracking_uri

    with plain_errors():
        enter_workspace()
        require_store()
        silence_mlflow()
    uri = tracking_uri()
    if uri.startswith(("http://", "https://")):
        typer.echo(f"MLflow's pages are at {uri}")
        return
    typer.echo(f"MLflow's pages: http://127.0.0.1:{port} (Ctrl-C ends them)")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606  (signals then reach MLflow itself)
