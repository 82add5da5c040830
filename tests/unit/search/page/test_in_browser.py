"""The search page as a real browser shows it: on a screen, on a phone, by keyboard."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.files import write_json
from pipeline.paths import DatasetPaths
from pipeline.search.indexing import index_folder
from pipeline.search.page.service import SearchService
from pipeline.search.search import NamedNetwork, open_network
from tests.browser import Page, browser_path, open_page
from tests.made_study import CPU, STUDENT, write_test_images

pytestmark = [
    pytest.mark.skipif(browser_path() is None, reason="no Chromium on this machine"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
DONE = "/searched|not|cannot|empty/.test(document.getElementById('status').textContent)"
TOLD = "document.getElementById('status').textContent"


@pytest.fixture
def page(address: str, tmp_path: Path) -> Iterator[Page]:
    with open_page(address, tmp_path / "profile") as opened:
        opened.resize(1280, 900)
        opened.wait_for("document.querySelectorAll('#examples img').length === 8")
        yield opened


@pytest.fixture
def picture(searches: SearchService, tmp_path: Path) -> Path:
    (tmp_path / "picture.jpg").write_bytes(searches.picture("emblems", 4))
    return tmp_path / "picture.jpg"


@pytest.fixture
def long_names(study: Path) -> str:
    """An index, the one class of whose three pictures has the longest name: which is returned."""
    name = "x" * 200
    for file in write_test_images(study, study / "there", 3):
        (study / "pictures" / name).mkdir(parents=True, exist_ok=True)
        file.rename(study / "pictures" / name / file.name)
    named = NamedNetwork("teacher", "emblems")
    index_folder(study / "pictures", "long", named, open_network(named, CPU))
    return name


def set_value(page: Page, name: str, value: str) -> None:
    """As a user does: the page is told."""
    page.value(f"document.getElementById('{name}').value = '{value}'")
    page.value(f"document.getElementById('{name}').dispatchEvent(new Event('change'))")


def delay(page: Page, address: str, milliseconds: int = 600) -> None:
    """Answers of the server to this address come late."""
    page.value(
        "{ const before = fetch; window.fetch = async (asked, options) => {"
        f" if (asked.startsWith('{address}'))"
        f" await new Promise((on) => setTimeout(on, {milliseconds}));"
        " return before(asked, options); }; }"
    )


def count(page: Page, selector: str) -> int:
    return int(page.value(f"document.querySelectorAll({json.dumps(selector)}).length"))


def texts(page: Page, selector: str) -> list[str]:
    found = page.value(
        f"[...document.querySelectorAll({json.dumps(selector)})].map(one => one.textContent)"
    )
    return list(found)


def test_a_query_with_what_both_networks_saw_and_found_and_cost(
    page: Page, picture: Path, tmp_path: Path
) -> None:
    page.choose_files("#file", picture)
    page.wait_for(DONE)
    assert texts(page, "h3") == [f"{STUDENT}, at 16 px", "teacher, at 32 px"]
    assert count(page, "section:nth-child(1) li") == count(page, "section:nth-child(2) li") == 10
    captions = texts(page, ".seen figcaption")
    assert captions == ["the query", f"what {STUDENT} saw, 16 px", "what teacher saw, 32 px"]
    sizes = page.value("[...document.querySelectorAll('.small img')].map(i => i.naturalWidth)")
    assert sizes == [16, 32]
    style = "getComputedStyle(document.querySelector('.small img')).imageRendering"
    assert page.value(style) == "pixelated"
    assert texts(page, ".costs dt") == ["time, without decoding", "arithmetic", "its view as PNG"]
    widths = page.value(
        "[...document.querySelectorAll('.costs dl:nth-child(2) .bar')].map(b => b.offsetWidth)"
    )
    assert widths[0] == pytest.approx(widths[1] / 4, rel=0.2)  # 16 and 32 px, one backbone
    assert count(page, ".mark") == 0  # its class is unknown
    light = page.value("getComputedStyle(document.body).backgroundColor")
    page.resize(390, 844, dark=True)
    assert page.value("getComputedStyle(document.body).backgroundColor") != light
    assert page.value("document.documentElement.scrollWidth <= innerWidth")
    page.screenshot(tmp_path / "phone.png")
    assert np.asarray(Image.open(tmp_path / "phone.png")).std() > 10
    assert page.faults == []


def test_by_keyboard_a_picture_of_the_database_is_taken_whose_class_is_known(page: Page) -> None:
    page.value("document.getElementById('count').focus()")
    page.press("Tab")
    page.press("ArrowRight")
    page.press("ArrowRight")
    page.press("ArrowLeft")
    image = "document.activeElement.querySelector('img')"
    first = page.value("document.querySelectorAll('#examples img')[1].alt")
    assert page.value(f"{image}.alt") == first
    page.press("Enter")
    page.wait_for(DONE)
    marks = texts(page, ".mark")
    assert {"✓ right", "✗ wrong", "= the query itself"} == set(marks)
    name = first.removeprefix("search with ")
    classes = {name.rpartition("/")[0]}
    for item in page.value(
        "[...document.querySelectorAll('li')].map(i => [i.querySelector('.mark').textContent,"
        " i.querySelector('img').alt.slice(12)])"
    ):
        mark, hit = item
        if hit == name:
            assert mark == "= the query itself"
        else:
            assert (mark == "✓ right") == (hit.rpartition("/")[0] in classes)
    # A hit is a query, too: to the second one, and on.
    page.value("document.querySelector('ol button').focus()")
    page.press("ArrowRight")
    hit = page.value(f"{image}.alt").removeprefix("search with ")
    page.press("Enter")
    page.wait_for(f"document.querySelector('h2').textContent === {json.dumps(hit)}")
    page.wait_for(DONE)
    assert page.value("document.querySelectorAll('#examples [tabindex=\"0\"]').length") == 1
    assert page.faults == []


def test_several_pictures_stand_side_by_side_and_a_damaged_one_disables_no_other(
    page: Page, picture: Path, searches: SearchService, tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_bytes(b"text")
    (tmp_path / "other.jpg").write_bytes(searches.picture("emblems", 20))
    page.choose_files("#file", picture, tmp_path / "text.jpg", tmp_path / "other.jpg")
    page.wait_for(DONE)
    assert texts(page, "h2") == ["picture.jpg", "text.jpg", "other.jpg"]
    lefts = "new Set([...document.querySelectorAll('article')].map(a => a.offsetLeft)).size"
    page.resize(1280, 900)
    assert page.value(lefts) == 2
    page.resize(390, 844)
    assert page.value(lefts) == 1
    assert page.value("document.documentElement.scrollWidth <= innerWidth")
    assert count(page, "article:nth-child(1) li") == count(page, "article:nth-child(3) li") == 20
    assert count(page, "article:nth-child(2) li") == 0
    assert "is not an image" in texts(page, "article:nth-child(2) .fault")[0]
    told = "2 of 3 queries searched. text.jpg: is not an image of a known format"
    assert page.value(TOLD) == told
    assert page.value("document.getElementById('status').classList.contains('fault')")


def test_nothing_similar_is_said_only_where_it_is_calibrated(
    page: Page, picture: Path, study: Path
) -> None:
    """A calibration by which no score of the student reaches the teacher's threshold."""
    page.choose_files("#file", picture)
    page.wait_for(DONE)
    assert count(page, ".nothing") == 0
    written = DatasetPaths("emblems").calibration(STUDENT)
    never = {"student": [-1.0, 1.0 - 1e-9, 1.0], "teacher": [-1.0, -1.0, 1.0]}
    write_json(study / written, never | {"images": 9, "pairs": 72})
    page.choose_files("#file", picture)
    page.wait_for("!!document.querySelector('.nothing')")
    page.wait_for(DONE)
    (said,) = texts(page, ".nothing")
    assert said.startswith("Nothing similar: the best has ")
    assert texts(page, "section:nth-child(1) .weak span").count("below the threshold") == 10


def test_a_picture_that_comes_while_results_are_out_of_range_waits_and_that_is_said(
    page: Page, picture: Path
) -> None:
    set_value(page, "count", "60")
    page.choose_files("#file", picture)
    assert "50" in page.wait_for(f"/^Results: /.test({TOLD}) && {TOLD}")
    assert page.value("document.activeElement.id") == "count"
    assert count(page, "article") == 0
    set_value(page, "count", "5")
    page.wait_for(DONE)
    assert count(page, "section:nth-child(1) li") == 5


def test_long_names_widen_no_page(long_names: str, page: Page, picture: Path) -> None:
    set_value(page, "database", "index long")
    page.wait_for("document.querySelectorAll('#examples img').length === 3")
    page.value("document.querySelector('#examples button').click()")
    page.wait_for(DONE)
    assert f"2 of 2 of its class, {long_names}." in texts(page, "section p")
    broken = picture.with_name("y" * 200 + ".jpg")
    broken.write_bytes(b"text")
    for given in ((), (broken,)):
        if given:
            page.choose_files("#file", *given)
            page.wait_for(f"/yyyy/.test(document.querySelector('h2').textContent) && {DONE}")
        for width_px in (1280, 390):
            page.resize(width_px, 900)
            assert page.value("document.documentElement.scrollWidth") <= width_px


def test_files_that_are_left_out_are_told(page: Page, picture: Path) -> None:
    files = [picture.with_name(f"{number}.jpg") for number in range(18)]
    for file in files:
        file.write_bytes(picture.read_bytes())
    page.choose_files("#file", *files)
    told = page.wait_for(f"{DONE} && {TOLD}")
    assert told == "16 of 18 queries searched. The page takes 16 at once."
    assert count(page, "article") == 16


def test_a_large_file_disables_no_other(page: Page, picture: Path) -> None:
    large = picture.with_name("large.jpg")
    large.write_bytes(bytes(20 * 1024 * 1024 + 1))
    page.choose_files("#file", large, picture)
    told = page.wait_for(f"{DONE} && {TOLD}")
    assert told == "1 of 2 queries searched. large.jpg: has more than 20 MiB"
    assert count(page, "article:nth-child(2) section") == 2


def test_nothing_is_told_of_a_database_that_is_shown_no_more(long_names: str, page: Page) -> None:
    """Neither by a search that ended, nor by one under way, nor by a picture that comes late."""
    search = "document.querySelector('#examples button').click()"
    page.value(search)
    page.wait_for(DONE)
    set_value(page, "database", "index long")
    assert (page.value(TOLD), count(page, "article")) == ("", 0)
    for late in ("/search", "/picture"):
        set_value(page, "database", "emblems")
        delay(page, late)
        page.value(search)
        if late == "/search":
            page.wait_for("!!document.querySelector('article')")
        set_value(page, "database", "index long")
        page.value("new Promise((on) => setTimeout(on, 1500))")
        assert (page.value(TOLD), count(page, "article")) == ("", 0)
    assert page.faults == []


def test_the_focus_stays_in_the_answers(page: Page, picture: Path) -> None:
    """On the heading of a hit that is taken; on a hit when the teacher's answer comes."""
    page.choose_files("#file", picture)
    page.wait_for(DONE)
    page.value("document.querySelector('ol button').focus()")
    delay(page, "/view")  # before each answer
    page.press("Enter")
    page.wait_for("document.activeElement.matches('article:first-child h2')")
    page.wait_for("document.querySelectorAll('section').length === 1")
    page.value("document.querySelector('li:nth-child(2) button').focus()")
    page.wait_for(DONE)
    assert count(page, "section") == 2
    assert page.value(
        "document.activeElement.matches('section:first-child li:nth-child(2) button')"
    )
