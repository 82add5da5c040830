"""Two sets of embeddings are measured as the ranking does, and shown as marked pictures."""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline import evaluate_retrieval
from pipeline.datasets.decode import UnreadableImage
from pipeline.evaluation import ranking

# On a circle, by degrees: two pairs, and one image whose nearest neighbour is of the other class.
DEGREES = np.radians([0, 10, 90, 100, 15], dtype=np.float64)
VECTORS = np.stack([np.cos(DEGREES), np.sin(DEGREES)], axis=1)
NAMES = ["owl", "owl", "jay", "jay", "jay"]
LABELS = torch.tensor([0, 0, 1, 1, 1])


def read(row: int) -> bytes:
    if row == 3:
        raise UnreadableImage("row 3", "is gone")
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), (50 * row, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def test_figures_are_those_of_the_ranking() -> None:
    wanted = ranking.evaluate_retrieval(torch.tensor(VECTORS), torch.tensor(VECTORS), LABELS)
    for query, labels in (
        (VECTORS, NAMES),
        (VECTORS, np.array(NAMES)),
        (VECTORS, pd.Series(NAMES)),
        (VECTORS, pd.Series(NAMES, dtype=object)),
        (VECTORS, np.array(NAMES, dtype=object)),
        (torch.tensor(VECTORS), LABELS),
        (VECTORS, [7, 7, -1, -1, -1]),
    ):
        found = evaluate_retrieval(query, VECTORS, labels)
        assert (found.map, found.recall_at) == (wanted.map, wanted.recall_at)
        assert found.per_query.equals(wanted.per_query)


def test_the_sheet_marks_what_is_right_by_hand() -> None:
    # of 15 degrees the nearest are 10 and 0 (owls), then 90 and 100 (jays, as it is)
    page = evaluate_retrieval(VECTORS, VECTORS, NAMES).show(read, queries=[4], k=4).html
    marks = re.findall(r'<li class="(\w+)">.*?<figcaption>(.*?)</figcaption>', page, re.DOTALL)
    shown = [(mark, re.sub("<wbr>", "", text)) for mark, text in marks if mark != "query"]
    assert shown == [
        ("wrong", "✗ 1. 0.996 owl: row 1"),
        ("wrong", "✗ 2. 0.966 owl: row 0"),
        ("right", "✓ 3. 0.259 jay: row 2"),
        ("right", "✓ 4. 0.087 jay: row 3"),
    ]
    assert "row 4, jay: AP 41.7 %" in page  # (1/3 + 2/4) / 2
    assert page.count("data:image/jpeg") == 4  # the query and three results; one file is gone
    assert page.count("file is gone") == 1


def test_the_worst_queries_are_shown_first_and_names_are_used() -> None:
    result = evaluate_retrieval(VECTORS, VECTORS, NAMES)
    sheet = result.show(read, [f"{name}.jpg" for name in "abcde"])
    headings = re.findall(r"<h2>row (\d), (\w)\.jpg", sheet.html)
    precision = result.query_metrics["average_precision"]
    assert [int(row) for row, _ in headings] == np.argsort(precision).tolist()
    assert headings[0] == ("4", "e")


def test_a_row_that_is_named_twice_is_shown_once() -> None:
    result = evaluate_retrieval(VECTORS, VECTORS, NAMES)
    assert result.show(read, queries=[2, 0, 2]).html.count("<h2>") == 2


def test_a_query_without_a_positive_says_so() -> None:
    result = evaluate_retrieval(VECTORS, VECTORS, ["owl", "owl", "jay", "jay", "elk"])
    assert "no other of its class" in result.show(read, queries=[4]).html
    assert result.excluded_queries == 1


def test_a_notebook_and_a_file_show_the_same_page(tmp_path: Path) -> None:
    result = evaluate_retrieval(VECTORS, VECTORS, NAMES)
    sheet = result.show(read)
    sheet.write(tmp_path / "sheet.html")
    assert (tmp_path / "sheet.html").read_text(encoding="utf-8") == sheet.html
    frame = sheet._repr_html_()
    assert frame.startswith("<iframe sandbox srcdoc=")
    assert "<" not in frame[1 : frame.index('" title=')]  # the page is escaped
    assert f"<td>{100 * result.map:.1f}</td>" in result._repr_html_()
    assert "5 queries" in result._repr_html_()


@pytest.mark.parametrize(
    "given", [{"queries": [5]}, {"queries": [-1]}, {"queries": []}, {"k": 0}, {"names": ["a"]}]
)
def test_what_cannot_be_shown_is_told(given: dict[str, list[int]]) -> None:
    with pytest.raises(ValueError, match=r"must be (rows from 0 to 4|one a row)"):
        evaluate_retrieval(VECTORS, VECTORS, NAMES).show(read, **given)


@pytest.mark.parametrize(
    "labels",
    [
        [0.0, 0, 1, 1, 1],
        [True, True, False, False, True],
        pd.Series(["owl", "owl", "jay", "jay", None]),
        np.array(["owl", "owl", "jay", "jay", 7], dtype=object),
    ],
)
def test_what_is_no_class_is_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match="must be integers or names"):
        evaluate_retrieval(VECTORS, VECTORS, labels)


def test_images_without_classes_are_not_measured_by_class() -> None:
    with pytest.raises(ValueError, match="images without a class"):
        evaluate_retrieval(VECTORS, VECTORS, [""] * 5)


def test_names_may_be_a_column_and_vectors_may_take_part_in_a_graph() -> None:
    learned = torch.tensor(VECTORS, requires_grad=True)
    found = evaluate_retrieval(learned, learned, LABELS)
    for names in (pd.Series(NAMES), np.array(NAMES)):
        assert found.show(read, names, k=2).html == found.show(read, NAMES, k=2).html


def test_a_mapped_file_is_read_only(tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", VECTORS)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    assert evaluate_retrieval(mapped, mapped, NAMES).map == pytest.approx(
        evaluate_retrieval(VECTORS, VECTORS, NAMES).map
    )
