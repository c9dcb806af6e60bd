"""MLflow: one run a stage, under one parent a pipeline run. Tracking never ends a stage and never holds one up.

A stage only writes what it has to tell, as a JSON file in ``.work/tracking``, and starts a process that posts it: loading MLflow
takes as long as a small stage. What could not be posted stays there and is posted with the next stage, or by hand:

    python -m scalequest.runtime.tracking
"""

import argparse
import fcntl
import json
import logging
import math
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from scalequest.io import read_json, write_json
from scalequest.params import Params
from scalequest.runtime.facts import StageFacts, git_facts, hardware, output_hashes, package_versions
from scalequest.runtime.stage import StageRun

log = logging.getLogger("scalequest")

EXPERIMENT = "scalequest"
# MLflow refuses parameter values longer than this; tags may be longer.
MAX_PARAM = 6000
# MLflow's limit of metrics in one request.
BATCH = 1000
# So many stages waiting to be posted are more than the last ones still under way.
STUCK = 3


def pipeline_run(facts: StageFacts) -> tuple[str, str]:
    """Identity and name of the pipeline run that this stage belongs to.

    A DVC experiment names itself. A plain ``dvc repro`` does not, so the DVC process above us stands for it: its id and
    start time are shared by all the stages it runs and by no others.
    """
    import psutil

    experiment = os.environ.get("DVC_EXP_NAME", "")
    dvc = next((p for p in psutil.Process().parents() if any("dvc" in part for part in p.cmdline()[:3])), None)
    if dvc is None:
        return f"by-hand-{os.getppid()}", "by hand"
    start = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(dvc.create_time()))
    key = sha256(f"{experiment} {dvc.pid} {dvc.create_time()} {facts.root}".encode()).hexdigest()[:16]
    return key, f"{experiment or 'repro'} {start}"


def tracking_uri(params: Params, root: Path) -> str:
    """Where runs go: the configured store, or an SQLite file in the repository's root (also for temporary experiments)."""
    return params.runtime.mlflow_uri or f"sqlite:///{root / 'mlflow.db'}"


def record(run: StageRun, params: Params, started: float) -> None:
    """Hand a finished stage to MLflow; on any failure warn and return."""
    try:
        assert run.facts is not None
        folder = run.facts.root / ".work" / "tracking"
        waiting = len(list(folder.glob("*.json")))
        if waiting > STUCK:
            log.warning("%d finished stages are not in MLflow yet; %s says why", waiting, folder / "log")
        write_json(folder / f"{time.time_ns()}.json", describe(run, run.facts, params, started))
        with (folder / "log").open("a") as output:
            subprocess.Popen(
                [sys.executable, "-m", "scalequest.runtime.tracking", str(folder)], cwd=run.facts.root, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
    except Exception as error:
        log.warning("MLflow tracking failed, the stage's result is not affected: %s: %s", type(error).__name__, error)


def describe(run: StageRun, facts: StageFacts, params: Params, started: float) -> dict[str, Any]:
    """All that MLflow is told of a stage, as plain data."""
    key, name = pipeline_run(facts)
    shared = {"pipeline_run": key, "experiment": os.environ.get("DVC_EXP_NAME", "")}
    shared |= {f"git.{k}": v for k, v in git_facts().items()}
    now = time.time()
    outs = output_hashes(facts.name)
    curves = [
        (name.replace("/", "."), value, step)
        for step, entry in enumerate(run.curves, start=1)
        for name, value in entry.items()
        if isinstance(value, int | float) and math.isfinite(value)
    ]
    return {
        "uri": tracking_uri(params, facts.root),
        "artifacts": (facts.root / "mlartifacts").as_uri(),
        "pipeline": {"key": key, "name": name, "tags": shared | {"level": "pipeline"}},
        "stage": facts.name,
        "started_ms": int(started * 1000),
        "ended_ms": int(now * 1000),
        "tags": shared
        | {
            "level": "stage",
            "dvc.stage": facts.name,
            "dvc.deps": json.dumps(facts.deps),
            "dvc.outs": json.dumps(outs),
            "audit": "; ".join(
                f"scalequest audit {value}" for path, value in outs.items() if not path.endswith(".json")
            ),
            "packages": json.dumps(package_versions()),
            "hardware": json.dumps(hardware()),
        },
        "params": {k: str(v)[:MAX_PARAM] for k, v in leaves(facts.params)},
        "metrics": [(k, v, 0) for k, v in (run.logged | {"wall_s": now - started}).items()] + curves,
        "inputs": {path: md5 for path, md5 in facts.deps.items() if path.startswith("data/")},
    }


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of nested parameters: ``qpo.beta``, so that runs can be compared by it."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def post(told: dict[str, Any]) -> None:
    """Create the stage's run under its pipeline's, which the first stage of the pipeline creates."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    import mlflow
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus

    client = mlflow.MlflowClient(told["uri"])
    experiment = client.get_experiment_by_name(EXPERIMENT)
    experiment_id = (
        experiment.experiment_id
        if experiment
        else client.create_experiment(EXPERIMENT, artifact_location=told["artifacts"])
    )
    pipeline = told["pipeline"]
    found = client.search_runs([experiment_id], f"tags.pipeline_run = '{pipeline['key']}' and tags.level = 'pipeline'")
    parent = (
        found[0]
        if found
        else client.create_run(experiment_id, told["started_ms"], tags=pipeline["tags"], run_name=pipeline["name"])
    )
    # A run that an earlier attempt began is gone on with, not begun again.
    begun = client.search_runs([experiment_id], f"tags.record = '{told['record']}'")
    tags = told["tags"] | {"record": told["record"], "mlflow.parentRunId": parent.info.run_id}
    child = (
        begun[0] if begun else client.create_run(experiment_id, told["started_ms"], tags=tags, run_name=told["stage"])
    )
    run_id = child.info.run_id
    metrics = [Metric(name, value, told["ended_ms"], step) for name, value, step in told["metrics"]]
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])
    client.log_batch(run_id, params=[Param(k, v) for k, v in told["params"].items()])
    inputs = [
        DatasetInput(
            Dataset(name=path, digest=md5, source_type="local", source=json.dumps({"uri": path})),
            [InputTag("mlflow.data.context", "input")],
        )
        for path, md5 in told["inputs"].items()
    ]
    if inputs:
        client.log_inputs(run_id, inputs)
    for run in (run_id, parent.info.run_id):
        client.set_terminated(run, RunStatus.to_string(RunStatus.FINISHED), told["ended_ms"])


def post_waiting(folder: Path) -> int:
    """Post what waits in ``folder``, oldest first, one process at a time; returns how many could not be posted."""
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in sorted(folder.glob("*.json")):
            try:
                post(read_json(path) | {"record": path.stem})
            except Exception:
                failed += 1
                print(
                    f"{path.name} could not be posted and stays:\n{traceback.format_exc()}", file=sys.stderr, flush=True
                )
            else:
                path.unlink()
    return failed


def main() -> None:
    """Post what waits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(".work") / "tracking")
    sys.exit(bool(post_waiting(parser.parse_args().folder)))


if __name__ == "__main__":
    main()
