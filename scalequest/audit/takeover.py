"""Whether a stage's outputs were made by the code that its lock entry names, or taken over from an earlier run.

`dvc commit` accepts outputs as they are after an edit that changes no byte. The entry of `dvc.lock` then looks like that of
a run. The facts that each run records about what it was given (scalequest.runtime.environment) know better.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from scalequest.audit.chain import difference
from scalequest.audit.history import History
from scalequest.audit.lock import Artifact, Lock, Stage
from scalequest.audit.repository import Repository, Revision
from scalequest.runtime.environment import ENVIRONMENT_FILE, Recorded, local_runs


@dataclass(frozen=True)
class TakenOver:
    """The run that made a stage's outputs, where it is not the one that the lock describes.

    Attributes:
        commit: that has the run's lock entry, or that the run's code was at; empty where it is not known.
        changed: what the entry names otherwise than the run had it: paths of code and inputs, names of parameters.
    """

    commit: str
    changed: tuple[str, ...]

    def __str__(self) -> str:
        more = f" and {len(self.changed) - 3} more" if len(self.changed) > 3 else ""
        where = f"commit {self.commit[:7]}" if self.commit else "an uncommitted state"
        return f"taken over from the code of {where}, not rerun ({', '.join(self.changed[:3])}{more} changed since)"


def taken_over(history: History, lock: Lock, stage: Stage) -> TakenOver | None:
    """The run that made the outputs, where the lock's entry was only committed; None where it ran, or nothing is recorded."""
    repository = history.repository
    wrote = {out.path: out.md5 for out in stage.outs}
    runs = [run for run in local_runs(repository.root, stage.name) if run["outs"] == wrote]
    if _ran(repository, lock.revision, stage) or any(run["given"] == stage.given for run in runs):
        return None
    earlier = _entries_that_ran(history, stage)
    if any(entry.given == stage.given for _, entry in earlier):
        return None  # it ran, and the file of facts has since been rewritten for another run
    found = [TakenOver(commit, _changed(entry, stage, lock)) for commit, entry in earlier]
    found += [
        TakenOver(str(run.get("git", {}).get("commit", "")), _changed(_entry(run, stage), stage, lock)) for run in runs
    ]
    return min((one for one in found if one.changed), key=lambda one: len(one.changed), default=None)


def taken_over_lines(repository: Repository, lock: Lock) -> list[str]:
    """One line per group of stages whose outputs were taken over from other code: no broken link, and no run either."""
    history, found = History(repository), dict[str, list[str]]()
    for stage in lock.stages.values():
        if earlier := taken_over(history, lock, stage):
            found.setdefault(str(earlier), []).append(stage.name)
    return [f"outputs of {', '.join(names)}: {text}" for text, names in found.items()]


def _ran(repository: Repository, revision: Revision, stage: Stage) -> bool:
    """Whether a revision's file of facts is about a run with just this entry's inputs, code and parameters."""
    return _recorded(repository.read(revision, ENVIRONMENT_FILE)).of(stage.name, stage.given) is not None


@lru_cache(256)  # a history of experiments asks for the same files once per stage
def _recorded(content: bytes | None) -> Recorded:
    return Recorded.parse(content)


def _entries_that_ran(history: History, stage: Stage) -> list[tuple[str, Stage]]:
    """Entries of ``_entries`` whose own commit's file of facts is about their run; all files are read by one Git process."""
    entries = list(_entries(history, stage))
    files = history.repository.objects(f"{commit}:{ENVIRONMENT_FILE}" for commit, _ in entries)
    return [
        (commit, entry)
        for commit, entry in entries
        if _recorded(files.get(f"{commit}:{ENVIRONMENT_FILE}")).of(entry.name, entry.given) is not None
    ]


def _entries(history: History, stage: Stage) -> Iterator[tuple[str, Stage]]:
    """Entries of committed locks in which the stage wrote the same bytes, newest first."""
    if not stage.outs:
        return
    for version, lock in history.mentioning(stage.outs[0].md5):
        entry = lock.stages.get(stage.name)
        if version.commit and entry and entry.outs == stage.outs:
            yield version.commit, entry


def _entry(run: dict[str, Any], stage: Stage) -> Stage:
    """What the lock would have said of a run that this checkout recorded."""
    deps = tuple(Artifact(path, value) for path, value in run["deps"].items())
    return Stage(stage.name, stage.cmd, deps, stage.params, stage.outs)


def _changed(before: Stage, now: Stage, lock: Lock) -> tuple[str, ...]:
    found = difference(before, now, lock, lock)
    causes = [what.removeprefix("code ") for what, _, _ in found.causes if what != "command"]
    return (*causes, *(path for path, _, _ in found.inputs))
