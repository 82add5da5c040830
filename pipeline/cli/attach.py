"""`l2s attach`: a cheap query encoder for images, vectors and a teacher that are there already."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.errors import Workspace, workspace

app = typer.Typer()


@app.command()
def attach(
    images: Annotated[
        str, typer.Option(help="A folder of images or of tar shards, or a table; s3://, gs:// too.")
    ],
    teacher: Annotated[
        str, typer.Option(help="timm/NAME, FILE.onnx or its folder, or none: the stored vectors.")
    ],
    vectors: Annotated[
        str | None,
        typer.Option(
            help="Stored: .parquet, .npy, lancedb://FOLDER/TABLE, qdrant://PLACE/NAME; by default "
            "the column `vector` of a Parquet table of images, if it has one."
        ),
    ] = None,
    query_px: Annotated[
        list[int] | None, typer.Option(min=1, help="Of the queries; may be repeated.")
    ] = None,
    teacher_px: Annotated[
        int | None,
        typer.Option(min=1, help="Which the teacher saw or sees; else the library's, or 224."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("-S", metavar="KEY=VALUE", help="A value of params.yaml.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also where they do not agree.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Compare and estimate; change nothing, run nothing.")
    ] = False,
) -> None:
    """Teach small queries a database that is there: compare, estimate, then run the study.

    The stored vectors are read, never written to. What comes is the study `images`: edit it, run
    `l2s study` again, `l2s export` its encoder.
    """
    with workspace() as opened:
        from pipeline.cli.settings import read_setting
        from pipeline.config.attached import (
            PRESET,
            VECTORS,
            Attachment,
            attached_values,
            is_network,
        )
        from pipeline.config.params import ConfigurationError, parse_params
        from pipeline.config.sources import OwnSource
        from pipeline.config.studies import preset_text, select_studies, set_values
        from pipeline.datasets.own_checks import check_own_images
        from pipeline.datasets.own_images import list_own_images
        from pipeline.datasets.parquet import read_columns
        from pipeline.datasets.vector_batches import Findings, vectors_of
        from pipeline.datasets.vector_stores import open_store
        from pipeline.datasets.vectors import write_vectors
        from pipeline.embedding.preflight import compare_with_stored
        from pipeline.models.packaged_weights import PACKAGES
        from pipeline.models.requirements import check_downloads, network_faults
        from pipeline.training.attaching import (
            estimate,
            native_px,
            sampled_pictures,
            teacher_on_trial,
        )

        opened.require_rest("attach")
        place = opened.path(Path(teacher)).resolve()
        is_named = teacher == "none" or is_network(teacher)
        is_file = not is_named and (teacher.endswith(".onnx") or any(place.glob("*.onnx")))
        file = str(place) if is_file else teacher
        pictures_at = _images(images, opened)
        is_table = pictures_at.suffix == ".parquet" and pictures_at.is_file()
        if not vectors and is_table and "vector" in read_columns(pictures_at):
            vectors = str(pictures_at)
        given = Attachment(
            pictures_at,
            file,
            tuple(query_px or [112]),
            teacher_px or (native_px(teacher) if is_network(teacher) else 224),
            "pretrained" if is_network(teacher) and teacher not in PACKAGES else "package",
            vectors is not None,
        )
        if teacher == "none" and vectors is None:
            raise ValueError("--teacher none: the stored vectors must be named: --vectors")
        values: dict[str, Any] = attached_values(given) | dict(map(read_setting, settings or []))
        params = parse_params(set_values(preset_text(PRESET), values))
        check_own_images(params)
        if faults := network_faults(params):
            raise ConfigurationError(Path("params.yaml"), faults)
        check_downloads(params)
        source = params.datasets[PRESET].source
        assert isinstance(source, OwnSource), "attached_values gives no other"
        reader = list_own_images(Path(params.inputs[PRESET]), source)
        typer.echo(f"{len(reader.images)} images in {given.images}")
        pictures = sampled_pictures(reader, params.seeds[0])
        subject, stored = teacher_on_trial(params, PRESET, opened.device), Findings()
        if vectors is not None:
            store = open_store(_vectors(vectors, opened.here))
            vectors_of([i.name for i in reader.images], store.batches(stored), store.address)
            if subject is None:
                typer.echo("\n".join(stored.lines()))
                least = stored.rows - len(reader.images) * 3 // 5
                loss = params.datasets[PRESET].distillation.loss
                if loss.kind == "anchors" and loss.centroids > least:
                    raise ValueError(
                        f"{stored.rows} vectors, of which about {least} train: fewer than the "
                        f"{loss.centroids} centroids of the loss: "
                        f"-S datasets.{PRESET}.distillation.loss.centroids={max(2, least // 2)}"
                    )
            else:
                found = compare_with_stored(subject, pictures, store)
                typer.echo("\n".join(found.lines()))
                found.require(force=force)
        coming = estimate(params, PRESET, pictures, len(reader.images), stored, subject)
        typer.echo(f"estimate: {coming}")
        if plan:
            return
        if vectors is not None:
            write_vectors(VECTORS, store.rows(), network=store.network)
        select_studies(Path("params.yaml"), [PRESET], values, original=True)
    typer.echo(f"active: {PRESET}; `l2s study` goes on with it if it is stopped")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "pipeline.cli", "study"])  # noqa: S606


def _images(given: str, opened: Workspace) -> Path:
    """Where the images lie on this machine; what is in object storage is fetched."""
    from pipeline.config.attached import PRESET
    from pipeline.datasets.object_storage import is_address
    from pipeline.datasets.remote import fetch_address, folder_of

    if is_address(given):
        return fetch_address(given, folder_of(PRESET, given)).resolve()
    return opened.path(Path(given)).resolve()


def _vectors(given: str, here: Path) -> str:
    """The address of a store that is on this machine, where files in object storage are fetched."""
    from pipeline.config.attached import PRESET
    from pipeline.datasets.object_storage import SCHEMES
    from pipeline.datasets.remote import fetch_address, folder_of

    place, sign, columns = given.partition("?")
    if place.partition("://")[0] not in SCHEMES:
        return _address(given, here)
    folder = fetch_address(place, folder_of(f"{PRESET}-vectors", place))
    return f"{folder.resolve()}{sign}{columns}"


def _address(given: str, here: Path) -> str:
    """The address of a store, its paths absolute: relative ones refer to where it was given."""
    scheme, sign, rest = given.rpartition("://")
    place = rest.partition("?")[0]
    folder = here / (place.rpartition("/")[0] if sign else place)
    return f"{scheme}{sign}{here / rest}" if folder.exists() else given
