"""Backbones, sizes and weights that cannot work are refused together, before anything runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file
from torchvision.models import get_model

from pipeline.config.params import ConfigurationError, Params, load_params
from pipeline.config.recipes import Network
from pipeline.models import backbones, checks
from pipeline.models.checks import size_fault
from pipeline.models.requirements import check_downloads, check_networks, network_faults
from tests.made_params import edited_params

ROOT = Path(__file__).resolve().parents[3]
# What a network of another backbone has to say.
WHOLE = {"weights": "random", "batch_norm": "live", "dim": 128}
ONE_STUDENT = {"students": {"one": {"dataset": "emblems", "query_px": 32}}}


@pytest.fixture(autouse=True)
def own_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accepted networks are noted in the working folder."""
    monkeypatch.chdir(tmp_path)


def faults_of(params: Params) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        check_networks(params)
    return caught.value.faults


def params_with(folder: Path, **changes: object) -> Params:
    return load_params(
        edited_params(folder, {key.replace("__", "."): value for key, value in changes.items()})
    )


def test_the_committed_study_can_run(tmp_path: Path) -> None:
    check_networks(params_with(tmp_path))


def test_every_fault_is_named_at_once_with_its_key(tmp_path: Path) -> None:
    params = params_with(
        tmp_path,
        datasets__emblems__network__backbone="timm/resnet81",
        students={
            "own": {
                "dataset": "emblems",
                "query_px": 32,
                "network": WHOLE | {"backbone": "resnet18"},
            },
            "weak": {
                "dataset": "emblems",
                "query_px": 32,
                "network": WHOLE | {"backbone": "timm/resnet82"},
            },
            "same": {"dataset": "emblems", "query_px": 32},
        },
    )
    faults = faults_of(params)
    starts = (
        "datasets.emblems.network.backbone = 'timm/resnet81': timm has no",
        "students.own.network.backbone = 'resnet18': ",
        "students.weak.network.backbone = 'timm/resnet82': timm has no",
    )
    assert len(faults) == len(starts)
    for start in starts:
        assert sum(fault.startswith(start) for fault in faults) == 1


def test_a_students_own_weights_are_checked_too(tmp_path: Path) -> None:
    """A misspelt word would otherwise train from random weights without a sound."""
    own = {"dataset": "emblems", "query_px": 32, "network": {"weights": "pretraind"}}
    with pytest.raises(ConfigurationError, match=r"students\.own\.network\.weights = 'pretraind'"):
        check_networks(params_with(tmp_path, students={"own": own}))


def test_a_backbone_that_has_no_feature_map_is_a_fault_of_its_key(tmp_path: Path) -> None:
    for backbone in ("timm/coat_tiny", "timm/pit_ti_224"):
        own = {"dataset": "emblems", "query_px": 32, "network": WHOLE | {"backbone": backbone}}
        with pytest.raises(ConfigurationError, match=r"students\.own\.") as caught:
            check_networks(params_with(tmp_path, students={"own": own}))
        assert backbone in str(caught.value)


def test_a_good_file_fits_a_backbone_that_needs_values_to_be_built(tmp_path: Path) -> None:
    """RegNets cannot be built on the meta device."""
    network = get_model("regnet_y_400mf")
    save_file(network.state_dict(), tmp_path / "regnet.safetensors")
    own = {
        "dataset": "emblems",
        "query_px": 32,
        "network": WHOLE | {"backbone": "torchvision/regnet_y_400mf", "weights": "file"},
    }
    weights = {"own": str(tmp_path / "regnet.safetensors")}
    assert network_faults(params_with(tmp_path, students={"own": own}, weights=weights)) == []


def test_sizes_a_backbone_cannot_take() -> None:
    assert size_fault("timm/test_resnet", 32) is None
    assert size_fault("torchvision/mobilenet_v2", 33) is None
    # Without padding at a pooling layer nothing is left of one pixel.
    assert size_fault("torchvision/vgg11", 31) is not None
    assert size_fault("torchvision/vgg11", 32) is None


def test_a_size_is_named_with_its_key(tmp_path: Path) -> None:
    own = {
        "dataset": "emblems",
        "query_px": 16,
        "network": WHOLE | {"backbone": "torchvision/vgg11"},
    }
    faults = faults_of(params_with(tmp_path, students={"own": own}))
    assert len(faults) == 1
    assert faults[0].startswith("students.own.query_px = 16: torchvision/vgg11 ")


def test_weights_that_cannot_be_had_are_told_once_and_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(backbone: str, *, pretrained: bool) -> None:
        asked.append((backbone, pretrained))
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(backbones, "build_backbone", refuse)
    params = params_with(
        tmp_path,
        datasets__emblems__network__weights="pretrained",
        students={"own": {"dataset": "emblems", "query_px": 64}},
    )
    with pytest.raises(ConfigurationError) as caught:
        check_downloads(params)
    assert asked == [("timm/test_resnet", True)]
    message = str(caught.value)
    assert "datasets.emblems.network.weights, students.own.network.weights" in message
    assert "the weights of timm/test_resnet cannot be had (no route to host)" in message
    for path in ("teacher", *(f"students/{key}" for key in params.students)):
        target = Path(f"models/emblems/{path}.safetensors")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    check_downloads(params)  # what is trained needs them no more
    assert len(asked) == 1


def test_networks_that_were_accepted_are_not_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another size, backbone, or file of weights asks anew; a refusal is never kept."""
    asked: list[str] = []

    def counted(owner: str, network: Network, sizes: dict[str, int]) -> list[str]:
        asked.append(owner)
        return faults_of_network(owner, network, sizes)

    faults_of_network = checks.faults_of
    monkeypatch.setattr(checks, "faults_of", counted)
    weights = tmp_path / "weights.safetensors"
    state = timm.create_model("test_resnet").state_dict()
    save_file(state, weights)

    def is_asked(**changes: object) -> bool:
        asked.clear()
        check_networks(params_with(tmp_path, **changes))
        return bool(asked)

    assert is_asked()
    assert not is_asked()
    assert not is_asked(datasets__emblems__teacher__loss__margin=0.5)
    own = {"datasets__emblems__network__weights": "file", "weights__emblems": str(weights)}
    for changes in (
        own,
        {"datasets__emblems__teacher_px": 128},
        {"datasets__emblems__network__backbone": "timm/test_vit", **ONE_STUDENT},
    ):
        assert is_asked(**changes)
        assert not is_asked(**changes)
    assert is_asked(**own)
    save_file(state | {"surplus": state["bn1.weight"] + 1}, weights)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="has besides surplus"):
            is_asked(**own)
    with pytest.raises(ConfigurationError) as caught:
        check_networks(params_with(tmp_path, **own), others=["inputs.a: is not there"])
    assert [fault.split(":")[0] for fault in caught.value.faults] == [
        "inputs.a",
        "datasets.emblems.network.weights = 'file'",
    ]


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import stages.inputs, pipeline.models.requirements", "torch timm torchvision pandas"),
        ("import stages.distill, stages.train_teacher", "timm torchvision pandas mlflow"),
        ("import stages.train_baseline, stages.embed_database", "timm torchvision pandas mlflow"),
        (
            "from pipeline.models.weights import build_embedder\n"
            "build_embedder('torchvision/resnet18', 8, weights='random', seed=0)",
            "timm pandas mlflow",
        ),
    ],
)
def test_only_what_is_needed_is_imported(code: str, absent: str) -> None:
    program = f"import sys\n{code}\nassert not {{*{absent.split()}}} & sys.modules.keys()"
    subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=240,
    )
