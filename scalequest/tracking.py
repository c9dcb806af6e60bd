"""MLflow: one run a stage, under one parent a pipeline run. Tracking never ends a stage: it warns and goes on."""

import json
import logging
import math
import os
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from scalequest.lineage import StageFacts, git_facts, hardware, output_hashes, package_versions
from scalequest.params import Params
from scalequest.stage import StageRun

log = logging.getLogger("scalequest")

EXPERIMENT = "scalequest"
# MLflow refuses parameter values longer than this; tags may be longer.
MAX_PARAM = 6000
# MLflow's limit of metrics in one request.
BATCH = 1000


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


def record(run: StageRun, params: Params, started: float) -> None:
    """Log a finished stage; on any failure warn and return."""
    try:
        assert run.facts is not None
        _record(run, run.facts, params, started)
    except Exception as error:
        log.warning("MLflow tracking failed, the stage's result is not affected: %s: %s", type(error).__name__, error)


def _record(run: StageRun, facts: StageFacts, params: Params, started: float) -> None:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    import mlflow
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus

    client = mlflow.MlflowClient(tracking_uri(params, facts.root))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    experiment_id = (
        experiment.experiment_id
        if experiment
        else client.create_experiment(EXPERIMENT, artifact_location=(facts.root / "mlartifacts").as_uri())
    )
    key, name = pipeline_run(facts)
    found = client.search_runs([experiment_id], f"tags.pipeline_run = '{key}' and tags.level = 'pipeline'")
    shared: dict[str, Any] = {"pipeline_run": key, "experiment": os.environ.get("DVC_EXP_NAME", "")}
    shared |= {f"git.{k}": v for k, v in git_facts().items()}
    parent = found[0] if found else client.create_run(experiment_id, run_name=name, tags=shared | {"level": "pipeline"})
    outs = output_hashes(facts.name)
    tags = shared | {
        "level": "stage",
        "mlflow.parentRunId": parent.info.run_id,
        "dvc.stage": facts.name,
        "dvc.deps": json.dumps(facts.deps),
        "dvc.outs": json.dumps(outs),
        "packages": json.dumps(package_versions()),
        "hardware": json.dumps(hardware()),
    }
    child = client.create_run(
        experiment_id, start_time=int(started * 1000), run_name=facts.name, tags={k: str(v) for k, v in tags.items()}
    )
    run_id = child.info.run_id
    now = int(time.time() * 1000)
    metrics = [Metric(k, v, now, 0) for k, v in (run.logged | {"wall_s": time.time() - started}).items()]
    metrics += [
        Metric(name.replace("/", "."), value, now, step)
        for step, entry in enumerate(run.curves, start=1)
        for name, value in entry.items()
        if isinstance(value, int | float) and math.isfinite(value)
    ]
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])
    client.log_batch(run_id, params=[Param(k, str(v)[:MAX_PARAM]) for k, v in facts.params.items()])
    inputs = [
        DatasetInput(
            Dataset(name=path, digest=md5, source_type="local", source=json.dumps({"uri": path})),
            [InputTag("mlflow.data.context", "input")],
        )
        for path, md5 in facts.deps.items()
        if path.startswith("data/")
    ]
    if inputs:
        client.log_inputs(run_id, inputs)
    client.set_terminated(run_id, RunStatus.to_string(RunStatus.FINISHED))
    client.set_terminated(parent.info.run_id, RunStatus.to_string(RunStatus.FINISHED))


def tracking_uri(params: Params, root: Path) -> str:
    """Where runs go: the configured store, or an SQLite file in the repository's root (also for temporary experiments)."""
    return params.runtime.mlflow_uri or f"sqlite:///{root / 'mlflow.db'}"
