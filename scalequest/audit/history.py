"""The records of every revision and experiment: each distinct ``dvc.lock`` once, with the names that have it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from scalequest.audit.lock import LOCK, PARAMS, PIPELINE, Lock, Stage, make_lock
from scalequest.audit.repository import EXPERIMENT, WORKSPACE, Repository, Revision, blob_hash
from scalequest.errors import UserError

# Before the name of an experiment in a list with names of branches.
EXPERIMENT_LABEL = "experiment "


@dataclass(frozen=True)
class Version:
    """One distinct ``dvc.lock``.

    Attributes:
        content: its bytes.
        pipeline: ``dvc.yaml`` beside it.
        params: ``params.yaml`` beside it.
        commit: the oldest commit that has it; None while it is only in the workspace.
        date: of that commit.
        names: branches, tags, experiments (and ``workspace``) that have it now; empty for one that history has left behind.
        age: larger is older, in the order of commits.
    """

    content: bytes
    pipeline: bytes
    params: bytes
    commit: str | None
    date: str
    names: tuple[str, ...]
    age: int = 0

    @property
    def label(self) -> str:
        """``main, experiment cut (1a2b3c4, 2026-11-24)``."""
        where = f"{self.commit[:7]}, {self.date}" if self.commit else "not committed"
        return f"{', '.join(self.names)} ({where})" if self.names else f"{where}"

    @property
    def revision(self) -> Revision:
        """Where its files are read from."""
        if WORKSPACE in self.names or self.commit is None:
            return Revision(WORKSPACE, None)
        name = self.names[0] if self.names else self.commit
        return Revision(name.removeprefix(EXPERIMENT_LABEL), self.commit, name.startswith(EXPERIMENT_LABEL))


def _short(ref: str) -> str:
    experiment = EXPERIMENT.fullmatch(ref)
    return f"{EXPERIMENT_LABEL}{experiment[1]}" if experiment else ref.split("/", 2)[2]


class History:
    """Every ``dvc.lock`` that a branch, a tag, an experiment or the workspace has or had.

    Attributes:
        unread: versions that could not be read so far, with the reason; an answer names them instead of failing.
    """

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self.unread: list[str] = []
        if repository.is_shallow:
            self.unread.append("commits that this shallow clone does not have; bring them: git fetch --unshallow")
        self._locks: dict[Version, Lock | None] = {}
        self._before: dict[str | None, set[str]] = {}

    @cached_property
    def versions(self) -> list[Version]:
        """Distinct locks: the workspace's first, then newest first."""
        changes = self.repository.changes(LOCK)
        # Of equal ones the last, which is the oldest.
        oldest = {blob: (commit, date, age) for age, (commit, date, blob) in enumerate(changes)}
        names: dict[str, list[str]] = {}
        tips = self.repository.tips
        objects = [f"{commit}:{LOCK}" for commit in dict.fromkeys(tips.values())]
        blobs = dict(zip(objects, self._blob_hashes(objects), strict=True))
        for ref, commit in tips.items():
            names.setdefault(blobs[f"{commit}:{LOCK}"], []).append(_short(ref))
        contents = self.repository.objects(oldest)
        commits = [commit for commit, _, _ in oldest.values()]
        beside = self.repository.objects(f"{commit}:{name}" for commit in commits for name in (PIPELINE, PARAMS))
        found = {
            blob: Version(
                contents[blob], beside.get(f"{commit}:{PIPELINE}", b"{}"), beside.get(f"{commit}:{PARAMS}", b""), commit,
                date, tuple(names.get(blob, ())), age,
            )
            for blob, (commit, date, age) in oldest.items()
        }  # fmt: skip
        now = self.repository.read_all(Revision(WORKSPACE, None), [LOCK, PIPELINE, PARAMS])
        if LOCK in now:
            blob = blob_hash(now[LOCK])
            old = found.pop(blob, None)
            files = (now[LOCK], now.get(PIPELINE, b"{}"), now.get(PARAMS, b""))
            mine = Version(*files, None, "", (WORKSPACE,))
            if old:
                mine = Version(*files, old.commit, old.date, (WORKSPACE, *old.names), old.age)
            found = {blob: mine} | found
        return list(found.values())

    def _blob_hashes(self, objects: list[str]) -> list[str]:
        """Hash of each ``COMMIT:PATH``, empty where there is none."""
        if not objects:
            return []
        output = self.repository.git("cat-file", "--batch-check", stdin="".join(f"{o}\n" for o in objects).encode())
        return ["" if line.endswith((" missing", " ambiguous")) else line.split()[0] for line in output.decode().splitlines()]  # fmt: skip

    def lock(self, version: Version) -> Lock | None:
        """The records of one version, read once; None where they cannot be read, and ``unread`` then says why."""
        if version not in self._locks:
            try:
                self._locks[version] = make_lock(version.revision, version.content, version.pipeline, version.params)
            except UserError as error:
                self._locks[version] = None
                self.unread.append(f"{version.label}: {error}")
        return self._locks[version]

    def mentioning(self, *hashes: str) -> Iterator[tuple[Version, Lock]]:
        """Versions in which any of these hashes (or beginnings of hashes) occurs. The text is
        searched first: parsing costs more.
        """
        needles = [f" {value}".encode() for value in hashes]
        for version in self.versions:
            if any(needle in version.content for needle in needles) and (lock := self.lock(version)):
                yield version, lock

    def first_with(self, stage: Stage, revision: Revision) -> str | None:
        """The oldest commit whose lock has this very entry, among those that lead to ``revision`` if one of them has it.

        None where no commit has it: the run is not committed.
        """
        holders = (version for version, _ in self.mentioning(stage.outs[0].md5) if version.commit)
        found = [v for v in holders if (lock := self.lock(v)) and lock.stages.get(stage.name) == stage]
        before = self._ancestors(revision.commit or self.repository.head)
        oldest = max(found, key=lambda version: (version.commit in before, version.age), default=None)
        return oldest.commit if oldest else None

    def _ancestors(self, commit: str | None) -> set[str]:
        """A commit and all that lead to it."""
        if commit not in self._before:
            self._before[commit] = set(self.repository.git("rev-list", commit).decode().split()) if commit else set()
        return self._before[commit]
