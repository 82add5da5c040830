"""Pictures of one class that show the same, or nearly the same, as a picture of another class.

Without classes: those of one split that show the same as one of the other.
"""

from itertools import pairwise

import faiss
import imagehash
import numpy as np
from PIL import Image

from pipeline.datasets.packs import Pack
from pipeline.progress import track

# A perceptual hash (pHash of 8 x 8) says what may be the same, a thumbnail in colour what is.
# Encoding again at quality 20, shrinking to a quarter, a tenth more light or cropping by 1 % change
# 6 bits at most; of 4 million pairs of photographs of birds the two that are so near are the same.
_HASH_SIDE, _MOST_BITS = 8, 6
_THUMBNAIL_PX, _MOST_LEVELS = 8, 32  # of 255, at any place: as much as a tenth more light changes
_QUERIES = 1024  # at once: bounds the memory


def find_duplicates(pack: Pack) -> dict[int, int]:
    """For each row that has one, the first row of another class that nearly shows the same.

    Without classes it is a row of the other split: a test image that was trained on, nearly.

    Hashes are compared all with all: 7 seconds of one core for 120,000 (an index that leaves pairs
    out takes 15), a block of them at a time.
    """
    found = [
        _describe(pack, row) for row in track(range(len(pack)), "comparing", len(pack), "image")
    ]
    sides = pack.labels if pack.labelled else pack.is_train
    hashes, thumbnails = (np.stack(column) for column in zip(*found, strict=True))
    unique, groups = np.unique(hashes, axis=0, return_inverse=True)
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    index = faiss.IndexBinaryFlat(_HASH_SIDE**2)
    index.add(unique)
    duplicates: dict[int, int] = {}
    for start in range(0, len(unique), _QUERIES):
        limits, _, near = index.range_search(unique[start : start + _QUERIES], _MOST_BITS + 1)
        for group, (low, high) in enumerate(pairwise(limits), start):
            rows = np.sort(np.concatenate([members[other] for other in near[low:high]]))
            for row in members[group] if len(rows) > 1 else ():
                others = rows[sides[rows] != sides[row]]
                change = np.abs(thumbnails[others] - thumbnails[row]).max(axis=1)
                duplicates |= {int(row): int(o) for o in others[change <= _MOST_LEVELS][:1]}
    return dict(sorted(duplicates.items()))


def _describe(pack: Pack, row: int) -> tuple[np.ndarray, np.ndarray]:
    """The hash of a picture in bytes, and its thumbnail."""
    picture = pack.small_image(row, 4 * _HASH_SIDE)
    bits = imagehash.phash(picture, hash_size=_HASH_SIDE).hash
    small = picture.resize((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BOX)
    return np.packbits(bits), np.asarray(small, dtype=np.int16).ravel()
