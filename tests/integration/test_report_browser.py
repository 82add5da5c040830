"""The report in a real browser: it works, says nothing on the console, and asks for nothing."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.report import render_report
from tests.made_report import PARAMETERS, large_study, part

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-default-apps", "--disable-extensions", "--host-resolver-rules=MAP * ~NOTFOUND"),
    *("--enable-logging=stderr", "--virtual-time-budget=4000", "--allow-file-access-from-files"),
)
EVIL = "<img src=x onerror=\"console.log('evil')\"><script>console.log('evil')</script>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "index.html"
    made = [part("made", class_name=EVIL), part("other", students=2)]
    path.write_text(render_report(made, PARAMETERS, 0.95), encoding="utf-8")
    return path


def browse(address: Path, folder: Path, *options: str) -> tuple[str, list[str]]:
    """The page's elements after its scripts have run, and the lines of its console."""
    done = subprocess.run(
        [
            *(CHROMIUM, *QUIET, f"--user-data-dir={folder / 'profile'}", *options),
            *("--dump-dom", address.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def ask(page: Path, folder: Path, program: str, width: int = 1280, *options: str) -> Any:
    """What a program gives that runs beside the page, which fills a frame of some width."""
    driver = folder / "driver.html"
    driver.write_text(
        "<!DOCTYPE html><meta charset=utf-8>"
        f"<iframe id=frame style='border:0;width:{width}px;height:900px'></iframe>"
        "<pre id=answer></pre><script>"
        "frame.onload = () => { const page = frame.contentDocument, view = frame.contentWindow;"
        "const all = (selector) => [...page.querySelectorAll(selector)];"
        "const shown = (one) => one.getClientRects().length > 0;"
        f"const give = (() => {{ {program} }})();"
        "answer.textContent = JSON.stringify(give); };"
        f"frame.src = {json.dumps(page.as_uri())};</script>",
        encoding="utf-8",
    )
    elements, console = browse(driver, folder, f"--window-size={max(width, 600)},1000", *options)
    assert console == []
    found = re.search(r'<pre id="answer">(.*?)</pre>', elements, re.DOTALL)
    assert found is not None
    assert found[1], "the program gave nothing"
    return json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))


def test_the_console_stays_empty_and_no_address_is_asked_for(page: Path, tmp_path: Path) -> None:
    log = tmp_path / "net.json"
    elements, console = browse(page, tmp_path, f"--log-net-log={log}")
    assert console == []
    assert elements.count('class="query"') == 5 * 12
    assert asked_hosts(log) == set()
    # The same page without its policy and with a foreign picture: the log would have shown it.
    text = re.sub(r"<meta http-equiv=[^>]*>", "", page.read_text(encoding="utf-8"))
    control = tmp_path / "control.html"
    control.write_text(text.replace("</h1>", "</h1><img src='http://pictures.test/c.png'>", 1))
    browse(control, tmp_path, f"--log-net-log={log}")
    assert asked_hosts(log) == {"pictures.test"}


def asked_hosts(log: Path) -> set[str]:
    """Hosts that a browser asked, but for those that Chromium asks on its own account."""
    hosts = re.findall(r'"url":"https?://([^/"]+)', log.read_text(encoding="utf-8"))
    return {host for host in hosts if not re.search(r"(^|\.)google(apis)?\.com$", host)}


def test_a_foreign_script_in_the_page_does_not_run(page: Path, tmp_path: Path) -> None:
    """The policy holds even where escaping would have failed; this also shows that we would see."""
    text = page.read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace("</h1>", f"</h1>{EVIL}<img src='http://a.b/c.png'>", 1))
    _, console = browse(broken, tmp_path)
    assert len(console) >= 2
    assert all("Content Security Policy" in line for line in console)


def test_arrow_keys_go_from_point_to_point_and_tell_the_row(page: Path, tmp_path: Path) -> None:
    answer = ask(
        page,
        tmp_path,
        """
        const press = (key) => page.activeElement.dispatchEvent(
          new view.KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
        const drawing = page.querySelector(".panel .drawing.wide");
        const stops = () =>
          [...drawing.querySelectorAll(".mark")].filter((one) => one.tabIndex === 0);
        const first = stops().length;
        stops()[0].focus();
        press("End");
        const last = page.activeElement.getAttribute("aria-label");
        press("ArrowLeft");
        const before = page.activeElement;
        const tip = page.querySelector(".panel .tip");
        const told = tip.innerText, visible = shown(tip), lit = all("tr.here").length;
        press("Enter");
        return {first, last, told, visible, lit, row: page.activeElement.id === before.dataset.row,
                after: stops().length, hidden: !shown(tip)};
        """,
    )
    assert answer["first"] == answer["after"] == 1
    assert answer["last"].startswith("made, teacher, teacher")
    assert "asymmetric" in answer["told"]
    assert "60.0" in answer["told"]
    assert "58.0 to 62.0" in answer["told"]
    assert answer["lit"] == 1
    assert answer["visible"]
    assert answer["hidden"]
    assert answer["row"]


def test_a_pointer_near_a_point_tells_its_row(page: Path, tmp_path: Path) -> None:
    told = ask(
        page,
        tmp_path,
        """
        const mark = page.querySelector(".panel .drawing.wide .mark.naive");
        const box = mark.querySelector(".halo").getBoundingClientRect();
        const move = (x, y) => mark.closest("svg").dispatchEvent(
          new view.PointerEvent("pointermove", {clientX: x, clientY: y, bubbles: true}));
        move(box.x + box.width / 2 + 4, box.y + box.height / 2 - 4);
        const tip = page.querySelector(".panel .tip");
        const near = shown(tip) && tip.innerText;
        move(box.x + 60, box.y - 60);
        return [near, shown(tip), mark.dataset.row, all(".drawing.wide .mark.naive").length];
        """,
    )
    assert "naive" in told[0]
    assert told[1] is False
    assert told[3] == 5


def test_switches_hide_data_sets_and_roles_everywhere(page: Path, tmp_path: Path) -> None:
    answer = ask(
        page,
        tmp_path,
        """
        const count = () => ({
          panels: all(".panel").filter(shown).length,
          marks: all(".mark").filter(shown).length,
          curves: all(".curve.naive").filter(shown).length,
          rows: all(".rows tbody tr").filter(shown).length,
          told: page.querySelector(".count").textContent,
        });
        const turn = (value) => all(`[data-switch][value=${value}]`).forEach((one) => one.click());
        const first = count(); turn("naive");
        const second = count(); turn("other");
        const third = count(); turn("naive"); turn("other");
        return [first, second, third, count()];
        """,
    )
    first, second, third, again = answer
    assert first == {"panels": 2, "marks": 27, "curves": 2, "rows": 27, "told": ""}
    assert (second["panels"], second["curves"]) == (2, 0)
    assert (second["marks"], second["rows"]) == (22, 22)
    assert second["told"] == "22 of 27 rows shown"
    assert (third["panels"], third["marks"], third["rows"]) == (1, 13, 13)
    assert again == first


def test_headings_sort_the_table_both_ways(page: Path, tmp_path: Path) -> None:
    answer = ask(
        page,
        tmp_path,
        """
        const heading = all(".rows thead th").find((one) => one.textContent.startsWith("mAP %"));
        const column = [...heading.parentNode.children].indexOf(heading);
        const values = () =>
          all(".rows tbody tr").map((row) => Number(row.children[column].dataset.value));
        const found = [];
        for (let i = 0; i < 2; i++) {
          heading.querySelector("button").click();
          found.push([heading.getAttribute("aria-sort"), values()]);
        }
        const gain = all(".rows thead th").find((one) => one.textContent.startsWith("gain"));
        gain.querySelector("button").click();
        return [found, heading.getAttribute("aria-sort"), gain.getAttribute("aria-sort")];
        """,
    )
    (falling, rising), other, sorted_by = answer
    assert falling[0] == "descending"
    assert falling[1] == sorted(falling[1], reverse=True)
    assert rising[0] == "ascending"
    assert rising[1] == sorted(rising[1])
    assert (other, sorted_by) == (None, "descending")


@pytest.mark.parametrize(("width", "drawing"), [(1280, "wide"), (390, "narrow")])
def test_nothing_runs_over_the_edge_of_desktop_or_phone(
    page: Path, tmp_path: Path, width: int, drawing: str
) -> None:
    answer = ask(
        page,
        tmp_path,
        """
        all("details").forEach((one) => { one.open = true; });
        const root = page.scrollingElement;
        const wide = all("main > section > *, .query, .panel").filter(shown)
          .filter((one) => one.getBoundingClientRect().right > view.innerWidth + 1)
          .map((one) => one.className || one.tagName);
        const kinds = all(".drawing").filter(shown).map((one) => one.classList[1]);
        const text = Math.min(...all(".drawing text").filter(shown)
          .map((one) => one.getBoundingClientRect().height));
        const pixels = page.querySelector(".pixels");
        return {inner: view.innerWidth, whole: root.scrollWidth, wide, kinds, text,
                pixels: [pixels.naturalWidth, pixels.width],
                rendering: view.getComputedStyle(pixels).imageRendering};
        """,
        width,
    )
    assert answer["inner"] == width
    assert answer["whole"] <= width
    assert answer["wide"] == []
    assert set(answer["kinds"]) == {drawing}
    assert answer["text"] >= 10
    assert answer["pixels"] == [64, 112]
    assert answer["rendering"] == "pixelated"


def test_the_page_follows_the_colours_of_the_reader(page: Path, tmp_path: Path) -> None:
    program = """
        const style = view.getComputedStyle(page.body);
        const dark = view.matchMedia("(prefers-color-scheme: dark)").matches;
        return [dark, style.backgroundColor, style.color];
        """
    is_dark, paper, ink = ask(page, tmp_path, program)
    assert (is_dark, paper, ink) == (False, "rgb(253, 252, 249)", "rgb(30, 28, 25)")
    is_dark, paper, ink = ask(page, tmp_path, program, 1280, "--force-dark-mode")
    assert (is_dark, paper, ink) == (True, "rgb(23, 24, 26)", "rgb(233, 229, 220)")


def test_a_study_of_forty_rows_stays_readable(tmp_path: Path) -> None:
    page = tmp_path / "large.html"
    page.write_text(render_report(large_study(), PARAMETERS, 0.95), encoding="utf-8")
    answer = ask(
        page,
        tmp_path,
        """
        const boxes = all(".drawing.wide").filter(shown).map((one) => one.getBoundingClientRect());
        const meet = (a, b) =>
          a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
        let collisions = 0;
        for (const drawing of all(".drawing.wide")) {
          const texts = [...drawing.querySelectorAll("text")]
            .map((one) => one.getBoundingClientRect());
          texts.forEach((a, i) => texts.slice(i + 1).forEach((b) => { collisions += meet(a, b); }));
        }
        return {widths: boxes.map((box) => Math.round(box.width)), collisions,
                rows: all(".rows tbody tr").filter(shown).length};
        """,
    )
    assert len(answer["widths"]) == 4
    assert min(answer["widths"]) > 450
    assert answer["collisions"] == 0
    assert answer["rows"] == 40
    assert page.stat().st_size < 5_000_000
