"""Intervals over test classes: how often they hold the truth, how wide they are, what a gate needs.

coverage: classes are drawn from a population whose mean is known, at 12, 25 and 100 classes, and
counted is how often each kind of 95 % interval holds that mean: `expanded`, which the project
uses, the plain percentile bootstrap over classes, the plain one over queries, and bootstrap-t.
Populations: classes of one AP level each, spread evenly or skewed, of equal or unequal size.

seeds: the same for crossed draws: y = class + seed + noise, normal, where the seeds move the mean
not at all, half as much as its classes do, as much, or twice as much; how often `crossed` holds the
truth, the interval of one seed alone, and the range of the seeds.

width: run inside a folder with a finished study of emblems, whose metrics of every query it reads.
The interval's half width is averaged over random subsets of the families of test classes (ranked
among all of them), for the map of a student, for its gain over naive, and for the differences of
two students, as the gate compares them. From the spread of the classes' differences follows how
many test classes the gate needs for gains of 1, 2 and 5 points.

anew: the same half widths, run in the same place with the study's networks, on 12, 30 and 60 test
classes that are rendered from other data seeds, and searched among themselves.

Run: python -m benchmarks.intervals coverage [--trials 1000]
     python -m benchmarks.intervals seeds [--trials 1000]
     python -m benchmarks.intervals width [--subsets 50]
     python -m benchmarks.intervals anew [--seeds 6]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from scipy.special import stdtrit

from pipeline.config.params import load_params
from pipeline.config.sources import EmblemsSource
from pipeline.datasets.emblems import render_emblems
from pipeline.datasets.packs import Pack, open_pack, write_pack
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.confidence import LEAST_CLASSES, bootstrap_interval
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.models.weights import load_network
from pipeline.paths import DatasetPaths

LEVEL = 0.95
COUNTS = (12, 25, 100)
Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


def population(a: float, b: float, sizes: Callable[[np.random.Generator, int], np.ndarray]) -> Draw:
    """Class means from Beta(a, b); queries of a class from a Beta around its mean."""

    def draw(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        classes = np.repeat(np.arange(count), sizes(generator, count))
        means = generator.beta(a, b, count)[classes]
        return generator.beta(6 * means + 1e-9, 6 * (1 - means) + 1e-9), classes

    return draw


def equal(_: np.random.Generator, count: int) -> np.ndarray:
    return np.full(count, 16)


def unequal(generator: np.random.Generator, count: int) -> np.ndarray:
    return 1 + generator.geometric(1 / 15, count)


POPULATIONS = {
    "even, equal sizes (Beta(3, 3))": (population(3, 3, equal), 0.5),
    "skewed, equal sizes (Beta(4, 1.5))": (population(4, 1.5, equal), 4 / 5.5),
    "even, unequal sizes": (population(3, 3, unequal), 0.5),
    "very skewed, unequal sizes (Beta(0.6, 2.4))": (population(0.6, 2.4, unequal), 0.2),
}


def intervals(
    values: np.ndarray, classes: np.ndarray, seed: int
) -> Iterator[tuple[str, float, float]]:
    """The kinds that are compared, by name, with their ends."""
    found = bootstrap_interval(values, classes, seed=seed)
    assert found.low is not None
    assert found.high is not None
    yield "expanded", found.low, found.high
    sums, sizes = np.bincount(classes, values), np.bincount(classes)
    count, mean = len(sums), values.mean()
    drawn = np.random.default_rng(seed).integers(count, size=(1000, count))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    yield "percentile", *np.quantile(means, tails)
    queries = np.random.default_rng(seed).integers(len(values), size=(1000, len(values)))
    yield "by query", *np.quantile(values[queries].mean(1), tails)

    def error(sums: np.ndarray, sizes: np.ndarray, mean: np.ndarray) -> np.ndarray:
        rest = sums - mean[..., None] * sizes
        return np.sqrt((rest**2).sum(-1) * count / (count - 1)) / sizes.sum(-1)

    studied = (means - mean) / np.maximum(error(sums[drawn], sizes[drawn], means), 1e-12)
    own = error(sums, sizes, np.asarray(mean))
    low, high = np.quantile(studied, tails)
    yield "bootstrap-t", mean - high * own, mean - low * own


def print_coverage(trials: int) -> None:
    for name, (draw, truth) in POPULATIONS.items():
        for count in COUNTS:
            generator = np.random.default_rng(0)
            held: dict[str, int] = {}
            width: dict[str, float] = {}
            for trial in range(trials):
                values, classes = draw(generator, count)
                for kind, low, high in intervals(values, classes, trial):
                    held[kind] = held.get(kind, 0) + int(low <= truth <= high)
                    width[kind] = width.get(kind, 0.0) + (high - low) / trials
            told = ", ".join(
                f"{kind} {100 * held[kind] / trials:.1f} % (width {100 * width[kind]:.1f})"
                for kind in held
            )
            print(f"{name}, {count} classes: {told}", flush=True)


def print_crossed(trials: int) -> None:
    for classes in (12, 50):
        for ratio in (0.0, 0.5, 1.0, 2.0):
            for seeds in (2, 3, 5, 10):
                held = np.zeros(3)
                for trial in range(trials):
                    generator = np.random.default_rng(trial)
                    values = generator.standard_normal(classes)
                    values = values + ratio / classes**0.5 * generator.standard_normal((seeds, 1))
                    values += 0.5 * generator.standard_normal(values.shape)
                    of_seeds = values.mean(axis=1)
                    ends = [
                        (found.low, found.high)
                        for found in (
                            bootstrap_interval(some, np.arange(classes), seed=trial, samples=400)
                            for some in (values, values[0])
                        )
                        if found.low is not None and found.high is not None
                    ]
                    ends.append((of_seeds.min(), of_seeds.max()))
                    held += [low <= 0 <= high for low, high in ends]
                crossed, alone, spanned = 100 * held / trials
                print(
                    f"{classes} classes, seeds move the mean {ratio:g} times as much, {seeds} "
                    f"seeds: crossed {crossed:.1f} %, one seed alone {alone:.1f} %, range of the "
                    f"seeds {spanned:.1f} %",
                    flush=True,
                )


def precision_by_query() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Average precision of each test query by student, and naive at the first's size, of the
    first seed; labels.
    """
    params, paths = load_params(), DatasetPaths("emblems")
    pack = open_pack(paths.pack)
    found = {}
    for key in params.students:
        every = pd.read_parquet(paths.per_query(key))
        of_first = every[every["seed"] == params.seeds[0]]
        table = of_first.set_index("role")["average_precision"]
        found[key] = table["asymmetric"].to_numpy()
        found.setdefault("naive", table["naive"].to_numpy())
    return found, pack.labels[pack.rows("test")]


def print_widths(subsets: int) -> None:
    precision, labels = precision_by_query()
    source = load_params().datasets["emblems"].source
    assert isinstance(source, EmblemsSource)
    first, *others = [name for name in precision if name != "naive"]
    _, labels = np.unique(labels, return_inverse=True)
    families = labels // source.members
    total = int(labels.max()) + 1
    for other in (None, "naive", *others):
        what = f"{first} over {other}" if other else f"map of {first}"
        values = precision[first] - (precision[other] if other else 0)
        for count in (12, 30, total):
            generator = np.random.default_rng(count)
            half: dict[str, list[float]] = {"class": [], "query": []}
            for subset in range(subsets if count < total else 1):
                order = generator.permutation(families.max() + 1)
                place = order[families] * source.members + labels % source.members
                rows = np.flatnonzero(place < count)
                for unit, classes in (("class", labels[rows]), ("query", rows)):
                    found = bootstrap_interval(values[rows], classes, seed=subset)
                    assert found.low is not None
                    assert found.high is not None
                    half[unit].append(50 * (found.high - found.low))
            by_class, by_query = (np.mean(half[unit]) for unit in ("class", "query"))
            print(
                f"{what}, {count} classes: +-{by_class:.2f} points by class, "
                f"+-{by_query:.2f} by query, {by_class / by_query:.1f} times as wide"
            )
        spread = (np.bincount(labels, values) / np.bincount(labels)).std(ddof=1)
        needed = {gain: classes_needed(spread, gain / 100) for gain in (1, 2, 5)}
        told = ", ".join(f"{gain}: {count}" for gain, count in needed.items())
        print(f"{what}: spread of the classes {100 * spread:.1f} points; classes by gain: {told}")


def rendered_pack(path: Path, families: int, members: int, seed: int) -> Pack:
    """Test classes of the study's own kind of emblems, from a seed that no training has seen."""
    source = load_params().datasets["emblems"].source
    assert isinstance(source, EmblemsSource)
    given = {**source.model_dump(exclude={"kind"}), "members": members, "seed": seed}
    drawn = render_emblems(**given | {"families": families})
    write_pack(path, (replace(one, split="test") for one in drawn))
    return open_pack(path)


def precision_on(pack: Pack) -> dict[str, np.ndarray]:
    """Average precision of each query by student, and naive at the first's size."""
    params, paths, device = load_params(), DatasetPaths("emblems"), torch.device("cpu")
    labels, rows = torch.from_numpy(pack.labels), np.arange(len(pack))

    def embed(network: Path, size_px: int | None = None) -> torch.Tensor:
        opened, card = load_network(network, device)
        return embed_views(opened, EvaluationViews(pack, rows, size_px or card.size_px), device)

    database = embed(paths.teacher)
    queries = {key: embed(paths.student(key)) for key in params.students}
    queries["naive"] = embed(paths.teacher, next(iter(params.students.values())).query_px)
    return {
        key: evaluate_retrieval(own, database, labels).query_metrics["average_precision"]
        for key, own in queries.items()
    }


def print_anew(seeds: int) -> None:
    torch.set_num_threads(1)
    half: dict[str, dict[int, list[float]]] = {}
    means: dict[str, dict[int, list[float]]] = {}
    for families, members in ((3, 4), (6, 5), (12, 5)):
        count = families * members
        for seed in range(1000, 1000 + seeds * 60 // count):
            with TemporaryDirectory() as folder:
                pack = rendered_pack(Path(folder, "pack.arrow"), families, members, seed)
                precision = precision_on(pack)
            first, *others = precision
            for other in (None, *others):
                what = f"{first} over {other}" if other else f"map of {first}"
                values = precision[first] - (precision[other] if other else 0)
                found = bootstrap_interval(values, pack.labels, seed=seed)
                assert found.low is not None
                assert found.high is not None
                width = 50 * (found.high - found.low)
                half.setdefault(what, {}).setdefault(count, []).append(width)
                means.setdefault(what, {}).setdefault(count, []).append(100 * found.mean)
    for what, of_counts in half.items():
        for count, widths in of_counts.items():
            figures = means[what][count]
            print(
                f"{what}, {count} classes: +-{np.mean(widths):.2f} points (from {min(widths):.2f} "
                f"to {max(widths):.2f}), of {np.mean(figures):.1f} on average; over {len(widths)} "
                f"renderings that figure has a standard deviation of {np.std(figures, ddof=1):.2f}"
            )


def classes_needed(spread: float, gain: float) -> int:
    """The fewest classes whose interval of a gain, spread so over classes, lies above zero."""
    counts = np.arange(LEAST_CLASSES, 100_000)
    half = -stdtrit(counts - 1, (1 - LEVEL) / 2) * spread / np.sqrt(counts)
    return int(counts[half <= gain][0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("coverage", "seeds", "width", "anew"))
    parser.add_argument("--trials", type=int, default=1000, help="of each population and count")
    parser.add_argument("--subsets", type=int, default=50, help="random ones of each count")
    parser.add_argument("--seeds", type=int, default=6, help="of 60 classes; twice for 30, ...")
    given = parser.parse_args()
    if given.what == "coverage":
        print_coverage(given.trials)
    elif given.what == "seeds":
        print_crossed(given.trials)
    elif given.what == "width":
        print_widths(given.subsets)
    else:
        print_anew(given.seeds)


if __name__ == "__main__":
    main()
