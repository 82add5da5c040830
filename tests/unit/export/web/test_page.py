"""The page of the web export in a real browser: its arithmetic, and what it shows and says."""

import base64
import gzip
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config.params import load_params
from pipeline.export.folder import export_network
from pipeline.export.shorter import eight_bits
from pipeline.export.trained import open_for_export
from pipeline.export.web.runtime import find_runtime
from pipeline.export.web.site import SiteOptions
from pipeline.files import read_json, write_json
from pipeline.models.query_encoder import QueryEncoder, square_view
from pipeline.search.databases import open_study_database
from tests.browser import Page, browser_path, open_page
from tests.made_site import COLOURS, colour_database, write_colour_site
from tests.made_study import STUDENT, STUDENT_PX, make_finished_study

pytestmark = pytest.mark.skipif(browser_path() is None, reason="there is no browser")

TOLD = "document.getElementById('status').textContent"
CLASSES = "[...document.querySelectorAll('#hits span:first-of-type')].map((s) => s.textContent)"
GAPS = """(selector) => Math.min(...[...document.querySelectorAll(selector)].map((one) => {
  const next = one.closest('li, div').nextElementSibling?.getBoundingClientRect();
  const edge = one.getBoundingClientRect();
  return next && next.top < edge.bottom && next.left > edge.left ? next.left - edge.right : 99;
}))"""  # of neighbours in a line, in px, the least
FILES = "[...document.querySelectorAll('#hits span:last-of-type')].map((s) => s.textContent)"
PICTURES = "document.querySelectorAll('#hits img').length"
FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
RUNTIME = "ONNX Runtime Web is not installed: NODE_PATH names the node_modules that hold it"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[ThreadingHTTPServer]:
    """A folder on loopback, by the plainest server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def address(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}/"


def bytes_of(page: Page, expression: str) -> bytes:
    """The bytes of a typed array."""
    text = (
        f"Array.from(new Uint8Array(({expression}).buffer), (b) => String.fromCharCode(b)).join('')"
    )
    return base64.b64decode(page.value(f"btoa({text})"))


def encoded(values: np.ndarray, kind: str) -> str:
    """An array as a JavaScript expression."""
    text = base64.b64encode(values.tobytes()).decode()
    return f"new {kind}(Uint8Array.from(atob('{text}'), (c) => c.charCodeAt(0)).buffer)"


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colours")
    write_colour_site(folder, colour_database(unreadable=3))
    return folder / "web"


@pytest.fixture(scope="module")
def page(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    profile = tmp_path_factory.mktemp("profile")
    with served(colours) as server, open_page(address(server), profile, *FAKE_CAMERA) as opened:
        opened.wait_for(f"{TOLD} === 'Ready.'")
        yield opened


def view_in_browser(page: Page, pixels: np.ndarray, size_px: int) -> np.ndarray:
    height, width, _ = pixels.shape
    data = encoded(
        np.dstack([pixels, np.full((height, width), 255, np.uint8)]), "Uint8ClampedArray"
    )
    picture = f"{{ width: {width}, height: {height}, data: {data} }}"
    view = bytes_of(page, f"squareView({picture}, {size_px})")
    return np.frombuffer(view, np.uint8).reshape(size_px, size_px, 3)


def noise(width: int, height: int) -> np.ndarray:
    source = np.random.default_rng(width * height)
    return source.integers(0, 256, (height, width, 3), dtype=np.uint8)


def soft(width: int, height: int) -> np.ndarray:
    small = Image.fromarray(noise(max(2, width // 20), max(2, height // 20)))
    return np.array(small.resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    ("width", "height", "size_px"),
    [(160, 160, 48), (160, 120, 48), (90, 160, 48), (165, 123, 112), (30, 40, 56), (7, 9, 16)]
    + [(1, 3, 16), (55, 110, 48), (250, 111, 32)],
)
def test_the_view_is_pillows_to_the_byte(page: Page, width: int, height: int, size_px: int) -> None:
    pixels = noise(width, height)
    expected = square_view(Image.fromarray(pixels), size_px)
    np.testing.assert_array_equal(view_in_browser(page, pixels, size_px), expected)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (903, 701)])
def test_a_large_picture_is_reduced_as_pillow_would(page: Page, width: int, height: int) -> None:
    pixels = soft(width, height)
    image, short_px = Image.fromarray(pixels), 37
    long_px = round(width * short_px / height)
    left, top = round((long_px - 32) / 2), round((short_px - 32) / 2)
    resized = image.resize((long_px, short_px), Image.Resampling.LANCZOS, reducing_gap=6)
    expected = np.array(resized.crop((left, top, left + 32, top + 32))).astype(int)
    view = view_in_browser(page, pixels, 32).astype(int)
    assert np.abs(view - expected).max() <= 1
    off = np.abs(view - square_view(image, 32))  # which reduces nothing
    assert off.max() <= 3
    assert off.mean() < 0.5


@pytest.mark.parametrize(("width", "height"), [(90, 250), (400, 60), (60, 400)])
def test_the_view_of_a_long_picture_is_pillows_to_a_level(
    page: Page, width: int, height: int
) -> None:
    """Of high ones Pillow filters the columns first, of longer ones only what the view shows."""
    pixels = soft(width, height)
    view = view_in_browser(page, pixels, 32).astype(int)
    assert np.abs(view - square_view(Image.fromarray(pixels), 32)).max() <= 1


def test_the_search_is_exact(page: Page) -> None:
    source = np.random.default_rng(0)
    vectors = source.normal(size=(500, 24)).astype(np.float32)
    vectors[400] = vectors[10]  # of equal ones the first leads
    query = (vectors[10] + source.normal(size=24)).astype(np.float32)
    numbers, steps = eight_bits(vectors)
    asked = ", ".join(
        (encoded(query, "Float32Array"), encoded(numbers, "Int8Array"))
        + (encoded(steps, "Float32Array"),)
    )
    exact = (numbers * steps[:, None].astype(np.float64)) @ query.astype(np.float64)
    order = np.argsort(-exact, kind="stable")
    assert order[:2].tolist() == [10, 400]
    for count in (1, 12, 500, 600):
        hits = page.value(f"nearest({asked}, {count})")
        assert [hit["row"] for hit in hits] == order[:count].tolist()
        found = [hit["similarity"] for hit in hits]
        np.testing.assert_allclose(found, exact[order[:count]], atol=1e-9)


def test_what_a_server_has_unpacked_is_taken_as_it_is(page: Page) -> None:
    program = b"\0asm and more"
    for sent in (gzip.compress(program), program):
        given = encoded(np.frombuffer(sent, np.uint8), "Uint8Array")
        page.value(f"unpacked({given}.buffer).then((bytes) => {{ window.got = bytes; }})")
        assert bytes_of(page, "new Uint8Array(got)") == program


def choose(page: Page, file: Path, picture: Image.Image | bytes) -> str:
    """Give the page a picture; what it says then."""
    if isinstance(picture, bytes):
        file.write_bytes(picture)
    else:
        picture.save(file, exif=picture.getexif())
    page.value("say('')")
    page.choose_files("#file", file)
    return str(page.wait_for(f"!['', 'Searching …'].includes({TOLD}) && {TOLD}"))


def test_a_picture_finds_its_like(page: Page, tmp_path: Path) -> None:
    told = choose(page, tmp_path / "green.png", Image.new("RGB", (100, 80), COLOURS["green"]))
    assert re.fullmatch(r"12 of 60 pictures, in \d+ ms\.", told)
    assert page.value(CLASSES) == ["green"] * 12
    numbers, steps = eight_bits(colour_database().vectors)
    similarity = (numbers * steps[:, None]) @ (np.array(COLOURS["green"]) / 200)
    expected = np.argsort(-similarity, kind="stable")[:12]
    assert page.value(FILES) == [f"{row}.jpg" for row in expected]
    assert page.wait_for(f"{PICTURES} === 12")
    names = page.value("document.getElementById('times').innerText").split()[::3]
    assert names == ["decode", "resize", "network", "search", "total"]
    assert page.value("document.getElementById('view').width") == 16
    assert "Licence of the pictures: CC0." in page.value("document.body.innerText")
    page.resize(390, 844, dark=True)
    assert page.value("document.documentElement.scrollWidth <= innerWidth")
    for boxes in ("#hits img", "#times div"):  # each beside the next, not over or against it
        assert page.value(f"({GAPS})('{boxes}')") >= 8
    page.resize(1280, 900)


@pytest.mark.parametrize(("width", "height"), [(3000, 400), (400, 3000)])
def test_a_query_of_any_size_stays_in_its_frame(
    page: Page, tmp_path: Path, width: int, height: int
) -> None:
    choose(page, tmp_path / "large.png", Image.new("RGB", (width, height), COLOURS["green"]))
    for window_px in (1280, 390):
        page.resize(window_px, 900)
        [frame, shown] = page.value(
            "['drop', 'preview'].map((id) => document.getElementById(id).getBoundingClientRect())"
            ".map(({ left, top, right, bottom }) => [left, top, -right, -bottom])"
        )
        assert (np.array(shown) > frame).all()
        height_px = -shown[3] - shown[1]
        assert height_px < 300, "a high one would push the answer off the screen"
    page.resize(1280, 900)


def test_the_same_file_is_searched_again_after_an_example(page: Page, tmp_path: Path) -> None:
    green = Image.new("RGB", (30, 30), COLOURS["green"])
    choose(page, tmp_path / "green.png", green)
    page.wait_for("document.querySelectorAll('#examples button').length === 8")
    page.value("document.querySelector('#examples button').click()")
    page.wait_for(f"{CLASSES}[0] === 'red'")
    choose(page, tmp_path / "green.png", green)
    assert page.value(CLASSES) == ["green"] * 12


DROP = """((contents) => {
  const dropped = new DataTransfer();
  for (const one of contents) dropped.items.add(new File([one], 'one.png'));
  document.dispatchEvent(new DragEvent('drop', { dataTransfer: dropped }));
})"""


def test_of_several_pictures_the_first_is_searched_and_that_is_said(page: Page) -> None:
    page.wait_for(f"{TOLD} !== 'Loading …'")
    page.value("say('')")
    page.value(f"pictureOf(0).then((red) => {DROP}([red, red, 'text']))")
    told = page.wait_for(f"{TOLD}.includes('12 of 60') && {TOLD}")
    assert told.startswith("The first of 3 pictures is searched. 12 of 60")


def test_the_fault_of_an_earlier_picture_is_told_no_more(page: Page) -> None:
    page.wait_for(f"{TOLD} !== 'Loading …'")
    page.value("say(''); window.said = []; window.decoded = createImageBitmap")
    page.value(
        "new MutationObserver(() => said.push(byId('status').textContent))"
        ".observe(byId('status'), { childList: true });"
        "window.createImageBitmap = (source) =>"
        " new Promise((on) => setTimeout(on, 300)).then(() => decoded(source))"
    )
    page.value(f"{DROP}(['text'])")
    page.value(f"pictureOf(0).then((red) => {DROP}([red]))")
    page.wait_for(f"{TOLD}.startsWith('12 of 60')")
    page.value("window.createImageBitmap = decoded")
    assert page.value("said.filter((one) => one.includes('no picture'))") == []


def test_a_row_without_a_picture_is_shown_by_its_name(page: Page, tmp_path: Path) -> None:
    choose(page, tmp_path / "red.png", Image.new("RGB", (30, 30), COLOURS["red"]))
    assert page.wait_for(f"{PICTURES} === 11")
    assert page.value("document.querySelector('#hits .no-picture').textContent") == "red/3.jpg"


def test_nothing_similar_is_told(page: Page, tmp_path: Path) -> None:
    told = choose(page, tmp_path / "grey.png", Image.new("RGB", (30, 30), (120, 120, 120)))
    assert re.match(r"Nothing similar: the best of 60 has 0\.[78]\d\d; 99 of 100 known", told)
    assert page.value("document.getElementById('answer').classList.contains('unlike')")


def test_what_is_no_picture_is_told_and_the_next_is_answered(page: Page, tmp_path: Path) -> None:
    assert "no picture that the browser can read" in choose(page, tmp_path / "a.jpg", b"text")
    assert page.value("document.getElementById('answer').hidden")
    page.wait_for("document.getElementById('preview').hidden")
    assert "12 of 60" in choose(page, tmp_path / "b.png", Image.new("RGB", (9, 9), "blue"))


def test_pictures_are_turned_upright_and_put_on_white(page: Page, tmp_path: Path) -> None:
    two = Image.new("RGB", (40, 40), (250, 0, 0))
    two.paste((0, 0, 250), (20, 0, 40, 40))  # red left, blue right
    two.getexif()[0x0112] = 6  # to be turned by 90 degrees: red on top
    two.save(tmp_path / "turned.jpg", exif=two.getexif(), quality=95, subsampling=0)
    clear = Image.new("RGBA", (40, 40), (0, 200, 0, 0))
    clear.save(tmp_path / "clear.png")
    for name, top, bottom in (
        ("turned", (250, 0, 0), (0, 0, 250)),
        ("clear", (255,) * 3, (255,) * 3),
    ):
        file = next(tmp_path.glob(f"{name}.*"))
        data = encoded(np.frombuffer(file.read_bytes(), np.uint8), "Uint8Array")
        page.value(f"pixelsOf(new Blob([{data}])).then((found) => {{ window.found = found; }})")
        pixels = bytes_of(page, "found.data")
        rows = np.frombuffer(pixels, np.uint8).reshape(40, 40, 4)
        np.testing.assert_allclose(rows[5, 20, :3], top, atol=4)
        np.testing.assert_allclose(rows[35, 20, :3], bottom, atol=4)


def test_the_camera_is_searched(page: Page) -> None:
    page.value("document.getElementById('camera-on').click()")
    page.wait_for("document.activeElement.id === 'shoot'")
    page.value("say('')")
    page.press("Enter")
    assert "of 60" in page.wait_for(f"!['', 'Searching …'].includes({TOLD}) && {TOLD}")
    page.value("document.getElementById('camera-off').click()")
    page.wait_for("document.getElementById('video').hidden")
    assert page.value("document.getElementById('video').srcObject") is None
    assert page.faults == []


def test_it_goes_on_without_its_server(colours: Path, tmp_path: Path) -> None:
    with served(colours) as server:
        browser = open_page(address(server), tmp_path / "profile")
        page = browser.__enter__()
        page.wait_for("document.getElementById('parts').textContent.includes('pictures')")
    try:
        page.value("document.querySelector('#examples button').click()")
        assert "12 of 60" in page.wait_for(f"{TOLD}.includes('12 of') && {TOLD}")
        assert page.wait_for(f"{PICTURES} === 11")
        assert page.faults == []
    finally:
        browser.__exit__(None, None, None)


def test_a_runtime_that_does_not_start_is_told(tmp_path: Path) -> None:
    write_colour_site(tmp_path, colour_database(), script="throw new Error('no room for it');")
    with served(tmp_path / "web") as server, open_page(address(server), tmp_path / "p") as page:
        page.wait_for("document.getElementById('status').classList.contains('fault')")
        assert page.value(TOLD) == "no room for it"


def test_the_licence_that_is_told_is_that_of_the_pictures(tmp_path: Path) -> None:
    """Of an index it is another than that of the study's images."""
    write_colour_site(tmp_path, colour_database())
    index = tmp_path / "web/index.json"
    told = read_json(index)
    write_json(index, told | {"licences": told["licences"] | {"database": "unknown"}})
    with served(tmp_path / "web") as server, open_page(address(server), tmp_path / "p") as page:
        page.wait_for(f"{TOLD} === 'Ready.'")
        assert page.value("document.getElementById('licence').textContent") == "unknown"


def test_long_names_widen_no_page(tmp_path: Path) -> None:
    long = "x" * 200
    colours = colour_database()
    names = [f"{long}/{long}-{row}.jpg" for row in range(len(colours))]
    classes = [long] * len(colours)
    write_colour_site(tmp_path, replace(colours, names=names, class_names=classes))
    index = tmp_path / "web/index.json"
    told = read_json(index)
    write_json(index, told | {"network": long, "licences": {"data": long}})
    with served(tmp_path / "web") as server, open_page(address(server), tmp_path / "p") as page:
        page.wait_for("document.querySelectorAll('#examples button').length === 8")
        page.value("document.querySelector('#examples button').click()")
        page.wait_for(f"{TOLD}.includes('12 of') && {PICTURES} === 12")
        page.value("say('x'.repeat(200), true)")  # a fault may tell an address
        for width_px in (1280, 390):
            page.resize(width_px, 900)
            assert page.value("document.documentElement.scrollWidth") <= width_px


def test_a_file_address_is_explained(colours: Path, tmp_path: Path) -> None:
    with open_page((colours / "index.html").as_uri(), tmp_path / "profile") as page:
        assert "python -m http.server" in page.wait_for(f"{TOLD} !== 'Loading …' && {TOLD}")


def test_the_network_embeds_as_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal pixels give equal vectors, and files the same nearest ones, with the real runtime."""
    try:
        runtime = find_runtime(None, Path.cwd())
    except ValueError:
        pytest.skip(RUNTIME)
    monkeypatch.chdir(make_finished_study(tmp_path / "study"))
    params = load_params()
    trained = open_for_export(lambda *_: params, STUDENT, None)
    export_network(trained, tmp_path / "out", web=SiteOptions(runtime, pictures=10))
    database, site = open_study_database("emblems"), tmp_path / "out/web"
    encoder = QueryEncoder(site / "encoder.onnx", threads=1)
    views = noise(STUDENT_PX, 5 * STUDENT_PX).reshape(5, STUDENT_PX, STUDENT_PX, 3)
    (site / "queries").mkdir()
    for row in range(len(database)):
        (site / f"queries/{row}.jpg").write_bytes(database.read(row))
    expected = encoder.encode([database.read(row) for row in range(len(database))])
    similarity = expected @ np.asarray(database.vectors).T
    kept = 0
    with served(site) as server, open_page(address(server), tmp_path / "profile") as page:
        page.wait_for(f"{TOLD} === 'Ready.'")
        for view, vector in zip(views, encoder.embed(views), strict=True):
            given = encoded(view, "Uint8Array")
            page.value(
                f"ready.then(async ({{ embed }}) => {{ window.made = await embed({given}); }})"
            )
            found = np.frombuffer(bytes_of(page, "new Float32Array(made)"), np.float32)
            np.testing.assert_allclose(found, vector, atol=1e-3)
        for row in range(len(database)):
            hits = page.value(
                f"fetch('queries/{row}.jpg').then((r) => r.blob()).then(answerTo)"
                ".then(({ hits }) => hits.slice(0, 10).map((hit) => hit.row))"
            )
            kept += len(set(hits) & set(np.argsort(-similarity[row], kind="stable")[:10].tolist()))
        assert page.faults == []
    assert kept / (10 * len(database)) > 0.95
    shutil.rmtree(site)
