"""The web export in headless Chromium: parity with Python, time to the first result, 8 bits.

Exports a network of the study in the current folder, with the encoder in 32 and in 8 bits, serves
each by the plainest server, and asks the page itself. Pixels: of the same 200 test images as views
made in Python, how far the vectors are off. Files: the same images from their files, decoded and
filtered by the browser: how many of the ten nearest are those that Python finds in whole vectors.
First result: from the start of the navigation to results on the page for a picture that is asked
for at once, the least of five; cold with an empty profile, warm on the second visit. Speed: the two
networks in turns on one page, milliseconds an image; the least is the steadiest.
Run in the folder of a study:
    python -m benchmarks.web_export --network emblems-48 --runtime node_modules/onnxruntime-web/dist
"""

import argparse
import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from pipeline.config.params import load_params
from pipeline.export.folder import INT8, export_network
from pipeline.export.trained import Trained, open_for_export
from pipeline.export.web.runtime import find_runtime
from pipeline.export.web.site import SiteOptions
from pipeline.models.query_encoder import QueryEncoder
from tests.browser import Page, open_page

IMAGES = 200
VISITS = 5
NEAREST = 10
READY = "document.getElementById('status').textContent === 'Ready.'"
FIRST = """fetch('queries/0.jpg').then((r) => r.blob()).then(async (blob) => {
  take(blob);
  await last;
  return performance.now();
})"""
SPEED = """(async () => {
  const ort = await import('./runtime/ort.js');
  const sessions = [];
  for (const file of ['encoder.onnx', 'other.onnx']) {
    const bytes = new Uint8Array(await (await fetch(file)).arrayBuffer());
    sessions.push(await ort.InferenceSession.create(bytes, { executionProviders: ['wasm'] }));
  }
  const times = [[], []];
  for (let turn = 0; turn < %d; turn++) {
    for (const [i, session] of sessions.entries()) {
      const view = new Uint8Array(%d * %d * 3).map(() => 256 * Math.random());
      const before = performance.now();
      await session.run({ image: new ort.Tensor('uint8', view, [1, %d, %d, 3]) });
      times[i].push(performance.now() - before);
    }
  }
  return times.map((all) => all.slice(5).sort((a, b) => a - b));
})()"""


class Quiet(SimpleHTTPRequestHandler):
    """A server that does not write each request."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def embedded(page: Page, view: np.ndarray) -> list[float]:
    """The vector of a view, by the page."""
    text = base64.b64encode(view.tobytes()).decode()
    pixels = f"Uint8Array.from(atob('{text}'), (c) => c.charCodeAt(0))"
    found: list[float] = page.value(
        f"ready.then(({{ embed }}) => embed({pixels})).then((vector) => Array.from(vector))"
    )
    return found


def answered(page: Page, number: int) -> dict[str, Any]:
    """The rows that the page finds for a file, and its times."""
    found: dict[str, Any] = page.value(
        f"fetch('queries/{number}.jpg').then((r) => r.blob()).then(answerTo)"
        ".then(({ hits, times }) => ({ rows: hits.map((hit) => hit.row), times }))"
    )
    return found


def first_results_ms(address: str, profile: Path) -> tuple[float, float]:
    """Cold and warm, from the start of the navigation; the least of a few."""
    cold, warm = [], []
    for visit in range(VISITS):
        with open_page(address, profile / str(visit)) as page:
            cold.append(page.value(FIRST))
            page.call("Page.navigate", url=f"{address}?again")
            page.wait_for("location.search === '?again' && document.readyState === 'complete'")
            warm.append(page.value(FIRST))
    return min(cold), min(warm)


def measure(trained: Trained, site: Path, profile: Path) -> dict[str, float]:
    """Parity and times of one export."""
    studied = trained.studied
    rows = np.linspace(0, len(studied) - 1, min(IMAGES, len(studied))).round().astype(int)
    (site / "queries").mkdir()
    pictures = [studied.read(int(row)) for row in rows]
    for number, picture in enumerate(pictures):
        (site / f"queries/{number}.jpg").write_bytes(picture)
    encoder = QueryEncoder(site / "encoder.onnx", threads=1)
    views = [encoder.view(picture, "picture") for picture in pictures]
    vectors = encoder.embed(np.stack(views))
    whole = QueryEncoder(site.parent / "encoder.onnx", threads=1).embed(np.stack(views))
    nearest = np.argsort(-(whole @ np.asarray(studied.vectors).T), axis=1, kind="stable")
    with served(site) as address:
        cold_ms, warm_ms = first_results_ms(address, profile / "first")
        with open_page(address, profile / "second") as page:
            page.wait_for(READY)
            off = max(
                float(np.abs(np.array(embedded(page, view)) - vector).max())
                for view, vector in zip(views, vectors, strict=True)
            )
            answers = [answered(page, number) for number in range(len(rows))]
            assert page.faults == [], page.faults
    kept = [
        len(set(answer["rows"][:NEAREST]) & set(expected[:NEAREST].tolist())) / NEAREST
        for answer, expected in zip(answers, nearest, strict=True)
    ]
    steps = {
        f"{step}_ms": float(np.median([answer["times"][step] for answer in answers]))
        for step in answers[0]["times"]
    }
    found = {"first_cold_ms": cold_ms, "first_warm_ms": warm_ms, **steps}
    return {"images": len(rows), "off": off, "overlap": float(np.mean(kept)), **found}


def speeds_ms(
    site: Path, other: Path, size_px: int, profile: Path, turns: int
) -> list[list[float]]:
    """Times of the site's network and of another one, in turns, ascending."""
    (site / "other.onnx").write_bytes(other.read_bytes())
    with served(site) as address, open_page(address, profile) as page:
        page.wait_for(READY)
        times: list[list[float]] = page.value(SPEED % (turns, *[size_px] * 4))
        return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", required=True, help="a key of params.students")
    parser.add_argument("--runtime", type=Path, help="the folder of ONNX Runtime Web")
    parser.add_argument("--turns", type=int, default=105, help="of each network, for the speed")
    given = parser.parse_args()
    options = SiteOptions(find_runtime(given.runtime, Path.cwd()), pictures=2000)
    params = load_params()
    trained = open_for_export(lambda *_: params, given.network, None)
    with TemporaryDirectory() as folder:
        for name, is_int8 in (("float32", False), ("int8", True)):
            target = Path(folder, name)
            parity = export_network(trained, target, int8=is_int8, web=options)
            print(name, json.dumps(parity["web"]), flush=True)
            found = measure(trained, target / "web", Path(folder, f"{name}-p"))
            print(name, ", ".join(f"{key} {value:.4g}" for key, value in found.items()), flush=True)
        site, other = Path(folder, "float32/web"), Path(folder, "int8", INT8)
        size_px, profile = trained.encoder.size_px, Path(folder, "speed")
        for name, times in zip(
            ("float32", "int8"), speeds_ms(site, other, size_px, profile, given.turns), strict=True
        ):
            least, median = times[0], times[len(times) // 2]
            print(f"{name}: {least:.2f} ms at the least, {median:.2f} in the median", flush=True)


if __name__ == "__main__":
    main()
