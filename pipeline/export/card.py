"""The model card of an exported query encoder, in Markdown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.export.parity import LARGEST_DIFFERENCE, Parity
from pipeline.models.weights import NetworkCard
from pipeline.search.databases import Database

Row = Mapping[str, Any]

_USE = """## Intended use

Search by picture in a database that the teacher of this study has embedded ({database_px} px). A
query is embedded by this encoder and compared by cosine similarity (inner product: all vectors are
of unit length). Vectors of another teacher, or of another study, do not fit.

## Limits

- The metrics are those of classes that no training saw, of this data set. Pictures of another kind
  are searched less well, and nothing says so: every picture has a nearest one.
- It ranks; it does not decide. A similarity is no probability, and its scale differs from study to
  study: choose a threshold, if one is needed, on pictures of your own.
- It takes what a picture shows at {query_px} x {query_px} pixels, centre cropped: detail that is
  smaller, or lies at the border, is not seen.
- No person should be identified with it, and no decision about one be made by it.
"""

_SERVING = """## Use

    mlflow models serve --model-uri mlflow_model --env-manager local --host 127.0.0.1 --port 5001
    curl -s http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' \\
      -d "{{\\"dataframe_records\\": [{{\\"image\\": \\"$(base64 -w0 PICTURE.jpg)\\"}}]}}"

`mlflow_model/` takes the bytes of a JPEG or PNG file and does the rest; it needs mlflow,
onnxruntime and pillow, not torch. `encoder.onnx` takes `image`, raw RGB pixels uint8
[batch, {px}, {px}, 3], and gives `embedding`, float32 [batch, {dim}]. Make its pixels so: shorter
side to {short_px} px by antialiased Lanczos, then the central {px} x {px}. The normalisation of
their values is inside.
"""


@dataclass(frozen=True)
class ExportedNetwork:
    """What the card tells of. `rows` are those of results/DATASET/cells/KEY.json, by role.

    `version` is that of the champion, `vectors` the database that goes out with it.
    """

    key: str
    dataset: str
    card: NetworkCard
    rows: Mapping[str, Row]
    latencies_ms: Mapping[str, float]
    data: Mapping[str, Any]
    confidence: float
    version: str | None = None
    vectors: Database | None = None


def model_card(
    exported: ExportedNetwork,
    parity: Parity,
    versions: Mapping[str, str],
    int8: Parity | None = None,
) -> str:
    """The card: what it is, how to use it, accuracy with intervals, cost, data, use and limits.

    int8: of the encoder in 8 bits, where there is one. Raises ValueError for results without the
    row of a search in the teacher's database.
    """
    card = exported.card
    row = main_row(exported.rows)
    latency_ms = exported.latencies_ms.get(str(row["role"]))
    trained = "labels" if exported.key == "teacher" else "the teacher's embeddings, without labels"
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join(
        [
            f"# Query encoder `{exported.key}` of `{exported.dataset}`",
            "",
            f"{card.backbone}, GeM pooling, {card.dim} numbers a picture, trained with {trained}, "
            f"for pictures of {card.size_px} x {card.size_px} pixels. Made by large-to-small.",
            *([f"Version {exported.version} of its champions."] if exported.version else ()),
            "",
            _SERVING.format(px=card.size_px, short_px=round(card.size_px * 8 / 7), dim=card.dim),
            *(_database_lines(exported.vectors) if exported.vectors else ()),
            f"## Accuracy on {row['queries']} test queries",
            "",
            *_accuracy_table(exported.rows, exported.confidence),
            "",
            "Every test image is a query against all others. `map` is average precision over the "
            f"full ranking, with its {exported.confidence:.0%} bootstrap interval over queries.",
            "",
            "## Cost of a query",
            "",
            f"- {row['gmacs']:.4g} GMACs, {row['parameters']:,} parameters, "
            f"{row['input_bytes']:,} bytes of pixels",
            *([f"- {latency_ms:.2f} ms on the machine of the study"] if latency_ms else []),
            "",
            "## Parity with PyTorch",
            "",
            f"{parity.images} test images from their encoded bytes through `mlflow_model/`: "
            f"embeddings differ by at most {parity.largest_difference:.1e} (allowed: "
            f"{LARGEST_DIFFERENCE:.0e}); {_same_first(parity)}. With {used}.",
            "",
            *(_int8_lines(int8) if int8 else ()),
            "## Data",
            "",
            *_data_lines(exported.data, subset=bool(row.get("subset"))),
            "",
            _USE.format(database_px=row["database_px"], query_px=card.size_px),
        ]
    )


def _database_lines(vectors: Database) -> list[str]:
    length, dim = vectors.vectors.shape
    return [
        "## Database",
        "",
        f"`database/` holds the teacher's vectors of {length:,} images, unit length, {dim} numbers "
        "in float32: search them by inner product with this encoder's. `database.parquet` has the "
        "columns id (53 bits of the name's hash, stable), name, class_name and vector; "
        "`database.npy` the vectors alone, in the same order.",
        "",
    ]


def main_row(rows: Mapping[str, Row]) -> Row:
    """The row of searching the teacher's database. Raises ValueError where there is none."""
    for role in ("asymmetric", "teacher"):
        if role in rows:
            return rows[role]
    raise ValueError(f"the results hold {', '.join(rows) or 'no row'}: run `l2s study`")


def _same_first(parity: Parity) -> str:
    exception = f", but for {parity.ties} ties" if parity.ties else ""
    return f"all of them find the same image first{exception}"


def _int8_lines(parity: Parity) -> list[str]:
    return [
        "## In 8 bits",
        "",
        "`encoder_int8.onnx` takes and gives the same, with convolutions in 8 bits (weights in 7): "
        "a smaller file. Whether it is faster depends on network and processor: measure it. It was "
        "not evaluated; of the same "
        f"{parity.images} test images {parity.same_first_share:.1%} find the same image first. Its "
        f"embeddings have a cosine of {parity.least_cosine:.4f} or more with PyTorch's and differ "
        f"by at most {parity.largest_difference:.1e}.",
        "",
    ]


def _accuracy_table(rows: Mapping[str, Row], confidence: float) -> list[str]:
    recalls = sorted(
        {column for row in rows.values() for column in row if column.startswith("recall_at_")},
        key=lambda column: int(column.rpartition("_")[2]),
    )
    columns = ["map_trapezoid", "map_at_r", *recalls]
    lines = [
        f"| search | query px | database px | map ({confidence:.0%}) | {' | '.join(columns)} |",
        "|" + "---|" * (4 + len(columns)),
    ]
    for role, row in rows.items():
        interval = f"{row['map']:.3f} ({row['map_low']:.3f} to {row['map_high']:.3f})"
        values = " | ".join(f"{row[column]:.3f}" if column in row else "" for column in columns)
        lines.append(
            f"| {role} | {row['query_px']} | {row['database_px']} | {interval} | {values} |"
        )
    return lines


def _data_lines(data: Mapping[str, Any], *, subset: bool) -> list[str]:
    counts = ", ".join(
        f"{data[key]} {key.replace('_', ' ')}"
        for key in ("images_train", "classes_train", "images_test", "classes_test")
        if key in data
    )
    lines = [f"- Source: {data.get('kind', 'unknown')}" + (f" ({counts})" if counts else "")]
    if subset:
        lines.append("- A part of the published data set only: figures do not compare to papers'.")
    licence = data.get("licence", "not recorded: find out before you use this encoder")
    lines.append(f"- Licence of the images: {licence}")
    lines.append(
        "- Weights that a training started from (ImageNet's, if any) have their own licence: "
        "see the library of the backbone."
    )
    return lines
