"""The stages of dvc.yaml as a graph, read from DVC itself: never a second list."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.files import unreadable_files


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
        found: dict[str, None] = {}
        for name, upstreams in self.upstreams.items():
            if force or name in self.changes or not found.keys().isdisjoint(upstreams):
                found[name] = None
        return list(found)

    def named(self, targets: Iterable[str]) -> list[str]:
        """The stages that the targets name: each a stage or a group of stages.

        Raises GraphError that names the unknown ones and what is known.
        """
        wanted = set(targets)
        groups = {name.partition("@")[0] for name in self.upstreams if "@" in name}
        if unknown := sorted(wanted - groups - self.upstreams.keys()):
            raise GraphError(
                f"unknown targets: {', '.join(unknown)}; stages: {', '.join(self.upstreams)}"
                + (f"; groups: {', '.join(sorted(groups))}" if groups else "")
            )
        return [name for name in self.upstreams if wanted & {name, name.partition("@")[0]}]

    def restricted(self, targets: Iterable[str]) -> "StageGraph":
        """The targets and all that they depend on; everything where there is none."""
        targets = list(targets)
        if not targets:
            return self
        kept = set(self.named(targets))
        for name in reversed(self.names):
            if name in kept:
                kept.update(self.upstreams[name])
        return self.only(kept)

    def only(self, names: Collection[str]) -> "StageGraph":
        """The graph without the stages that are not named; nothing waits for those."""
        return StageGraph(
            {
                stage: tuple(other for other in others if other in names)
                for stage, others in self.upstreams.items()
                if stage in names
            },
            {stage: why for stage, why in self.changes.items() if stage in names},
            self.locked & set(names),
        )


def read_graph() -> StageGraph:
    """The graph of the folder's dvc.yaml and what is out of date in it.

    Raises GraphError when dvc.yaml is faulty, another DVC process holds what is needed, or a file
    that a stage depends on cannot be read.
    """
    from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

    upstreams, changes = {}, {}
    with open_repository() as repo:
        graph = get_active_graph(repo.index.graph)
        # In the order of `dvc repro`, which is also that of the entries of its dvc.lock.
        stages = plan_repro(graph, collect_stages(repo, ["dvc.yaml"]))
        read = {Path(dep.fs_path) for stage in stages for dep in stage.deps}
        if faults := list(chain.from_iterable(map(unreadable_files, sorted(read)))):
            raise GraphError(f"{faults[0]}" + (f" ({len(faults)} such)" if faults[1:] else ""))
        for stage in stages:
            name, needed = stage.addressing, set(graph.successors(stage))
            upstreams[name] = tuple(one.addressing for one in stages if one in needed)
            if found := stage.status().get(name):
                changes[name] = tuple(_reasons(found))
        locked = {stage.addressing for stage in stages if any(o.hash_info for o in stage.outs)}
    return StageGraph(upstreams, changes, frozenset(locked))


@contextmanager
def open_repository() -> Iterator[Any]:
    """DVC's repository of the folder, locked. Its faults are raised as GraphError."""
    import logging

    from dvc.exceptions import DvcException
    from dvc.lock import LockNoop
    from dvc.repo import Repo, lock_repo

    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        with TemporaryDirectory() as folder, Repo() as repo:
            if not os.access(str(repo.tmp_dir), os.W_OK):  # where DVC's locks lie
                repo.lock, repo.tmp_dir = LockNoop(), folder
            with lock_repo(repo):
                yield repo
    except DvcException as error:
        text = " ".join(str(error).split())
        remedy = ": run `git init` there" if text.endswith("is not a git repository") else ""
        raise GraphError(f"dvc: {text}{remedy}") from error


def _reasons(changes: Iterable[Any]) -> Iterator[str]:
    """DVC's account of a stage, such as {"changed deps": {PATH: "modified"}}, in short lines."""
    for change in changes:
        if isinstance(change, str):  # such as "changed command"
            yield change
            continue
        for path, how in chain.from_iterable(paths.items() for paths in change.values()):
            if isinstance(how, Mapping):
                yield from (f"{path}: {key} {state}" for key, state in how.items())
            else:
                yield f"{path} {how}"
