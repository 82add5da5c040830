"""The published way: from addresses on loopback to a pack, and damage to exit code 2."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.datasets.packs import open_pack
from pipeline.datasets.published import PublishedDataset, PublishedFile
from pipeline.datasets.reader import Counts
from pipeline.datasets.sources import DATASETS
from tests import made_archives as made
from tests.integration.test_real_layouts import LAYOUTS, files_of, stage, succeed, use
from tests.integration.test_real_layouts import workspace as workspace  # a fixture
from tests.unit.datasets.test_damaged_inputs import CASES

KINDS = {"cub": "cub200", "sop": "sop", "sop_parquet": "sop"}
KINDS |= dict.fromkeys(("cars_whole", "cars_halves", "cars_parquet"), "cars196")
NOT_STRICT = {"accept_subset": True, "skip_unreadable": False}
# Every second kind: all of them are tried on the library, which a stage adds the exit code to. An
# image that the list has and the archive has not is accepted in a subset.
KINDS_OF_DAMAGE = [name for name in list(CASES)[::2] if name != "cub: image missing"]


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder on loopback."""
    handler = partial(Silent, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        """Nothing on stderr."""


def published_as(
    dataset: PublishedDataset, layout: str, folder: Path, address: str
) -> PublishedDataset:
    """The data set as if these files were the published ones: their sizes, checksums, addresses."""
    files = tuple(
        PublishedFile(
            path.name,
            f"{address}/{path.name}",
            path.stat().st_size,
            hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest(),
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(folder.iterdir())
    )
    archive = replace(dataset.archives[layout], files=files)
    return replace(dataset, archives={layout: archive})


@pytest.mark.parametrize(
    ("layout", "make", "counts"),
    [
        ("cub", LAYOUTS["cub"].make, Counts(2, 2, 6, 6)),
        ("sop", LAYOUTS["sop"].make, Counts(3, 2, 6, 4)),
        ("cars_whole", made.write_cars_whole, Counts(2, 2, 4, 4)),
        ("cars_halves", made.write_cars_halves, Counts(2, 2, 5, 4)),
    ],
)
def test_a_published_data_set_comes_from_its_addresses(
    workspace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    make: Callable[[Path], object],
    counts: Counts,
) -> None:
    """The first address of each file answers 404, the second gives it; the counts are held to."""
    site = tmp_path / "site"
    site.mkdir()
    make(site)
    kind = KINDS[layout]
    source = {"kind": kind, "layout": layout, "accept_subset": False, "skip_unreadable": False}
    use(workspace, source, None)
    with served(site) as address:
        whole = published_as(DATASETS[kind], layout, site, address)
        put(monkeypatch, kind, replace(whole, counts=counts))
        succeed(workspace, "inputs", "prepare")
    pack = open_pack(workspace / "data/emblems/pack.arrow")
    assert (len(pack.rows("train")), len(pack.rows("test"))) == (
        counts.train_images,
        counts.test_images,
    )
    assert not pack.is_subset
    described = json.loads((workspace / "data/emblems/source/source.json").read_text())
    assert {file["name"] for file in described["files"]} == {path.name for path in site.iterdir()}
    assert not any(".part" in name for name in files_of(workspace))

    put(monkeypatch, kind, replace(whole, counts=replace(counts, test_images=99)))
    (workspace / "data/emblems/pack.arrow").unlink()
    code, told = stage(workspace, "prepare")
    assert code == 2
    assert "99" in told
    assert "expected" in told
    assert not (workspace / "data/emblems/pack.arrow").exists()


def put(monkeypatch: pytest.MonkeyPatch, kind: str, dataset: PublishedDataset) -> None:
    for module in ("pipeline.datasets.sources", "stages.inputs", "stages.prepare"):
        monkeypatch.setattr(f"{module}.DATASETS", {**DATASETS, kind: dataset})


@pytest.mark.parametrize("name", KINDS_OF_DAMAGE)
def test_every_kind_of_damage_ends_a_stage_with_exit_code_2(
    workspace: Path, tmp_path: Path, name: str
) -> None:
    """One line that says it, no pack, and nothing half-done beside the stages' descriptions."""
    damaged = CASES[name]
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    paths = damaged.make(inputs)
    use(workspace, source_of(damaged.layout, paths), inputs)
    for step in ("inputs", "hash_inputs", "prepare"):
        code, told = stage(workspace, step)
        if code:
            break
    assert code == 2, told
    assert told.count("error: ") == 1
    assert "Traceback" not in told
    left = {
        file for file in files_of(workspace / "data/emblems") if not file.startswith("initial/")
    }
    assert left <= {"source/source.json", "source/input.json"}
    assert set(files_of(workspace / ".work")) <= {"accepted_networks"}


def source_of(layout: str, paths: Any) -> dict[str, Any]:
    if layout == "folder":
        return {"kind": "folder", "skip_unreadable": False}
    if layout == "csv":
        return {"kind": "csv", "table": next(iter(paths.values())).name, "skip_unreadable": False}
    return {"kind": KINDS[layout], "layout": layout, **NOT_STRICT}
