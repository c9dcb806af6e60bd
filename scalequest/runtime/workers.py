"""Who works on a stage's shards: this process, or actors of a Ray cluster. The bytes are the same.

A stage passes a function that starts its engine and returns what maps one shard. In this process it
is called once, and only when a shard is missing. With ``runtime.workers`` above 1 it is called in
processes of this machine (scalequest.runtime.worker_processes). On Ray (``runtime.engine: ray``) it is called once
in each actor, on whichever machine that is. Actors see the same folder through a shared file system
and return their rows; only this process writes the journal. An actor that dies is restarted and its
shard is given out again.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from scalequest.errors import UserError
from scalequest.params import Runtime
from scalequest.records import table

Item = TypeVar("Item")
# Maps a shard's items, its seed and its number to its rows and the tokens paid for them.
Work = Callable[[Sequence[Item], int, int], tuple[list[dict[str, Any]], int]]
# Number, seed and items of a missing shard.
Shard = tuple[int, int, Sequence[Item]]


class Shards(Protocol):
    """Shards in order; they may be made when they are due, anew each time they are gone through."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Shard]: ...


# An actor that dies this often on one shard will not survive it (usually out of memory).
RESTARTS = 3


def work_here(start: Callable[[], Work], shards: Shards, schema: pa.Schema) -> Iterator[tuple[int, pa.Table, int]]:
    """Yield number, rows and tokens of each shard, in order."""
    work: Work | None = None
    for number, seed, items in shards:
        work = work or start()
        rows, tokens = work(items, seed, number)
        yield number, table(rows, schema), tokens


class _Actor:
    """One engine of the cluster."""

    def __init__(
        self, start: Callable[[], Work], schema: pa.Schema, folder: str, environment: Mapping[str, str]
    ) -> None:
        os.environ.update(environment)
        os.chdir(folder)
        self._start, self._schema = start, schema
        self._work: Work | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import pickle

        refused, sink, tokens = "", pa.BufferOutputStream(), 0
        try:
            if self._work is None:  # not in __init__, which could return no refusal
                self._work = self._start()
            rows, tokens = self._work(pickle.loads(row["items"]), row["seed"], row["shard"])
            with pa.ipc.new_stream(sink, self._schema) as writer:
                writer.write_table(table(rows, self._schema))
        except UserError as error:  # Ray would pass it on as an error of its own, its text lengthened
            refused = str(error)
        return {"shard": row["shard"], "rows": sink.getvalue().to_pybytes(), "tokens": tokens, "refused": refused}


def work_on_ray(
    start: Callable[[], Work],
    shards: Shards,
    schema: pa.Schema,
    runtime: Runtime,
    environment: Mapping[str, str],
    gpus_per_engine: int = 1,
) -> Iterator[tuple[int, pa.Table, int]]:
    """Yield number, rows and tokens of each shard, in the order in which they are finished.

    Args:
        start: starts the engine; called in each actor.
        shards: the missing shards; Ray is given all of them at once.
        schema: of the rows.
        runtime: how many actors, on which cluster.
        environment: variables that each actor sets before it starts; the stage decides them.
        gpus_per_engine: GPUs that one engine spans, where there are any.

    Raises:
        UserError: an actor's own, or actors die again and again.
    """
    if not len(shards):
        return
    import pickle

    if not runtime.ray_address:
        # Ray's switch for "one machine": everything listens on the loopback interface, which it does not do on Linux by itself,
        # not even for the address 127.0.0.1. It is read when Ray is imported.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray
    import ray.data

    # A local cluster has a CPU for each actor, however few cores there are: two actors on one core
    # are only slower.
    cpus = None if runtime.ray_address else max(runtime.workers, os.cpu_count() or 1)
    # /tmp/ray may be written by every user, and Ray opens any folder that it is given: this one is inside a private one. In /tmp,
    # because the path of a socket has at most 107 characters.
    folder = None if runtime.ray_address else Path(tempfile.mkdtemp(prefix="sq-ray-", dir="/tmp"))
    private: dict[str, Any] = {"_temp_dir": str(folder / "ray")} if folder else {}
    ray.init(
        address=runtime.ray_address or "local", num_cpus=cpus, include_dashboard=False, log_to_driver=False,
        logging_level=logging.WARNING, **private,
    )  # fmt: skip
    done_well = False
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        given = ray.data.from_items(
            [{"shard": number, "seed": seed, "items": pickle.dumps(list(items))} for number, seed, items in shards],
            override_num_blocks=len(shards),
        )
        done = given.map(
            _Actor,  # type: ignore[arg-type]
            fn_constructor_args=(start, schema, str(Path.cwd()), dict(environment)),
            compute=ray.data.ActorPoolStrategy(size=min(runtime.workers, len(shards)), max_tasks_in_flight_per_actor=1),
            num_cpus=1,
            num_gpus=gpus_per_engine if ray.cluster_resources().get("GPU") else 0,
            max_restarts=RESTARTS,
            # The number of restarts is the limit. Of a node that died, tries fail for a minute before Ray knows it.
            max_task_retries=-1,
        )
        for row in done.iter_rows():
            if row["refused"]:
                raise UserError(row["refused"])
            with pa.ipc.open_stream(row["rows"]) as reader:
                yield row["shard"], reader.read_all(), row["tokens"]
        done_well = True
    except ray.exceptions.RayError as error:
        raise UserError(
            f"the Ray workers failed and were restarted {RESTARTS} times: {str(error).strip().splitlines()[-1]}; the actors' "
            f"logs are in {private.get('_temp_dir', '/tmp/ray')}/session_latest/logs; too little memory for runtime.workers engines is the usual cause; "
            "finished shards are kept"
        ) from error
    finally:
        ray.shutdown()
        if done_well and folder:
            shutil.rmtree(folder, ignore_errors=True)
