"""Whether a teacher gives the vectors that are stored, and if not, what is different.

Before anything is trained, some images are embedded again and compared with their stored vectors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.datasets.reader import enumerate_names
from pipeline.datasets.vector_batches import Findings, VectorsError, vectors_of
from pipeline.datasets.vector_stores import VectorStore
from pipeline.embedding.golden import SAME
from pipeline.embedding.preprocessing import Preprocessing, differing, network_input
from pipeline.models.backbones import Colour

IMAGES = 200  # that are compared
SUSPECTED = 24  # of them, those least alike, on which the suspects are tried
FITS, REFUSED = 0.99, 0.9  # mean cosine
_LEAST_GAIN = 0.02  # of cosine, for a suspect that does not fit by itself
_MOST_TOGETHER = 3
_BATCH_IMAGES = 16
_UNUSUAL = (
    "another model altogether, other weights, another layer (such as -S "
    "datasets.images.network.pooling=gem) or a size that is seldom used (--teacher-px)"
)

Encode = Callable[[Float[Tensor, "image channel size size"]], Float[Tensor, "image dim"]]


@dataclass(frozen=True)
class Subject:
    """A teacher on trial: images between 0 and 1 to vectors, and what it wants them to be.

    own: the mean and deviation that it normalises by. takes_size: whether it can be given square
    images of so many pixels.
    """

    encode: Encode
    way: Preprocessing
    device: torch.device
    takes_size: Callable[[int], bool] = lambda _: False

    @property
    def own(self) -> tuple[Colour, Colour]:
        return self.way.mean, self.way.std


@dataclass(frozen=True)
class Preflight:
    """What came out. `cosine` is the mean between stored and embedded vectors of `images` images.

    differences: what is different, in words, as far as it was found; `explained` is the cosine
    where that is taken into account. stored: what all stored vectors looked like.
    """

    images: int
    cosine: float
    differences: tuple[str, ...]
    explained: float
    stored: Findings

    def lines(self) -> list[str]:
        again = f"{self.images} images embedded again: mean cosine to their stored vectors"
        lines = [*self.stored.lines(), f"{again} {self.cosine:.4f}"]
        found = f"{'; '.join(self.differences)}: mean cosine {self.explained:.4f}"
        if self.cosine >= FITS:
            nearer = [f"nearer still: {found}"] if self.differences else []
            return [*lines, *nearer, "the teacher is the one that made the vectors"]
        if not self.differences and self.cosine >= REFUSED:
            return [*lines, "nothing usual explains the rest"]
        if not self.differences:
            return [*lines, f"nothing usual explains it: {_UNUSUAL}"]
        return [*lines, f"what fits: {found}"]

    def require(self, *, force: bool) -> None:
        """Raise VectorsError where the vectors are too far off, unless it is forced."""
        if self.cosine < REFUSED and not force:
            raise VectorsError(
                f"{self.lines()[-1]}: the mean cosine is {self.cosine:.4f}, and under {REFUSED} a "
                "student would learn another space than the stored one: say by -S what the teacher "
                "wants (docs/data.md), or mend the vectors; or learn from the vectors alone "
                "(--teacher none); or --force"
            )


def compare_with_stored(
    subject: Subject, pictures: Sequence[tuple[str, bytes]], store: VectorStore
) -> Preflight:
    """Embed the pictures (id, encoded) and hold them against the vectors of the store.

    Raises VectorsError for ids without a vector and vectors of another length; UnreadableImage.
    """
    findings = Findings()
    ids = [name for name, _ in pictures]
    stored = vectors_of(ids, store.batches(findings), store.address)
    embedded = _embedded(subject, subject.way, pictures)
    if embedded.shape[1] != stored.shape[1]:
        raise VectorsError(
            f"{store.address}: its vectors have {stored.shape[1]} numbers, those of the teacher "
            f"{embedded.shape[1]}: another model"
        )
    cosines = (embedded * stored).sum(1)
    cosine = float(cosines.mean())
    if cosine >= SAME:
        return Preflight(len(ids), cosine, (), cosine, findings)
    least = np.argsort(cosines, kind="stable")[:SUSPECTED]
    some = [pictures[place] for place in least.tolist()]
    found = out_of_step([ids[place] for place in least.tolist()], embedded[least], store)
    if found is not None:
        return Preflight(len(ids), cosine, (found[0],), found[1], findings)
    differences, way = explanation(subject, some, stored[least])
    explained = float((_embedded(subject, way, pictures) * stored).sum(1).mean())
    if explained < REFUSED:  # chance, of many that were tried
        return Preflight(len(ids), cosine, (), cosine, findings)
    return Preflight(len(ids), cosine, differences, explained, findings)


def explanation(
    subject: Subject, pictures: Sequence[tuple[str, bytes]], stored: Float[np.ndarray, "image dim"]
) -> tuple[tuple[str, ...], Preprocessing]:
    """Which usual suspects, one or a few together, bring the pictures nearest to their vectors."""

    def cosine(way: Preprocessing) -> float:
        return float((_embedded(subject, way, pictures) * stored).sum(1).mean())

    way, best, words = subject.way, cosine(subject.way), []
    for _ in range(_MOST_TOGETHER):
        tried = [
            (cosine(replace(way, **suspect.changes)), suspect)
            for suspect in differing(way, subject.takes_size)
        ]
        reached, suspect = max(tried, key=lambda one: one[0])
        if reached < max(best, min(SAME, best + _LEAST_GAIN)):
            break
        way, best = replace(way, **suspect.changes), reached
        words.append(suspect.words)
        if best >= SAME:
            break
    return tuple(words), way


def out_of_step(
    ids: Sequence[str], embedded: Float[np.ndarray, "image dim"], store: VectorStore
) -> tuple[str, float] | None:
    """Whether the vectors of the images are stored under other ids: in words, and the cosine."""
    nearest, names = np.full(len(ids), -np.inf), [""] * len(ids)
    for batch in store.batches():
        similarities = embedded @ batch.vectors.T
        best = similarities.argmax(1)
        values = similarities[np.arange(len(ids)), best]
        for place in np.flatnonzero(values > nearest).tolist():
            nearest[place], names[place] = values[place], batch.ids[best[place]]
    others = sum(one != name for one, name in zip(ids, names, strict=True))
    if nearest.mean() < FITS or 2 * others < len(ids):
        return None
    pair = next((one, name) for one, name in zip(ids, names, strict=True) if one != name)
    words = f"rows out of step with ids: the vector of {pair[0]} is stored under {pair[1]}"
    return words, float(nearest.mean())


def _embedded(
    subject: Subject, way: Preprocessing, pictures: Sequence[tuple[str, bytes]]
) -> Float[np.ndarray, "image dim"]:
    """Unit vectors of the pictures, prepared in a way."""
    parts = []
    for start in range(0, len(pictures), _BATCH_IMAGES):
        some = pictures[start : start + _BATCH_IMAGES]
        images = torch.stack([network_input(content, n, way, subject.own) for n, content in some])
        with torch.inference_mode():
            parts.append(subject.encode(images.to(subject.device)).float().cpu().numpy())
    vectors = np.concatenate(parts)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    faulty = ~(np.isfinite(norms) & (norms > 0))[:, 0]
    if faulty.any() and way == subject.way:
        named = enumerate_names(one for (one, _), bad in zip(pictures, faulty, strict=True) if bad)
        raise VectorsError(f"the teacher gives numbers that are not finite, or zeros, for {named}")
    # A way that is only tried may overflow: such vectors are like none.
    unit: np.ndarray = np.where(faulty[:, None], 0, vectors / np.where(faulty[:, None], 1, norms))
    return unit
