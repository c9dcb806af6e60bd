"""MLflow: one run per stage, under one parent per pipeline run. Tracking never ends a stage and never delays one.

A stage writes one JSON file to ``.work/tracking`` and starts a process that posts it, because loading MLflow takes as long as
a small stage. A file that could not be posted stays there and is posted with the next stage, or by hand:

    scalequest track
"""

import fcntl
import json
import logging
import math
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalequest.io import read_json, write_json
from scalequest.params import Params
from scalequest.redaction import redacted, redacted_all
from scalequest.runtime.facts import StageFacts, git_facts, hardware, leaves, package_versions

if TYPE_CHECKING:
    from scalequest.runtime.stage import StageRun

log = logging.getLogger("scalequest")

EXPERIMENT = "scalequest"
# MLflow refuses parameter values longer than this; tags may be longer.
MAX_PARAM = 6000
# Where the pipeline keeps models.
MODELS = "models/"
# MLflow's limit of metrics in one request.
BATCH = 1000
# More waiting stages than this are not just the last ones still being posted.
STUCK = 3
# Marks of stages that run now, below the tracking folder.
RUNNING = "running"
# Characters of a failed stage's error that MLflow gets.
MAX_REASON = 1000


def pipeline_run(facts: StageFacts) -> tuple[str, str]:
    """Identity and name of the pipeline run that this stage belongs to.

    A DVC experiment names itself. A plain ``dvc repro`` does not, so the process above us that started the stages stands
    for it: its id and start time are shared by all stages of the run and by no others. It is ``scalequest parallel`` where
    there is one, because that starts a DVC for each stage.
    """
    import psutil

    experiment = os.environ.get("DVC_EXP_NAME", "")
    above = [(process, _command(process)) for process in psutil.Process().parents()]
    dvc = next((p for p, words in above if any("dvc" in word for word in words[:3])), None)
    dvc = next((p for p, words in above if "parallel" in words and any(is_ours(word) for word in words[:3])), dvc)
    if dvc is None:
        return f"by-hand-{os.getppid()}", "by hand"
    start = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(dvc.create_time()))
    key = sha256(f"{experiment} {dvc.pid} {dvc.create_time()} {facts.root}".encode()).hexdigest()[:16]
    return key, f"{experiment or 'repro'} {start}"


def _command(process: Any) -> list[str]:
    """Words of a process's command; none of one that has ended."""
    import psutil

    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def is_ours(word: str) -> bool:
    """Whether a word of a command is our command line: ``.venv/bin/scalequest`` or ``-m scalequest.cli``."""
    return word == "scalequest.cli" or Path(word).name == "scalequest" or word.endswith("scalequest/cli.py")


def tracking_uri(params: Params, root: Path) -> str:
    """Where runs go: the configured store, or an SQLite file in the repository's root (also for temporary experiments)."""
    return params.runtime.mlflow_uri or beside(root)


def beside(root: Path) -> str:
    """Address of the SQLite file of a checkout."""
    return f"sqlite:///{root.resolve() / 'mlflow.db'}"


@dataclass
class Tracked:
    """What is learned of a stage while it runs; ``facts`` are those at its end, with the hashes of its outputs."""

    facts: StageFacts


@contextmanager
def tracked(run: "StageRun", params: Params, started: float) -> Iterator[Tracked]:
    """Hand the stage that runs in the block to MLflow when it ends: finished, failed or stopped. Any error passes through.

    A file in ``.work/tracking/running`` stands for the stage meanwhile. If the process is killed, the file stays, and the
    next post marks the run as failed.
    """
    if not (params.runtime.mlflow and run.facts):
        yield Tracked(run.facts or StageFacts("by-hand", Path()))
        return
    found = Tracked(run.facts)
    running = run.facts.root / ".work" / "tracking" / RUNNING / f"{run.facts.name}.{os.getpid()}.json"
    _mark_running(running, run, params, started)
    try:
        yield found
    except BaseException as error:
        record(run, found.facts, params, started, _status(error), f"{type(error).__name__}: {error}"[:MAX_REASON])
        raise
    else:
        record(run, found.facts, params, started)
    finally:
        running.unlink(missing_ok=True)


def _status(error: BaseException) -> str:
    """MLflow's status of a run that ended with this."""
    return "KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED"


def _mark_running(path: Path, run: "StageRun", params: Params, started: float) -> None:
    import psutil

    try:
        assert run.facts is not None
        reason = "the process ended before it could report: killed, or out of memory"
        mine = {"pid": os.getpid(), "pid_started": psutil.Process().create_time()}
        write_json(path, redacted_all(describe(run, run.facts, params, started, "FAILED", reason)) | mine)
    except Exception as error:
        log.warning("MLflow: the start of the stage was not noted (%s); the stage is not affected", error)


def record(
    run: "StageRun", facts: StageFacts, params: Params, started: float, status: str = "FINISHED", reason: str = ""
) -> None:
    """Hand a stage that ended to MLflow; on any failure warn and return.

    Args:
        run: its metrics and curves.
        facts: as they were at its end, with the hashes of its outputs.
        params: of the whole run.
        started: seconds since the epoch.
        status: MLflow's word for how it ended.
        reason: why it failed.
    """
    try:
        folder = facts.root / ".work" / "tracking"
        waiting = len(list(folder.glob("*.json")))
        if waiting > STUCK:
            log.warning("%d finished stages are not in MLflow yet; the reason is in %s", waiting, folder / "log")
        described = redacted_all(describe(run, facts, params, started, status, reason))
        write_json(folder / f"{time.time_ns()}.json", described)
        start_posting(folder, facts.root)
    except Exception as error:
        log.warning("MLflow: the run was not recorded (%s); the stage's result is not affected", error)


def start_posting(folder: Path, root: Path) -> None:
    """Start the process that posts what waits in ``folder``, and do not wait for it."""
    with (folder / "log").open("a") as output:
        subprocess.Popen(
            [sys.executable, "-m", "scalequest.cli", "track", "--no-wait", str(folder)], cwd=root, stdin=subprocess.DEVNULL,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip


def describe(
    run: "StageRun", facts: StageFacts, params: Params, started: float, status: str = "FINISHED", reason: str = ""
) -> dict[str, Any]:
    """Everything MLflow is given about one stage, as JSON can hold it."""
    key, name = pipeline_run(facts)
    shared = {f"git.{k}": v for k, v in git_facts().items()} | {
        "pipeline_run": key,
        "experiment": os.environ.get("DVC_EXP_NAME", ""),
    }
    now = time.time()
    curves = [
        (name.replace("/", "."), float(value), step)
        for step, entry in enumerate(run.curves, start=1)
        for name, value in entry.items()
        if isinstance(value, int | float) and math.isfinite(value)
    ]
    return {
        # Empty for the store beside the checkout, wherever that is when the run is posted: folders are moved.
        "uri": params.runtime.mlflow_uri or "",
        "status": status,
        "pipeline": {"key": key, "name": name, "tags": shared | {"level": "pipeline"}},
        "stage": facts.name,
        "started_ms": int(started * 1000),
        "ended_ms": int(now * 1000),
        "tags": shared
        | {
            "level": "stage",
            "dvc.stage": facts.name,
            "dvc.deps": json.dumps(facts.deps),
            "dvc.outs": json.dumps(facts.written),
            "audit": "; ".join(
                f"scalequest audit {value}" for path, value in facts.written.items() if not path.endswith(".json")
            ),
            "packages": json.dumps(package_versions()),
            "hardware": json.dumps(hardware()),
        }
        | ({"failure": reason} if reason else {}),
        "params": {k: str(v)[:MAX_PARAM] for k, v in leaves(facts.params)},
        "metrics": [(k, v, 0) for k, v in (run.logged | {"wall_s": now - started}).items()] + curves,
        "inputs": {path: md5 for path, md5 in facts.deps.items() if path.startswith("data/")},
        "models_read": {path: md5 for path, md5 in facts.deps.items() if path.startswith(MODELS)},
        "models_made": {path: md5 for path, md5 in facts.written.items() if path.startswith(MODELS)},
    }


def post(described: dict[str, Any], root: Path) -> None:
    """Create the stage's run under its pipeline's, which the first stage of the pipeline creates.

    Args:
        described: what ``describe`` made.
        root: the checkout, whose store is used unless another one is configured.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    import mlflow
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

    client = mlflow.MlflowClient(described["uri"] or beside(root))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    experiment_id = (
        experiment.experiment_id
        if experiment
        else client.create_experiment(EXPERIMENT, artifact_location=(root.resolve() / "mlartifacts").as_uri())
    )
    pipeline = described["pipeline"]
    found = client.search_runs([experiment_id], f"tags.pipeline_run = '{pipeline['key']}' and tags.level = 'pipeline'")
    parent = (
        found[0]
        if found
        else client.create_run(experiment_id, described["started_ms"], tags=pipeline["tags"], run_name=pipeline["name"])
    )
    # A post that was interrupted is completed, not repeated.
    begun = client.search_runs([experiment_id], f"tags.record = '{described['record']}'")
    tags = described["tags"] | {"record": described["record"], "mlflow.parentRunId": parent.info.run_id}
    child = (
        begun[0]
        if begun
        else client.create_run(experiment_id, described["started_ms"], tags=tags, run_name=described["stage"])
    )
    run_id = child.info.run_id
    model_id = link_models(client, experiment_id, run_id, described)
    metrics = [
        Metric(name, value, described["ended_ms"], step, model_id=model_id)
        for name, value, step in described["metrics"]
    ]
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])
    client.log_batch(run_id, params=[Param(k, v) for k, v in described["params"].items()])
    inputs = [
        DatasetInput(
            Dataset(name=path, digest=md5, source_type="local", source=json.dumps({"uri": path})),
            [InputTag("mlflow.data.context", "input")],
        )
        for path, md5 in described["inputs"].items()
    ]
    if inputs:
        client.log_inputs(run_id, inputs)
    status = described.get("status", "FINISHED")
    client.set_terminated(run_id, status, described["ended_ms"])
    # One stage that did not finish is enough; a stage beside it that ends later does not change that.
    before = client.get_run(parent.info.run_id).info.status
    whole = next((word for word in ("FAILED", "KILLED") if word in (before, status)), status)
    client.set_terminated(parent.info.run_id, whole, described["ended_ms"])


def link_models(client: Any, experiment_id: str, run_id: str, described: dict[str, Any]) -> str | None:
    """Link a run to the models that it read and made, as MLflow's lineage view shows them.

    A model is a LoggedModel with the hash of its folder as a tag, made by the run that wrote it. A run that reads this hash
    has it as an input, so data, model and scores are one graph.

    Returns:
        The model that the run's metrics are of: the one it made, or the one it evaluated; None for other stages, and where
        the store knows no LoggedModels.
    """
    from mlflow.entities import LoggedModelInput, LoggedModelOutput
    from mlflow.exceptions import MlflowException

    read, made = described.get("models_read", {}), described.get("models_made", {})
    if described.get("status", "FINISHED") != "FINISHED" or not (read or made):
        return None
    try:
        written = [_logged_model(client, experiment_id, path, md5, run_id) for path, md5 in made.items()]
        known = [model for path, md5 in read.items() if (model := _find_model(client, experiment_id, path, md5))]
        # The store refuses a link that it has: one of a post that was interrupted.
        before = client.get_run(run_id)
        there = {one.model_id for one in (*before.inputs.model_inputs, *before.outputs.model_outputs)}
        if new := [LoggedModelOutput(one.model_id, step=0) for one in written if one.model_id not in there]:
            client.log_outputs(run_id, new)
        if old := [LoggedModelInput(one.model_id) for one in known if one.model_id not in there]:
            client.log_inputs(run_id, models=old)
    except MlflowException as error:
        print(f"models of {described['stage']} are not linked: {redacted(str(error))}", file=sys.stderr, flush=True)
        return None
    of = written or (known if described["stage"].startswith("evaluate") else [])
    return of[0].model_id if len(of) == 1 else None


def _find_model(client: Any, experiment_id: str, path: str, md5: str, run_id: str = "") -> Any:
    """The newest LoggedModel of these bytes at this path (with ``run_id`` made by that run); None where there is none."""
    wanted = f"tags.`dvc.md5` = '{md5}' AND tags.`dvc.path` = '{path}'"
    found = client.search_logged_models([experiment_id], wanted)
    return next((model for model in found if run_id in ("", model.source_run_id)), None)


def _logged_model(client: Any, experiment_id: str, path: str, md5: str, run_id: str) -> Any:
    """The LoggedModel of what a run wrote: a post that was interrupted finds the one that it made."""
    if found := _find_model(client, experiment_id, path, md5, run_id):
        return found
    tags = {"dvc.path": path, "dvc.md5": md5, "audit": f"scalequest audit {md5}"}
    model = client.create_logged_model(experiment_id, re.sub(r"[/:.%\"']", "-", path), run_id, tags)
    return client.finalize_logged_model(model.model_id, "READY")


def post_waiting(folder: Path, wait: bool = True) -> int:
    """Post what waits in ``folder``, oldest first, one process at a time; returns how many could not be posted.

    Args:
        folder: ``.work/tracking`` of a checkout; runs go to the ``mlflow.db`` of the checkout that it is in now.
        wait: whether to wait for another process that posts. Without that this one ends, and the other one, which looks
            again after it has let go of the lock, posts what came meanwhile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = folder.resolve().parents[1]
    failed, seen, unreachable = 0, set[Path](), set[str]()
    while new := [path for path in _waiting(folder) if path not in seen]:
        with (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                return failed
            for path in new:
                seen.add(path)
                failed += not _post_file(path, root, unreachable)
    return failed


def _waiting(folder: Path) -> list[Path]:
    return [*sorted(folder.glob("*.json")), *sorted((folder / RUNNING).glob("*.json"))]


def _post_file(path: Path, root: Path, unreachable: set[str]) -> bool:
    """Post one stage and remove its file; False where it stays. A server that did not answer is asked once."""
    uri = ""
    try:
        described = read_json(path)
        if path.parent.name == RUNNING and _lives(described):
            return True
        uri = described["uri"]
        if uri in unreachable:
            print(f"{path.name} was not posted and stays: the server did not answer", file=sys.stderr, flush=True)
            return False
        post(described | {"record": path.stem}, root)
    except FileNotFoundError:
        return True  # a stage that just ended took its mark away
    except Exception as error:
        if _no_answer(error):
            unreachable.add(uri)
        reason = redacted(traceback.format_exc())
        print(f"{path.name} was not posted and stays:\n{reason}", file=sys.stderr, flush=True)
        return False
    path.unlink(missing_ok=True)
    return True


def _no_answer(error: BaseException | None) -> bool:
    """Whether a server could not be reached; MLflow, which has tried for minutes by then, wraps its client's error."""
    from requests.exceptions import ConnectionError, Timeout

    while error is not None:
        if isinstance(error, ConnectionError | Timeout):
            return True
        error = error.__cause__ or error.__context__
    return False


def _lives(described: dict[str, Any]) -> bool:
    """Whether the process that wrote a mark still runs; another one may have its number by now."""
    import psutil

    try:
        return bool(psutil.Process(described["pid"]).create_time() == described["pid_started"])
    except psutil.NoSuchProcess:
        return False
