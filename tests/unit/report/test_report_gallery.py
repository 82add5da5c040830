"""What the report shows of one data set, from a pack and the outputs of its evaluations."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline.datasets.packs import Pack, open_pack, write_pack
from pipeline.datasets.records import ImageRecord
from pipeline.files import write_json
from pipeline.paths import DatasetPaths
from pipeline.report.gallery import LOSSLESS_PX, SHOWN_PX, encode_view, report_part
from pipeline.report.tradeoff import collect_rows
from pipeline.views.evaluation import evaluation_view
from tests.made_report import PACK, decoded, row


def records() -> Iterator[ImageRecord]:
    """Two training and three test classes of four images of noise, 40 x 50 pixels."""
    generator = np.random.default_rng(0)
    for label in range(5):
        for number in range(4):
            buffer = io.BytesIO()
            pixels = generator.integers(0, 255, (50, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(buffer, "PNG")
            split = "train" if label < 2 else "test"
            name = f"class{label}/{number}.png"
            yield ImageRecord(name, f"class{label}", split, buffer.getvalue(), 40, 50)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[DatasetPaths, Pack]:
    monkeypatch.chdir(tmp_path)
    paths = DatasetPaths("made")
    paths.pack.parent.mkdir(parents=True)
    write_pack(paths.pack, records())
    write_json(paths.pack_summary, PACK)
    write_json(paths.cell("teacher"), {"teacher": row("made", "teacher", "teacher", 96, 0.7)})
    own = [row("made", "made-32", role, 32, 0.5) for role in ("asymmetric", "naive")]
    write_json(paths.cell("made-32"), {entry["role"]: entry for entry in own})
    roles = ("teacher", "asymmetric", "naive")
    contrast = {
        "reason": "above_naive",
        "query": 5,
        "average_precision": dict.fromkeys(roles, 0.25),
        "results": {"teacher": [4, 6, 0], "asymmetric": [7, 11, 4], "naive": [0, 1, 2]},
    }
    write_json(paths.contrasts("made-32"), [contrast])
    table = collect_rows(paths, ["teacher", "made-32"])
    table.to_csv(paths.results / "accuracy.csv", index=False)
    return paths, open_pack(paths.pack)


def test_a_part_holds_rows_facts_and_pictures(study: tuple[DatasetPaths, Pack]) -> None:
    part = report_part(*study)
    json.dumps(part, allow_nan=False)
    assert part["pack"] == PACK
    assert part["teacher_px"] == 96
    assert [entry["role"] for entry in part["rows"]] == ["teacher", "asymmetric", "naive"]
    assert part["rows"][0]["gain_over"] is None
    assert part["rows"][0]["pareto"] is True
    (gallery,) = part["galleries"]
    assert (gallery["student"], gallery["query_px"]) == ("made-32", 32)
    (query,) = gallery["queries"]
    # Test rows begin at row 8 of the pack: query 5 is its row 13, the second of class3.
    assert (query["image"], query["name"], query["class"]) == (13, "class3/1.png", "class3")
    hits = {
        answer["role"]: [result["hit"] for result in answer["results"]]
        for answer in query["answers"]
    }
    assert hits == {
        "teacher": [True, True, False],
        "asymmetric": [True, False, True],
        "naive": [False, False, False],
    }
    assert query["shown"] == [8, 9, 10, 12, 13, 14, 15, 19]
    assert set(part["images"]) == {str(image) for image in query["shown"]}


def test_names_stay_names_whatever_they_look_like(study: tuple[DatasetPaths, Pack]) -> None:
    paths, pack = study
    file = paths.results / "accuracy.csv"
    table = pd.read_csv(file)
    table.loc[table["network"] == "teacher", "network"] = "null"
    table.assign(dataset="32").to_csv(file, index=False)
    rows = report_part(paths, pack)["rows"]
    assert [row["dataset"] for row in rows] == ["32"] * 3
    assert rows[0]["network"] == "null"


def test_the_small_picture_is_what_the_student_sees(study: tuple[DatasetPaths, Pack]) -> None:
    paths, pack = study
    (query,) = report_part(paths, pack)["galleries"][0]["queries"]
    shown = np.asarray(Image.open(io.BytesIO(decoded(query["small"]))).convert("RGB"))
    view = evaluation_view(pack.image(13), 32).permute(1, 2, 0).numpy()
    assert shown.shape == (32, 32, 3)
    np.testing.assert_array_equal(shown, view)


def test_the_same_study_gives_the_same_part(study: tuple[DatasetPaths, Pack]) -> None:
    assert report_part(*study) == report_part(*study)


@pytest.mark.parametrize(
    ("size_px", "shown_px", "is_exact"),
    [(16, 16, True), (LOSSLESS_PX, LOSSLESS_PX, True), (96, 96, False), (448, SHOWN_PX, False)],
)
def test_pictures_are_bounded(size_px: int, shown_px: int, is_exact: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    view = torch.randint(0, 256, (3, size_px, size_px), generator=generator, dtype=torch.uint8)
    data = decoded(encode_view(view))
    shown = Image.open(io.BytesIO(data))
    assert shown.size == (shown_px, shown_px)
    assert len(data) < 25_000
    equal = np.array_equal(np.asarray(shown.convert("RGB")), view.permute(1, 2, 0).numpy())
    assert equal == is_exact
