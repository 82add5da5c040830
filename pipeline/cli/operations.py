"""`l2s retrain`, `rollback`, `schedule`, `remote`, `ui`: what keeps a study in service."""

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.cli.errors import end_flow, workspace

app = typer.Typer()

Dataset = Annotated[
    str | None,
    typer.Option(help="By default every data set that is read from your own images."),
]
WithTeacher = Annotated[
    bool,
    typer.Option("--with-teacher", help="Retrain teacher and baselines, and search values, too."),
]
Tolerance = Annotated[
    float,
    typer.Option(min=0, help="Points of map by which a new champion may be worse, at the most."),
]

WithoutInterval = Annotated[
    bool,
    typer.Option(
        "--without-interval",
        help="Under ten test classes, which give no interval, let the difference alone decide.",
    ),
]


@app.command()
def retrain(
    dataset: Dataset = None,
    with_teacher: WithTeacher = False,
    tolerance: Tolerance = 0.5,
    force: Annotated[
        bool, typer.Option("--force", help="Also without new images; judge candidates again.")
    ] = False,
    across_backbones: Annotated[
        bool,
        typer.Option("--across-backbones", help="Let students of another backbone compete, too."),
    ] = False,
    without_interval: WithoutInterval = False,
) -> None:
    """Retrain the students on new or changed images; let them lead only if they are not worse."""
    with workspace():
        from pipeline.flows.launch import run_retrain
        from pipeline.flows.retraining import Request

        done = run_retrain(
            Request(dataset, with_teacher, tolerance, force, across_backbones, without_interval)
        )
        end_flow("retraining", done.stop_number, done.outcomes, is_success=done.is_success)


@app.command()
def rollback(
    dataset: Annotated[str, typer.Argument(help="A data set of params.yaml.")],
    query_px: Annotated[int, typer.Argument(help="The query resolution.")],
) -> None:
    """Let the champion before the present one lead again."""
    with workspace():
        from pipeline.search.promotion import roll_back_champion

        now, before = roll_back_champion(dataset, query_px)
    typer.echo(
        f"{now.model}: champion: version {before.version} ({before.tag('network')}) again, "
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
    with_teacher: WithTeacher = False,
    tolerance: Tolerance = 0.5,
    without_interval: WithoutInterval = False,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Of the Prefect server that is started.")
    ] = 4200,
) -> None:
    """Retrain at set times, until Ctrl-C; with a Prefect server of its own where none is set."""
    with workspace() as opened:
        from pipeline.flows.retraining import Request, chosen_datasets
        from pipeline.flows.schedule import read_timetable, run_schedule

        request = Request(dataset, with_teacher, tolerance, without_interval=without_interval)
        if not study:  # what no run could use is told now, not at three in the morning
            chosen_datasets(opened.params, request)
        elif request != Request():
            raise ValueError(
                "--study runs the whole study: --dataset, --with-teacher, --tolerance and "
                "--without-interval go with a retraining"
            )
        number = run_schedule(read_timetable(cron, every), None if study else asdict(request), port)
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
    with workspace():
        from pipeline.flows.remote import run_remote

        failed, stop_number = run_remote(targets, deployment)
        end_flow(f"run of {', '.join(failed)}", stop_number, {}, is_success=not failed)


@app.command()
def mlflow(
    port: Annotated[int, typer.Option(min=1, max=65535, help="On this machine only.")] = 5000,
    free: Annotated[
        bool, typer.Option("--free", help="Only delete for good what was deleted there.")
    ] = False,
) -> None:
    """Show MLflow's pages on this machine: the current results, checkpoints, champions."""
    with workspace():
        from pipeline.tracking.audit import record_lines
        from pipeline.tracking.cleanup import free_deleted
        from pipeline.tracking.pages import show_pages
        from pipeline.tracking.store import open_store, tracking_uri

        store = open_store()
        if free:
            typer.echo(free_deleted(store, tracking_uri()))
            return
        for line in record_lines():
            typer.echo(line, err=True)
        show_pages(tracking_uri(), store.experiment_id, port, typer.echo)
