"""Made-up data sets in every official layout: right names, tiny images. For tests only."""

import csv
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.io import savemat

from pipeline.datasets.own_images import list_csv, list_folder
from pipeline.datasets.published import open_published
from pipeline.datasets.reader import Counts, DatasetReader
from pipeline.datasets.sources import DATASETS
from pipeline.datasets.splits import assign_reader

CAR_NAMES = ("AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van", "Audi TT")


def encode_picture(
    seed: int, *, file_format: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (24, 16)
) -> bytes:
    """A tiny image of smooth colours that differ with the seed."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, format=file_format)
    return buffer.getvalue()


def write_tgz(path: Path, members: Mapping[str, bytes]) -> Path:
    """A .tgz file with these members in this order, folders included as the official ones have."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        folders = {str(parent) for name in members for parent in Path(name).parents} - {"."}
        for folder in sorted(folders):
            info = tarfile.TarInfo(folder)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_zip(path: Path, members: Mapping[str, bytes]) -> Path:
    """A .zip file with these members in this order."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def shuffled(members: Mapping[str, bytes], seed: int = 0) -> dict[str, bytes]:
    """The same members in another order: archive order is never the official order."""
    names = list(members)
    order = np.random.default_rng(seed).permutation(len(names))
    return {names[k]: members[names[k]] for k in order}


def cub_members(classes: int = 4, images_per_class: int = 3) -> dict[str, bytes]:
    """The members of CUB_200_2011.tgz; images.txt is not in the order of file names."""
    names = [f"{c:03d}.Bird_{c}" for c in range(1, classes + 1)]
    paths = [
        f"{name}/Bird_{name[:3]}_{(7 * k) % 100:04d}_{k}.jpg"
        for name in names
        for k in range(images_per_class, 0, -1)
    ]
    lines = {
        "images.txt": [f"{i} {path}" for i, path in enumerate(paths, start=1)],
        "image_class_labels.txt": [f"{i} {int(p[:3])}" for i, p in enumerate(paths, start=1)],
        "classes.txt": [f"{c} {name}" for c, name in enumerate(names, start=1)],
        "train_test_split.txt": [f"{i} {i % 2}" for i, _ in enumerate(paths, start=1)],
    }
    texts = {f"CUB_200_2011/{k}": ("\n".join(v) + "\n").encode() for k, v in lines.items()}
    images = {
        f"CUB_200_2011/images/{path}": encode_picture(seed) for seed, path in enumerate(paths)
    }
    return texts | {"CUB_200_2011/README": b"made up\n"} | images


def sop_members(train_classes: int = 3, test_classes: int = 2, views: int = 2) -> dict[str, bytes]:
    """The members of Stanford_Online_Products.zip."""
    groups = ("bicycle", "cabinet")
    members: dict[str, bytes] = {}
    lines: dict[str, list[str]] = {"Ebay_train.txt": [], "Ebay_test.txt": []}
    image_id = 0
    for class_id in range(1, train_classes + test_classes + 1):
        group = class_id % 2
        for view in range(views):
            image_id += 1
            path = f"{groups[group]}_final/{111085122870 + 13 * class_id}_{view}.JPG"
            file = "Ebay_train.txt" if class_id <= train_classes else "Ebay_test.txt"
            lines[file].append(f"{image_id} {class_id} {group + 1} {path}")
            members[f"Stanford_Online_Products/{path}"] = encode_picture(image_id)
    header = "image_id class_id super_class_id path"
    texts = {
        f"Stanford_Online_Products/{file}": ("\n".join([header, *rows]) + "\n").encode()
        for file, rows in lines.items()
    }
    return texts | members


def annotations(path_field: str, paths: Sequence[str], classes: Sequence[int]) -> np.ndarray:
    """The struct array of a Cars196 annotation file."""
    kinds = [("bbox_x1", "O"), ("bbox_y1", "O"), (path_field, "O"), ("class", "O")]
    rows = [(1, 1, path, float(number)) for path, number in zip(paths, classes, strict=True)]
    return np.array([rows], dtype=kinds)


def mat_bytes(variables: Mapping[str, object]) -> bytes:
    """A MATLAB 5 file."""
    buffer = io.BytesIO()
    savemat(buffer, dict(variables))
    return buffer.getvalue()


def class_name_cells() -> np.ndarray:
    """`class_names` as the official files hold it: a row of cells."""
    return np.array([list(CAR_NAMES)], dtype=object)


def write_cars_whole(folder: Path, images_per_class: int = 2) -> dict[str, Path]:
    """car_ims.tgz and cars_annos.mat."""
    classes = [c for c in range(1, len(CAR_NAMES) + 1) for _ in range(images_per_class)]
    paths = [f"car_ims/{i:06d}.jpg" for i in range(1, len(classes) + 1)]
    members = {path: encode_picture(seed) for seed, path in enumerate(paths)}
    annos = folder / "cars_annos.mat"
    listed = annotations("relative_im_path", paths, classes)
    annos.write_bytes(mat_bytes({"annotations": listed, "class_names": class_name_cells()}))
    images = write_tgz(folder / "car_ims.tgz", shuffled(members))
    return {"car_ims.tgz": images, "cars_annos.mat": annos}


def write_cars_halves(folder: Path) -> dict[str, Path]:
    """cars_train.tgz, cars_test.tgz, car_devkit.tgz, cars_test_annos_withlabels.mat.

    Classes stand in no order, and every class is in both halves, as in the official files.
    """
    classes = {"cars_train": [3, 1, 4, 2], "cars_test": [4, 2, 3, 1, 1]}
    names = {half: [f"{i:05d}.jpg" for i in range(1, len(c) + 1)] for half, c in classes.items()}
    paths = {}
    for offset, half in enumerate(classes):
        members = {
            f"{half}/{name}": encode_picture(100 * offset + i) for i, name in enumerate(names[half])
        }
        paths[f"{half}.tgz"] = write_tgz(folder / f"{half}.tgz", shuffled(members))
    train = annotations("fname", names["cars_train"], classes["cars_train"])
    test = annotations("fname", names["cars_test"], classes["cars_test"])
    kit = {
        "devkit/cars_meta.mat": mat_bytes({"class_names": class_name_cells()}),
        "devkit/cars_train_annos.mat": mat_bytes({"annotations": train}),
    }
    paths["car_devkit.tgz"] = write_tgz(folder / "car_devkit.tgz", kit)
    labelled = folder / "cars_test_annos_withlabels.mat"
    labelled.write_bytes(mat_bytes({"annotations": test}))
    return paths | {labelled.name: labelled}


def write_parquet(path: Path, columns: Mapping[str, list[object]], names: Sequence[str]) -> Path:
    """A parquet file as the Hugging Face library writes it, with class names in the schema."""
    table = pa.table(dict(columns))
    if names:
        label = {"names": list(names), "_type": "ClassLabel"}
        features = {"info": {"features": {"label": label, "image": {"_type": "Image"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, path, row_group_size=2)
    return path


def image_cells(seeds: Sequence[int]) -> list[object]:
    """An image column: structs of bytes and path."""
    return [{"bytes": encode_picture(seed), "path": f"{seed}.jpg"} for seed in seeds]


def write_cars_parquet(folder: Path) -> dict[str, Path]:
    """Two training files and a test file; labels stand in no order."""
    labels = {
        "train-00000-of-00002.parquet": [2, 0],
        "train-00001-of-00002.parquet": [3, 1, 0],
        "test-00000-of-00001.parquet": [3, 2, 1, 0],
    }
    paths = {}
    for offset, (name, column) in enumerate(labels.items()):
        images = image_cells([10 * offset + i for i in range(len(column))])
        columns: dict[str, list[object]] = {"image": images, "label": list(column)}
        paths[name] = write_parquet(folder / name, columns, CAR_NAMES)
    return paths


def write_sop_parquet(folder: Path) -> dict[str, Path]:
    """The images of `sop_members`, as the published parquet files hold them."""
    members = sop_members()
    root = "Stanford_Online_Products/"
    paths = {}
    for split in ("train", "test"):
        lines = members[f"{root}Ebay_{split}.txt"].decode().splitlines()[1:]
        listed = [line.split()[-1] for line in lines]
        columns: dict[str, list[object]] = {
            "image": [{"bytes": members[root + path], "path": None} for path in listed],
            "image_path": list(listed),
            "item_id": [path.split("/")[1].split("_")[0] for path in listed],
        }
        name = f"{split}-00000-of-00001.parquet"
        paths[name] = write_parquet(folder / name, columns, ())
    return paths


def write_folder(root: Path, classes: int = 4, images_per_class: int = 2) -> Path:
    """One sub-folder a class, with a hidden file and a text file among the images."""
    for number in range(1, classes + 1):
        folder = root / f"class{number * 5}"
        folder.mkdir(parents=True)
        for k in range(images_per_class):
            (folder / f"image{k * 9}.jpg").write_bytes(encode_picture(10 * number + k))
    (root / "class5" / ".hidden.jpg").write_bytes(b"not an image")
    (root / "class5" / "notes.txt").write_text("text")
    (root / ".cache").mkdir()
    (root / "readme.md").write_text("text")
    return root


def write_csv(
    folder: Path, rows: Sequence[Sequence[str]], header: Sequence[str] = ("path", "class")
) -> Path:
    """images.csv, and the images that its first column names (unless they exist)."""
    for seed, row in enumerate(rows):
        path = folder / row[0]
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_picture(seed))
    table = folder / "images.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return table


def opened(
    layout: str, paths: Mapping[str, Path], counts: Counts | None = None, **options: Any
) -> AbstractContextManager[DatasetReader]:
    """The images of these files in any archive of a published data set, or of the user's own."""
    if layout in ("folder", "csv"):
        reader = list_folder(paths[layout]) if layout == "folder" else list_csv(paths[layout])
        return nullcontext(assign_reader("images", reader, {}, {}))
    (dataset,) = (one for one in DATASETS.values() if layout in one.archives)
    return open_published(replace(dataset, counts=counts), layout, paths, **options)
