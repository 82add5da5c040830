"""Which images come together, and in which order: a function of the seed and the epoch alone."""

import numpy as np
import torch


def seeded_generator(*keys: int | str) -> torch.Generator:
    """A generator that depends on `keys` and nothing else, so that any epoch can be drawn alone."""
    entropy = list("/".join(str(key) for key in keys).encode())
    low, high = np.random.SeedSequence(entropy).generate_state(2)
    return torch.Generator().manual_seed((int(high) << 31) ^ int(low))


def shuffled_batches(
    rows: np.ndarray,
    batch_size: int,
    generator: torch.Generator,
    limit: int | None = None,
    least: int = 1,
) -> list[np.ndarray]:
    """Batches of `rows` in random order, each row once; at most `limit` rows, drawn anew.

    A last batch of fewer than `least` rows joins the one before. Raises ValueError for fewer rows
    than `least`.
    """
    order = rows[torch.randperm(len(rows), generator=generator).numpy()][:limit]
    if len(order) < least:
        raise ValueError(f"{len(order)} training images: the loss compares {least} or more")
    starts = range(0, max(1, len(order) - least + 1), batch_size)
    return np.split(order, starts[1:])


def class_balanced_batches(
    labels: np.ndarray,
    rows: np.ndarray,
    classes_per_batch: int,
    images_per_class: int,
    generator: torch.Generator,
) -> list[np.ndarray]:
    """Batches of `classes_per_batch` different classes x `images_per_class` images.

    Every image comes about once: a class whose size is no multiple of `images_per_class` fills its
    last group with images drawn again. A class of one image has no positive pair and is left out.
    The last batches may hold fewer classes; a group that is left alone joins another batch.
    Raises ValueError when fewer than two classes have two images.
    """
    order = np.argsort(labels[rows], kind="stable")
    _, starts = np.unique(labels[rows][order], return_index=True)
    classes = [members for members in np.split(rows[order], starts[1:]) if len(members) > 1]
    if len(classes) < 2:
        raise ValueError("triplets need two classes or more with two images or more each")
    groups = [
        (number, group)
        for number, members in enumerate(classes)
        for group in _groups(members, images_per_class, generator)
    ]
    shuffled = [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]
    batches = _fill_batches(shuffled, classes_per_batch)
    return [np.concatenate(list(batch.values())) for batch in batches]


def _fill_batches(
    groups: list[tuple[int, np.ndarray]], classes_per_batch: int
) -> list[dict[int, np.ndarray]]:
    """Each group in the first batch with room that comes after the last one of its class.

    A group that is left alone joins the smallest batch without its class, if there is any.
    """
    batches: list[dict[int, np.ndarray]] = []
    first_with_room = 0
    next_of_class: dict[int, int] = {}
    for number, group in groups:
        place = max(first_with_room, next_of_class.get(number, 0))
        while place < len(batches) and len(batches[place]) == classes_per_batch:
            place += 1
        if place == len(batches):
            batches.append({})
        batches[place][number] = group
        next_of_class[number] = place + 1
        while first_with_room < len(batches) and len(batches[first_with_room]) == classes_per_batch:
            first_with_room += 1
    full = [batch for batch in batches if len(batch) > 1]
    for number, group in (one.popitem() for one in batches if len(one) == 1):
        others = [batch for batch in full if number not in batch]
        if others:
            min(others, key=len)[number] = group
    return full


def _groups(
    members: np.ndarray, images_per_class: int, generator: torch.Generator
) -> list[np.ndarray]:
    order = members[torch.randperm(len(members), generator=generator).numpy()]
    missing = -len(order) % images_per_class
    if missing:
        drawn = torch.randint(len(members), (missing,), generator=generator).numpy()
        order = np.concatenate([order, members[drawn]])
    return list(order.reshape(-1, images_per_class))
