"""The stages of ``dvc.yaml``: what each needs, what it does on a GPU, what is out of date, and how long it may take."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scalequest.audit.lock import LOCK
from scalequest.errors import UserError
from scalequest.io import read_whole
from scalequest.params import Params, endpoint_of, read_yaml
from scalequest.run.estimate import SEEDS, OwnRows, pairs_of, seed_problems, workload
from scalequest.run.gpus import TABLE
from scalequest.run.rates import hours
from scalequest.run.work import Assumptions

# A stage that computes on a GPU depends on some of these files, and no other stage does.
WORK = {
    "scalequest/sampling/engine.py": "engine",
    "scalequest/sampling/scorer.py": "engine",
    "scalequest/training/job.py": "training",
}
# A stage of engines that depends on one of these maps them over shards, so several may work beside each other.
SPREADS = frozenset({"scalequest/sampling/rows.py", "scalequest/sampling/shards.py"})
# How many stages of a kind share one GPU, if any do.
SHARED = {"engine": 1, "training": 2}
# Seconds for DVC and imports; seconds of a stage that the estimate leaves out (evaluation on a GPU, filters on a CPU).
START_S, UNKNOWN_GPU_S, UNKNOWN_CPU_S = 20.0, 60.0, 10.0
DVC = ("dvc", "--wait-for-lock")


@dataclass(frozen=True)
class Node:
    """One stage of the pipeline.

    Attributes:
        needs: names of the stages whose outputs it reads.
        work: what it does on a GPU, "engine" or "training"; None for a stage without one.
        spreads: whether it can use several engines.
        engine: whether it starts an engine, also after a training.
        models: names of the models that it reads, which are their roles.
    """

    name: str
    needs: frozenset[str]
    work: str | None
    spreads: bool = False
    engine: bool = False
    models: frozenset[str] = frozenset()


def read_pipeline(root: Path = Path()) -> dict[str, Node]:
    """Every stage of ``dvc.yaml`` by name, templates resolved."""
    return read_whole(root / LOCK, lambda: _read_pipeline(root))


def _read_pipeline(root: Path) -> dict[str, Node]:
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        graph = repo.index.graph
        nodes = {}
        for stage in graph:
            needs = frozenset(needed.addressing for needed in graph.successors(stage))
            deps = {dep.def_path for dep in stage.deps}
            work = work_of(deps)
            models = frozenset(Path(dep).name for dep in deps if Path(dep).is_relative_to("models"))
            spreads = work == "engine" and not SPREADS.isdisjoint(deps)
            engine = any(WORK.get(dep) == "engine" for dep in deps)
            nodes[stage.addressing] = Node(stage.addressing, needs, work, spreads, engine, models)
        return nodes


def without_endpoints(pipeline: Mapping[str, Node], params: Params) -> dict[str, Node]:
    """The same stages; one whose model is behind an endpoint needs no GPU."""
    roles = {role for role, source in params.models.items() if endpoint_of(source)}
    return {
        name: replace(node, work=None, spreads=False) if node.work == "engine" and node.models & roles else node
        for name, node in pipeline.items()
    }


def work_of(deps: Iterable[str]) -> str | None:
    """What a stage does on a GPU, by the files that it depends on; one that trains and then samples is a training."""
    return max((WORK[path] for path in deps if path in WORK), key=list(SHARED).index, default=None)


def with_inputs(pipeline: Mapping[str, Node], targets: Sequence[str]) -> dict[str, Node]:
    """Return the named stages and everything they need; all stages if none is named. ``qft`` means every ``qft@...``.

    Raises:
        UserError: there is no such stage.
    """
    if not targets:
        return dict(pipeline)
    wanted: set[str] = set()
    todo: list[str] = []
    for target in targets:
        found = [name for name in pipeline if target in (name, name.split("@")[0])]
        if not found:
            raise UserError(f"stage {target}: not in dvc.yaml. Expected one of {', '.join(sorted(pipeline))}")
        todo += found
    while todo:
        name = todo.pop()
        if name not in wanted:
            wanted.add(name)
            todo += pipeline[name].needs
    return {name: node for name, node in pipeline.items() if name in wanted}


def outdated(pipeline: Mapping[str, Node], root: Path = Path()) -> dict[str, Node]:
    """Return the stages that ``dvc status`` calls changed, and all stages after them.

    Raises:
        UserError: ``dvc status`` failed.
    """
    done = subprocess.run([*DVC, "status", "--json", *pipeline], cwd=root, capture_output=True, text=True)
    try:
        old = set(json.loads(done.stdout)) & set(pipeline)
    except ValueError:
        said = (done.stderr or done.stdout).strip()
        raise UserError(
            f"`dvc status` failed with exit code {done.returncode}. Expected a list of changed stages. Fix what it reports:\n{said}"
        ) from None
    old |= dependents(pipeline, old)
    return {name: node for name, node in pipeline.items() if name in old}


def dependents(pipeline: Mapping[str, Node], names: Iterable[str]) -> set[str]:
    """The stages that need one of these, directly or not."""
    found: set[str] = set()
    more = set(names)
    while more := {name for name, node in pipeline.items() if node.needs & more} - found:
        found |= more
    return found


def expected_seconds(pipeline: Mapping[str, Node], params: Params) -> dict[str, float]:
    """Estimated seconds per stage on an H100; only their order matters.

    A user's file whose rows cannot be counted here counts as ``SEEDS`` rows.
    """
    table = read_yaml(TABLE)
    assumed, own = Assumptions(table["tokens"], table["keeps"]), OwnRows.of(params.own, params.respond.questions, SEEDS)
    try:
        pairs = pairs_of(params.instruct_tune, SEEDS)
        found = workload(params, assumed, table["sizes"], seed_problems(params), own, pairs)
    except UserError:  # a model of unknown size: then the number of stages decides
        found = []
    estimated = {work.stage: 3600 * hours(work, table["gpus"]["h100"], table) for work in found}
    branches = Counter(name.split("@")[0] for name in pipeline)

    def seconds(node: Node) -> float:
        stage = node.name.split("@")[0]
        if node.work:
            return START_S + (estimated[stage] / branches[stage] if stage in estimated else UNKNOWN_GPU_S)
        return UNKNOWN_CPU_S

    return {name: seconds(node) for name, node in pipeline.items()}


def longest_way(pipeline: Mapping[str, Node], seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds from a stage's start to the end of the last stage that waits for it."""
    followers: dict[str, list[str]] = {name: [] for name in pipeline}
    for node in pipeline.values():
        for needed in node.needs:
            followers[needed].append(node.name)
    known: dict[str, float] = {}

    def way(name: str) -> float:
        if name not in known:
            known[name] = seconds[name] + max(map(way, followers[name]), default=0.0)
        return known[name]

    for name in pipeline:
        way(name)
    return known
