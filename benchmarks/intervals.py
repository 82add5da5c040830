"""Intervals over test classes: how often they hold the truth, how wide they are, what a gate needs.

coverage: classes are drawn from a population whose mean is known, at 12, 25 and 100 classes, and
counted is how often each kind of 95 % interval holds that mean: `expanded`, which the project
uses, the plain percentile bootstrap over classes, the plain one over queries, and bootstrap-t.
Populations: classes of one AP level each, spread evenly or skewed, of equal or unequal size.

width: run inside a folder with a finished study of emblems. Further test classes of the same kind
are rendered from another seed; teacher and students embed them; and the interval's half width is
averaged over random subsets of families, for the map of a student, for its gain over naive, and
for the difference of two students, as the gate compares them. From the spread of the classes'
differences follows how many test classes the gate needs for gains of 1, 2 and 5 points.

Run: python -m benchmarks.intervals coverage [--trials 1000]
     python -m benchmarks.intervals width [--families 48] [--subsets 20]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.special import stdtrit

from pipeline.config.params import load_params
from pipeline.datasets.emblems import render_emblems
from pipeline.datasets.packs import open_pack, write_pack
from pipeline.embedding.embeddings import EvaluationViews, embed_views
from pipeline.evaluation.confidence import LEAST_CLASSES, bootstrap_interval
from pipeline.evaluation.ranking import evaluate_retrieval
from pipeline.models.weights import load_network
from pipeline.paths import DatasetPaths

LEVEL = 0.95
COUNTS = (12, 25, 100)
CPU = torch.device("cpu")
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


def embed_new_classes(families: int) -> tuple[torch.Tensor, dict[str, torch.Tensor], np.ndarray]:
    """Database, queries by name, and labels, of classes that the study did not render."""
    params, paths = load_params(), DatasetPaths("emblems")
    source = params.datasets["emblems"].source.model_dump(exclude={"kind"})
    source |= {"families": families, "seed": source["seed"] + 1000}
    with TemporaryDirectory() as folder:
        file = Path(folder, "pack.arrow")
        write_pack(file, render_emblems(**source))
        pack = open_pack(file)
        rows = np.arange(len(pack))

        def embed(path: Path, size_px: int | None = None) -> torch.Tensor:
            network, card = load_network(path, CPU)
            views = EvaluationViews(pack, rows, size_px or card.size_px)
            return embed_views(
                network, views, CPU, name=f"{path.stem} {size_px or card.size_px} px"
            )

        database = embed(paths.teacher)
        queries = {key: embed(paths.student(key)) for key in params.students}
        first = next(iter(params.students))
        queries["naive"] = embed(paths.teacher, params.students[first].query_px)
    return database, queries, pack.labels


def print_widths(families: int, subsets: int) -> None:
    database, queries, labels = embed_new_classes(families)
    members = load_params().datasets["emblems"].source.members  # type: ignore[union-attr]
    names = [name for name in queries if name != "naive"]
    pairs = [(names[0], None), (names[0], "naive"), *((names[0], other) for other in names[1:])]
    total = families * members
    for count in (12, 30, 60, total):
        generator = np.random.default_rng(count)
        half: dict[str, list[float]] = {}
        for subset in range(subsets if count < total else 1):
            order = generator.permutation(families)
            chosen = (order[:, None] * members + np.arange(members)).ravel()[:count]
            rows = np.flatnonzero(np.isin(labels, chosen))
            own, classes = torch.from_numpy(labels[rows]), labels[rows]
            precision = {
                name: evaluate_retrieval(one[rows], database[rows], own).query_metrics[
                    "average_precision"
                ]
                for name, one in queries.items()
            }
            for name, other in pairs:
                values = precision[name] - (precision[other] if other else 0)
                what = f"{name} over {other}" if other else f"map of {name}"
                for kind, unit in (("by class", classes), ("by query", np.arange(len(rows)))):
                    found = bootstrap_interval(values, unit, seed=subset)
                    assert found.low is not None
                    assert found.high is not None
                    half.setdefault(f"{what}, {kind}", []).append((found.high - found.low) / 2)
                by_class = np.bincount(classes, values) / np.maximum(np.bincount(classes), 1)
                spread = by_class[np.unique(classes)].std(ddof=1)
                half.setdefault(f"{what}, spread of the classes", []).append(spread)
        for what, found_half in half.items():
            print(f"{count} classes, {what}: {100 * np.mean(found_half):.2f} points", flush=True)
    for name, other in pairs[1:]:
        spread = half[f"{name} over {other}, spread of the classes"][0]
        needed = {gain: classes_needed(spread, gain / 100) for gain in (1, 2, 5)}
        told = ", ".join(f"{gain} points: {count}" for gain, count in needed.items())
        print(f"classes whose interval is no wider than the gain, {name} over {other}: {told}")


def classes_needed(spread: float, gain: float) -> int:
    """The fewest classes whose interval of a gain, spread so over classes, lies above zero."""
    counts = np.arange(LEAST_CLASSES, 100_000)
    half = -stdtrit(counts - 1, (1 - LEVEL) / 2) * spread / np.sqrt(counts)
    return int(counts[half <= gain][0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("coverage", "width"))
    parser.add_argument("--trials", type=int, default=1000, help="of each population and count")
    parser.add_argument("--families", type=int, default=48, help="of five classes, rendered anew")
    parser.add_argument("--subsets", type=int, default=20, help="random ones of each count")
    given = parser.parse_args()
    if given.what == "coverage":
        print_coverage(given.trials)
    else:
        print_widths(given.families, given.subsets)


if __name__ == "__main__":
    main()
