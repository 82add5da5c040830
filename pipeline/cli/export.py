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
        typer.Option(help="The database of --with-database: this index, not the study's."),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also an encoder in 8 bits, encoder_int8.onnx.")
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
        from pipeline.search.search import open_for_export

        if index is not None and not with_database:
            raise ValueError("--index: names the database of --with-database: give both")
        trained = open_for_export(study.params_for, network, dataset, index, newest=newest)
        named = trained.named
        target = study.path(output) if output else default_target(named)
        parity = export_network(
            trained, target, with_database=with_database, force=force, int8=int8
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
    model = target / "mlflow_model"
    typer.echo(f"serve it with: mlflow models serve -m {model} --env-manager local --port 5001")
