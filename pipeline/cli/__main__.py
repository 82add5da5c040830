"""The command `l2s`. Heavy imports stand inside the commands, so that help answers at once."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli import export, operations, page, recommend, search
from pipeline.cli.errors import enter_workspace, plain_errors

app = typer.Typer(
    name="l2s",
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


@app.command()
def study(
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Stages side by side; by default as many as the cores allow."),
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(help="Only this stage or group, and what it needs; may be repeated."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run finished stages again.")] = False,
) -> None:
    """Run what params.yaml asks for and is not done yet, then show the trade-off."""
    from pipeline.config.params import load_params
    from pipeline.datasets.own_checks import check_own_images
    from pipeline.flows.launch import run_study
    from pipeline.flows.stage_runs import exit_code_of
    from pipeline.models.requirements import check_downloads, check_networks
    from pipeline.paths import DatasetPaths
    from pipeline.report.report import write_tradeoff
    from pipeline.report.tradeoff import read_rows
    from pipeline.tracking.audit import record_lines
    from pipeline.tracking.store import require_store

    with plain_errors():
        enter_workspace()
        params = load_params()
        check_networks(params)
        for line in check_own_images(params):
            typer.echo(line, err=True)
        require_store()
        check_downloads(params)
        chosen = [target for given in targets or [] for target in given.split(",")]
        done = run_study(jobs=jobs, targets=chosen, fresh=fresh)
        for line in record_lines():
            typer.echo(line, err=True)
    if done.stop.number is not None:
        raise typer.Exit(128 + done.stop.number)
    if not done.is_success:
        typer.echo("error: the study did not finish: see above", err=True)
        raise typer.Exit(exit_code_of(done.outcomes.values()) or 1)
    if not chosen:
        for name in params.datasets:
            # No outputs of a stage: DVC does not bring them back with another commit's results.
            paths = DatasetPaths(name)
            write_tradeoff(paths, read_rows(paths, params.cells_of(name)))
            _show_tradeoff(name, params.cells_of(name))
        typer.echo("report  report/index.html opens without a network")
        typer.echo("record  `make mlflow` shows it")


@app.command()
def status() -> None:
    """Show which stages are up to date, what runs now, champions, and the next scheduled run."""
    from pipeline.flows.schedule import next_run_line
    from pipeline.flows.terminal import show_status
    from pipeline.tracking.registry import champion_lines

    with plain_errors():
        enter_workspace()
        show_status()
        for line in (*champion_lines(), next_run_line()):
            typer.echo(line)


@app.command()
def table() -> None:
    """Show the trade-off of what has been run already."""
    from pipeline.config.params import load_params

    with plain_errors():
        enter_workspace()
        params = load_params()
        for name in params.datasets:
            _show_tradeoff(name, params.cells_of(name))


def _show_tradeoff(name: str, cells: list[str]) -> None:
    """Print the table of a data set, and where its files are."""
    from rich.console import Console

    from pipeline.paths import DatasetPaths
    from pipeline.report.terminal import tradeoff_table
    from pipeline.report.tradeoff import read_rows

    paths = DatasetPaths(name)
    rows = read_rows(paths, cells)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(tradeoff_table(name, rows))
    console.print(f"table   {paths.results / 'tradeoff.csv'}", highlight=False)
    console.print(f"figure  {paths.results / 'tradeoff.svg'}", highlight=False)


@app.command()
def select(
    names: Annotated[
        list[str], typer.Argument(help="Studies: presets, and your own edits of them.")
    ],
    path: Annotated[
        Path | None, typer.Option(help="Where the images or archives of the one study lie.")
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
    from pipeline.config.studies import select_studies
    from pipeline.flows.run_state import at_work

    with plain_errors():
        here = enter_workspace()
        if who := at_work():
            raise ValueError(f"{who} and reads params.yaml: select when it has ended")
        values = _settings(names, here, path=path, weights=weights, epochs=epochs)
        values |= dict(map(_setting, settings or []))
        came, left = select_studies(Path("params.yaml"), names, values, original=original)
    typer.echo(f"active: {', '.join(names)}" + (f"; inactive: {', '.join(left)}" if left else ""))
    if came or left or values:
        typer.echo("next: l2s study")


def _settings(
    names: list[str], here: Path, *, path: Path | None, weights: Path | None, epochs: int | None
) -> dict[str, Any]:
    """The values of params.yaml that the options of `select` stand for."""
    files = {"path": path, "weights": weights}
    given = {option: _given_file(option, file, here) for option, file in files.items() if file}
    if (given or epochs) and len(names) > 1:
        raise ValueError("--path, --weights and --epochs go with one study at a time")
    values: dict[str, Any] = {}
    if path:
        values[f"inputs.{names[0]}"] = given["path"]
    if weights:
        values[f"datasets.{names[0]}.network.weights"] = given["weights"]
    if epochs:
        for recipe in ("teacher", "distillation"):
            values[f"datasets.{names[0]}.{recipe}.optimisation.epochs"] = epochs
    return values


def _given_file(option: str, file: Path, here: Path) -> str:
    """The path as params.yaml is to hold it: relative to its folder if it was given so."""
    absolute = here / file.expanduser()
    if not absolute.exists():
        raise ValueError(f"--{option} {file}: there is no such file or folder")
    return str(file) if file.is_absolute() else os.path.relpath(absolute)


def _setting(text: str) -> tuple[str, Any]:
    from ruamel.yaml import YAML

    key, sign, value = text.partition("=")
    if not sign:
        raise ValueError(
            f"-S {text}: must be KEY=VALUE, the key with its path: students.NAME.query_px"
        )
    return key, YAML().load(value)


app.add_typer(search.app)
app.add_typer(export.app)
app.add_typer(page.app)
app.add_typer(recommend.app)
app.add_typer(operations.app)

if __name__ == "__main__":
    app()
