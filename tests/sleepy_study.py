"""A small study of stages that sleep, in the shape of the real graph, in a folder of its own.

Run as a program in such a folder it is `l2s study` without the real parameters.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

STAGES = """\
stages:
  prepare:
    foreach: ${datasets}
    do:
      cmd: python step.py prepare@${key} step.py data/${key}/pack
      params: ["datasets.${key}"]
      outs: ["data/${key}/pack"]
  distill:
    foreach: ${students}
    do:
      cmd: python step.py distill@${key} data/${item.dataset}/pack models/${key}
      deps: ["data/${item.dataset}/pack"]
      params: ["students.${key}"]
      outs: ["models/${key}"]
  evaluate:
    foreach: ${students}
    do:
      cmd: python step.py evaluate@${key} models/${key} results/${item.dataset}/cells/${key}
      deps: ["models/${key}"]
      outs: ["results/${item.dataset}/cells/${key}"]
  tradeoff:
    foreach: ${datasets}
    do:
      cmd: python step.py tradeoff@${key} results/${key}/cells results/${key}/tradeoff.md
      deps: ["results/${key}/cells"]
      params: [students]
      outs: ["results/${key}/tradeoff.md"]
"""

# Writes a digest of what it reads; sleeps in many small steps, and resumes after a kill.
STEP = """\
import hashlib, json, sys, time
from pathlib import Path

def keep(path, text):
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        part.write_text(text)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        sys.exit(f"error: {error}")

stage, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
plan = json.loads(Path("sleep.json").read_text())
if stage == plan.get("failing"):
    sys.exit(f"error: {stage} was told to fail")
note = Path(".work/steps", stage.replace("@", "-"))
done = int(note.read_text()) if note.exists() else 0
print(f"{stage}: from step {done}", flush=True)
for number in range(done, 10):
    time.sleep(plan["seconds"] / 10)
    keep(note, str(number + 1))
files = sorted(source.rglob("*")) if source.is_dir() else [source]
digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
keep(target, f"{stage} {digest}\\n")
note.unlink(missing_ok=True)
"""


def make_sleepy_study(
    folder: Path, students: tuple[str, ...] = ("a-64", "a-48"), seconds: float = 0.2
) -> None:
    """Write the study into a new DVC project, which needs no git."""
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc" / "config").write_text(
        "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"
    )
    (folder / ".dvcignore").write_text("")
    (folder / "dvc.yaml").write_text(STAGES)
    (folder / "step.py").write_text(STEP)
    write_plan(folder, seconds)
    write_students(folder, students)


def write_students(folder: Path, students: tuple[str, ...]) -> None:
    rows = "".join(f"  {name}: {{dataset: a, px: 1}}\n" for name in students)
    (folder / "params.yaml").write_text(f"threads: 1\ndatasets:\n  a: {{n: 1}}\nstudents:\n{rows}")


def write_plan(folder: Path, seconds: float, failing: str = "") -> None:
    """How long each stage sleeps, and which one fails. No stage depends on it."""
    (folder / "sleep.json").write_text(json.dumps({"seconds": seconds, "failing": failing}))


def start_study(folder: Path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """Start a study there, in a session of its own, deaf to no signal.

    (What a shell starts in its background ignores SIGINT, and so would what that starts.)
    """
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def serial_lock(folder: Path) -> bytes:
    """The dvc.lock that a plain `dvc repro` leaves in the folder."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "dvc", "repro", "-q"]
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return (folder / "dvc.lock").read_bytes()


def forget_results(folder: Path) -> None:
    """Back to nothing done; what studies keep of their own, and DVC's locks, stay."""
    for name in ("data", "models", "results", ".dvc/cache", ".work/steps"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "dvc.lock").unlink(missing_ok=True)


def processes_in(folder: Path) -> dict[int, str]:
    """The living processes that work in the folder, with their commands."""
    found = {}
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "cwd").readlink() == folder.resolve():
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if command:  # none: it is dead, and its parent has not looked yet
                    found[int(process.name)] = command.strip()
        except OSError:
            continue
    return found


def main() -> int:
    from pipeline.flows.launch import run_study

    chosen = [argument for argument in sys.argv[1:] if argument != "--fresh"]
    try:
        study = run_study(jobs=2, targets=chosen, fresh="--fresh" in sys.argv)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if study.stop.number is not None:
        return 128 + study.stop.number
    return 0 if study.is_success else 1


if __name__ == "__main__":
    sys.exit(main())
