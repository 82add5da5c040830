"""`l2s export`: a query encoder for a service of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.errors import workspace

app = typer.Typer()


@app.command()
def export(
    network: Annotated[str, typer.Option(help="A key of params.students, or teacher.")],
    dataset: Annotated[
        str | None, typer.Option(help="Whose teacher; by default the first data set's.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The folder to write; by default exports/NETWORK.")
    ] = None,
    with_database: Annotated[
        bool, typer.Option("--with-database", help="Also the database, as Parquet and .npy.")
    ] = False,
    index: Annotated[
        str | None,
        typer.Option(
            help="The database of --with-database and --web: this index, not the study's."
        ),
    ] = None,
    web: Annotated[
        bool, typer.Option("--web", help="Also web/, a page that searches in the browser.")
    ] = False,
    runtime: Annotated[
        Path | None,
        typer.Option(help="ONNX Runtime Web's folder; by default that of node_modules here."),
    ] = None,
    pictures: Annotated[
        int | None,
        typer.Option(
            help="How many small pictures web/ has at most, of some 2 kB; by default 2000.", min=0
        ),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also an encoder in 8 bits, which --web then takes.")
    ] = False,
    newest: Annotated[
        bool, typer.Option("--newest", help="The student trained last, even if a champion leads.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
) -> None:
    """Write a query encoder as ONNX and as an MLflow model, with a model card.

    It is compared with PyTorch on 200 test images; where they differ, nothing is written.
    """
    with workspace() as study:
        from pipeline.export.folder import default_target, export_network
        from pipeline.export.trained import open_for_export
        from pipeline.export.web.runtime import find_runtime
        from pipeline.export.web.site import PICTURES, SiteOptions

        if index is not None and not (with_database or web):
            raise ValueError("--index: names the database of --with-database or --web: give one")
        for option, value in (("--runtime", runtime), ("--pictures", pictures)):
            if value is not None and not web:
                raise ValueError(f"{option}: is what --web takes: give both")
        given = None if runtime is None else study.path(runtime)
        shown = PICTURES if pictures is None else pictures
        site = SiteOptions(find_runtime(given, study.here), shown) if web else None
        trained = open_for_export(study.params_for, network, dataset, index, newest=newest)
        named = trained.named
        target = study.path(output) if output else default_target(named)
        parity = export_network(
            trained, target, with_database=with_database, force=force, int8=int8, web=site
        )
    leads = f" (champion, version {named.version})" if named.version else ""
    typer.echo(f"exported {named.key}{leads} to {target}")
    typer.echo(
        f"parity with PyTorch on {parity['images']} test images: numbers differ by at most "
        f"{parity['largest_difference']:.1e}, {parity['ties']} ties"
    )
    if int8:
        typer.echo(
            f"in 8 bits {parity['int8']['same_first_share']:.1%} of them find the same image "
            f"first, least cosine {parity['int8']['least_cosine']:.4f}"
        )
    if web:
        _tell_site(target / "web", parity["web"])
    model = target / "mlflow_model"
    typer.echo(f"serve it with: mlflow models serve -m {model} --env-manager local --port 5001")


def _tell_site(folder: Path, site: dict[str, int]) -> None:
    shares = ", ".join(
        f"{part} {site[part] / 1e6:.2f} MB" for part in ("network", "runtime", "index", "pictures")
    )
    typer.echo(f"page over {site['images']} images: {shares}")
    if site["unreadable"]:
        typer.echo(f"{site['unreadable']} pictures cannot be read: shown by their names")
    typer.echo(f"try it with: python -m http.server --bind 127.0.0.1 -d {folder}")
