"""The page of a study: whole, bounded, escaped, and the same for the same results."""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from pipeline.report.figure import FOLDER, LOOK
from pipeline.report.report import (
    EXAMPLE_BYTES,
    REASONS,
    fit_examples,
    render_report,
)
from pipeline.report.tradeoff import ROLES
from tests.made_report import PACK, PARAMETERS, large_study, part, without_intervals

VOID = {"meta", "input", "img", "br", "link", "hr"}


class Page(HTMLParser):
    """Elements, their attributes, and whether each tag is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [
            found
            for name, found in self.elements
            if name == tag and all(found.get(key) == value for key, value in attributes.items())
        ]

    def classed(self, tag: str, word: str) -> list[dict[str, str | None]]:
        return [found for found in self.all(tag) if word in (found.get("class") or "").split()]


def page_of(parts: list[dict], confidence: float = 0.95) -> str:
    return render_report(parts, PARAMETERS, confidence)


def test_a_study_of_four_data_sets_and_forty_rows_stays_small_and_whole() -> None:
    study = large_study()
    assert sum(len(one["rows"]) for one in study) == 40
    text = page_of(study)
    assert 1_000_000 < len(text.encode()) < 5_000_000
    page = Page(text)
    assert len([1 for attributes in page.all("tr") if "data-role" in attributes]) == 40
    assert len(page.classed("figure", "panel")) == 4
    assert len(page.classed("g", "mark")) == 2 * 40  # each panel is drawn wide and narrow
    assert len(page.classed("article", "query")) >= 4 * 3 * 3
    assert [box["value"] for box in page.all("input", **{"data-switch": "set"})] == [
        "birds",
        "cars",
        "products",
        "emblems",
    ]


def test_equal_results_give_equal_bytes_and_others_another_mark() -> None:
    first = page_of([part("made")])
    assert first == page_of([part("made")])
    changed = part("made")
    changed["rows"][1]["map"] += 1e-6
    mark = re.compile(r"Mark of these results: <code>(\w{16})</code>")
    found = [mark.search(text) for text in (first, page_of([changed]))]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0][1] != found[1][1]


def test_nothing_on_the_page_hangs_on_the_run_or_the_machine() -> None:
    text = page_of([part("made")])
    for word in ("latency_ms", "/work", "/tmp", "/home"):  # noqa: S108
        assert word not in text


def test_the_page_asks_for_no_other_file() -> None:
    page = Page(page_of([part("made")]))
    addresses = [
        str(value)
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "action", "srcset")
    ]
    assert len(addresses) > 100
    assert all(
        address.startswith(("#", "data:image/webp;base64,")) or address == "data:,"
        for address in addresses
    )
    text = page_of([part("made")])
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in str(policy["content"])
    assert [link["href"] for link in page.all("link")] == ["data:,"]


def test_every_reference_within_the_page_is_met() -> None:
    page = Page(page_of([part("made"), part("other")]))
    identities = [str(attributes["id"]) for _, attributes in page.elements if "id" in attributes]
    assert max(Counter(identities).values()) == 1
    wanted = [
        word
        for _, attributes in page.elements
        for name in ("href", "aria-labelledby", "aria-describedby", "data-row")
        for word in str(attributes.get(name) or "").split()
        if name != "href" or word.startswith("#")
    ]
    assert len(wanted) > 100
    assert {word.removeprefix("#") for word in wanted} <= set(identities)


@pytest.mark.parametrize("names", [["made"], ["made", "other"]])
def test_headings_skip_no_level_and_landmarks_have_names_of_their_own(names: list[str]) -> None:
    page = Page(page_of([part(name) for name in names]))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert len(levels) > 10
    assert levels[0] == 1
    assert all(later <= level + 1 for level, later in pairwise(levels))
    landmarks = [
        str(attributes.get("aria-labelledby") or attributes.get("aria-label"))
        for tag, attributes in page.elements
        if tag in ("section", "nav") or attributes.get("role") == "region"
    ]
    assert len(landmarks) > 5
    assert max(Counter(landmarks).values()) == 1


EVIL = "<script>alert('x')</script>&\"'{{ 7 * 7 }}"


def test_names_of_users_are_text_and_never_markup() -> None:
    made = part("made", students=1, class_name=EVIL)
    made["pack"] = PACK | {"licence": EVIL}
    for row in made["rows"]:
        row["backbone"] = EVIL
    text = render_report([made], {"datasets": {"made": {"table": EVIL}}}, 0.95)
    page = Page(text)
    assert len(page.all("script")) == 1
    assert "<script>alert" not in text
    assert "{{ 7 * 7 }}" in text
    assert any(EVIL in str(attributes.get("aria-label")) for _, attributes in page.elements)
    assert EVIL in "".join(page.text)


def test_points_and_pictures_have_words() -> None:
    page = Page(page_of([part("made")]))
    marks = page.classed("g", "mark")
    labels = {str(mark["aria-label"]) for mark in marks}
    assert len(labels) == 16
    assert (
        "made, asymmetric, made-0, timm/made, 64 px: mAP 60.0 %, interval 58.0 to 62.0; "
        "16.4 MMACs; \N{MINUS SIGN}10.0 points to the teacher; on the Pareto front"
    ) in labels
    assert [mark["tabindex"] for mark in marks].count("0") == 2  # one stop a drawing
    assert all(picture.get("alt") for picture in page.all("img"))
    pictures = page.classed("svg", "picture")
    assert len(pictures) == 3 * 12 * 16
    words = [str(picture["aria-label"]) for picture in pictures]
    assert sum(": hit" in word or ", hit: " in word for word in words) == 3 * 12 * 12
    assert sum(", miss: " in word for word in words) == 3 * 12 * 3
    assert len(page.classed("li", "hit")) == 3 * 12 * 12
    for table in page.all("table"):
        assert "aria-label" in table or "aria-labelledby" in table
    assert all(heading.get("scope") for heading in page.all("th"))


def test_the_table_has_the_figures_that_people_look_for() -> None:
    text = page_of([part("made")])
    for words in ("60.0 <small>58.0 to 62.0</small>", "+10.0 <small>+8.0 to +12.0</small>"):
        assert words in text
    assert "180 / 288.5 / 1200" in text
    assert "7 below 96 px" in text
    assert "1 unreadable left out" in text
    assert "95 % bootstrap" in text
    assert "query_px: 32" in text
    assert "90 % bootstrap" in page_of([part("made")], confidence=0.9)
    assert '<td class="n" data-tip="closed %" data-value="0.4">40.0</td>' in text


def test_the_page_says_of_how_many_seeds_its_figures_are_means() -> None:
    made = part("made")
    assert "seeds" not in page_of([made]).partition("What was run")[0]
    rows = [
        row | {"seeds": 3, "map_seed_low": row["map"] - 0.01, "map_seed_high": row["map"] + 0.04}
        for row in made["rows"]
    ]
    text = page_of([made | {"rows": rows}])
    assert "Figures are means of 3 seeds." in text[: text.index("<nav")]
    assert 'data-tip="seeds" data-value="3">3 <small>59.0 to 64.0</small>' in text
    assert "over test classes and seeds" in text
    many = page_of([made | {"rows": [row | {"seeds": 6} for row in made["rows"]]}])
    assert 'data-tip="seeds" data-value="6">6 <small></small>' in many


def test_the_verdict_stands_first() -> None:
    text = page_of([part("made")])
    first = text[text.index("<h1>") : text.index("<nav")]
    said, picture, verdict = (
        first.index(words)
        for words in (
            "A query of 64 px keeps 86 % of the teacher&#39;s accuracy for 44 % of its arithmetic; "
            "without the method it keeps 71 %.",
            '<table class="kept"',
            "Every student is better",
        )
    )
    assert said < picture < verdict
    page = Page(first)
    bars = [str(attributes["style"]) for attributes in page.all("i")]
    costs = [64**2 / 96**2, 48**2 / 96**2, 32**2 / 96**2]
    shares = [f"--share: {round(one, 4)}" for one in costs]
    assert [bar for bar in bars if bar in shares] == shares
    naive = [row for row in part("made")["rows"] if row["role"] == "naive"]
    assert len([bar for bar in bars if bar == f"--share: {round(naive[0]['map'] / 0.7, 4)}"]) <= 1


def test_a_page_without_intervals_says_why() -> None:
    lean = without_intervals(part("lean"))
    json.dumps(lean, allow_nan=False)
    text = page_of([lean])
    said = "lean has no intervals: 8 test classes say too little, 10 are needed."
    assert said in text
    assert "Nothing here can be called better or worse" in text
    assert "bootstrap" not in text
    assert " to " not in text[text.index('<table class="rows"') :].partition("<tbody>")[2][:2000]
    both = page_of([lean, part("made")])
    assert said in both
    assert "95 % bootstrap" in both


def test_colours_can_be_read_in_light_and_in_dark() -> None:
    files = (LOOK, FOLDER / "report.css")
    style = "".join(file.read_text(encoding="utf-8") for file in files)
    schemes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    light, dark, printed = (dict(re.findall(r"--([\w-]+): (#\w+);", text)) for text in schemes)
    for colours in (light, light | dark, printed):
        for name, least in {"ink": 7, "soft": 4.5, **dict.fromkeys(ROLES, 3)}.items():
            assert contrast(colours[name], colours["paper"]) >= least, name


def contrast(first: str, second: str) -> float:
    """The ratio of the Web Content Accessibility Guidelines 2.2, of two colours #rgb or #rrggbb."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        channels = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_columns_stay_in_line_where_a_data_set_has_no_recall_at_1() -> None:
    study = [part("made"), part("other")]
    for row in study[0]["rows"]:
        del row["recall_at_1"]
    text = page_of(study)
    table = text[text.index('<table class="rows"') :].partition("</table>")[0]
    heads, *rows = table.split("<tr")[1:]
    assert len(rows) == 32
    assert {row.count("<td") + row.count("<th") for row in rows} == {heads.count("<th ")} == {15}


def test_a_subset_is_called_one() -> None:
    made = part("made")
    assert "subset" not in "".join(Page(page_of([made])).text)
    made["pack"] = PACK | {"subset": True}
    assert "not comparable with published figures" in page_of([made])


def test_a_study_without_students_or_without_naive_rows() -> None:
    assert Page(page_of([part("made", students=0)])).classed("article", "query") == []
    full = part("made", students=1, roles=("asymmetric",))
    absent = [column for column in full["rows"][1] if column.startswith(("map_over_", "headroom"))]
    full["rows"][1] |= dict.fromkeys(absent)
    for query in full["examples"][0]["queries"]:
        query["answers"].pop()
    assert len(Page(page_of([full])).classed("div", "answer")) == 12 * 2


def test_examples_shrink_alike_until_they_fit() -> None:
    study = [part("a", students=2), part("b", students=2)]
    whole, left_out = fit_examples(study, EXAMPLE_BYTES)
    assert left_out == []
    assert [len(g["queries"]) for one in whole for g in one["examples"]] == [12] * 4
    fewer, left_out = fit_examples(study, 900_000)
    counts = [len(g["queries"]) for one in fewer for g in one["examples"]]
    assert left_out == []
    assert len(set(counts)) == 1
    assert counts[0] in (4, 8)
    for one in fewer:
        for example in one["examples"]:
            reasons = Counter(query["reason"] for query in example["queries"])
            assert len(set(reasons.values())) == 1
        assert len(one["images"]) == 16 * counts[0] * 2
    fewest, left_out = fit_examples(study, 400_000)
    assert left_out == ["a-1", "b-1"]
    assert [len(one["examples"]) for one in fewest] == [1, 1]
    assert fit_examples(study, 0)[1] == ["a-0", "a-1", "b-0", "b-1"]
    assert "Left out for the size of this page: a-1, b-1" in (render_with_budget(study, 400_000))


def render_with_budget(study: list[dict], most_bytes: int) -> str:
    from unittest.mock import patch

    with patch("pipeline.report.report.EXAMPLE_BYTES", most_bytes):
        return page_of(study)


def test_the_words_cover_every_reason() -> None:
    found = {query["reason"] for query in part("made")["examples"][0]["queries"]}
    assert found == set(REASONS)
    json.dumps(part("made"), allow_nan=False)
