"""Run the pipeline with independent stages side by side on several GPUs.

    scalequest parallel --gpus 2 [--share] [--keep-going] [STAGE ...]

``dvc repro`` runs one stage after another. This command starts ``dvc repro --single-item STAGE``
for every stage that is not up to date as soon as its inputs are ready. ``dvc.lock`` is the same as
after ``dvc repro``, except for the order of its stages. A stage that samples, scores or trains gets
a GPU to itself. One that samples or scores gets further idle GPUs, up to ``runtime.workers``
engines, when no other stage is ready for them. A training that ``runtime.accelerate`` spreads, and
an engine that ``runtime.tensor_parallel`` spreads, get as many as they need. With ``--share``, up
to two trainings run beside an engine, which pays off for models so small that a training leaves
most of the GPU idle (docs/gpu-run.md). Among ready stages, the one with the longest estimated path
to the end starts first. After a failure nothing new starts. With ``--keep-going``, as in ``dvc
repro``, stages that do not depend on the failed one still start. Each stage's output goes to
``.work/parallel/STAGE.log``. Ctrl-C stops all stages; unfinished ones are resumed by the next run.
"""

import argparse
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from scalequest.errors import UserError
from scalequest.io import discard_output, only_holder
from scalequest.params import STAGES_PER_GPU, Params, Runtime, load_all
from scalequest.run.packages import find_missing
from scalequest.run.pipeline import (
    DVC,
    SHARED,
    Node,
    dependents,
    expected_seconds,
    longest_way,
    outdated,
    read_pipeline,
    with_inputs,
    without_endpoints,
)
from scalequest.training.launch import n_processes

LOGS = Path(".work", "parallel")
# Beside the logs: whoever writes them holds it.
LOCK = "lock"
ONE = "Expected one at a time. Wait for it, or stop it (kill {0}), then run again."
# Stages on a GPU at most under --share. Each takes its part of the memory, however the others come and go.
PLACES = sum(SHARED.values())
# Seconds between SIGTERM and SIGKILL.
PATIENCE_S = 30


class Stopped(SystemExit):
    """A signal stopped the run; the exit code is 128 plus its number."""


@dataclass(frozen=True)
class Gpus:
    """How many GPUs a stage takes: as many as it needs, and further ones in multiples of that."""

    least: int = 1
    most: int = 1


@dataclass(frozen=True)
class Running:
    """A started stage: its process, its GPUs and its start time."""

    process: subprocess.Popen[bytes]
    gpus: tuple[str, ...]
    since: float


def gpus_of(node: Node, runtime: Runtime) -> Gpus:
    """How many GPUs a stage that computes on one takes under these parameters."""
    per_engine = max((runtime.tensor_parallel.get(name, 1) for name in node.models if node.engine), default=1)
    if node.work == "training":
        # One after the other: the reward model is trained, or not, and then scores.
        both = max(n_processes(runtime), per_engine)
        return Gpus(both, both)
    return Gpus(per_engine, per_engine * (runtime.workers if node.spreads else 1))


def cpu_build() -> str:
    """Hint for a machine with a GPU but a CPU-only torch; empty elsewhere."""
    import torch

    from scalequest.runtime.facts import gpu_kinds

    kinds = gpu_kinds()
    if not kinds or torch.version.cuda:
        return ""
    return f" (there is a {kinds[0]}, but torch {torch.__version__} is built without CUDA: see docs/gpu-run.md)"


def gpu_names(n: int) -> list[str]:
    """The first ``n`` GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them.

    Raises:
        UserError: there are fewer.
    """
    import torch

    there = torch.cuda.device_count()
    if there < n or n < 1:
        if there:
            raise UserError(f"--gpus {n}: torch finds {there} GPUs here. Expected 1 to {there}. Change --gpus.")
        raise UserError(
            f"--gpus {n}: torch finds no GPU here{cpu_build()}. Expected at least one. Run `dvc repro`: stages that share "
            "a CPU gain nothing side by side."
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (visible.split(",") if visible else [str(i) for i in range(there)])[:n]


def processes_of(stage: Running) -> list[psutil.Process]:
    """The processes of a started stage that still run: those of its session, and those that they started.

    A process whose parent was killed is still in the session. One that has a session of its own, as Ray's have, is found
    below its parent.
    """
    stage.process.poll()  # no zombie of ours
    found = [process for process in psutil.process_iter() if session_of(process) == stage.process.pid]
    for process in list(found):
        with suppress(psutil.Error):
            found += process.children(recursive=True)
    return [process for process in dict.fromkeys(found) if lives(process)]


def session_of(process: psutil.Process) -> int | None:
    """Number of the session that a process is in; None if it has ended."""
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


def lives(process: psutil.Process) -> bool:
    """Whether a process runs: one that has ended stays in the table until its parent asks for its exit code."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def is_dvc(process: psutil.Process, stages: Sequence[Running]) -> bool:
    """Whether a process is one of these stages' own, the leader of its session, or the DVC that this one started."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return any(process.pid == stage.process.pid for stage in stages) or any(
        Path(word).name == DVC[0] for word in words[:2]
    )


class Runner:
    """Run ready stages until all are finished, one fails, or a signal stops the run.

    Args:
        pipeline: the stages to run; everything else they need must exist.
        way: seconds from each stage to the end; the longest starts first.
        gpus: names of GPUs.
        jobs: stages without a GPU at once, at least 1.
        share: whether trainings share a GPU with each other and with an engine.
        command: words before a stage's name that run it.
        takes: GPUs of the stages that take another number than one.
        keep_going: whether stages still start after a failure, if they need nothing of the failed stage.
        logs: folder of the stages' logs.
    """

    def __init__(
        self, pipeline: Mapping[str, Node], way: Mapping[str, float], gpus: Sequence[str], jobs: int,
        share: bool = False, command: Sequence[str] = (*DVC, "repro", "--single-item"), takes: Mapping[str, Gpus] | None = None,
        keep_going: bool = False, logs: Path = LOGS,
    ) -> None:  # fmt: skip
        self._pipeline, self._way, self._command = pipeline, way, command
        self._gpus, self._jobs, self._share, self._takes = gpus, jobs, share, takes or {}
        self._keep_going, self._logs = keep_going, logs
        self._waiting = set(pipeline)
        self._running: dict[str, Running] = {}
        self._failed: list[str] = []
        self._stopped_by: int | None = None
        self._begin = time.monotonic()

    def run(self) -> list[str]:
        """Run all, and return the names of the stages that failed. After a failure, nothing that needs that stage is started,
        and without ``keep_going`` nothing at all.

        No stage is left when this returns or raises, whatever it raises.

        Raises:
            Stopped: SIGINT, SIGTERM or SIGHUP came.
        """
        # A flag, not an exception: an exception between the start of a stage and its entry in the table would lose the stage.
        caught = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        before = [signal.signal(number, self._stop) for number in caught]
        try:
            while not self._stopped_by and ((self._waiting and self._may_start()) or self._running):
                self._take_finished()
                if self._may_start():
                    self._start_ready()
                time.sleep(0.1)
            if self._stopped_by:
                raise Stopped(128 + self._stopped_by)
        finally:
            self._end_all()
            for number, handler in zip(caught, before, strict=True):
                signal.signal(number, handler)
        return self._failed

    def _stop(self, number: int, _: object) -> None:
        self._stopped_by = number

    def _may_start(self) -> bool:
        return self._keep_going or not self._failed

    def _start_ready(self) -> None:
        undone = self._waiting | set(self._running)
        ready = [self._pipeline[name] for name in self._waiting if not self._pipeline[name].needs & undone]
        ready.sort(key=lambda node: (-self._way[node.name], node.name))
        for name, gpus in self._plan([node for node in ready if node.work]).items():
            self._start(name, tuple(gpus))
        for node in (node for node in ready if not node.work):
            if sum(not running.gpus for running in self._running.values()) < self._jobs:
                self._start(node.name, ())

    def _plan(self, ready: Sequence[Node]) -> dict[str, list[str]]:
        """The GPUs of the stages that can start now. All get what they need before one gets more."""
        busy: dict[str, list[str | None]] = {gpu: [] for gpu in self._gpus}
        for name, running in self._running.items():
            for gpu in running.gpus:
                busy[gpu].append(self._pipeline[name].work)
        plan: dict[str, list[str]] = {}
        for node in ready:
            assert node.work
            fits = [g for g in busy if (busy[g].count(node.work) < SHARED[node.work] if self._share else not busy[g])]
            fits.sort(key=lambda gpu: len(busy[gpu]))  # the emptiest first
            least = self._of(node).least
            if len(fits) >= least:
                plan[node.name] = fits[:least]
                for gpu in fits[:least]:
                    busy[gpu].append(node.work)
        more = True
        while more:
            more = False
            for node in (node for node in ready if node.name in plan):
                idle, takes = [gpu for gpu in busy if not busy[gpu]], self._of(node)
                if len(idle) >= takes.least and len(plan[node.name]) + takes.least <= takes.most:
                    plan[node.name] += idle[: takes.least]
                    for gpu in idle[: takes.least]:
                        busy[gpu].append(node.work)
                    more = True
        return plan

    def _of(self, node: Node) -> Gpus:
        return self._takes.get(node.name, Gpus())

    def _start(self, name: str, gpus: tuple[str, ...]) -> None:
        self._waiting.remove(name)
        self._logs.mkdir(parents=True, exist_ok=True)
        with log_file(name, self._logs).open("wb") as log:
            # Its own session: Ctrl-C reaches only this process, which then ends the stages in order.
            process = subprocess.Popen(
                [*self._command, name], stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env=self._environment(gpus),
            )  # fmt: skip
            self._running[name] = Running(process, gpus, time.monotonic())
        self._say(f"started  {name}" + (f" on GPU {', '.join(gpus)}" if gpus else ""))

    def _environment(self, gpus: tuple[str, ...]) -> dict[str, str]:
        """What a stage on these GPUs is started with."""
        if not gpus:
            return dict(os.environ)
        places = {STAGES_PER_GPU: str(PLACES)} if self._share else {}
        return os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} | places

    def _take_finished(self) -> None:
        for name, running in list(self._running.items()):
            code = running.process.poll()
            if code is None:
                continue
            self._end([running])  # a DVC that was killed leaves its stage behind, on the GPU
            del self._running[name]
            if code:
                self._failed.append(name)
                self._waiting -= dependents(self._pipeline, [name])
            verb = f"FAILED ({code})" if code else "finished"
            self._say(f"{verb} {name} after {time.monotonic() - running.since:.0f} s")

    def _end_all(self) -> None:
        if not self._running:
            return
        try:
            self._say(f"stopping {', '.join(self._running)}")
        except OSError:  # the terminal or the reader of the pipe is gone; the stages end all the same
            discard_output()
        self._end(list(self._running.values()))

    def _end(self, stages: Sequence[Running]) -> None:
        """End every process of these stages but DVC, which ends by itself.

        Killed while it writes dvc.lock, it would leave half.
        """
        killed = time.monotonic() + PATIENCE_S
        signaled: set[tuple[int, int]] = set()  # once each: a second signal would interrupt the clean-up of the first
        while left := [process for stage in stages for process in processes_of(stage)]:
            late = time.monotonic() > killed
            if time.monotonic() > killed + PATIENCE_S:
                return  # not even SIGKILL ends what waits for a driver
            for process in left if late else [process for process in left if not is_dvc(process, stages)]:
                sent = signal.SIGKILL if late else signal.SIGTERM
                if (process.pid, sent) not in signaled:
                    signaled.add((process.pid, sent))
                    with suppress(psutil.Error):
                        process.send_signal(sent)
            time.sleep(0.5)

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._begin:6.0f} s] {text}", flush=True)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest parallel``."""
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="only these and what they need (default: all)")
    parser.add_argument("--gpus", type=int, required=True, metavar="N", help="GPUs to use")
    parser.add_argument("--share", action="store_true", help="trainings share a GPU with each other and with an engine")
    parser.add_argument(
        "--keep-going", action="store_true", help="after a failure, start stages that do not depend on it"
    )
    parser.add_argument(
        "--jobs", type=int, default=max(1, (os.cpu_count() or 1) // 4), metavar="N",
        help="stages without a GPU at once (default here: %(default)s)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the pipeline or the named part of it.

    Raises:
        UserError: bad parameters or options, an unknown stage, too few GPUs, a stage that needs more, a stage failed, or
            another one is running here.
    """
    params = load_all()
    if args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: not a number of stages. Expected 1 or more. Change --jobs")
    check_engine(params.runtime)
    gpus = gpu_names(args.gpus)
    with only_holder(LOGS / LOCK, f"`scalequest parallel` is running here already, as process {{0}}. {ONE}"):
        return run_outdated(args, params, gpus)


def run_outdated(args: argparse.Namespace, params: Params, gpus: Sequence[str]) -> int:
    """Run what is not up to date, and end with the logs of the stages that failed.

    Raises:
        UserError: an unknown stage, a stage that needs more GPUs or a package that is missing, or a stage failed.
    """
    pipeline = without_endpoints(read_pipeline(), params)
    takes = {name: gpus_of(node, params.runtime) for name, node in pipeline.items() if node.work}
    way = longest_way(pipeline, expected_seconds(pipeline, params))
    wanted = with_inputs(pipeline, args.stages)
    todo = outdated(wanted)
    check_packages(params, todo)
    check_gpus({name: takes[name] for name, node in todo.items() if node.work}, len(gpus))
    print(f"{len(wanted) - len(todo)} of {len(wanted)} stages are up to date", flush=True)
    failed = Runner(todo, way, gpus, args.jobs, args.share, takes=takes, keep_going=args.keep_going).run()
    if failed:
        left_out = "stages that depend on them were" if args.keep_going else "no further stage was"
        tails = "".join(f"\n--- {name}\n{log_tail(name)}" for name in failed)
        raise UserError(
            f"{', '.join(failed)} failed; {left_out} not started. Fix the error and run again: finished stages are kept{tails}"
        )
    return 0


def check_engine(runtime: Runtime) -> None:
    """Refuse Ray's actors, which Ray puts on GPUs without looking at what other stages use.

    Raises:
        UserError: stages would start several.
    """
    if runtime.engine == "ray" and runtime.workers > 1:
        raise UserError(
            f"runtime.engine ray with runtime.workers {runtime.workers}: Ray would use GPUs that `scalequest parallel` gave to other "
            "stages. Expected `engine: local`, which starts as many engines on this machine. Or run `dvc repro`"
        )


def check_packages(params: Params, stages: Iterable[str]) -> None:
    """Refuse to start where a package is missing that a stage imports, perhaps hours later.

    Raises:
        UserError: naming the packages.
    """
    if missing := find_missing(params, stages):
        raise UserError("; ".join(missing))


def check_gpus(takes: Mapping[str, Gpus], there: int) -> None:
    """Refuse stages that need more GPUs than there are.

    Raises:
        UserError: naming them.
    """
    if large := [f"{name} ({gpus.least})" for name, gpus in takes.items() if gpus.least > there]:
        raise UserError(
            f"--gpus {there}: too few for {', '.join(large)}. Expected as many as one stage needs by runtime.tensor_parallel and "
            "runtime.accelerate. Raise --gpus, or lower those."
        )


def log_file(name: str, logs: Path = LOGS) -> Path:
    """Path of the log of a stage."""
    return logs / f"{name.replace('@', '.')}.log"


def log_tail(name: str, logs: Path = LOGS, lines: int = 12) -> str:
    """Return the last lines that a stage printed."""
    text = log_file(name, logs).read_text(encoding="utf-8", errors="replace")
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])
