"""The stages of dvc.yaml as a graph, read from DVC itself: never a second list."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvc.repo import Repo


class GraphError(ValueError):
    """DVC cannot tell the graph: a faulty dvc.yaml, or another DVC process at work."""


@dataclass(frozen=True)
class StageGraph:
    """Stages in the order in which `dvc repro` runs them.

    `upstreams` holds for each stage those whose outputs it reads. `changes` holds the reasons why
    a stage is out of date by itself; one that is only downstream of such a stage is not in it.
    `locked` are the stages of which dvc.lock holds a result.
    """

    upstreams: Mapping[str, tuple[str, ...]]
    changes: Mapping[str, tuple[str, ...]]
    locked: frozenset[str]

    @property
    def names(self) -> list[str]:
        return list(self.upstreams)

    def dirty(self, *, force: bool = False) -> list[str]:
        """The stages to run: changed, or downstream of one that is; all of them by force."""
        found: set[str] = set()
        for name, upstreams in self.upstreams.items():
            if force or name in self.changes or not found.isdisjoint(upstreams):
                found.add(name)
        return [name for name in self.upstreams if name in found]

    def restricted(self, targets: Iterable[str]) -> "StageGraph":
        """The targets and all that they depend on. A target names a stage or a group of stages.

        Raises GraphError that names the unknown ones and what is known.
        """
        targets = list(targets)
        if not targets:
            return self
        unknown = [target for target in targets if not self._of_target(target)]
        if unknown:
            groups = sorted({name.partition("@")[0] for name in self.upstreams if "@" in name})
            raise GraphError(
                f"unknown targets: {', '.join(unknown)}; stages: {', '.join(self.upstreams)}"
                + (f"; groups: {', '.join(groups)}" if groups else "")
            )
        kept = {name for target in targets for name in self._of_target(target)}
        for name in reversed(self.names):
            if name in kept:
                kept.update(self.upstreams[name])
        return StageGraph(
            {name: ups for name, ups in self.upstreams.items() if name in kept},
            {name: why for name, why in self.changes.items() if name in kept},
            self.locked & kept,
        )

    def _of_target(self, target: str) -> list[str]:
        return [name for name in self.upstreams if target in (name, name.partition("@")[0])]


def read_graph() -> StageGraph:
    """The graph of the folder's dvc.yaml and what is out of date in it.

    Raises GraphError when dvc.yaml is faulty or another DVC process holds what is needed.
    """
    from dvc.repo import lock_repo

    with _open_repo() as repo, lock_repo(repo):
        stages, edges = _stages(repo)
        status = {stage.addressing: stage.status().get(stage.addressing, []) for stage in stages}
        return StageGraph(
            edges,
            {name: tuple(_reasons(changes)) for name, changes in status.items() if changes},
            frozenset(stage.addressing for stage in stages if _is_locked(stage)),
        )


def read_edges() -> dict[str, tuple[str, ...]]:
    """The stages and their upstreams alone; works while stages run."""
    with _open_repo() as repo:
        return _stages(repo)[1]


@contextmanager
def _open_repo() -> Iterator["Repo"]:
    """The DVC project of this folder; its errors in one sentence."""
    import logging

    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        with Repo() as repo:
            yield repo
    except DvcException as error:
        raise GraphError(f"dvc: {' '.join(str(error).split())}") from error


def _stages(repo: "Repo") -> tuple[list[Any], dict[str, tuple[str, ...]]]:
    """Stages in the order of `dvc repro`, which is also the order of entries of its dvc.lock."""
    from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

    graph = get_active_graph(repo.index.graph)
    stages = plan_repro(graph, collect_stages(repo, ["dvc.yaml"]))
    place = {stage.addressing: number for number, stage in enumerate(stages)}
    edges = {
        stage.addressing: tuple(
            sorted((other.addressing for other in graph.successors(stage)), key=place.__getitem__)
        )
        for stage in stages
    }
    return stages, edges


def _is_locked(stage: Any) -> bool:
    return any(out.hash_info for out in stage.outs)


def _reasons(changes: Iterable[Any]) -> Iterator[str]:
    """DVC's account of a stage, such as {"changed deps": {PATH: "modified"}}, in short lines."""
    for change in changes:
        if not isinstance(change, Mapping):
            yield str(change)
            continue
        for kind, paths in change.items():
            if not isinstance(paths, Mapping):
                yield f"{kind}: {paths}"
                continue
            for path, how in paths.items():
                if isinstance(how, Mapping):
                    yield from (f"{path}: {key} {state}" for key, state in how.items())
                else:
                    yield f"{path} {how}"
