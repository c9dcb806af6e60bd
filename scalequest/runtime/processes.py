"""Work on many tasks in a process per core. The number of processes changes only the time."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

from scalequest.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def map_tasks(
    work: Callable[[Task], Result],
    tasks: Sequence[Task],
    processes: int,
    start: Callable[..., None] | None = None,
    arguments: Sequence[Any] = (),
) -> Iterator[Result]:
    """Yield the results of N tasks, in order. At most two tasks per process are ahead of the caller.

    Args:
        work: a function of a module, of one task.
        tasks: what it is called with.
        processes: with fewer than two, or one task, the work is done in this process.
        start: called once in each process before its first task.
        arguments: of ``start``.

    Raises:
        UserError: a process died. What ``work`` raises is raised here.
    """
    if processes < 2 or len(tasks) < 2:
        if start:
            start(*arguments)
        yield from map(work, tasks)
        return
    # forkserver: a fork of a process that runs the threads of Arrow or MLflow may hang.
    pool = ProcessPoolExecutor(min(processes, len(tasks)), get_context("forkserver"), _start, (start, arguments))
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(work, task))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            f"one of {processes} working processes died. Expected it to finish its rows. The usual cause is too little memory: free "
            "some, or give the stage fewer cores (taskset -c 0), and run again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start(start: Callable[..., None] | None, arguments: Sequence[Any]) -> None:
    """Prepare a process, which ends when the stage is killed instead of waiting for work for ever."""
    Thread(target=end_with_parent, daemon=True).start()
    if start:
        start(*arguments)


def end_with_parent() -> None:
    """Wait for the process that started this one to end, and end too."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
