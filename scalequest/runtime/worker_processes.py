"""Several engines of one stage on this machine: a process per engine, each with GPUs of its own, sharing the shards.

Each process starts the stage's engine once and maps one shard at a time; only the stage's process
writes. One that dies is started again and its shard is given out again. The bytes are those of one
process.
"""

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait

import pyarrow as pa

from scalequest.errors import UserError
from scalequest.records import table
from scalequest.runtime.processes import end_with_parent
from scalequest.runtime.workers import RESTARTS, Shard, Shards, Work

log = logging.getLogger("scalequest")

# Seconds that a process has to end by itself before it is killed.
PATIENCE_S = 5.0
# Seconds before a process is started in the place of a dead one: the driver frees a dead one's GPU memory a little later.
AFTER_DEATH_S = 2.0


def places(workers: int, n_shards: int, gpus: Sequence[str], gpus_per_engine: int) -> list[list[str]]:
    """The GPUs of each process to start; lists without names where the machine has none.

    Args:
        workers: processes at most.
        n_shards: shards to map; more processes would have no work.
        gpus: names of the GPUs that the stage may use. Two processes never share one.
        gpus_per_engine: GPUs that one engine spans.
    """
    most = min(workers, n_shards)
    if not gpus:
        return [[] for _ in range(most)]
    cuts = [list(gpus[at : at + gpus_per_engine]) for at in range(0, len(gpus), gpus_per_engine)]
    return [cut for cut in cuts if len(cut) == gpus_per_engine][:most]


def work_in_processes(
    start: Callable[[], Work],
    shards: Shards,
    schema: pa.Schema,
    environment: Mapping[str, str],
    devices: Sequence[Sequence[str]],
) -> Iterator[tuple[int, pa.Table, int]]:
    """Yield number, rows and tokens of each shard, in the order in which they are finished.

    Args:
        start: starts the engine; can be pickled, and is called once in each process.
        shards: the missing shards.
        schema: of the rows.
        environment: variables that each process sets before it starts its engine.
        devices: the GPUs of each process, as from ``places``.

    Raises:
        UserError: a process's own, or one failed, or processes died again and again on one shard.
    """
    engine = pickle.dumps((start, schema))
    left, again, deaths = iter(shards), deque[Shard](), Counter[int]()
    processes = [_Process(number, engine, environment, gpus) for number, gpus in enumerate(devices)]
    log.info("%d engines beside each other%s", len(processes), _on_gpus(devices))
    try:
        for process in processes:  # side by side: a shard is sent only when its process has begun to read
            process.start()
        while True:
            for process in processes:
                if process.shard is None and (due := again.popleft() if again else next(left, None)):
                    process.give(due)
                elif process.shard is None:  # no work is left, so another stage may have its GPU
                    process.end()
            busy = [process.pipe for process in processes if process.shard and process.pipe]
            if not busy:
                return
            answered = wait(busy)
            for process in [process for process in processes if process.pipe in answered]:
                shard, reply = process.take()
                if reply is not None:
                    rows, tokens = reply
                    yield shard[0], rows, tokens
                    continue
                deaths[shard[0]] += 1
                if deaths[shard[0]] > RESTARTS:
                    raise UserError(
                        f"shard {shard[0]}: its working process died {deaths[shard[0]]} times, the last time with exit code "
                        f"{process.exit_code}. Expected it to finish its rows. The usual cause is too little memory: lower "
                        "runtime.workers or engine.max_num_seqs, and run again; finished shards are kept"
                    )
                log.warning(
                    "working process %d died (exit code %s); its shard %d is given out again",
                    process.number, process.exit_code, shard[0],
                )  # fmt: skip
                again.append(shard)
                if any(devices):
                    time.sleep(AFTER_DEATH_S)
    finally:
        for process in processes:
            process.end()


def _on_gpus(devices: Sequence[Sequence[str]]) -> str:
    return f", on GPUs {' | '.join(','.join(gpus) for gpus in devices)}" if any(devices) else ""


class _Process:
    """One place for an engine: its GPUs, the process in it, and the shard that it is at."""

    def __init__(self, number: int, engine: bytes, environment: Mapping[str, str], gpus: Sequence[str]) -> None:
        self.number, self._engine = number, engine
        self._environment = dict(environment) | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {})
        self.shard: Shard | None = None
        self.exit_code: int | None = None
        self._replaces_dead = False
        self._process: multiprocessing.process.BaseProcess | None = None
        self.pipe: Connection | None = None

    def start(self) -> None:
        """Start the process if there is none."""
        if self._process is None:
            # spawn: CUDA and the threads of Arrow do not outlive a fork. Not daemonic, because an engine on several GPUs has
            # processes of its own.
            context = multiprocessing.get_context("spawn")
            self.pipe, theirs = context.Pipe()
            self._process = context.Process(
                target=_serve, args=(theirs, self.number, self._engine, self._environment), daemon=False
            )
            self._process.start()
            theirs.close()  # so that its end is seen here

    def give(self, shard: Shard) -> None:
        """Give the process a shard; one that is not there is started."""
        self.start()
        self.shard = shard
        assert self.pipe is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is dead, which `take` finds
            self.pipe.send((shard[0], shard[1], list(shard[2])))

    def take(self) -> tuple[Shard, tuple[pa.Table, int] | None]:
        """The shard and its rows and tokens; None instead of them if the process died.

        Raises:
            UserError: what the process refused, or that it failed.
        """
        shard, pipe = self.shard, self.pipe
        assert shard is not None
        assert pipe is not None
        self.shard = None
        try:
            data, tokens, refused, failure, started = pipe.recv()
        except (EOFError, OSError):
            self._replaces_dead = True
            self.end()
            return shard, None
        if failure is not None and self._replaces_dead and not started:
            # The dead one's memory may not be free yet.
            log.warning("working process %d could not start its engine:\n%s", self.number, failure)
            self.end()
            return shard, None
        if refused is not None:
            raise UserError(refused)
        if failure is not None:
            raise UserError(
                f"shard {shard[0]}: working process {self.number} failed; finished shards are kept. Its own words:\n{failure}"
            )
        with pa.ipc.open_stream(data) as reader:
            return shard, (reader.read_all(), tokens)

    def end(self) -> None:
        """End the process, gently at first; its place may be used again."""
        if self._process is None or self.pipe is None:
            return
        self.pipe.close()  # it reads that there is no more work
        self._process.join(0 if self.shard else PATIENCE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.exit_code, self._process, self.pipe = self._process.exitcode, None, None


def _serve(pipe: Connection, number: int, engine: bytes, environment: Mapping[str, str]) -> None:
    """A working process: map shards until there are no more."""
    # First, because torch and CUDA read it when they are loaded.
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the stage, which ends its processes
    threading.Thread(target=end_with_parent, daemon=True).start()
    _log_as(number)
    code = 0
    try:
        work: Work | None = None
        start, schema = pickle.loads(engine)
        while True:
            shard, seed, items = pipe.recv()
            refused = failure = data = None
            tokens = 0
            try:
                if work is None:
                    work = start()
                rows, tokens = work(items, seed, shard)
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, schema) as writer:
                    writer.write_table(table(rows, schema))
                data = sink.getvalue().to_pybytes()
            except UserError as error:
                refused = str(error)
            except Exception:
                failure = traceback.format_exc()
            pipe.send((data, tokens, refused, failure, work is not None))
    except (EOFError, OSError):  # no more work, or nobody to do it for
        pass
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stderr.flush()
    os._exit(code)  # vLLM and torch leave threads that can stall an interpreter's exit


def _log_as(number: int) -> None:
    """Write warnings to the stage's log, without secrets and with the process's number."""
    from scalequest.runtime.stage import WithoutSecrets

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(WithoutSecrets(f"[engine {number}] %(message)s"))
    log.setLevel(logging.INFO)
