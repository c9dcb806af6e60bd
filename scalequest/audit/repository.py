"""Git, read without a checkout: revisions, DVC's experiments, and the files of any of them."""

import difflib
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha1
from pathlib import Path

from scalequest.errors import UserError
from scalequest.io import read_whole

# The files in the working folder, committed or not. DVC uses the same name.
WORKSPACE = "workspace"
# DVC keeps an experiment as refs/exps/<2 digits of its baseline>/<the other 38>/NAME; its other refs there are scratch. While
# a new run of it goes on, the finished one is set aside: DVC overwrites none, and it counts until there is a new one.
EXPERIMENTS, SET_ASIDE = "refs/exps/", "refs/scalequest/aside/"
EXPERIMENT = re.compile(rf"(?:{EXPERIMENTS}|{SET_ASIDE})[0-9a-f]{{2}}/[0-9a-f]{{38}}/(.+)")
SCRATCH = ("refs/stash", "refs/exps/stash", *(f"refs/exps/{name}/*" for name in ("exec", "apply", "celery", "temp")))


@dataclass(frozen=True)
class Revision:
    """A state of the repository.

    Attributes:
        name: as it was asked for: a branch, a tag, an experiment, a commit, or ``workspace``.
        commit: 40 hex digits; None for the workspace.
        experiment: whether ``name`` is a DVC experiment's.
    """

    name: str
    commit: str | None
    experiment: bool = False

    def __str__(self) -> str:
        return self.name if self.commit is None or self.name == self.commit else f"{self.name} ({self.commit[:7]})"


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the known names most like ``name``, else the first few that there are."""
    known = list(dict.fromkeys(known))
    if close := difflib.get_close_matches(name, known, n=3, cutoff=0.5):
        return f"; nearest: {', '.join(close)}"
    return f"; there are: {', '.join(known[:8])}{', ...' * (len(known) > 8)}" if known else ""


class Repository:
    """A Git repository with a ``dvc.yaml`` in its root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def find(cls, start: Path | None = None) -> "Repository":
        """The repository that ``start`` (the working folder) is in.

        Raises:
            UserError: there is none, or it has no pipeline.
        """
        start = (start or Path()).resolve()
        result = subprocess.run(
            ["git", "rev-parse", "--show-toplevel"], cwd=start, capture_output=True, text=True, check=False,
            env=os.environ | {"LC_ALL": "C"},
        )  # fmt: skip
        if result.returncode:
            raise UserError(
                f"{start}: Git does not read a repository here: {' '.join(result.stderr.split())}. Expected a clone of the "
                "pipeline's repository. Run this inside one"
            )
        root = Path(result.stdout.strip())
        if not (root / "dvc.yaml").is_file():
            raise UserError(f"{root}: no dvc.yaml in this repository's root; the audit reads a DVC pipeline")
        return cls(root)

    def git(self, *arguments: str, check: bool = True, stdin: bytes | None = None) -> bytes:
        """Output of a Git command; empty where it fails and ``check`` is off."""
        # Replaced objects and a pager would change what is read.
        environment = os.environ | {"GIT_NO_REPLACE_OBJECTS": "1", "LC_ALL": "C"}
        result = subprocess.run(
            ["git", *arguments], cwd=self.root, capture_output=True, env=environment, input=stdin, check=False
        )
        if result.returncode:
            if check:
                raise UserError(f"git {' '.join(arguments)}: {result.stderr.decode(errors='replace').strip()}")
            return b""
        return result.stdout

    @cached_property
    def head(self) -> str | None:
        """The commit that is checked out; None before the first."""
        return self.git("rev-parse", "--verify", "-q", "HEAD", check=False).decode().strip() or None

    @cached_property
    def is_shallow(self) -> bool:
        """Whether this clone lacks the older commits."""
        return self.git("rev-parse", "--is-shallow-repository", check=False).strip() == b"true"

    @cached_property
    def tips(self) -> dict[str, str]:
        """Every branch, tag and experiment (by its whole ref) with its commit."""
        lines = self.git("for-each-ref", "--format=%(refname) %(objectname) %(*objectname)").decode().splitlines()
        found = {}
        for line in lines:
            ref, *objects = line.split()
            if ref.startswith(("refs/heads/", "refs/tags/", "refs/remotes/")) or EXPERIMENT.fullmatch(ref):
                found[ref] = objects[-1]  # an annotated tag's second object is its commit
        return found

    @cached_property
    def experiments(self) -> dict[str, list[str]]:
        """Commits of each experiment name, more than one where two baselines have an experiment of one name."""
        found: dict[str, list[str]] = {}
        for ref, commit in self.tips.items():
            if match := EXPERIMENT.fullmatch(ref):
                found.setdefault(match[1], []).append(commit)
        return found

    def revision(self, name: str) -> Revision:
        """Resolve a branch, tag, commit, Git expression, experiment name or ``workspace``.

        Raises:
            UserError: nothing has that name, or two experiments have.
        """
        if name == WORKSPACE:
            return Revision(name, None)
        commit = self.git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", check=False)
        if commit:
            return Revision(name, commit.decode().strip())
        commits = self.experiments.get(name, [])
        if len(commits) == 1:
            return Revision(name, commits[0], experiment=True)
        if commits:
            raise UserError(f"revision '{name}': {len(commits)} experiments have this name; name the commit: {', '.join(c[:10] for c in commits)}")  # fmt: skip
        short = [ref.split("/", 2)[2] for ref in self.tips if not EXPERIMENT.fullmatch(ref)]
        known = [WORKSPACE, *(["HEAD"] if self.head else []), *short, *self.experiments]
        born = "" if self.head else "; there is no commit yet"
        raise UserError(
            f"revision '{name}': looked among branches, tags, commits and DVC experiments, found none{born}{nearest(name, known)}"
        )

    def read(self, revision: Revision, path: str) -> bytes | None:
        """A file as a revision has it; None where it has none."""
        return self.read_all(revision, [path]).get(path)

    def read_all(self, revision: Revision, paths: Sequence[str]) -> dict[str, bytes]:
        """Files of a revision, those that are there."""
        if revision.commit is None:
            there = {path: self.root / path for path in paths}
            return {path: _read(file) for path, file in there.items() if file.is_file()}
        names = {f"{revision.commit}:{path}": path for path in paths}
        return {names[name]: content for name, content in self.objects(names).items()}

    def objects(self, names: Iterable[str]) -> dict[str, bytes]:
        """Contents of Git blobs by object name (a hash, or ``COMMIT:PATH``), those that exist, in one Git process."""
        names = list(dict.fromkeys(names))
        output = self.git("cat-file", "--batch", stdin="".join(f"{name}\n" for name in names).encode())
        found = {}
        position = 0
        for name in names:
            end = output.index(b"\n", position)
            header = output[position:end]
            position = end + 1
            if header.endswith((b" missing", b" ambiguous")):
                continue
            _, kind, size = header.rsplit(b" ", 2)
            if kind == b"blob":
                found[name] = output[position : position + int(size)]
            position += int(size) + 1
        return found

    def listing(self, revision: Revision, paths: Sequence[str]) -> dict[str, str]:
        """Files at or under ``paths`` in a revision, with the hashes of their blobs; the workspace's with ''.

        In the workspace files count that are not yet added, as they do for DVC; in a folder those that Git ignores do not.
        """
        if not paths:
            return {}
        if revision.commit is None:
            listed = self.git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *paths)
            names = dict.fromkeys([*listed.decode().split("\0"), *paths])
            return {name: "" for name in names if name and (self.root / name).is_file()}
        lines = self.git("ls-tree", "-r", "-z", revision.commit, "--", *paths).decode().split("\0")
        entries = [line.split("\t", 1) for line in lines if line]
        return {path: head.split()[2] for head, path in entries}

    def changes(self, path: str) -> list[tuple[str, str, str]]:
        """Commits of any branch, tag or experiment that changed ``path``, newest first: commit, date, hash of its blob there."""
        excluded = [f"--exclude={ref}" for ref in SCRATCH]
        text = self.git(
            "log", *excluded, "--all", "--topo-order", "--raw", "--no-abbrev", "--no-renames", "--diff-merges=first-parent",
            "--format=commit %H %cs", "--", path,
        ).decode()  # fmt: skip
        found = []
        commit = date = ""
        for line in text.splitlines():
            if line.startswith("commit "):
                _, commit, date = line.split()
            elif line.startswith(":"):
                head, name = line.split("\t", 1)
                blob = head.split()[3]
                if name == path and set(blob) != {"0"}:  # zeros: the file was removed
                    found.append((commit, date, blob))
        return found


def _read(file: Path) -> bytes:
    """A file of the workspace; ``dvc.lock``, which a run may be writing, once it is complete."""
    return read_whole(file, file.read_bytes) if file.name == "dvc.lock" else file.read_bytes()


def blob_hash(content: bytes) -> str:
    """The name that Git gives to a blob of this content."""
    return sha1(b"blob %d\0" % len(content) + content).hexdigest()
