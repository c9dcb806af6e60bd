"""Cells as DVC experiments: the command that runs one, its records, and what it shares with the others.

A cell is ``dvc exp run --temp --name GRID-CELL -S KEY=VALUE ... STAGE ...``. A stage that an earlier cell ran with the same
inputs comes out of DVC's run cache. So the cells run one after another: side by side, two of them would make a shared
stage twice. DVC's own queue is not used, because its worker outlives Ctrl-C and has another shell's environment.
"""

import json
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from scalequest.audit.chain import folder_hash
from scalequest.audit.lock import PARAMS, PIPELINE, Lock, parse_yaml, read_lock
from scalequest.audit.repository import EXPERIMENT, EXPERIMENTS, SET_ASIDE, Repository, Revision
from scalequest.audit.tables import hash_file
from scalequest.errors import UserError
from scalequest.models.source import parse_source
from scalequest.params import JsonlSource, Params, read_yaml
from scalequest.params.file import read_text
from scalequest.run.experiment.grid import Cell, Grid, value_at, without_runtime
from scalequest.run.pipeline import DVC
from scalequest.run.profile import BASE, written_by

# ------------------------------------------------------------------------------------------------------- the command


def overrides(old: Mapping[str, Any], new: Mapping[str, Any], key: str = "") -> Iterator[str]:
    """Yield the overrides for ``dvc exp run -S`` that turn the parameters ``old`` into ``new``.

    Raises:
        UserError: a value cannot be written in DVC's grammar for overrides.
    """
    for name, value in old.items():
        path = f"{key}{name}"
        if name not in new:
            if value is None:  # what is null counts as absent, and cannot be removed
                yield f"{path}=0"
            yield f"~{path}"
        elif isinstance(value, dict) and isinstance(new[name], dict) and value and new[name]:
            yield from overrides(value, new[name], f"{path}.")
        elif value != new[name] or type(value) is not type(new[name]):
            if isinstance(value, dict) and value:  # an empty mapping would be merged into it
                yield f"~{path}"
            yield from _set(path, new[name])
    for name, value in new.items():
        if name not in old:
            yield from _set(f"{key}{name}", value)


def _set(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _set(f"{path}.{name}", inner)
    else:
        yield f"++{path}={_written(path, value)}"


def _written(path: str, value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        if "${" in value or "\n" in value or "\\" in value:
            raise UserError(f"{path}: {value!r} cannot be an override of DVC. Expected text without ${{, line break and backslash. Change it.")  # fmt: skip
        return '"' + value.replace('"', '\\"') + '"'
    if isinstance(value, list):
        return f"[{','.join(_written(path, item) for item in value)}]"
    return "{" + ",".join(f"{name}: {_written(path, inner)}" for name, inner in value.items()) + "}"


def local_folders(params: Params, root: Path) -> list[str]:
    """Top folders of local files that Git ignores: a temporary experiment has them only as copies."""
    sources = [*params.seeds.values(), *params.benchmarks.values(), *(source for _, source in params.own.sources())]
    named = [source.path for source in sources if isinstance(source, JsonlSource)]
    for role, source in params.models.items():
        kind, name, _ = parse_source(role, source)
        named += [name] if kind in ("path", "gguf") else []
    named += [params.instruct_tune.data] if params.instruct_tune.data_sha256 else []
    named += [params.filter.marks.path] if params.filter.marks else []
    tops = sorted({Path(name).parts[0] for name in named if name and not Path(name).is_absolute()} - {"~", ".."})
    return [top for top in tops if (root / top).exists() and _is_ignored(top, root)]


def _is_ignored(path: str, root: Path) -> bool:
    return subprocess.run(["git", "check-ignore", "-q", path], cwd=root, check=False).returncode == 0


def command(grid: Grid, cell: Cell, root: Path = Path()) -> list[str]:
    """The command that runs one cell."""
    text = read_text(root / PARAMS)
    now = read_yaml(root / PARAMS)
    # What runs a stage is this machine's business: edits of the same profile's `runtime` stay as they are here.
    same = (written_by(text) or BASE) == grid.spec.on
    wanted = cell.values | ({"runtime": now["runtime"]} if same else {})
    words = [*DVC, "exp", "run", "--temp", "--name", grid.experiment(cell.name)]
    for override in overrides(now, wanted):
        words += ["-S", override]
    for folder in local_folders(cell.params, root):
        words += ["--copy-paths", folder]
    return [*words, *grid.targets]


# ------------------------------------------------------------------------------------------------------- the records


def refs(repository: Repository, name: str) -> dict[str, str]:
    """Every experiment of that name with its commit, one per baseline."""
    return {ref: commit for ref, commit in repository.tips.items() if (m := EXPERIMENT.fullmatch(ref)) and m[1] == name}


@contextmanager
def set_aside(repository: Repository, name: str) -> Iterator[None]:
    """Free the name of an experiment on this commit for a new run in the block.

    DVC overwrites no experiment. The old one is removed only when the new one is there, and else has its name back. It counts
    meanwhile, and also if this process is killed (``EXPERIMENT``).
    """
    head = repository.head or ""
    there = f"{head[:2]}/{head[2:]}/{name}"
    new, old = EXPERIMENTS + there, SET_ASIDE + there
    if commit := _commit(repository, new):
        repository.git("update-ref", old, commit)
        repository.git("update-ref", "-d", new)
    try:
        yield
    finally:
        if commit := _commit(repository, old):
            if not _commit(repository, new):
                repository.git("update-ref", new, commit)
            repository.git("update-ref", "-d", old)


def _commit(repository: Repository, ref: str) -> str:
    return repository.git("rev-parse", "--verify", "-q", ref, check=False).decode().strip()


def run(words: list[str]) -> int:
    """Run the command of a cell, and return its exit code. Ctrl-C reaches it by itself; other signals are passed on."""
    process = subprocess.Popen(words)
    handlers = {
        signal.SIGINT: lambda *_: None,
        signal.SIGTERM: lambda number, _: process.send_signal(number),
        signal.SIGHUP: lambda number, _: process.send_signal(number),
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def finished(repository: Repository, grid: Grid, cell: Cell) -> Lock | None:
    """The records of a cell that ran with the grid's present parameters, of several runs the newest; None without one."""
    commits = list(refs(repository, grid.experiment(cell.name)).values())
    if len(commits) > 1:
        commits = repository.git("rev-list", "--no-walk=sorted", "--date-order", *commits).decode().split()
    for commit in commits:
        revision = Revision(grid.experiment(cell.name), commit, experiment=True)
        content = repository.read(revision, PARAMS)
        if content is None or _plain(parse_yaml(content, f"{PARAMS} of {revision}")) != _plain(cell.values):
            continue
        lock = read_lock(repository, revision)
        if not {target.split("@")[0] for target in grid.targets} - {stage.base for stage in lock.stages.values()}:
            return lock
    return None


def _plain(values: dict[str, Any]) -> Any:
    return json.loads(json.dumps(without_runtime(values)))


def changed_code(lock: Lock, targets: list[str], root: Path) -> list[str]:
    """Files of this folder that a cell's stages were not run with."""
    read: dict[str, str] = {}
    for stage in lock.order(*(name for name, stage in lock.stages.items() if stage.base in targets)):
        read |= {dep.path: dep.md5 for dep in stage.deps if not lock.makers(dep.path)}
    return [path for path, value in sorted(read.items()) if _hash(root / path) != value]


def _hash(path: Path) -> str | None:
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
        return folder_hash({file.relative_to(path).as_posix(): hash_file(file) for file in files})
    return hash_file(path) if path.is_file() else None


# ------------------------------------------------------------------------------------------------------- what is shared


def stage_keys(values: dict[str, Any], targets: list[str], root: Path = Path()) -> dict[str, str]:
    """Each stage that a run of ``targets`` needs, with a key of what decides it: command, inputs and parameters.

    A stage with the same key in two cells runs once. Code is the same in all cells, so it is no part of the key.
    """
    from dvc.repo import Repo

    with tempfile.TemporaryDirectory(prefix="scalequest-plan-") as name:
        folder = Path(name)
        (folder / ".dvc").mkdir()
        (folder / ".dvc" / "config").write_text("[core]\n    no_scm = True\n    analytics = false\n")
        (folder / PIPELINE).write_bytes((root / PIPELINE).read_bytes())
        (folder / PARAMS).write_text(json.dumps(values))  # JSON is YAML
        with Repo(name) as repo:
            graph = repo.index.graph
            stages = {stage.name: stage for stage in graph}
            needs = {stage.name: sorted(n.name for n in graph.successors(stage)) for stage in graph}
            found: dict[str, str] = {}

            def key(stage_name: str) -> str:
                if stage_name not in found:
                    stage = stages[stage_name]
                    given = {path: value_at(values, path) for dep in stage.deps for path in getattr(dep, "params", ())}
                    inputs = [str(dep.def_path) for dep in stage.deps]
                    decides = [stage.cmd, inputs, given, [key(needed) for needed in needs[stage_name]]]
                    found[stage_name] = sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
                return found[stage_name]

            for stage_name in stages:
                if stage_name.split("@")[0] in targets:
                    key(stage_name)
    return found
