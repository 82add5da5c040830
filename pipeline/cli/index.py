"""`l2s index`: a folder of pictures becomes searchable; and indexes of vectors are kept.

Indexes of vectors depend on no study, and need no workspace: an index is a folder.
"""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from pipeline.cli.errors import errors_in_words, find_workspace, printable, workspace
from pipeline.files import user_path


class PicturesFirst(TyperGroup):
    """`l2s index FOLDER` is `l2s index pictures FOLDER`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["pictures", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=PicturesFirst,
    no_args_is_help=True,
    help="Make pictures searchable (`l2s index FOLDER`), and keep indexes of vectors.",
)

Index = Annotated[Path, typer.Argument(metavar="INDEX", help="The folder of the index.")]
Source = Annotated[
    str, typer.Argument(metavar="VECTORS", help="A folder of vectors, or s3://BUCKET/NAME.")
]
Unchecked = Annotated[bool, typer.Option("--unchecked", help="Embed no image anew to compare it.")]


@app.command()
def pictures(
    folder: Annotated[Path, typer.Argument(help="Images at any depth; CLASS/... names a class.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the index; by default the folder's.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Whose teacher embeds; by default the first data set's.")
    ] = None,
    kind: Annotated[
        Literal["exact", "hnsw", "ivfpq"] | None,
        typer.Option(help="exact (the default), or approximate: hnsw is fast, ivfpq small too."),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="From this folder alone, embedding everything anew.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take images whose content has changed.")
    ] = False,
) -> None:
    """Make or extend an index of new images with the teacher, without training.

    Exit code 0: all are in the index; 1: some could not be read; 2: none could, or a wrong usage.
    """
    with workspace() as study:
        from pipeline.search.indexing import index_folder
        from pipeline.search.search import TEACHER, choose_network, open_network

        named = choose_network(study.params_for(dataset), TEACHER, dataset)
        place = study.path(folder).resolve()
        name = place.name if name is None else name
        report = index_folder(
            place,
            name,
            named,
            open_network(named, study.device),
            kind=kind,
            rebuild=rebuild,
            take_changed=replace,
            threads=study.params.threads,
        )
    for failure in report.failures:
        typer.echo(f"error: {printable(failure.name)}: {printable(failure.reason)}", err=True)
    typer.echo(
        f"{report.card.images} images ({report.card.kind}): {report.added} added, "
        f"{report.replaced} replaced, {report.unchanged} unchanged, "
        f"{len(report.failures)} unreadable"
    )
    typer.echo(f"search them with: l2s search IMAGE --index {name}")
    if report.failures:
        raise typer.Exit(1)


@app.command()
def build(
    vectors: Source,
    to: Annotated[str, typer.Option(help="The folder of the index; it is made, or replaced.")],
    kind: Annotated[
        Literal["exact", "hnsw", "ivfpq", "lancedb", "qdrant"],
        typer.Option(help="exact, hnsw (fast), ivfpq (small); lancedb, qdrant."),
    ] = "exact",
    number: Annotated[
        Literal["float16", "float32"],
        typer.Option(help="How exact, hnsw and ivfpq keep vectors."),
    ] = "float32",
    server: Annotated[
        str, typer.Option(help="localhost:PORT/COLLECTION of Qdrant; else its local mode.")
    ] = "",
    unchecked: Unchecked = False,
) -> None:
    """Make an index of a folder of vectors, as `l2s embed` writes them.

    First it embeds an image of each shard anew: vectors of another network are refused.
    """
    with errors_in_words():
        from pipeline.datasets.object_storage import is_address, shown_address
        from pipeline.search.upkeep import build_index

        if is_address(to):
            raise ValueError(
                f"--to {shown_address(to)}: an index is a folder of this machine; VECTORS may lie "
                "in a store"
            )
        folder = user_path(to)
        built = build_index(
            folder,
            vectors,
            kind,
            number=number,
            server=server,
            is_checked=not unchecked,
        )
        options = _search_options(built.card.network, built.network)
    typer.echo(built.golden)
    typer.echo(f"{folder}: {built.vectors} vectors of {built.card.dim} numbers, {kind}")
    search = ["l2s", "search", "IMAGE", "--index", str(folder), *options]
    typer.echo(f"search it with: {shlex.join(search)}")
    if options[1:] == ["FILE"]:
        typer.echo("FILE: of the network that embedded the vectors")


def _search_options(vectors: str, network: Path | None) -> list[str]:
    """What a search needs to be told beside the index: by whose networks, or by which file.

    vectors: the digest on their card. network: the file that embedded them, where that is known.
    """
    from pipeline.embedding.golden import has_embedded
    from pipeline.paths import DatasetPaths

    if not vectors:
        return []
    study = find_workspace()
    for teacher in sorted(study.glob(str(DatasetPaths("*").teacher))) if study else ():
        if has_embedded(teacher, vectors):
            return ["--dataset", teacher.parent.name]
    return ["--network", str(network) if network and has_embedded(network, vectors) else "FILE"]


@app.command()
def add(index: Index, vectors: Source, unchecked: Unchecked = False) -> None:
    """Bring an index in step with a folder of vectors: what is new, changed, or deleted there.

    First it embeds an image of each shard that has new or changed ones anew: vectors of another
    network are refused. Vectors of other ids stay in the index. What it holds already is not
    written again.
    """
    with errors_in_words():
        from pipeline.search.upkeep import add_vectors

        change = add_vectors(index, vectors, is_checked=not unchecked)
    if change.golden:
        typer.echo(change.golden)
    typer.echo(
        f"{index}: {change.added} added, {change.replaced} replaced, {change.removed} removed, "
        f"{change.unchanged} unchanged"
    )


@app.command()
def remove(
    index: Index,
    ids: Annotated[
        list[str],
        typer.Argument(metavar="ID", help="Of images, or - for a list on standard input."),
    ],
) -> None:
    """Take images out of an index, and say where copies of them remain."""
    with errors_in_words():
        from pipeline.search.copies import contents_of, find_copies
        from pipeline.search.upkeep import remove_vectors
        from pipeline.search.vector_index import read_card

        listed = [line.rstrip("\r\n") for line in sys.stdin] if "-" in ids else []
        wanted = list(dict.fromkeys([*(one for one in ids if one != "-"), *filter(None, listed)]))
        if not wanted:
            raise ValueError("ID = -: the list is empty")
        held = contents_of(index, wanted)
        removed = remove_vectors(index, wanted)
        typer.echo(f"{index}: {removed} of {len(wanted)} removed; searches find them no more")
        for line in find_copies(index, read_card(index), wanted, held):
            typer.echo(f"remains  {printable(line)}")


@app.command("list")
def list_indexes(
    folder: Annotated[Path, typer.Argument(help="An index, or where some lie.")] = Path("indexes"),
) -> None:
    """List the indexes in a folder, of pictures and of vectors.

    Exit code 0: all can be opened; 1: some cannot, which are named.
    """
    with errors_in_words():
        from pipeline.search.upkeep import all_indexes

        faults = 0
        for place in (places := all_indexes(folder)):
            try:
                typer.echo(f"{place}  {_summary(place)}")
            except ValueError as fault:
                typer.echo(f"error: {printable(str(fault))}", err=True)
                faults += 1
        if not places:
            typer.echo(f"no index lies in {folder}", err=True)
    if faults:
        raise typer.Exit(1)


def _summary(place: Path) -> str:
    """Kind and size of an index. Raises ValueError for one that cannot be opened."""
    from pipeline.search import index as of_pictures
    from pipeline.search.upkeep import open_index
    from pipeline.search.vector_index import is_vector_index

    if is_vector_index(place):
        with open_index(place) as index:
            return f"{index.card.kind}  {len(index)} x {index.card.dim}"
    if (card := of_pictures.read_card(place)) is None:
        raise ValueError(f"{place}: has gone")
    return f"pictures of {card.dataset}, {card.kind}  {card.images}"


@app.command()
def verify(
    index: Index,
    allow: Annotated[
        list[str] | None, typer.Option(help="s3://BUCKET of its vectors; may be repeated.")
    ] = None,
) -> None:
    """Check an index: files, counts, its own vectors found, in step with what it was built from.

    Exit code 0: it is sound; 1: it is not.
    """
    with errors_in_words():
        from pipeline.datasets.object_storage import shown_address
        from pipeline.search.verifying import verify_index

        found = verify_index(index, allow or ())
    typer.echo(
        f"{index}: {found.card.kind}, format {found.card.format}, {found.vectors} vectors, "
        f"{found.found} of {found.asked} searched ones found"
    )
    for place in found.unread:
        said = f"not compared with {printable(shown_address(place))}: --allow names its bucket"
        typer.echo(said, err=True)
    for fault in found.faults:
        typer.echo(f"error: {printable(fault)}", err=True)
    if found.faults:
        raise typer.Exit(1)
