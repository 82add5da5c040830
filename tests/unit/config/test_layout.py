"""A folder for studies outside a checkout."""

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pipeline.cli.__main__ import app
from pipeline.config import layout
from pipeline.config.layout import lay_out, require_own_layout
from pipeline.config.params import load_params
from tests.contract.dvc_yaml import DVC, ROOT

PLOT = ".dvc/plots/tradeoff.json"  # the template that dvc.yaml names


def stages_of(folder: Path) -> dict[str, dict[str, object]]:
    return YAML(typ="safe").load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def test_a_folder_gets_the_graph_a_study_and_dvcs_settings(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "studies"
    written = lay_out(folder, "emblems")
    assert sorted(written) == sorted(
        ["dvc.yaml", "params.yaml", *(".dvcignore", ".gitignore", ".dvc/config"), PLOT]
    )
    assert all((folder / name).is_file() for name in written)
    assert list(load_params(folder / "params.yaml").datasets) == ["emblems"]
    assert (folder / ".git").is_dir()
    stages = stages_of(folder)
    code = stages.pop("code")
    assert code["deps"] == [str(ROOT / "pipeline" / "version.txt")]
    assert stages == {name: one for name, one in DVC["stages"].items() if name != "code"}


def test_what_is_there_already_stays_but_the_graph_is_the_packages(tmp_path: Path) -> None:
    lay_out(tmp_path, "emblems")
    params = tmp_path / "params.yaml"
    params.write_text(params.read_text().replace("\n- 0\n", "\n- 5\n", 1))
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    assert lay_out(tmp_path) == ["dvc.yaml"]
    assert load_params(params).seeds == (5,)
    assert "code" in stages_of(tmp_path)


def test_without_git_dvc_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    lay_out(tmp_path, "emblems")
    assert "no_scm = true" in (tmp_path / ".dvc" / "config").read_text()


def installed(folder: Path) -> Path:
    """The package as a wheel leaves it, with what pyproject.toml lists: `layout` within it."""
    package = folder / "site-packages" / "pipeline"
    for name in ("dvc.yaml", *layout.FILES):
        place = package / "layout" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place)
        assert f'"{name}" = "pipeline/layout/{name}"' in (ROOT / "pyproject.toml").read_text()
    return package


def test_a_wheel_brings_what_is_laid_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = installed(tmp_path / "an env: #1")
    monkeypatch.setattr(layout, "PACKAGE", package)
    lay_out(tmp_path / "own", "emblems")
    code = stages_of(tmp_path / "own")["code"]
    assert code["deps"] == [str(package / "version.txt")]


def test_the_graph_of_another_installation_is_refused_until_it_is_laid_out_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    monkeypatch.setattr(layout, "PACKAGE", installed(tmp_path / "old"))
    lay_out(own, "emblems")
    monkeypatch.chdir(own)
    require_own_layout()
    monkeypatch.setattr(layout, "PACKAGE", installed(tmp_path / "new"))
    with pytest.raises(ValueError, match=r"old/site-packages/pipeline: `l2s init \.` in .*/own"):
        require_own_layout()
    refused = CliRunner().invoke(app, ["status"])
    assert refused.exit_code == 2
    assert "another installation" in refused.stderr
    lay_out(Path())
    require_own_layout()


def test_in_a_checkout_the_code_is_that_of_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "PACKAGE", Path("/opt/site-packages/pipeline"))
    monkeypatch.chdir(ROOT)
    require_own_layout()


@pytest.mark.parametrize(("folder", "study"), [(ROOT, "emblems"), (Path("new"), "emblem")])
def test_a_checkout_and_an_unknown_study_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path, study: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"is a checkout|no such study"):
        lay_out(folder, study)
    assert not Path("new", "dvc.yaml").exists()
