"""What it costs to answer what attacks the program: seconds, peak memory and the answer of each.

Pages are served by `l2s ui`, everything else runs in a process of its own; memory is the highest
that this process ever held, its libraries included. A process that wants more than `--limit-gib`
gets none, one that takes longer than `--limit-s` is ended. Networks are untrained, the teacher sees
448 px, a student 112 px.
Run: python -m benchmarks.attacks [--only NAME ...]
"""

import argparse
import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlencode

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from tests import made_study

ROOT = Path(__file__).resolve().parents[1]
GIB = 1 << 30
LARGE = (9400, 9400)  # pixels: 88 million, just within what is read
UPLOAD = (7000, 5600)  # 39 million, just within what the page takes
STUDENT = made_study.STUDENT
# Every connection that is not to this machine, and every name that is looked up.
AUDIT = """
import os, sys
def audit(event, arguments):
    if event == "socket.getaddrinfo":
        place = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        place = arguments[1][0]
    else:
        return
    if place not in (None, "", "127.0.0.1", "::1", "localhost", b"127.0.0.1", b"localhost"):
        with open(os.environ["AUDIT_LOG"], "a") as log:
            log.write(f"{event} {place}\\n")
sys.addaudithook(audit)
"""


@dataclass(frozen=True)
class Result:
    """What an attack cost, and what came of it."""

    seconds: float
    cpu_s: float
    peak_bytes: int
    outcome: str


@dataclass(frozen=True)
class Page:
    """A search page that runs."""

    port: int
    pid: int

    def ask(self, method: str, address: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of the answer; status 0 where the connection broke."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        try:
            connection.request(method, address, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            return 0, type(error).__name__.encode()
        finally:
            connection.close()

    def search(self, picture: bytes, database: str = "emblems") -> tuple[int, bytes]:
        asked = urlencode({"database": database, "network": STUDENT})
        return self.ask("POST", f"/search?{asked}", picture)

    def measure(self, attack: Callable[["Page"], str]) -> Result:
        started_s, before_s = time.perf_counter(), cpu_seconds(self.pid)
        outcome = attack(self)
        seconds, cpu_s = time.perf_counter() - started_s, cpu_seconds(self.pid) - before_s
        return Result(seconds, cpu_s, peak_bytes(self.pid), outcome)


LIMIT_S, LIMIT_GIB = 100.0, 12.0


def peak_bytes(pid: int) -> int:
    """The most memory that a living process ever held; 0 for one that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


def cpu_seconds(pid: int) -> float:
    """What a living process has computed, in user and system; 0 for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bounded() -> None:
    """Called in a process that starts: no more memory than the limit."""
    limit_bytes = int(LIMIT_GIB * GIB)
    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))


def environment(study: Path) -> dict[str, str]:
    """This checkout's code, one thread less than a study takes, and connections written down."""
    hook = study.parent / "hook"
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(AUDIT)
    kept = {name: value for name, value in os.environ.items() if "PYTHON" not in name}
    paths = f"{hook}{os.pathsep}{ROOT}"
    return kept | {"PYTHONPATH": paths, "AUDIT_LOG": str(study / "audit"), "L2S_DEVICE": "cpu"}


@contextmanager
def served(study: Path) -> Iterator[Page]:
    """`l2s ui` for the study. Raises RuntimeError with its last words where it does not start."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "ui", "--port", "0"],
        cwd=study,
        env=environment(study) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=bounded,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        if not (found := re.search(r":(\d+)$", line.strip())):
            raise RuntimeError(process.stderr.read().strip().splitlines()[-1])
        yield Page(int(found[1]), process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def run(study: Path, *arguments: str, limit_s: float | None = None) -> Result:
    """A Python process with the arguments; its outcome is the last line it wrote."""
    started_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=study,
        env=environment(study),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=bounded,
    )
    peak, cpu_s = 0, 0.0
    while process.poll() is None and time.perf_counter() - started_s < (limit_s or LIMIT_S):
        peak, cpu_s = max(peak, peak_bytes(process.pid)), max(cpu_s, cpu_seconds(process.pid))
        time.sleep(0.02)
    seconds = time.perf_counter() - started_s
    is_late = process.poll() is None
    if is_late:
        process.kill()
    lines = process.communicate()[0].strip().splitlines()
    said = "ended by us" if is_late else f"exit {process.returncode}: {(lines or ['nothing'])[-1]}"
    return Result(seconds, cpu_s, peak, said)


def picture_file(sides: tuple[int, int], form: str, mode: str = "RGB") -> bytes:
    """A picture with some content and few bytes."""
    image = Image.new(mode, sides, "teal")
    image.paste("white", (0, 0, sides[0] // 2, sides[1] // 2))
    buffer = BytesIO()
    image.save(buffer, format=form)
    return buffer.getvalue()


def told(answer: tuple[int, bytes]) -> str:
    status, body = answer
    return f"{status} {' '.join(body[:90].decode(errors='replace').split())}"


def on_page(attack: Callable[[Page], str]) -> Callable[[Path], Result]:
    """The attack on a page that has answered one search, so that its networks are open."""

    def work(study: Path) -> Result:
        with served(study) as page:
            page.search(picture_file((300, 200), "JPEG"))
            return page.measure(attack)

    return work


def long_pictures(page: Page) -> str:
    sides = ((65_500, 1), (1, 65_500))
    return "; ".join(told(page.search(picture_file(side, "JPEG"))) for side in sides)


def large_uploads(page: Page) -> str:
    forms = (("PNG", "RGBA"), ("PNG", "RGB"), ("JPEG", "RGB"), ("TIFF", "CMYK"))
    pictures = [picture_file(UPLOAD, form, mode) for form, mode in forms]
    slowest_s, answers = 0.0, []
    for picture in pictures:
        started_s = time.perf_counter()
        answers.append(page.search(picture)[0])
        slowest_s = max(slowest_s, time.perf_counter() - started_s)
    return f"{answers}, the slowest in {slowest_s:.1f} s"


def thumbnails(study: Path) -> Result:
    """36 requests at a time for the 12 pictures of an index."""
    folder = study.parent / "large" / "one"
    folder.mkdir(parents=True)
    content = picture_file(LARGE, "JPEG")
    for number in range(12):
        (folder / f"{number}.jpg").write_bytes(content)
    index(study, folder.parent, "large")

    def attack(page: Page) -> str:
        asked = [urlencode({"database": "index large", "row": n % 12}) for n in range(36)]
        addresses = [f"/picture?{one}" for one in asked]
        with ThreadPoolExecutor(36) as threads:
            answers = list(threads.map(lambda address: page.ask("GET", address)[0], addresses))
        return f"{answers.count(200)} of 36 answered"

    return on_page(attack)(study)


def index(study: Path, folder: Path, name: str) -> None:
    """`l2s index` of a folder."""
    done = run(study, "-m", "pipeline.cli", "index", str(folder), "--name", name, limit_s=900)
    assert done.outcome.startswith("exit 0"), done.outcome


def small_index(study: Path, name: str) -> Path:
    """An index of four pictures, and its home."""
    made_study.write_test_images(study, study.parent / name, 4)
    index(study, study.parent / name, name)
    return study / "indexes" / name


def slow_bodies(page: Page, held_s: float = 20.0, honest: int = 15) -> str:
    """Five uploads that send a byte now and then, and honest searches meanwhile."""
    picture = picture_file((300, 200), "JPEG")
    asked = urlencode({"database": "emblems", "network": STUDENT})
    head = f"POST /search?{asked} HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n"
    held = []
    for _ in range(5):
        connection = socket.create_connection(("127.0.0.1", page.port))
        connection.sendall(f"{head}Content-Length: 1000000\r\n\r\n".encode() + b"\xff" * 100)
        held.append(connection)
    answers = []
    for _ in range(honest):
        answers.append(page.search(picture)[0])
        for connection in held:
            with suppress(OSError):
                connection.sendall(b"\xff")
        time.sleep(held_s / honest)
    for connection in held:
        connection.close()
    return f"{answers.count(200)} of {honest} honest searches answered"


def broken_index(study: Path) -> Result:
    (small_index(study, "good").parent / "bad").mkdir()
    (study / "indexes" / "bad" / "index.json").write_text("{")

    def attack(page: Page) -> str:
        databases = page.ask("GET", "/databases")
        searched = page.search(picture_file((300, 200), "JPEG"), "index good")
        return f"databases {told(databases)}; index good {searched[0]}"

    return started(study, attack)


def broken_network(study: Path) -> Result:
    (study / "models/emblems/students" / f"{STUDENT}.safetensors").write_bytes(b"no network")

    def attack(page: Page) -> str:
        databases = page.ask("GET", "/databases")
        asked = urlencode({"database": "emblems", "network": "teacher"})
        other = page.ask("POST", f"/search?{asked}", picture_file((300, 200), "JPEG"))[0]
        return f"databases {databases[0]}; it {told(page.search(PICTURE))}; the teacher {other}"

    return started(study, attack)


def started(study: Path, attack: Callable[[Page], str]) -> Result:
    """As `on_page`, and said where the page does not start."""
    try:
        return on_page(attack)(study)
    except RuntimeError as error:
        return Result(0.0, 0.0, 0, f"the page does not start: {error}")


def foreign_file(study: Path) -> Result:
    """An index from elsewhere, which names /etc/passwd."""
    import pyarrow.parquet as pq

    home = small_index(study, "theirs")
    file = home / "1" / "images.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[0] |= {"folder": "/etc", "name": "passwd"}
    rows[1] |= {"folder": str(study), "name": "params.yaml"}
    rows[2] |= {"name": "../../../../../../etc/passwd"}
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), file)

    def attack(page: Page) -> str:
        answers = []
        for row in range(3):
            asked = urlencode({"database": "index theirs", "row": row, "full": "true"})
            answers.append(told(page.ask("GET", f"/picture?{asked}")))
        return "; ".join(answers)

    return on_page(attack)(study)


def with_card(**changes: object) -> Callable[[Path], Result]:
    """A search by a student whose card says something else."""

    def work(study: Path) -> Result:
        file = study / "models/emblems/students" / f"{STUDENT}.safetensors"
        with safe_open(file, framework="pt") as opened:
            card = json.loads(opened.metadata()["card"]) | changes
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        save_file(state, file, metadata={"card": json.dumps(card)})
        return search_once(study)

    return work


def with_weights(value: float) -> Callable[[Path], Result]:
    """A search by a student whose weights are all of one value."""

    def work(study: Path) -> Result:
        file = study / "models/emblems/students" / f"{STUDENT}.safetensors"
        with safe_open(file, framework="pt") as opened:
            card = opened.metadata()
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        for weights in state.values():
            if weights.is_floating_point():
                weights.fill_(value)
        save_file(state, file, metadata=card)
        return search_once(study)

    return work


def search_once(study: Path) -> Result:
    """One search on the page, and who was asked for something meanwhile."""
    with served(study) as page:
        result = page.measure(lambda page: told(page.search(PICTURE)))
    log = study / "audit"
    calls = log.read_text().splitlines() if log.exists() else []
    return replace(result, outcome=f"{result.outcome}; {len(calls)} calls out")


def parquet(make: str, read: str) -> Callable[[Path], Result]:
    """A file that one process makes, and another reads."""

    def work(study: Path) -> Result:
        made = run(study, "-c", PARQUET + make, limit_s=900)
        assert made.outcome.startswith("exit 0"), made.outcome
        return run(study, "-c", PARQUET + f"try:\n    print({read})\n" + SAID)

    return work


PARQUET = """
import pyarrow as pa, pyarrow.parquet as pq
from pathlib import Path
from pipeline.datasets import parquet
file = Path("train-00000-of-00001.parquet")
def repeated(value, rows):
    return pa.DictionaryArray.from_arrays([0] * rows, pa.array([value]))
def write(name, column):
    pq.write_table(pa.table({name: column}), file, compression="zstd")
def spooled(rows):
    with parquet.spool_images([file], [str(n) for n in range(rows)], Path(".")) as members:
        return sum(len(members.read(name)) for name in members.names)
"""
SAID = """
except Exception as error:
    print("refused:", str(error)[:150])
"""


def yaml_aliases(study: Path) -> Result:
    """Aliases of aliases in params.yaml: 8^8 values."""
    lines = ["bomb:", "  - &a0 [x, x, x, x, x, x, x, x]"]
    lines += [f"  - &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 8)]
    with (study / "params.yaml").open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return run(study, "-m", "pipeline.cli", "table")


def large_photographs(study: Path) -> Result:
    """`l2s search` of a folder of the largest pictures: two JPEGs, a PNG with alpha, a TIFF."""
    folder = study.parent / "photographs"
    folder.mkdir()
    for number, (form, mode) in enumerate(
        (("JPEG", "RGB"), ("PNG", "RGBA"), ("JPEG", "RGB"), ("PNG", "RGB"))
    ):
        (folder / f"{number}.{form.lower()}").write_bytes(picture_file(LARGE, form, mode))
    search = ("-m", "pipeline.cli", "search")
    (study / "small.jpg").write_bytes(PICTURE)
    run(study, *search, "small.jpg")  # which leaves the network's ONNX, as an evaluation does
    return run(study, *search, str(folder), "-k", "1", "--html", "x.html")


def indexed_photographs(study: Path) -> Result:
    """`l2s index` of two of the largest pictures, one with alpha."""
    folder = study.parent / "photographs"
    folder.mkdir()
    for form, mode in (("JPEG", "RGB"), ("PNG", "RGBA")):
        (folder / f"0.{form.lower()}").write_bytes(picture_file(LARGE, form, mode))
    return run(study, "-m", "pipeline.cli", "index", str(folder), "--name", "large")


PICTURE = picture_file((300, 200), "JPEG")
ATTACKS: dict[str, Callable[[Path], Result]] = {
    "long pictures": on_page(long_pictures),
    "large uploads": on_page(large_uploads),
    "thumbnails": thumbnails,
    "slow bodies": on_page(slow_bodies),
    "a broken index": broken_index,
    "a broken network": broken_network,
    "a foreign file": foreign_file,
    "weights of NaN": with_weights(float("nan")),
    "weights of infinity": with_weights(float("inf")),
    "card: hub": with_card(backbone="timm/hf_hub:evil/x"),
    "card: local directory": with_card(backbone="timm/local-dir:/etc"),
    "card: size": with_card(size_px=200_000),
    "card: dimension": with_card(dim=2_000_000_000),
    "card: colours": with_card(mean=[float("nan")] * 3, std=[0.0] * 3),
    # A text of a megabyte 6000 times, a picture of 8 MB 500 times, a gigabyte of nothing.
    "parquet column": parquet(
        "write('label', repeated('x' * 1_000_000, 6000))",
        "len(parquet.read_column(file, 'label'))",
    ),
    "parquet picture": parquet(
        "import os; write('image', repeated(os.urandom(8_000_000), 500))", "spooled(500)"
    ),
    "parquet cell": parquet("write('image', pa.array([b'\\0' * 1_000_000_000]))", "spooled(1)"),
    "YAML aliases": yaml_aliases,
    "large photographs": large_photographs,
    "indexed photographs": indexed_photographs,
}


def main(arguments: list[str] | None = None) -> None:
    global LIMIT_S, LIMIT_GIB
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--limit-s", type=float, default=LIMIT_S)
    parser.add_argument("--limit-gib", type=float, default=LIMIT_GIB)
    given = parser.parse_args(arguments)
    LIMIT_S, LIMIT_GIB = given.limit_s, given.limit_gib
    print(f"{'attack':24} {'s':>6} {'CPU s':>6} {'GiB':>6}  outcome")
    with TemporaryDirectory() as passing:
        made = make_study(Path(passing, "made"))
        for number, name in enumerate(given.only):
            study = Path(passing, str(number), "study")
            shutil.copytree(made, study)
            result = ATTACKS[name](study)
            print(
                f"{name:24} {result.seconds:6.1f} {result.cpu_s:6.1f} "
                f"{result.peak_bytes / GIB:6.2f}  {result.outcome}",
                flush=True,
            )
            shutil.rmtree(study.parent)


def make_study(folder: Path) -> Path:
    """A finished study whose teacher sees 448 px, and its student 112 px."""
    made_study.TEACHER_PX, made_study.STUDENT_PX = 448, 112
    torch.set_num_threads(2)
    np.random.default_rng(0)
    return made_study.make_served_study(folder)


if __name__ == "__main__":
    main()
