"""What is told before a study is attached: sizes, samples, estimates."""

import pytest

from pipeline.config.params import parse_params
from pipeline.config.studies import preset_text, set_values
from pipeline.datasets.reader import DatasetReader, ListedImage
from pipeline.datasets.vector_batches import Findings
from pipeline.models.backbones import UnknownBackboneError
from pipeline.training.attaching import Estimate, estimate, native_px, sampled_pictures
from tests import made_archives as made


def test_the_size_of_a_network_is_its_librarys() -> None:
    assert native_px("timm/vit_small_patch14_dinov2.lvd142m") == 518
    assert native_px("torchvision/inception_v3") == 299
    assert native_px("torchvision/resnet18") == 224
    with pytest.raises(UnknownBackboneError):
        native_px("timm/no_such_network")


def test_a_sample_is_drawn_by_the_seed_and_leaves_out_what_is_unreadable() -> None:
    images = tuple(ListedImage(f"{number:03}.jpg", "", 0) for number in range(300))

    def read(name: str) -> bytes:
        number = int(name[:3])
        return b"no picture" if number % 10 == 0 else made.encode_picture(number)

    reader = DatasetReader(images, read)
    first, again, other = (sampled_pictures(reader, seed) for seed in (0, 0, 1))
    assert first == again != other
    names = [name for name, _ in first]
    assert names == sorted(set(names))
    assert 160 < len(names) < 200
    assert not any(name.endswith("0.jpg") for name in names)


def test_an_estimate_in_words() -> None:
    assert str(Estimate(20, 10**9, 2 * 10**9)) == (
        "about a minute on this machine as it is now, 1.0 GB of disk, 2.0 GB of memory"
    )
    assert str(Estimate(600, 0, 0)).startswith("about 10 minutes on")
    assert str(Estimate(9000, 0, 0)).startswith("about 2.5 hours on")


def test_an_estimate_grows_with_images_epochs_and_stored_vectors() -> None:
    def estimated(images: int, epochs: int, vectors: int) -> Estimate:
        values = {
            "datasets.images.network.backbone": "timm/test_resnet",
            "datasets.images.network.weights": "random",
            "datasets.images.teacher": {"kind": "vectors", "view": "cropped"},
            "vectors.images": "v",
            "inputs.images": "i",
            "datasets.images.distillation.mixup_alpha": 0.0,
            "datasets.images.distillation.optimisation.epochs": epochs,
            "students": {"images-32": {"dataset": "images", "query_px": 32}},
        }
        params = parse_params(set_values(preset_text("images"), values))
        pictures = [("a.jpg", made.encode_picture(0))]
        return estimate(params, "images", pictures, images, Findings(vectors, 64), None)

    one = estimated(1000, 1, 1000)
    assert estimated(1000, 40, 1000).seconds > 2 * one.seconds
    assert estimated(100_000, 1, 1000).disk_bytes > 50 * one.disk_bytes
    grown = estimated(1000, 1, 10**6)
    assert grown.memory_bytes - one.memory_bytes == 4 * 64 * (10**6 - 1000)
