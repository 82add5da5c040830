"""The command `l2s`: it answers at once, and tells errors in one message."""

import json
import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
import typer
from typer.testing import CliRunner

from pipeline.cli import __main__ as cli
from pipeline.cli.errors import errors_in_words
from pipeline.cli.settings import given_file
from pipeline.config.params import load_params
from tests.made_archives import encode_picture
from tests.made_params import edited_params

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("torch", "mlflow", "prefect", "dvc", "pandas", "numpy", "pydantic", "matplotlib", "timm")
COMMANDS = [command.callback.__name__ for command in cli.app.registered_commands]


def workspace(folder: Path, changes: dict | None = None) -> Path:
    edited_params(folder, changes or {})
    (folder / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    return folder


def l2s(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_answers_without_any_heavy_import() -> None:
    program = (
        "import json, sys\n"
        "from pipeline.cli.__main__ import app\n"
        "try:\n    app(['--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "print(json.dumps([name for name in sys.modules if '.' not in name]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    *shown, modules = done.stdout.splitlines()
    assert "typer" in modules
    assert not set(HEAVY) & set(json.loads(modules))
    for command in COMMANDS:
        assert any(command in line for line in shown)


@pytest.mark.parametrize(
    "surroundings",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)
def test_names_that_a_terminal_lacks_are_written_as_escapes(surroundings: dict[str, str]) -> None:
    """And names of files are UTF-8 whatever the locale says."""
    program = (
        "import sys\n"
        "from pipeline.cli.__main__ import main\n"
        "main(debug=False)\n"
        "print(sys.getfilesystemencoding(), 'caf\\xe9 \\u03a9', sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "\u00e9"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **surroundings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "utf-8 caf\\xe9 \\u03a9 \\xe9\n"


def test_every_command_has_help() -> None:
    for command in COMMANDS:
        result = CliRunner().invoke(cli.app, [command, "--help"])
        assert result.exit_code == 0
        assert command in result.output
    assert {"study", "table"} <= set(COMMANDS)


@pytest.mark.parametrize("command", ["study", "table"])
def test_outside_of_a_workspace(tmp_path: Path, command: str) -> None:
    done = l2s(tmp_path, command)
    assert done.returncode == 2
    where = f"no params.yaml and dvc.yaml in {tmp_path} or above it"
    assert done.stderr == f"error: {where}: `l2s init FOLDER` lays them out\n"
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("dvc.lock", "schema: '2.0'\nstages:\n  check:\n    cmd: python -m stages.check params\n"),
        ("dvc.lock", "schema: '2.0'\nstages:\n  survey@own:\n    cmd: python\n"),
        (".work/study.json", '{"pid": 7, "started": "8.1", "ended": null, "stages": {}}'),
    ],
)
def test_a_workspace_of_the_first_version_is_refused_in_words(
    tmp_path: Path, file: str, text: str
) -> None:
    workspace(tmp_path)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    processes = tmp_path / ".work" / "processes" / "stage.json"  # what a killed study left
    processes.parent.mkdir(parents=True, exist_ok=True)
    processes.write_text('{"name": "stage", "group": 1, "started": "2", "owner": 3}')
    for command in ("study", "status", "retrain"):
        done = l2s(tmp_path, command)
        assert done.returncode == 2
        assert "holds results of the first version" in done.stderr
        assert "delete dvc.lock and .work here" in done.stderr
        assert done.stderr.count("\n") == 1
    assert (tmp_path / file).read_text() == text


@pytest.mark.parametrize("command", ["study", "table"])
def test_a_wrong_params_yaml_stops_before_anything_runs(tmp_path: Path, command: str) -> None:
    workspace(tmp_path, {"sede": 1, "threads": 0})
    before = sorted(path.name for path in tmp_path.iterdir())
    done = l2s(tmp_path, command)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert lines[0] == "error: params.yaml: 2 faults"
    assert {line.split()[0] for line in lines[1:]} == {"sede:", "threads"}
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_unknown_backbone_stops_before_anything_runs(tmp_path: Path) -> None:
    workspace(tmp_path, {"datasets.emblems.network.backbone": "timm/resnet81"})
    done = l2s(tmp_path, "study")
    assert done.returncode == 2
    assert "datasets.emblems.network.backbone = 'timm/resnet81'" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dvc.yaml", "params.yaml"]


def test_too_little_memory_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A library that a command imports does not fit under `ulimit -v`."""
    monkeypatch.chdir(workspace(tmp_path))
    with pytest.raises(typer.Exit) as caught, cli.workspace():
        raise ImportError("libparquet.so: failed to map segment from shared object")
    assert caught.value.exit_code == 2
    assert "error: too little memory (libparquet.so: failed to map" in capsys.readouterr().err
    with pytest.raises(ImportError, match="no module"), cli.workspace():
        raise ImportError("no module")  # a fault of ours


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = l2s(tmp_path, "--debug", "table")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "no params.yaml and dvc.yaml" in done.stderr


@pytest.mark.parametrize("arguments", [["nonsense"], ["study", "--nonsense"], ["table", "extra"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("select", "emblems", "--path", ""), "--path: must not be empty"),
        (("search", "x.jpg", "--index="), "--index: must not be empty"),
        (("index", ""), "an argument: must not be empty"),
    ],
)
def test_an_empty_word_is_not_the_current_folder(arguments: tuple[str, ...], told: str) -> None:
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert told in result.output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--dataset", "birds"), "--dataset 'birds': no such data set; known: emblems"),
        (("--study", "--dataset", "emblems"), "--study runs the whole study: --dataset, "),
        (("--study", "--tolerance", "1"), "--study runs the whole study: --dataset, "),
    ],
)
def test_a_schedule_of_what_no_run_could_use_does_not_start(
    tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    done = l2s(workspace(tmp_path), "schedule", "--every", "1s", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {told}")


def test_another_study_for_a_folder_that_has_one_is_refused(tmp_path: Path) -> None:
    before = (workspace(tmp_path) / "params.yaml").read_bytes()
    done = l2s(tmp_path, "init", ".", "--study", "cub200")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: --study cub200: . has a params.yaml already, which stays")
    assert (tmp_path / "params.yaml").read_bytes() == before


def test_a_value_that_is_no_yaml_is_told_in_words(tmp_path: Path) -> None:
    done = l2s(workspace(tmp_path), "select", "emblems", "-S", "seeds=[0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: -S seeds=[0: its value is not YAML: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_table_of_what_is_not_evaluated_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workspace(tmp_path) / "deeper"
    folder.mkdir()
    monkeypatch.chdir(folder)  # the workspace is found above
    result = CliRunner().invoke(cli.app, ["table"])
    assert result.exit_code == 2
    assert "emblems: not evaluated yet: teacher, " in result.output


def test_a_given_path_is_absolute_unless_git_tracks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An experiment in another folder finds the one by its path, the other in its own copy."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "part").mkdir()
    for name in ("tracked", "own"):
        (tmp_path / "part" / name).touch()
    assert given_file("path", Path("own"), tmp_path / "part") == f"{tmp_path}/part/own"
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", "add", "part/tracked"], check=True)
    assert given_file("path", Path("../part/own"), tmp_path / "part") == f"{tmp_path}/part/own"
    assert given_file("path", Path("tracked"), tmp_path / "part") == "part/tracked"
    assert given_file("path", tmp_path / "part", tmp_path) == "part"
    with pytest.raises(ValueError, match="--path else: there is no such file or folder"):
        given_file("path", Path("else"), tmp_path)
    monkeypatch.setenv("PATH", "")  # no git is installed
    assert given_file("path", Path("tracked"), tmp_path / "part") == f"{tmp_path}/part/tracked"


@pytest.mark.parametrize(
    ("module", "extra"), [("dvc.repo", "study"), ("onnxruntime", "export"), ("fastapi", "serve")]
)
def test_a_missing_extra_is_named_with_its_command(
    module: str, extra: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended, errors_in_words():
        raise ModuleNotFoundError(f"No module named '{module}'", name=module)
    assert ended.value.exit_code == 2
    assert f"pip install 'large-to-small[{extra}]'" in capsys.readouterr().err


def test_another_missing_module_is_our_fault() -> None:
    with pytest.raises(ModuleNotFoundError), errors_in_words():
        raise ModuleNotFoundError("No module named 'pipeline.absent'", name="pipeline.absent")


def test_images_in_object_storage_are_fetched_when_they_are_selected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "study"
    assert l2s(tmp_path, "init", str(study)).returncode == 0
    monkeypatch.chdir(study)
    store = fsspec.filesystem("memory")
    for number in range(3):
        store.pipe_file(f"/photos/birds/{number}.jpg", encode_picture(number))
    select = ["select", "images", "--path"]
    result = CliRunner().invoke(cli.app, [*select, "memory://photos/birds"])
    assert result.exit_code == 0, result.output
    given = load_params(study / "params.yaml").inputs
    folder = Path(given["images"])
    assert folder.parent == study / "remote"
    fetched = ["0.jpg", "1.jpg", "2.jpg"]
    assert sorted(one.name for one in folder.glob("*.jpg")) == fetched
    store.pipe_file("/photos/others/a.jpg", encode_picture(9))
    other = CliRunner().invoke(cli.app, [*select, "memory://photos/others", "-S", "typo.key=1"])
    assert other.exit_code == 2
    store.rm("/photos", recursive=True)
    assert load_params(study / "params.yaml").inputs == given
    assert sorted(one.name for one in folder.glob("*.jpg")) == fetched  # a refusal takes nothing
    before = (study / "params.yaml").read_bytes()
    for address, words in (
        ("memory://photos/birds", "holds 0 images"),
        ("https://photos/birds", "must be SCHEME://BUCKET/NAME"),
        ("s3://user:word@photos/birds", "s3://photos/birds: holds a name or password"),
    ):
        refused = CliRunner().invoke(cli.app, [*select, address])
        assert refused.exit_code == 2
        assert words in refused.stderr
    assert (study / "params.yaml").read_bytes() == before


def test_a_reader_that_has_seen_enough_is_no_error_of_the_user() -> None:
    with pytest.raises(BrokenPipeError), errors_in_words():
        raise BrokenPipeError(32, "Broken pipe")
