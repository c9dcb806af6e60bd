"""``dvc.lock`` as typed records: what each stage was given, and what it made. Read with the ``dvc.yaml`` of the same revision.

``dvc.lock`` never drops the entries of removed stages, so only ``dvc.yaml`` knows which ones still exist.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import yaml

from scalequest.audit.repository import Repository, Revision
from scalequest.errors import UserError
from scalequest.runtime.facts import given_digest

LOCK, PIPELINE, PARAMS = "dvc.lock", "dvc.yaml", "params.yaml"
SCHEMA = "2.0"
# Stages that nothing but the choice by reward needs.
REWARDING = frozenset(("fetch_model@reward", "reward_model", "reward"))
REFERENCE = re.compile(r"\$\{([^}]+)\}")


class _Yaml12(yaml.CSafeLoader):
    """libyaml's parser with the scalars of YAML 1.2, as DVC reads them: ``3e-05`` is a number, ``off`` a string.

    ruamel, which DVC uses, takes 2.6 times as long for a lock, and six without its C part.
    """


_Yaml12.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):  # fmt: skip
    _Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
# PyYAML's own reading of integers would take 010 for octal.
_Yaml12.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node)))


_CONFLICT = re.compile(rb"^(<{7}|>{7}) ", re.MULTILINE)


def _check_conflict(content: bytes, origin: str) -> None:
    """Refuse a file that Git left with both sides of a merge."""
    if not (found := _CONFLICT.search(content)):
        return
    line = content.count(b"\n", 0, found.start()) + 1
    name = origin.strip()
    # A lock is made anew from the other two, which only a person can merge.
    step = f"git checkout --ours {name} && dvc repro" if name == LOCK else f"edit it, then git add {name}"
    raise UserError(
        f"{name}:{line}: an unfinished merge (Git's conflict marker). Expected one side of it. Resolve it: {step}"
    )


def parse_yaml(content: bytes, origin: str, is_part: bool = False) -> dict[str, Any]:
    """A YAML mapping.

    Args:
        content: of a file, or of a part of it, whose lines have other numbers than the file's.
        origin: the file, as an error names it.
        is_part: whether it is a part.

    Raises:
        UserError: it is no YAML, or no mapping.
    """
    _check_conflict(content, origin)
    try:
        data = yaml.load(content, Loader=_Yaml12)
    except yaml.YAMLError as error:
        what = " ".join(str((getattr(error, "problem", None) if is_part else None) or error).split())
        raise UserError(f"{origin}: not YAML: {what}. Expected a mapping") from None
    if not isinstance(data, dict):
        found = "empty" if data is None else f"a {type(data).__name__}"
        raise UserError(f"{origin}: {found}. Expected a mapping")
    return data


@dataclass(frozen=True)
class Artifact:
    """A file or folder as a stage read or wrote it.

    Attributes:
        path: relative to the repository's root.
        md5: of the file's bytes; of a folder's list of files, with the suffix ``.dir``.
        size: bytes, of a folder all of its files'.
        nfiles: of a folder, else None.
    """

    path: str
    md5: str
    size: int | None = None
    nfiles: int | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.md5.endswith(".dir")

    def overlaps(self, path: str) -> bool:
        """Whether ``path`` is this one, is in it, or holds it."""
        return path == self.path or path.startswith(f"{self.path}/") or self.path.startswith(f"{path}/")


@dataclass(frozen=True)
class Stage:
    """One stage's entry: the command, and everything it read and wrote. ``params`` are dotted names, sections flattened.

    ``sections`` are the names of the parameters as ``dvc.yaml`` lists them, a section by its own name.
    """

    name: str
    cmd: str
    deps: tuple[Artifact, ...]
    params: dict[str, Any]
    outs: tuple[Artifact, ...]
    sections: tuple[str, ...] = field(default=(), compare=False)

    @property
    def base(self) -> str:
        """``qft`` of ``qft@sums``."""
        return self.name.split("@", 1)[0]

    @property
    def given(self) -> str:
        """The name of what the stage was given, as the stage itself computes it."""
        return given_digest(self.name, {dep.path: dep.md5 for dep in self.deps}, self.params)

    def out(self, path: str) -> Artifact | None:
        """The output of that path."""
        return next((out for out in self.outs if out.path == path), None)

    def option(self, name: str) -> str | None:
        """The value of an option of the command: only the pipeline knows paths, so only its command says which is which."""
        words = self.cmd.split()
        return next((value for option, value in itertools.pairwise(words) if option == f"--{name}"), None)


@dataclass(frozen=True)
class Lock:
    """The records of one revision.

    Attributes:
        stages: the live ones that have an entry, in the order of ``dvc.yaml``.
        absent: live stages without an entry: they never ran to their end.
    """

    revision: Revision
    stages: dict[str, Stage]
    absent: tuple[str, ...] = ()

    @cached_property
    def unused(self) -> frozenset[str]:
        """Stages that are no part of the run: those of the rewards, where ``reward_select`` did not wait for any.

        An entry of theirs is of an earlier run, or of one that made what nothing read.
        """
        select = self.stages.get("reward_select")
        return unused_stages(select.params) if select else frozenset()

    def outs(self) -> Iterator[tuple[Stage, Artifact]]:
        """Every output with the stage that makes it."""
        for stage in self.stages.values():
            for out in stage.outs:
                yield stage, out

    def makers(self, path: str) -> list[tuple[Stage, Artifact]]:
        """The stages whose outputs make up ``path``: one for an output or a file in it, several for a folder above some."""
        if path not in self._makers:
            self._makers[path] = [(stage, out) for stage, out in self.outs() if out.overlaps(path)]
        return self._makers[path]

    @cached_property
    def _makers(self) -> dict[str, list[tuple[Stage, Artifact]]]:
        return {}

    def order(self, *roots: str) -> list[Stage]:
        """Stages and all they need (without ``roots`` all of the run), each after those that it needs.

        The ``unused`` ones are there only if one of them is asked for: the folder of all metrics holds theirs, too.
        """
        found: dict[str, Stage] = {}

        def visit(name: str) -> None:
            if name not in found:
                for dep in self.stages[name].deps:
                    for maker, _ in self.makers(dep.path):
                        visit(maker.name)
                found[name] = self.stages[name]

        for name in roots or self.stages:
            visit(name)
        left_out = frozenset() if self.unused.intersection(roots) else self.unused
        return [stage for name, stage in found.items() if name not in left_out]


def unused_stages(params: Mapping[str, Any]) -> frozenset[str]:
    """The stages that a run with these parameters, under dotted names, leaves out."""
    return REWARDING if params.get("reward_select.waits_for") == "responses" else frozenset()


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested parameters under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def live_stages(pipeline: dict[str, Any], params: dict[str, Any]) -> list[str] | None:
    """Names of the stages that ``dvc.yaml`` describes, matrix and foreach unrolled as DVC does;
    None where it is too clever for us.
    """
    scope = dict(params)
    for item in pipeline.get("vars") or []:
        if isinstance(item, dict):
            scope |= item

    def resolve(value: Any) -> Any:
        match = REFERENCE.fullmatch(value) if isinstance(value, str) else None
        if not match:
            return value
        found: Any = scope
        for part in match[1].strip().split("."):
            found = found[part]
        return found

    def keys(values: Any, name: str) -> list[str]:
        if isinstance(values, dict):
            return [str(key) for key in values]
        return [f"{name}{i}" if isinstance(v, dict | list) else str(v) for i, v in enumerate(values)]

    names = []
    try:
        for name, body in (pipeline.get("stages") or {}).items():
            if "foreach" in body:
                names += [f"{name}@{key}" for key in keys(resolve(body["foreach"]), "")]
            elif "matrix" in body:
                axes = [keys(resolve(values), axis) for axis, values in body["matrix"].items()]
                names += [f"{name}@{'-'.join(key)}" for key in itertools.product(*axes)]
            else:
                names.append(name)
    except (KeyError, TypeError, AttributeError):
        return None
    return names


def _artifact(entry: dict[str, Any], origin: str, stage: str) -> Artifact:
    try:
        # Another hash than md5 would be the address of something outside the cache (an import); this pipeline has none.
        return Artifact(str(entry["path"]), str(entry["md5"]), entry.get("size"), entry.get("nfiles"))
    except (KeyError, TypeError):
        raise UserError(
            f"{origin}: stage {stage}: entry {entry!r} has no path and md5. Expected what `dvc repro` of DVC 3 writes. "
            f"Run: dvc commit -f {stage}"
        ) from None


def _stage(name: str, entry: dict[str, Any], origin: str) -> Stage:
    params: dict[str, Any] = {}
    sections: list[str] = []
    for values in (entry.get("params") or {}).values():
        params |= flatten(values)
        sections += map(str, values)
    deps, outs = (tuple(_artifact(item, origin, name) for item in entry.get(key) or []) for key in ("deps", "outs"))
    return Stage(name, " ".join(str(entry.get("cmd", "")).split()), deps, params, outs, tuple(sections))


def _check_schema(found: Any, origin: str) -> None:
    if found != SCHEMA:
        raise UserError(
            f"{origin}: schema {found!r}, this audit reads {SCHEMA!r} (DVC 2 and 3); use the scalequest of the revision that wrote "
            "it, or write it anew with this one's DVC: dvc commit -f"
        )


_BLOCK = re.compile(rb"^  (?=\S)", re.MULTILINE)


@cache
def _parse_block(text: bytes, origin: str) -> dict[str, Stage]:
    return {
        str(name): _stage(str(name), entry, origin) for name, entry in parse_yaml(text, origin, is_part=True).items()
    }


def parse_lock(content: bytes, origin: str) -> dict[str, Stage]:
    """Every stage of a lock, those that are no longer alive too.

    A history of locks repeats most of its entries word for word, so each distinct entry's text is parsed once.

    Raises:
        UserError: it has another schema, is no lock, or is broken.
    """
    _check_conflict(content, origin)
    head, mark, body = content.partition(b"\nstages:\n")
    if not mark:
        data = parse_yaml(content, origin)
        _check_schema(data.get("schema"), origin)
        if data.get("stages"):  # valid, but not as DVC lays it out
            return {str(name): _stage(str(name), entry, origin) for name, entry in data["stages"].items()}
        return {}
    _check_schema(parse_yaml(head, origin).get("schema"), origin)
    stages: dict[str, Stage] = {}
    starts = [match.start() for match in _BLOCK.finditer(body)]
    for start, end in itertools.pairwise([*starts, len(body)]):
        stages |= _parse_block(body[start:end], origin)
    return stages


@cache
def _live(pipeline: bytes, params: bytes) -> tuple[str, ...] | None:
    names = live_stages(parse_yaml(pipeline, PIPELINE), parse_yaml(params or b"{}", PARAMS))
    return None if names is None else tuple(names)


def read_lock(repository: Repository, revision: Revision) -> Lock:
    """The records of one revision, live stages only.

    Raises:
        UserError: the revision has no lock, or one that cannot be read.
    """
    files = repository.read_all(revision, [LOCK, PIPELINE, PARAMS])
    where = "in the workspace" if revision.commit is None else f"at {revision}"
    if LOCK not in files:
        raise UserError(f"{LOCK} {where}: no such file; nothing has been run there yet: dvc repro")
    if PIPELINE not in files:
        raise UserError(f"{PIPELINE} {where}: no such file, so its {LOCK} cannot be read")
    return make_lock(revision, files[LOCK], files[PIPELINE], files.get(PARAMS, b""))


def make_lock(revision: Revision, lock: bytes, pipeline: bytes, params: bytes) -> Lock:
    """The records in the files of one revision."""
    _check_conflict(lock, LOCK)
    try:
        stages = parse_lock(lock, LOCK)
    except UserError as error:
        cut = f"If it was cut or damaged, restore it: git checkout {LOCK}"
        raise UserError(f"{error}. {cut if revision.commit is None else f'It is that of {revision}'}") from None
    names = _live(pipeline, params)
    if names is None:
        bases = set(parse_yaml(pipeline, PIPELINE).get("stages") or {})
        names = tuple(name for name in stages if name.split("@", 1)[0] in bases)
    return Lock(
        revision,
        {name: stages[name] for name in names if name in stages},
        tuple(name for name in names if name not in stages),
    )
