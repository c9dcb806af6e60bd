"""Training on several processes or GPUs: one job handed to ``accelerate launch``, its result handed back.

``runtime.accelerate`` names accelerate's own configuration file (``accelerate config --config_file
F`` asks for what it needs; profiles/accelerate/ has some). The batch stays the one of params.yaml
and is shared by the processes. Gradients are then summed in another order, so another number of
processes gives another rounding: the number is in the stage's metrics.

    accelerate launch --config_file F -m scalequest.training.launch FOLDER    # what is run; FOLDER holds job.pickle
"""

import ctypes
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from scalequest.errors import UserError
from scalequest.io import atomic_path
from scalequest.params import Runtime

if TYPE_CHECKING:
    from scalequest.training.job import Job, Trained

MODULE = "scalequest.training.launch"  # what each process runs
JOB, RESULT = "job.pickle", "result.pickle"
PR_SET_PDEATHSIG = 1


def n_processes(runtime: Runtime) -> int:
    """How many processes train.

    Raises:
        UserError: the configuration is missing or does not say.
    """
    if runtime.accelerate is None:
        return 1
    path = Path(runtime.accelerate)
    if not path.is_file():
        raise UserError(
            f"runtime.accelerate: {path}: no such file; expected accelerate's configuration: write one with "
            f"`accelerate config --config_file {path}`, or take one of profiles/accelerate/"
        )
    number = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("num_processes")
    if not isinstance(number, int) or number < 1:
        raise UserError(f"runtime.accelerate: {path}: num_processes is {number!r}, expected a whole number from 1 on")
    return number


def free_port(config: Path) -> list[str]:
    """Options of accelerate for a port that nobody uses: by default all trainings of a machine take the same one.

    Empty where the configuration names a port, or several machines, which have to agree on one.
    """
    values = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    own = values.get("main_process_port") is not None or values.get("num_machines", 1) != 1
    return [] if own else ["--main_process_port", "0"]


def here() -> int:
    """How many processes train, of which this is one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launch(job: "Job", folder: Path, checkpoint: Path | None) -> "Trained":
    """Train on all processes of the configuration, and return what the first of them has to tell.

    Raises:
        UserError: the job's own, or a process ended without one.
    """
    (folder / RESULT).unlink(missing_ok=True)
    with atomic_path(folder / JOB) as temporary:
        temporary.write_bytes(pickle.dumps((job, checkpoint)))
    processes = n_processes(job.runtime)
    threads = job.runtime.threads or max(1, (os.cpu_count() or 1) // processes)
    config = str(job.runtime.accelerate)
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", config, *free_port(Path(config)), "-m", MODULE,
        str(folder),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, preexec_fn=_end_with_the_stage
    )
    try:
        code = process.wait()
    finally:
        process.terminate()  # the launcher passes it on to its processes
        process.wait()
    if not (folder / RESULT).exists():
        raise UserError(f"training ended with code {code} in `{' '.join(command)}`; what it printed stands above")
    result: Trained | UserError = pickle.loads((folder / RESULT).read_bytes())
    if isinstance(result, UserError):
        raise result
    if result.metrics["processes"] != processes:
        raise UserError(
            f"runtime.accelerate: {config} says num_processes {processes}, but {result.metrics['processes']} trained: its "
            "distributed_type starts no more (MULTI_GPU starts several, on CPUs too, with use_cpu: true)"
        )
    return result


def _end_with_the_stage() -> None:
    """Ask Linux to stop the launcher when the stage is killed: trainers left over would write beside a rerun."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main() -> None:
    """One of the processes."""
    import logging

    from scalequest.training.divergence import DivergenceError
    from scalequest.training.job import run_job

    folder = Path(sys.argv[1])
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if first else logging.WARNING, format="%(message)s")
    job, checkpoint = pickle.loads((folder / JOB).read_bytes())
    result: Trained | UserError
    try:
        result = run_job(job, folder, checkpoint)
    except UserError as error:
        result = error
    # Another process than the first may be the only one that diverged; the others then wait for it in a collective operation.
    diverged = isinstance(result, DivergenceError)
    if (first or diverged) and not (folder / RESULT).exists():
        with atomic_path(folder / RESULT) as temporary:
            temporary.write_bytes(pickle.dumps(result))
    if diverged:
        sys.exit(1)  # accelerate then ends the others


if __name__ == "__main__":
    main()
