"""The queries that the report shows, and what each network finds for them."""

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.datasets.packs import Pack, open_pack, write_pack
from pipeline.datasets.reader import ImageRecord
from pipeline.evaluation.agreement import Search, measure_agreement
from pipeline.evaluation.examples import (
    LOSSLESS_PX,
    SHOWN_PX,
    choose_queries,
    draw_examples,
    encode_view,
    first_results,
)
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.views.evaluation import evaluation_view
from tests.made_report import decoded

NAN = float("nan")


def test_choice_by_hand() -> None:
    #             0    1    2    3    4    5    6
    precision = {
        "teacher": [0.9, 0.9, 0.9, 0.9, NAN, 0.5, 0.5],
        "asymmetric": [0.8, 0.1, 0.7, 0.2, NAN, 0.5, 0.4],
        "naive": [0.1, 0.2, 0.1, 0.1, NAN, 0.5, 0.4],
    }
    chosen = choose_queries(
        {role: np.array(values) for role, values in precision.items()},
        np.array([0, 1, 0, 2, 3, 4, 5]),
        each=2,
        seed=0,
    )
    # Row 2 gains second most, but is of the class of row 0; row 3 comes next.
    assert chosen["above_naive"] == [0, 3]
    assert chosen["below_naive"] == [1]
    # Rows 1 and 3 lose most; both are taken, and of 2 and 6 the loss of 2 is greater.
    assert chosen["below_teacher"] == [2, 6]
    assert chosen["at_random"] == [5]


def test_without_a_naive_row_and_without_a_difference() -> None:
    same = np.array([0.5, 0.5, 0.5])
    chosen = choose_queries({"teacher": same, "asymmetric": same}, np.arange(3), each=2, seed=1)
    assert chosen["below_teacher"] == []
    assert "above_naive" not in chosen
    assert len(set(chosen["at_random"])) == 2


def test_random_queries_depend_on_the_seed_alone() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 5)

    def random_rows(seed: int) -> list[int]:
        precision = {role: generator.random(100) for role in ("teacher", "asymmetric", "naive")}
        return choose_queries(precision, labels, each=3, seed=seed)["at_random"]

    rows = [set(random_rows(7)) for _ in range(4)]
    # Other networks take other rows for themselves; what is left is drawn in one order.
    assert all(len(first & second) >= 2 for first, second in itertools.pairwise(rows))
    assert set(random_rows(8)) != rows[0]


def test_results_by_plain_loops_without_the_query_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    query, database = torch.randn(2, 12, 4, generator=generator, dtype=torch.float64)
    labels = np.repeat([0, 1, 2], 4)
    found = first_results(query, database, labels, [3, 7, 0], 5)
    assert list(found) == [3, 7, 0]
    for row, results in found.items():
        scores = sorted(
            (-float(query[row] @ database[other]), other) for other in range(12) if other != row
        )
        assert results == [other for _, other in scores[:5]]


def test_ties_stand_as_the_metrics_count_them() -> None:
    same = torch.ones(4, 2, dtype=torch.float64)
    labels = np.array([0, 0, 1, 1])
    assert first_results(same, same, labels, [0], 3) == {0: [2, 3, 1]}
    result = evaluate_retrieval(same, same, torch.from_numpy(labels))
    assert result.per_query["first_hit_rank"][0] == 3


@pytest.mark.parametrize("count", [1, 5, 50])
def test_no_more_results_than_there_are(count: int) -> None:
    points = torch.eye(4)
    found = first_results(points, points, np.arange(4), [2], count)[2]
    assert len(found) == min(count, 3)


def encoded_noise(generator: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    pixels = generator.integers(0, 255, (50, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Two training and three test classes of four images of noise, 40 x 50 pixels."""
    generator = np.random.default_rng(0)
    records = []
    for label, number in itertools.product(range(5), range(4)):
        encoded = encoded_noise(generator)
        split = "train" if label < 2 else "test"
        name = f"class{label}/{number}.png"
        records.append(ImageRecord(name, f"class{label}", split, encoded, 40, 50))
    path = tmp_path_factory.mktemp("pack") / "pack.arrow"
    write_pack(path, iter(records))
    return open_pack(path)


def searched(pack: Pack) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
    """Embeddings of the test images by role, and the average precision of each."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.from_numpy(pack.labels[pack.rows("test")])
    database = torch.randn(12, 8, generator=generator)
    queries = {
        "teacher": database,
        "asymmetric": database + torch.randn(12, 8, generator=generator),
        "naive": database + 2 * torch.randn(12, 8, generator=generator),
    }
    precision = {
        role: evaluate_retrieval(embedded, database, labels).query_metrics["average_precision"]
        for role, embedded in queries.items()
    }
    return queries, precision


def test_drawn_examples_hold_names_hits_and_pictures(pack: Pack) -> None:
    queries, precision = searched(pack)
    drawn = draw_examples(pack, queries, precision, query_px=32, seed=0)
    assert drawn == draw_examples(pack, queries, precision, query_px=32, seed=0)
    json.dumps(drawn, allow_nan=False)
    labels = pack.labels[8:]  # test rows begin at row 8 of the pack
    chosen = choose_queries(precision, labels, each=3, seed=0)
    listed = [(reason, row) for reason, rows in chosen.items() for row in rows]
    assert [(query["reason"], query["image"] - 8) for query in drawn["queries"]] == listed
    assert {reason for reason, _ in listed} == {
        *("above_naive", "below_naive", "below_teacher", "at_random")
    }
    for query, (_, row) in zip(drawn["queries"], listed, strict=True):
        assert query["name"] == f"class{2 + row // 4}/{row % 4}.png"
        assert query["class"] == f"class{2 + row // 4}"
        assert [answer["role"] for answer in query["answers"]] == list(queries)
        seen = {8 + row}
        for answer in query["answers"]:
            role = answer["role"]
            assert answer["accuracy"] == precision[role][row]
            found = first_results(queries[role], queries["teacher"], labels, [row], 5)[row]
            assert [result["image"] - 8 for result in answer["results"]] == found
            hits = [result["hit"] for result in answer["results"]]
            assert hits == [one // 4 == row // 4 for one in found]
            seen |= {8 + one for one in found}
        assert query["shown"] == sorted(seen)
    shown = {image for query in drawn["queries"] for image in query["shown"]}
    assert set(drawn["images"]) == {str(image) for image in shown}


def test_without_classes_a_hit_is_one_of_the_teachers_ten_nearest(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0)
    records = [
        ImageRecord(f"{n}.png", "", "test", encoded_noise(pixels), 40, 50) for n in range(30)
    ]
    write_pack(tmp_path / "pack.arrow", records)
    pack = open_pack(tmp_path / "pack.arrow")
    generator = torch.Generator().manual_seed(1)
    database = torch.randn(30, 8, generator=generator)
    queries = {
        "teacher": database,
        "asymmetric": database + torch.randn(30, 8, generator=generator),
        "naive": database + 2 * torch.randn(30, 8, generator=generator),
    }
    searches = {role: Search(own) for role, own in queries.items()}
    overlap = {
        role: own["overlap_at_10"] for role, own in measure_agreement(searches, database).items()
    }
    drawn = draw_examples(pack, queries, overlap, query_px=32, seed=0)
    assert {query["class"] for query in drawn["queries"]} == {""}
    above = [query["image"] for query in drawn["queries"] if query["reason"] == "above_naive"]
    gain = overlap["asymmetric"] - overlap["naive"]
    assert above == np.argsort(-gain, kind="stable")[:3].tolist()
    seen = 0
    for query in drawn["queries"]:
        row = query["image"]
        order = [n for n in (-(database @ database[row])).argsort().tolist() if n != row]
        for answer in query["answers"]:
            assert answer["accuracy"] == overlap[answer["role"]][row]
            for result in answer["results"]:
                assert result["hit"] == (result["image"] in order[:10])
                seen += 1
        assert all(result["hit"] for result in query["answers"][0]["results"])
    assert seen == len(drawn["queries"]) * 3 * 5
    assert len(drawn["queries"]) == 12


def test_the_small_picture_is_what_the_student_sees(pack: Pack) -> None:
    for query in draw_examples(pack, *searched(pack), query_px=32, seed=0)["queries"]:
        shown = np.asarray(Image.open(io.BytesIO(decoded(query["small"]))).convert("RGB"))
        view = evaluation_view(pack.image(query["image"]), 32).permute(1, 2, 0).numpy()
        assert shown.shape == (32, 32, 3)
        np.testing.assert_array_equal(shown, view)


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
