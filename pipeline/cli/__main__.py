"""The command `l2s`. Heavy imports stand inside the commands, so that help answers at once."""

import io
import os
import shlex
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pipeline.cli import attach, audit, embed, export, index, operations, recommend, search
from pipeline.cli.errors import OneStudy, Workspace, end_flow, errors_in_words, workspace
from pipeline.cli.settings import given_file, given_path, read_setting
from pipeline.files import user_path
from pipeline.paths import STUDY_PAGE, DatasetPaths
from pipeline.processes import prepare_process

if TYPE_CHECKING:
    from pipeline.config.params import Params

Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="Stages side by side; by default as many as the cores allow."),
]


class NoEmptyWord(TyperGroup):
    """An empty word, such as an unset variable of the shell, would name the current folder."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for before, word in pairwise(["", *args]):
            if not word or (word.startswith("--") and word.endswith("=")):
                option = word or (before if before.startswith("-") else "an argument")
                ctx.fail(f"{option.removesuffix('=')}: must not be empty")
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="l2s",
    cls=NoEmptyWord,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Image retrieval with small query images against a database of large ones.",
)


@app.callback()
def main(
    debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False,
) -> None:
    if debug:
        os.environ["L2S_DEBUG"] = "1"
    if sys.getfilesystemencoding() != "utf-8":
        # Names of files are UTF-8, whatever the locale says: Python decides on that at its start.
        spoken = {"PYTHONUTF8": "1", "PYTHONIOENCODING": f"{sys.stdout.encoding}:backslashreplace"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **spoken})  # noqa: S606
    if isinstance(sys.stdout, io.TextIOWrapper):  # what a terminal lacks is written as an escape
        sys.stdout.reconfigure(errors="backslashreplace")
    prepare_process()


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="It is made if it is not there.")],
    study: Annotated[str | None, typer.Option(help="The active preset, else emblems.")] = None,
) -> None:
    """Lay out a folder for studies: graph, parameters, DVC's settings. For an installed package."""
    with errors_in_words():
        from pipeline.config.layout import lay_out

        folder = user_path(folder)
        written = lay_out(folder, study)
    typer.echo(f"{folder}: wrote {', '.join(written)}")
    typer.echo(f"next: cd {shlex.quote(str(folder))}; l2s study")


@app.command()
def study(
    jobs: Jobs = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(help="Only this stage or group, and what it needs; may be repeated."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run finished stages again.")] = False,
) -> None:
    """Run what params.yaml asks for and is not done yet, then show the trade-off."""
    with workspace() as opened:
        chosen = [target for given in targets or [] for target in given.split(",")]
        _run_stages(opened, jobs, chosen, fresh=fresh)
        if not chosen:
            # No outputs of a stage: DVC does not bring them back with another commit's results.
            _show_tradeoffs(*opened.chosen(None), write=True)
            typer.echo(f"page    {STUDY_PAGE} opens without a network")
            typer.echo("record  `l2s mlflow` shows it")


@app.command()
def tune(jobs: Jobs = None) -> None:
    """Search the values that students learn with, as `tuning` of params.yaml asks.

    Trials are scored on validation classes; MLflow has them. `l2s study` uses the best.
    """
    with workspace() as opened:
        if not opened.params.tuning.trials:
            raise ValueError("tuning.trials = 0: set how many trials each has, in params.yaml")
        _run_stages(opened, jobs, ["tune"], fresh=False)
        for key, student in opened.params.students.items():
            table = DatasetPaths(student.dataset).tuning(key).with_suffix(".csv")
            typer.echo(f"{key}: the best so far, trial by trial: {table}")


def _run_stages(opened: Workspace, jobs: int | None, targets: list[str], *, fresh: bool) -> None:
    """Run the stages, all without targets, and end the command where one failed."""
    from pipeline.datasets.own_checks import check_own_images
    from pipeline.flows.launch import run_study
    from pipeline.models.requirements import check_downloads, check_networks
    from pipeline.tracking.audit import record_lines
    from pipeline.tracking.store import require_store

    params = opened.params
    check_networks(params)
    check_own_images(params)
    require_store()
    check_downloads(params)
    done = run_study(jobs=jobs, targets=targets, fresh=fresh)
    for line in record_lines():
        typer.echo(line, err=True)
    end_flow("study", done.stop.number, done.outcomes, is_success=done.is_success)


@app.command()
def status() -> None:
    """Show which stages are up to date, what runs now, champions, and the next scheduled run."""
    with workspace():
        from pipeline.flows.schedule import next_run_line
        from pipeline.flows.terminal import show_status
        from pipeline.tracking.registry import champion_lines

        show_status()
        for line in (*champion_lines(), next_run_line()):
            typer.echo(line)


@app.command()
def table(dataset: OneStudy = None) -> None:
    """Show the trade-off of what has been run already."""
    with workspace() as opened:
        _show_tradeoffs(*opened.chosen(dataset))


@app.command()
def latency(dataset: OneStudy = None) -> None:
    """Time single queries by every network of the table, in turns. Run it alone on the machine.

    The table, the page, tradeoff.csv and `l2s recommend` then have the times, until a network
    changes; MLflow has the last ones in the run of each row.
    """
    with workspace() as opened:
        from pipeline.evaluation.latency import COLUMNS, busy_note, measure_latencies
        from pipeline.flows.run_state import hold_workspace
        from pipeline.report.pages import write_study_page
        from pipeline.report.tradeoff import read_rows
        from pipeline.teachers.teacher import open_teacher
        from pipeline.tracking.latencies import record_latencies

        opened.require_rest("measure")
        (params, names), load = opened.chosen(dataset), os.getloadavg()[0]
        typer.echo(f"measuring single queries{busy_note(load)}", err=True)
        run = {"device": str(opened.device), "threads": params.threads, "load": load}
        encoder = partial(open_teacher, device=opened.device)
        with hold_workspace():  # no study begins meanwhile
            for paths in map(DatasetPaths, names):
                rows = read_rows(paths, params.cells_of(paths.dataset))
                measure_latencies(paths, rows, encoder, run)
            _show_tradeoffs(params, names, write=True)
            write_study_page(opened.params, {})
            for paths in map(DatasetPaths, names):
                record_latencies(paths, read_rows(paths, params.cells_of(paths.dataset)), COLUMNS)


def _show_tradeoffs(params: "Params", names: list[str], *, write: bool = False) -> None:
    """Print the table of each data set, and where its files are, which `write` makes anew."""
    from rich.console import Console

    from pipeline.evaluation.latency import latency_note
    from pipeline.report.terminal import tradeoff_table
    from pipeline.report.tradeoff import read_rows
    from pipeline.report.verdict import verdict

    console = Console(width=None if sys.stdout.isatty() else 120)
    for name in names:
        paths = DatasetPaths(name)
        rows = read_rows(paths, params.cells_of(name))
        if write:
            from pipeline.report.report import write_tradeoff  # jinja2, which a table needs not
            from pipeline.tracking.durations import with_training_seconds

            write_tradeoff(paths, with_training_seconds(paths, rows))
        console.print(tradeoff_table(name, rows, latency_note(paths, rows)))
        console.print(f"verdict {verdict(rows)}", highlight=False)
        console.print(f"table   {paths.results / 'tradeoff.csv'}", highlight=False)
        console.print(f"figure  {paths.results / 'tradeoff.svg'}", highlight=False)
        console.print(f"report  {paths.page}", highlight=False)


@app.command()
def select(
    names: Annotated[
        list[str], typer.Argument(help="Studies: presets, and your own edits of them.")
    ],
    path: Annotated[
        str | None,
        typer.Option(
            help="Where the images or archives of the one study lie; s3:// and gs:// too."
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A file of weights for the network of the one study.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Of teacher and students of the one study.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("-S", metavar="KEY=VALUE", help="A value to set.")
    ] = None,
    original: Annotated[
        bool, typer.Option("--original", help="The presets, not what was edited before.")
    ] = False,
) -> None:
    """Make these the active studies: params.yaml is written from their presets.

    A study that leaves keeps its edits in studies/NAME.yaml, and its data and results.
    For example: l2s select emblems; l2s select cub200; l2s select folder --path my/images
    """
    with workspace() as opened:
        from pipeline.config.studies import select_studies

        opened.require_rest("select")
        if len(names) > 1 and (path or weights or epochs):
            raise ValueError("--path, --weights and --epochs go with one study at a time")
        values: dict[str, Any] = {}
        if path:
            values[f"inputs.{names[0]}"] = given_path(names[0], path, opened.here)
        if weights:
            values[f"weights.{names[0]}"] = given_file("weights", weights, opened.here)
            values[f"datasets.{names[0]}.network.weights"] = "file"
        values |= dict(map(read_setting, settings or []))
        came, left = select_studies(
            Path("params.yaml"), names, values, original=original, epochs=epochs
        )
    typer.echo(f"active: {', '.join(names)}" + (f"; inactive: {', '.join(left)}" if left else ""))
    if came or left or values or epochs:
        typer.echo("next: l2s study")


@app.command()
def gc(
    keep: Annotated[
        list[str] | None, typer.Option(help="An inactive study that stays; may be repeated.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete what the active studies do not need: it is listed first, and you are asked.

    Stays: what indexes and champions need, and in DVC's cache what a branch, tag or experiment has.
    """
    with workspace() as opened:
        from pipeline.flows.garbage import find_garbage
        from pipeline.flows.run_state import hold_workspace

        opened.require_rest("delete")
        with hold_workspace():  # while you are asked, too
            garbage = find_garbage(opened.all_params, opened.params.datasets, keep or [])
            for line in garbage.lines():
                typer.echo(line)
            if garbage.paths and (yes or typer.confirm("Delete all this?", abort=True)):
                garbage.delete()


app.add_typer(attach.app)
app.add_typer(embed.app)
app.add_typer(search.app)
app.add_typer(audit.app)
app.add_typer(index.app, name="index")
app.add_typer(export.app)
app.add_typer(recommend.app)
app.add_typer(operations.app)

if __name__ == "__main__":
    app()
