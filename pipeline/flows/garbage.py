"""What no study needs any more: results of inactive studies, of lost cells, and DVC's copies.

Never garbage: indexes, champions, splits, exports, archives, the record, the texts of studies.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pipeline.config.params import Params
from pipeline.config.studies import inactive_params, known_studies, named_paths
from pipeline.datasets.remote import FOLDER, RECORD
from pipeline.embedding.golden import has_embedded
from pipeline.flows.graph import open_repository
from pipeline.paths import TAKEN, WORK, locked_outputs
from pipeline.search.champions import HOME as CHAMPIONS
from pipeline.search.index import INDEXES, index_names, require_card
from pipeline.search.vector_index import CARD, is_vector_index, read_card

ROOTS = tuple(map(Path, ("data", "models", "embeddings", "results", "report", "report/parts")))
CELLS = ("models/{}/students/*", "models/{}/baselines/*", "results/{}/*/*", "report/parts/{}/*")
TRAININGS = ("train_teacher", "distill", "train_baseline", "tune")
EXPERIMENTS = Path(".dvc", "tmp", "exps")


@dataclass(frozen=True)
class Garbage:
    """What can go, by study or kind; and of the studies that stay though they are inactive, why."""

    paths: dict[str, list[Path]]
    kept: dict[str, str]

    @property
    def every(self) -> list[Path]:
        return list(chain(*self.paths.values()))

    def lines(self) -> Iterator[str]:
        """What would go, with its size, and how much room that makes."""
        for what, paths in self.paths.items():
            folders = ", ".join(map(str, paths)) if len(paths) <= len(ROOTS) else ""
            yield f"{_megabytes(_files(paths))}  {what}: {folders or f'{len(paths)} files'}"
        for name, why in self.kept.items():
            yield f"      kept  {name}: {why}"
        # A file and DVC's copy of it may be one: it takes room until both names are gone.
        stats = list(_files(self.every))
        names = Counter((stat.st_dev, stat.st_ino) for stat in stats)
        freed = {
            (stat.st_dev, stat.st_ino): stat
            for stat in stats
            if names[stat.st_dev, stat.st_ino] == stat.st_nlink
        }
        yield f"{_megabytes(freed.values())}  are freed"

    def delete(self) -> None:
        for path in self.every:
            is_folder = path.is_dir() and not path.is_symlink()
            shutil.rmtree(path) if is_folder else path.unlink(missing_ok=True)


def find_garbage(params: Params, active: Collection[str], keep: Collection[str]) -> Garbage:
    """What neither the active studies need, nor those to `keep`, an index, or a champion.

    params: of all studies whose networks are there. Folders that are no study's by their names
    stay, and so do links, and what holds, or lies in, a path that a study names. Of DVC's cache
    that stays, too, which a branch, a tag or an experiment needs, and a cache outside of this
    folder altogether. Raises ValueError for a study to keep that is not there, while experiments
    run, and where DVC cannot tell.
    """
    if running := [
        str(one.parent) for end in ("", "*/") for one in EXPERIMENTS.glob(f"{end}*/.dvc")
    ]:
        raise ValueError(f"an experiment of DVC runs in {', '.join(running)}: wait for its end")
    found: dict[str, list[Path]] = {}
    known = {*params.datasets, *known_studies()} - {*TAKEN}
    given = named_paths()
    theirs: dict[str, str] = {}
    for path in chain.from_iterable(sorted(root.glob("*/")) for root in ROOTS):
        if path in ROOTS or path.name not in known:
            continue
        found.setdefault(path.name, []).append(path)
        place = path.absolute()
        if path.is_symlink():
            theirs[path.name] = f"{path} is a link"
        elif any(one.is_relative_to(place) or place.is_relative_to(one) for one in given):
            theirs[path.name] = f"{path} holds what a study names"
    if unknown := sorted(set(keep) - found.keys()):
        raise ValueError(f"--keep {', '.join(unknown)}: no such study; known: {', '.join(found)}")
    kept = dict.fromkeys(keep, "as asked")
    kept |= {require_card(name).dataset: f"index {name} needs it" for name in index_names()}
    kept |= {card.parent.name: "its champions need it" for card in CHAMPIONS.glob("*/*px.json")}
    kept |= {
        name: f"index {index.name} needs it"
        for index, digest in _vector_indexes()
        for name in found
        if any(has_embedded(file, digest) for file in Path("models", name).rglob("*.safetensors"))
    }
    kept = theirs | kept
    stays = {*active, *kept}
    cells = {
        name: (params if name in active else inactive_params(name)).cells_of(name)
        for name in filter(params.datasets.__contains__, sorted(stays))
    }
    paths = {f"study {name}": own for name, own in found.items() if name not in stays}
    for name, own in cells.items():
        files = chain.from_iterable(sorted(Path().glob(one.format(name))) for one in CELLS)
        paths[f"lost cells of {name}"] = [file for file in files if file.stem not in own]
    work = chain.from_iterable(sorted((WORK / one).glob("*")) for one in TRAININGS)
    needed = stays.union(*cells.values())
    paths["interrupted trainings"] = [path for path in work if path.name not in needed]
    fetched = [file.parent for file in sorted(FOLDER.glob(f"*/{RECORD}"))]
    paths["fetched for no study"] = [
        path for path in fetched if not any(one.is_relative_to(path.absolute()) for one in given)
    ]
    paths["DVC's cache"] = _unused_copies(stays, {str(path) for path in chain(*paths.values())})
    shown = {name: why for name, why in kept.items() if name not in active}
    return Garbage({what: files for what, files in paths.items() if files}, shown)


def _vector_indexes() -> Iterator[tuple[Path, str]]:
    """The indexes of vectors, and the digest of the network that embedded theirs, where known."""
    for folder in sorted(path.parent for path in INDEXES.glob(f"*/{CARD}")):
        if is_vector_index(folder) and (digest := read_card(folder).network):
            yield folder, digest


def _unused_copies(stays: Collection[str], going: Collection[str]) -> list[Path]:
    """The files of DVC's cache that nothing of the studies that stay, and no commit, is made of."""
    from dvc.scm import NoSCM

    used = {
        md5
        for outputs in locked_outputs().values()
        for path, md5 in outputs.items()
        if path not in going and not set(stays).isdisjoint(Path(path).parts)
    }
    with open_repository() as repo:
        cache = repo.cache.local
        if not Path(cache.path).is_relative_to(Path.cwd()):  # others may use it, too
            return []
        every = not isinstance(repo.scm, NoSCM)
        objects = repo.used_objs(all_branches=every, all_tags=every, all_experiments=every)
        used |= {one.value for one in chain(*objects.values())}
        for folder in (Path(cache.oid_to_path(one)) for one in used if one.endswith(".dir")):
            entries = json.loads(folder.read_text()) if folder.exists() else []
            used = used | {entry["md5"] for entry in entries}
        return [Path(cache.oid_to_path(one)) for one in sorted(cache.all()) if one not in used]


def _files(paths: Iterable[Path]) -> Iterator[os.stat_result]:
    for path in paths:
        files = path.rglob("*") if path.is_dir() else [path]
        yield from (file.lstat() for file in files if not file.is_dir())


def _megabytes(stats: Iterable[os.stat_result]) -> str:
    return f"{sum(stat.st_size for stat in stats) / 1e6:7.1f} MB"
