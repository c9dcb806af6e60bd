"""The graph of one lock, both ways: what something was made from, and what was made from it. And how two locks differ."""

import difflib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import md5
from typing import Any

from scalequest.audit.history import History
from scalequest.audit.lock import Artifact, Lock, Stage
from scalequest.audit.repository import Repository, Revision
from scalequest.errors import UserError

# Where the pipeline keeps models; everything else that stages write is data, metrics or a report.
MODELS = "models/"
MISSING = "–"


@dataclass(frozen=True)
class Input:
    """Something a stage read.

    Attributes:
        artifact: as the stage read it.
        makers: names of the stages that write it; empty for a file from outside.
        stale: whether what its maker wrote last has other bytes than what was read.
    """

    artifact: Artifact
    makers: tuple[str, ...]
    stale: bool = False


@dataclass(frozen=True)
class Code:
    """The code of one stage's run.

    Attributes:
        commit: a commit that has all of it; None where no commit has it.
        dirty: files whose content in ``commit``'s place differs, each with the commit that has it, or ``""``.
        changed_since: files that have other content in the revision that was asked for: `dvc repro` would run the stage again.
    """

    commit: str | None
    dirty: dict[str, str] = field(default_factory=dict)
    changed_since: tuple[str, ...] = ()


def folder_hash(files: dict[str, str]) -> str:
    """DVC's hash of a folder from its files' paths (relative to it) and hashes."""
    entries = [{"md5": files[path], "relpath": path} for path in sorted(files)]
    return md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"


def folder_files(repository: Repository, revision: Revision, folder: str, known: Collection[str]) -> dict[str, str]:
    """Hashes of the files that a revision has in a folder beside the known ones, by their path in it.

    In the workspace untracked files count, too. What DVC ignores is left out.
    """
    from pathspec import GitIgnoreSpec

    if revision.commit is None:
        root = repository.root
        paths = [path.relative_to(root).as_posix() for path in (root / folder).rglob("*") if path.is_file()]
    else:
        paths = list(repository.listing(revision, [folder]))
    ignored = GitIgnoreSpec.from_lines((repository.read(revision, ".dvcignore") or b"").decode().splitlines())
    names = {path: path.removeprefix(f"{folder}/") for path in paths}
    others = [path for path, name in names.items() if name not in known and not ignored.match_file(path)]
    found = repository.read_all(revision, others)
    return {names[path]: md5(content).hexdigest() for path, content in found.items()}


def find_target(lock: Lock, path: str) -> tuple[Stage, Artifact]:
    """The stage that makes ``path`` (an output, or a file in one), and the output.

    Raises:
        UserError: no stage makes it; the nearest output is named.
    """
    wanted = path.rstrip("/").removeprefix("./")
    holders = [(stage, out) for stage, out in lock.outs() if wanted == out.path or wanted.startswith(f"{out.path}/")]
    if holders:
        return holders[0]
    known = [out.path for _, out in lock.outs()]
    inside = [out for out in known if out.startswith(f"{wanted}/")]
    close = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
    if inside:
        hint = f"Expected one output; under this path are {', '.join(inside)}."
    elif close:
        hint = f"Did you mean '{close[0]}'?"
    else:
        hint = f"Expected an output such as {', '.join(known[:5])}."
    raise UserError(f"'{path}': no such output in dvc.lock of {lock.revision} ({len(known)} outputs). {hint}")


class Chain:
    """What one output was made from, in one lock.

    Attributes:
        lock: the records.
        stage: the stage that made it.
        target: the output.
    """

    def __init__(self, repository: Repository, history: History, lock: Lock, path: str) -> None:
        self.repository, self.history, self.lock = repository, history, lock
        self.stage, self.target = find_target(lock, path)
        self._code: dict[Revision, dict[str, str]] = {}

    @cached_property
    def stages(self) -> list[Stage]:
        """The stage itself, then what it needed, nearest first; every stage after all that need it."""
        return self.lock.order(self.stage.name)[::-1]

    def inputs(self, stage: Stage) -> list[Input]:
        """What a stage read, apart from code."""
        return [
            Input(dep, tuple(s.name for s, _ in makers), _stale(dep, makers))
            for dep in stage.deps
            if (makers := self.lock.makers(dep.path))
        ]

    def code(self, stage: Stage) -> Code:
        """Which code a stage ran, and which commit has it."""
        deps = [dep for dep in stage.deps if not self.lock.makers(dep.path)]
        asked = self.lock.revision
        commits = (self.history.first_with(stage, asked), asked.commit or self.repository.head)
        places = [Revision(commit, commit) for commit in dict.fromkeys(filter(None, commits))]
        changed = tuple(self._differing(asked, deps))
        for place in places:
            if not self._differing(place, deps):
                return Code(place.commit, changed_since=changed)
        dirty = self._differing(places[0], deps) if places else [dep.path for dep in deps]
        wanted = {dep.path: dep.md5 for dep in deps}
        return Code(None, {path: _commit_with(self.repository, path, wanted[path]) for path in dirty}, changed)

    def _differing(self, revision: Revision, deps: list[Artifact]) -> list[str]:
        """Paths of the code dependencies whose content in ``revision`` is another than the one that the stage read."""
        if revision not in self._code:
            every = {d.path for s in self.lock.stages.values() for d in s.deps if not self.lock.makers(d.path)}
            self._code[revision] = code_hashes(self.repository, revision, sorted(every))
        return [dep.path for dep in deps if hash_of(dep, self._code[revision]) != dep.md5]

    def scores(self) -> list[tuple[Stage, Artifact]]:
        """The score files of evaluations that read this very output, or the model that it is the base of."""
        return [
            (stage, out)
            for stage in self.lock.stages.values()
            if stage.option("scores") and any(dep.path == self.target.path and dep.md5 == self.target.md5 for dep in stage.deps)
            for out in stage.outs
            if out.path == stage.option("scores")
        ]  # fmt: skip


def downstream(lock: Lock, hashes: Iterable[str]) -> dict[str, tuple[Artifact, ...]]:
    """Outputs made from any of these hashes, each with the way to it: what was read first, and so on to the output itself.

    Only equal hashes count: an output that was remade since it was read is no longer what its reader read. A folder above
    several outputs counts as each of them.
    """
    reached: dict[str, tuple[Artifact, ...]] = {
        value: (artifact,) for value in hashes for artifact in _artifacts(lock, value)
    }
    found: dict[str, tuple[Artifact, ...]] = {}
    for stage in lock.order():
        way = next((reached[dep.md5] for dep in stage.deps if dep.md5 in reached), None)
        if way is None:
            parts = [(dep, out) for dep in stage.deps for _, out in lock.makers(dep.path) if out.path != dep.path]
            way = next((reached[out.md5] for dep, out in parts if out.md5 in reached and not _stale(dep, [(stage, out)])), None)  # fmt: skip
        if way is not None:
            for out in stage.outs:
                reached.setdefault(out.md5, (*way, out))
                found[out.path] = (*way, out)
    return found


def _artifacts(lock: Lock, value: str) -> list[Artifact]:
    """The first dependency or output of that hash."""
    every = (a for stage in lock.stages.values() for a in (*stage.outs, *stage.deps) if a.md5 == value)
    return list(every)[:1]


def _stale(dep: Artifact, makers: list[tuple[Stage, Artifact]]) -> bool:
    """Whether what was read differs from what its one maker wrote. Of parts of folders ``verify`` compares the files."""
    return any(out.path == dep.path and out.md5 != dep.md5 for _, out in makers)


# ---------------------------------------------------------------------------------------------------------------- code


def code_hashes(repository: Repository, revision: Revision, paths: list[str]) -> dict[str, str]:
    """DVC's hash of each file at or under ``paths``: the md5 of its bytes."""
    listing = repository.listing(revision, paths)
    if revision.commit is None:
        return {
            path: md5(content).hexdigest() for path, content in repository.read_all(revision, list(listing)).items()
        }
    by_blob = {blob: md5(content).hexdigest() for blob, content in repository.objects(listing.values()).items()}
    return {path: by_blob[blob] for path, blob in listing.items() if blob in by_blob}


def hash_of(dep: Artifact, hashes: dict[str, str]) -> str | None:
    """Hash of a dependency from those of the files at or under it; None where there are none."""
    if not dep.is_folder:
        return hashes.get(dep.path)
    prefix = f"{dep.path}/"
    inside = {path.removeprefix(prefix): value for path, value in hashes.items() if path.startswith(prefix)}
    return folder_hash(inside) if inside else None


def _commit_with(repository: Repository, path: str, wanted: str) -> str:
    """The newest commit that has ``path`` with this hash; empty where none has (a folder is not searched for)."""
    return _newest_by_hash(repository, path).get(wanted, "")


@lru_cache(1_024)  # many stages ran the same file
def _newest_by_hash(repository: Repository, path: str) -> dict[str, str]:
    """The newest commit of each content that a file had, by its md5."""
    changes = repository.changes(path)[::-1]
    contents = repository.objects(blob for _, _, blob in changes)
    return {md5(contents[blob]).hexdigest(): commit for commit, _, blob in changes if blob in contents}


# ---------------------------------------------------------------------------------------------------------- difference


@dataclass(frozen=True)
class Difference:
    """How one stage differs between two locks.

    Attributes:
        stage: its name.
        causes: what is its own: parameters, code, command, an input from outside; ``[what, first, second]``.
        inputs: what it was given otherwise by the stages before it.
        outs: what it wrote otherwise.
    """

    stage: str
    causes: tuple[tuple[str, Any, Any], ...]
    inputs: tuple[tuple[str, str, str], ...]
    outs: tuple[tuple[str, str, str], ...]


def compare(first: Chain, second: Chain) -> list[Difference]:
    """Stages of either chain that differ, the furthest upstream first."""
    names = [stage.name for stage in reversed(second.stages)]
    names += [stage.name for stage in reversed(first.stages) if stage.name not in names]
    sides = [{stage.name: stage for stage in chain.stages} for chain in (first, second)]
    found = []
    for name in names:
        a, b = (side.get(name) for side in sides)
        if a is None or b is None:
            there = ("not in this chain", "in this chain")
            found.append(Difference(name, (("stage", there[a is not None], there[b is not None]),), (), ()))
        elif a != b:
            found.append(difference(a, b, first.lock, second.lock))
    return found


def difference(a: Stage, b: Stage, first: Lock, second: Lock) -> Difference:
    """How one stage's entries differ; ``first`` and ``second`` say what other stages make."""
    causes: list[tuple[str, Any, Any]] = []
    if a.cmd != b.cmd:
        causes.append(("command", a.cmd, b.cmd))
    for key in dict.fromkeys([*a.params, *b.params]):
        one, two = a.params.get(key, MISSING), b.params.get(key, MISSING)
        if one != two:
            causes.append((f"parameter {key}", one, two))
    inputs = []
    for path, one, two in _changed(a.deps, b.deps):
        made = first.makers(path) or second.makers(path)
        if made:
            inputs.append((path, one, two))
        else:
            causes.append((f"code {path}", one, two))
    return Difference(a.name, tuple(causes), tuple(inputs), tuple(_changed(a.outs, b.outs)))


def _changed(first: tuple[Artifact, ...], second: tuple[Artifact, ...]) -> list[tuple[str, str, str]]:
    one, two = ({item.path: item.md5 for item in side} for side in (first, second))
    pairs = [(path, one.get(path, MISSING), two.get(path, MISSING)) for path in dict.fromkeys([*one, *two])]
    return [(path, x, y) for path, x, y in pairs if x != y]
