"""Run the pipeline with independent stages side by side, one a GPU.

    scalequest repro --gpus 2 [--share] [STAGE ...]

``dvc repro`` runs one stage after another. This starts ``dvc repro --single-item STAGE`` for every stage whose inputs are ready, so
what is up to date is skipped and ``dvc.lock`` comes out as from ``dvc repro``. A stage that samples, scores or trains gets a GPU to itself;
with ``--share`` up to two trainings run beside an engine, which pays for models so small that a training leaves most of the card
idle (two engines on one card never pay, docs/gpu-run.md). The stage with the longest way to the end goes first, by the estimate. What a stage prints is in ``.work/repro/STAGE.log``. Ctrl-C stops all; what is half done is resumed.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scalequest.errors import UserError
from scalequest.estimate import TABLE, Assumptions, hours, works
from scalequest.params import Params, load_all, read_yaml

LOGS = Path(".work", "repro")
# What a stage that computes on a GPU depends on; no other stage does.
WORK = {"scalequest/engine.py": "engine", "scalequest/training.py": "training"}
# How many stages of a kind share one GPU, if any do.
SHARED = {"engine": 1, "training": 2}
# Seconds of a stage beside its work: DVC, imports. Of one that the estimate leaves out: evaluation on a GPU, filters on a CPU.
START_S, UNKNOWN_GPU_S, UNKNOWN_CPU_S = 20.0, 60.0, 10.0
# Seeds of a profile that does not say how many; the estimate's default.
SEEDS = 14_969


@dataclass(frozen=True)
class Node:
    """One stage of the pipeline.

    Attributes:
        needs: names of the stages whose outputs it reads.
        work: what it does on a GPU, "engine" or "training"; None for a stage without one.
    """

    name: str
    needs: frozenset[str]
    work: str | None


def read_pipeline(root: Path = Path()) -> dict[str, Node]:
    """Every stage of ``dvc.yaml`` by name, templates resolved."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        graph = repo.index.graph
        return {
            stage.addressing: Node(
                stage.addressing,
                frozenset(needed.addressing for needed in graph.successors(stage)),
                next((WORK[dep.def_path] for dep in stage.deps if dep.def_path in WORK), None),
            )
            for stage in graph
        }


def with_inputs(pipeline: Mapping[str, Node], targets: Sequence[str]) -> dict[str, Node]:
    """The named stages and all that they wait for; all stages if none is named. ``qft`` means every ``qft@...``.

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
            raise UserError(f"no stage {target} in dvc.yaml; there are {', '.join(sorted(pipeline))}")
        todo += found
    while todo:
        name = todo.pop()
        if name not in wanted:
            wanted.add(name)
            todo += pipeline[name].needs
    return {name: node for name, node in pipeline.items() if name in wanted}


def expected_seconds(pipeline: Mapping[str, Node], params: Params) -> dict[str, float]:
    """Seconds that each stage may take, by the estimate's rates of an H100; only their order matters."""
    table = read_yaml(TABLE)
    try:
        found = works(params, Assumptions(table["tokens"], table["keeps"]), table["sizes"], SEEDS)
    except UserError:  # a model whose name does not tell its size: then the number of stages decides
        found = []
    reckoned = {work.stage: 3600 * hours(work, table["gpus"]["h100"], table) for work in found}
    branches = Counter(name.split("@")[0] for name in pipeline)

    def seconds(node: Node) -> float:
        stage = node.name.split("@")[0]
        if node.work:
            return START_S + (reckoned[stage] / branches[stage] if stage in reckoned else UNKNOWN_GPU_S)
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


def gpu_names(n: int) -> list[str]:
    """The first ``n`` GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them.

    Raises:
        UserError: there are fewer.
    """
    import torch

    there = torch.cuda.device_count()
    if there < n or n < 1:
        raise UserError(
            f"--gpus {n}: this machine shows {there} GPUs; give a number from 1 to that"
            + ("" if there else ", or run `dvc repro`: stages that share a CPU gain nothing side by side")
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (visible.split(",") if visible else [str(i) for i in range(there)])[:n]


class Runner:
    """Runs what is ready until all is done or a stage failed.

    Args:
        pipeline: the stages to run; what else they need must be there.
        way: seconds from each stage to the end; the longest goes first.
        gpus: names of GPUs.
        jobs: stages without a GPU at once.
        share: whether trainings share a GPU with each other and with an engine.
        command: words before a stage's name that run it.
    """

    def __init__(
        self, pipeline: Mapping[str, Node], way: Mapping[str, float], gpus: Sequence[str], jobs: int,
        share: bool = False, command: Sequence[str] = ("dvc", "--wait-for-lock", "repro", "--single-item"),
    ) -> None:  # fmt: skip
        self._pipeline, self._way, self._command = pipeline, way, command
        self._gpus, self._jobs, self._share = gpus, jobs, share
        self._waiting = set(pipeline)
        self._running: dict[str, tuple[subprocess.Popen[bytes], str | None, float]] = {}
        self._failed: list[str] = []
        self._begin = time.monotonic()

    def run(self) -> list[str]:
        """Run all; the names of the stages that failed. After a failure nothing new is started."""
        try:
            while (self._start_ready() and not self._failed) or self._running:
                self._take_finished()
                time.sleep(0.1)
        except BaseException:
            # Not SIGINT: what was started in the background of a shell ignores it, and its children inherit that.
            for process, _, _ in self._running.values():
                os.killpg(process.pid, signal.SIGTERM)
            for process, _, _ in self._running.values():
                process.wait()
            raise
        return self._failed

    def _start_ready(self) -> bool:
        if self._failed:
            return False
        undone = self._waiting | set(self._running)
        ready = [self._pipeline[name] for name in self._waiting if not self._pipeline[name].needs & undone]
        for node in sorted(ready, key=lambda node: (-self._way[node.name], node.name)):
            if node.work and (gpu := self._room(node.work)) is not None:
                self._start(node.name, gpu)
            elif not node.work and len(self._on(None)) < self._jobs:
                self._start(node.name, None)
        return bool(self._waiting)

    def _on(self, gpu: str | None) -> list[str | None]:
        """What the stages that run on a GPU (None: without one) do."""
        return [self._pipeline[name].work for name, (_, taken, _) in self._running.items() if taken == gpu]

    def _room(self, work: str) -> str | None:
        """The emptiest GPU, the first of several, that has room for one more such stage."""
        busy = {gpu: self._on(gpu) for gpu in self._gpus}
        fits = [g for g in busy if (busy[g].count(work) < SHARED[work] if self._share else not busy[g])]
        return min(fits, key=lambda gpu: len(busy[gpu]), default=None)

    def _start(self, name: str, gpu: str | None) -> None:
        self._waiting.remove(name)
        LOGS.mkdir(parents=True, exist_ok=True)
        with (LOGS / f"{name.replace('@', '.')}.log").open("wb") as log:
            # A session of its own: Ctrl-C reaches this process alone, which then stops them in order.
            process = subprocess.Popen(
                [*self._command, name], stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env=os.environ if gpu is None else os.environ | {"CUDA_VISIBLE_DEVICES": gpu},
            )  # fmt: skip
        self._running[name] = process, gpu, time.monotonic()
        self._say(f"started  {name}" + ("" if gpu is None else f" on GPU {gpu}"))

    def _take_finished(self) -> None:
        for name, (process, _, since) in list(self._running.items()):
            if process.poll() is None:
                continue
            del self._running[name]
            if process.returncode:
                self._failed.append(name)
            verb = f"FAILED ({process.returncode})" if process.returncode else "finished"
            self._say(f"{verb} {name} after {time.monotonic() - since:.0f} s")

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._begin:6.0f} s] {text}", flush=True)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest repro``."""
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="only these and what they need (default: all)")
    parser.add_argument("--gpus", type=int, required=True, metavar="N", help="GPUs to use")
    parser.add_argument("--share", action="store_true", help="trainings share a GPU with each other and with an engine")
    parser.add_argument(
        "--jobs", type=int, default=max(1, (os.cpu_count() or 1) // 4), metavar="N",
        help="stages without a GPU at once (default here: %(default)s)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the pipeline, or the part of it that was asked for; SIGTERM stops all stages as Ctrl-C does.

    Raises:
        UserError: bad parameters, an unknown stage, too few GPUs, or a stage failed.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    params = load_all()
    gpus = gpu_names(args.gpus)
    pipeline = with_inputs(read_pipeline(), args.stages)
    failed = Runner(
        pipeline, longest_way(pipeline, expected_seconds(pipeline, params)), gpus, args.jobs, args.share
    ).run()
    if failed:
        tails = "".join(f"\n--- {name}\n{log_tail(name)}" for name in failed)
        raise UserError(
            f"{', '.join(failed)} failed; the rest was not started. Mend it and run again: what is done is kept{tails}"
        )
    return 0


def log_tail(name: str, lines: int = 12) -> str:
    """The last lines that a stage printed."""
    text = (LOGS / f"{name.replace('@', '.')}.log").read_text(encoding="utf-8", errors="replace")
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])
