"""The answers as plain data, ready for JSON; ``show`` makes text and drawings of them."""

from typing import Any

from scalequest.audit.chain import Chain, Difference, compare
from scalequest.audit.lock import Artifact, Lock, Stage
from scalequest.audit.repository import Repository
from scalequest.audit.tables import Tables, read_metrics
from scalequest.audit.takeover import taken_over
from scalequest.runtime.environment import ENVIRONMENT_FILE, Recorded, local_file, local_run


def artifact_facts(artifact: Artifact) -> dict[str, Any]:
    """Path, hash, bytes and, of a folder, files."""
    facts = {"path": artifact.path, "md5": artifact.md5, "bytes": artifact.size, "files": artifact.nfiles}
    return {key: value for key, value in facts.items() if value is not None}


def chain_facts(chain: Chain, tables: Tables) -> dict[str, Any]:
    """What an output was made from, down to the seeds and the base models, and how it scores.

    Returns:
        ``target``, ``revision``, ``scores`` by evaluation, ``stages`` nearest first, ``mlflow`` (a filter that finds its run).
    """
    commit = chain.lock.revision.commit
    return {
        "target": artifact_facts(chain.target),
        "revision": {"name": chain.lock.revision.name, "commit": commit},
        "scores": {stage.name: _metrics(chain, artifact) for stage, artifact in chain.scores()},
        "mlflow": f"tags.`dvc.outs` LIKE '%{chain.target.md5}%'",
        "stages": [stage_facts(chain, stage, tables) for stage in chain.stages],
    }


def stage_facts(chain: Chain, stage: Stage, tables: Tables) -> dict[str, Any]:
    """One stage: what it read and wrote, by which parameters and code, on which machine, and what it counted."""
    code = chain.code(stage)
    earlier = taken_over(chain.history, chain.lock, stage)
    inputs = chain.inputs(stage)
    read = {item.artifact.path for item in inputs}
    outs = []
    for out in stage.outs:
        rows = tables.count(out)
        outs.append(artifact_facts(out) | ({} if rows is None else {"rows": rows}))
    return {
        "stage": stage.name,
        "command": stage.cmd,
        "outs": outs,
        "inputs": [artifact_facts(i.artifact) | {"made_by": list(i.makers), "stale": i.stale} for i in inputs],
        "params": stage.params,
        "code": {
            "clean": code.commit is not None,
            "commit": code.commit,
            "dirty": code.dirty,
            "changed_since": list(code.changed_since),
            "taken_over": None
            if earlier is None
            else {"commit": earlier.commit, "changed": list(earlier.changed), "text": str(earlier)},
            "files": {dep.path: dep.md5 for dep in stage.deps if dep.path not in read},
        },
        "metrics": {key: value for out in stage.outs for key, value in _metrics(chain, out).items()},
        "environment": environment_of(chain.repository, chain.lock, stage),
    }


def _metrics(chain: Chain, artifact: Artifact) -> dict[str, Any]:
    """Contents of a metrics file; nothing for other outputs, or for a file with other bytes than the lock names."""
    if not artifact.path.endswith(".json"):
        return {}
    values = dict(read_metrics(chain.repository, chain.lock.revision, artifact) or {})
    values.pop(OLD_PLACE, None)
    return values


# Runs before reports/environment.json kept the environment in their metrics files, under this key.
OLD_PLACE = "environment"


def environment_of(repository: Repository, lock: Lock, stage: Stage) -> list[str]:
    """Packages and machine of the very run that the lock records; empty where nothing recorded them.

    Looked for in the revision's own file, then among the runs of this checkout, then in metrics of older revisions.
    """
    revision = lock.revision
    recorded = Recorded.parse(repository.read(revision, ENVIRONMENT_FILE))
    if lines := recorded.of(stage.name, stage.given):
        return lines
    local = local_file(repository.root, stage.name, stage.given)
    if local.is_file() and (run := local_run(local)):
        return list(run["environment"])
    found = [read_metrics(repository, revision, out) for out in stage.outs if out.path.endswith(".json")]
    return [line for values in found for line in (values or {}).get(OLD_PLACE, [])]


def diff_facts(first: Chain, second: Chain) -> dict[str, Any]:
    """What differs between two chains, the furthest upstream first, and so why their targets do."""
    found = compare(first, second)
    differences = [_difference_facts(one) for one in found]
    # Another machine is one fact, however many stages ran there.
    environments: dict[tuple[str, str], list[str]] = {}
    for one in found:
        if sides := _environment_change(one, first, second):
            environments.setdefault(sides, []).append(one.stage)
    return {
        "target": first.target.path,
        "first": {"revision": str(first.lock.revision), "md5": first.target.md5},
        "second": {"revision": str(second.lock.revision), "md5": second.target.md5},
        "same": first.target.md5 == second.target.md5,
        "differences": differences,
        "environments": [{"first": one, "second": two, "stages": names} for (one, two), names in environments.items()],
    }


def _difference_facts(found: Difference) -> dict[str, Any]:
    return {
        "stage": found.stage,
        "causes": [{"what": what, "first": one, "second": two} for what, one, two in found.causes],
        "inputs": [{"path": path, "first": one, "second": two} for path, one, two in found.inputs],
        "outs": [{"path": path, "first": one, "second": two} for path, one, two in found.outs],
    }


def _environment_change(found: Difference, first: Chain, second: Chain) -> tuple[str, str] | None:
    """What each side ran with that the other did not; None where both are equal, or one of them is not in its chain."""
    stages = [chain.lock.stages.get(found.stage) for chain in (first, second)]
    if None in stages:
        return None
    mine, other = (
        environment_of(chain.repository, chain.lock, stage)
        for chain, stage in zip((first, second), stages, strict=True)
        if stage
    )
    if mine == other:
        return None
    one, two = (
        ", ".join(line for line in a if line not in b) or "not recorded" for a, b in ((mine, other), (other, mine))
    )
    return one, two
