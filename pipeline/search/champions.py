"""The champions' networks, kept in the workspace: they answer queries while students are retrained.

MLflow's registry says who leads; these are copies of it, so that a search asks no store.
"""

import json
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.files import known_md5, replacing, write_json
from pipeline.paths import DatasetPaths

HOME = Path("champions")


@dataclass(frozen=True)
class Champion:
    """The version that leads at one query resolution of a data set.

    `key` is its student in params.yaml, `teacher_md5` the teacher whose database it was found fit
    to search, `path` its own copy of the network.
    """

    dataset: str
    query_px: int
    key: str
    version: str
    md5: str
    teacher_md5: str

    @property
    def path(self) -> Path:
        return HOME / self.dataset / f"{self.query_px}px-{self.md5}.safetensors"


def keep_champion(champion: Champion, network: Path) -> None:
    """Copy `network`, which is the champion's, and let it answer from now on.

    The copy of the one before it stays, for whoever has read its card and opens it now.
    """
    card = card_path(champion.dataset, champion.query_px)
    with suppress(FileNotFoundError, ValueError):
        before = _read(card).path
        if before != champion.path:
            copies = champion.path.parent.glob(f"{champion.query_px}px-*.safetensors")
            for other in set(copies) - {before, champion.path}:
                other.unlink()
    if not _is_intact(champion):
        with replacing(champion.path) as temporary:
            shutil.copyfile(network, temporary)
    write_json(card, asdict(champion))


def kept_champion(dataset: str, key: str, query_px: int) -> Champion | None:
    """The champion that is a version of the student `key`; None where another one leads, or none.

    A champion of a size that the student had before answers no more, nor does one whose database
    another teacher has embedded since. Raises ValueError for a card or a copy that is damaged.
    """
    card, teacher = card_path(dataset, query_px), DatasetPaths(dataset).teacher
    if not card.exists() or not teacher.exists():
        return None
    champion = _read(card)
    if champion.key != key or known_md5(teacher) != champion.teacher_md5:
        return None
    if not _is_intact(champion):
        raise ValueError(
            f"{champion.path}: is gone, or not the network of champion version "
            f"{champion.version} any more (by its MD5): `l2s retrain` fetches it anew, "
            "--newest searches with the student that was trained last"
        )
    return champion


def card_path(dataset: str, query_px: int) -> Path:
    """Where the workspace keeps who leads at a query resolution."""
    return HOME / dataset / f"{query_px}px.json"


def has_led(dataset: str, query_px: int) -> bool:
    """Whether the workspace holds a champion of a query resolution, or the card of one."""
    return any((HOME / dataset).glob(f"{query_px}px*"))


def _is_intact(champion: Champion) -> bool:
    return champion.path.exists() and known_md5(champion.path) == champion.md5


def _read(card: Path) -> Champion:
    try:
        return Champion(**json.loads(card.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{card}: is damaged ({error}): `l2s retrain` writes it anew") from None
