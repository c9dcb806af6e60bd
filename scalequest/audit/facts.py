"""The answers as plain data, ready for JSON; ``show`` makes text and drawings of them."""

from typing import Any

from scalequest.audit.chain import Chain, Difference, compare
from scalequest.audit.lock import Artifact, Stage
from scalequest.audit.tables import Tables, read_metrics


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
        "scores": {stage.name: _metrics(chain, artifact)[0] for stage, artifact in chain.scores()},
        "mlflow": f"tags.`dvc.outs` LIKE '%{chain.target.md5}%'",
        "stages": [stage_facts(chain, stage, tables) for stage in chain.stages],
    }


def stage_facts(chain: Chain, stage: Stage, tables: Tables) -> dict[str, Any]:
    """One stage: what it read and wrote, by which parameters and code, on which machine, and what it counted."""
    code = chain.code(stage)
    inputs = chain.inputs(stage)
    read = {item.artifact.path for item in inputs}
    metrics = [_metrics(chain, out) for out in stage.outs]
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
            "files": {dep.path: dep.md5 for dep in stage.deps if dep.path not in read},
        },
        "metrics": {key: value for found, _ in metrics for key, value in found.items()},
        "environment": [line for _, lines in metrics for line in lines],
    }


def _metrics(chain: Chain, artifact: Artifact) -> tuple[dict[str, Any], list[str]]:
    """Contents of a metrics file and the environment in it; nothing for other outputs, or a file that the lock does not mean."""
    if not artifact.path.endswith(".json"):
        return {}, []
    values = dict(read_metrics(chain.repository, chain.lock.revision, artifact) or {})
    environment = values.pop("environment", [])
    return values, list(environment)


def diff_facts(first: Chain, second: Chain) -> dict[str, Any]:
    """What differs between two chains, the furthest upstream first, and so why their targets do."""
    differences = compare(first, second)
    return {
        "target": first.target.path,
        "first": {"revision": str(first.lock.revision), "md5": first.target.md5},
        "second": {"revision": str(second.lock.revision), "md5": second.target.md5},
        "same": first.target.md5 == second.target.md5,
        "differences": [_difference_facts(found, first, second) for found in differences],
    }


def _difference_facts(found: Difference, first: Chain, second: Chain) -> dict[str, Any]:
    environments = [
        [line for out in stage.outs for line in _metrics(chain, out)[1]] if stage else []
        for chain, stage in ((chain, chain.lock.stages.get(found.stage)) for chain in (first, second))
    ]
    causes = [{"what": what, "first": one, "second": two} for what, one, two in found.causes]
    if environments[0] != environments[1]:
        sides = [", ".join(line for line in mine if line not in other) or "not recorded" for mine, other in (environments, environments[::-1])]  # fmt: skip
        causes.append({"what": "environment", "first": sides[0], "second": sides[1]})
    return {
        "stage": found.stage,
        "causes": causes,
        "inputs": [{"path": path, "first": one, "second": two} for path, one, two in found.inputs],
        "outs": [{"path": path, "first": one, "second": two} for path, one, two in found.outs],
    }
