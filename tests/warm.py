"""Processes that do not import vLLM and TRL anew: a server has them loaded, and forks each of them.

To import vLLM takes a process 9 s of CPU, more than a tiny engine needs for its work, and the tests start about a hundred.
What a process is given stays the same: arguments, folder, environment, standard streams. Code of ours it imports itself,
from its folder. Four things differ, so tests of these start a process as a user does: its parent is the server (psutil
finds the parents of the one who asked for it); a signal to that one reaches it as a SIGKILL; what the libraries read from
the environment while they are imported is the server's; and all processes of a server share Python's hash seed and NumPy's
first random state.

    python tests/warm.py ask SOCKET -m stages.generate ...
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Nothing of ours: it would be this checkout's, and a process may be one of a copy.
LOADED = (
    "vllm", "vllm.entrypoints.llm", "vllm.v1.worker.cpu_worker", "vllm.model_executor.models.llama", "trl.trainer.sft_trainer",
    "trl.trainer.dpo_trainer", "trl.trainer.reward_trainer", "peft", "transformers.models.llama.modeling_llama", "psutil",
)  # fmt: skip
# What an engine sets before it imports vLLM (scalequest.sampling.vllm.prepare_environment) and vLLM reads while it is imported.
# TorchDynamo compiles one function of the sampler, 2 s for each engine; it counts the same without.
SURROUNDINGS = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "TORCHDYNAMO_DISABLE": "1"}


class Warm:
    """The server, started with the first process that is asked for; it ends with this process."""

    def __init__(self, folder: Path) -> None:
        self.socket, self._python = str(folder / "socket"), sys.executable
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, unless it runs."""
        if self._server is None:
            words = [self._python, __file__, "serve", self.socket]
            surroundings = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | SURROUNDINGS
            self._server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=surroundings)
            assert self._server.stdout
            assert self._server.stdout.readline(), (
                "the server of forked processes did not start"
            )  # it listens, and imports

    def run(self, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """``python WORDS`` in a folder."""
        self.start()
        command = [self._python, "-IS", __file__, "ask", self.socket, *words]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=600)

    def path(self, started: Path | None = None) -> str:
        """A folder for the start of PATH: its ``python`` leaves stages, reruns of them and trainings to the server.

        Args:
            started: where given, the first process of each stage's file starts as a user's does, and leaves its name in this
                folder; the server forks the others.
        """
        self.start()
        python, folder = self._python, started or Path(f"{self.socket}.bin")
        shim, first = folder / "python", f'  "-m stages."*) mkdir "{folder}/$2" 2> /dev/null && exec {python} "$@" ;;'
        if shim.exists():
            return str(folder)
        folder.mkdir(exist_ok=True)
        shim.write_text(
            f"""#!/bin/sh
case "$*" in
{first if started else "  -) ;;"}
esac
case "$*" in
  "-m stages."* | "-P -m scalequest.audit.rerun "* | "-m accelerate."* | "-u -m "*".training."*) exec {python} -IS {__file__} ask {self.socket} "$@" ;;
  *) exec {python} "$@" ;;
esac
"""
        )
        shim.chmod(0o755)
        return str(folder)

    def end(self) -> None:
        """End the server, which ends when nobody holds the other end of its pipe."""
        if self._server and self._server.stdin:
            self._server.stdin.close()
            try:
                self._server.wait(10)
            except subprocess.TimeoutExpired:  # a process of a test still holds the other end
                self._server.kill()


def ask(path: str, words: Sequence[str]) -> int:
    """Have a process run; its exit code."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        given = json.dumps(
            {"words": words, "cwd": str(Path.cwd()), "environment": dict(os.environ), "asked_by": os.getpid()}
        ).encode()
        socket.send_fds(server, [len(given).to_bytes(8, "big")], [0, 1, 2])
        server.sendall(given)
        return int(server.recv(16) or 1)


def serve(path: str) -> None:
    """Fork a process for each that asks, until standard input is closed."""
    python = f"{path}.bin/python"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    print("listens", flush=True)
    for name in LOADED:
        __import__(name)
    gc.collect()
    gc.freeze()  # else each process looks through all that was imported whenever it collects garbage
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            os._exit(0)  # as the loaded libraries would complain of an end of their own
        asked, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                watch(asked, python if Path(python).exists() else "")
            finally:  # whatever happened: this is a copy of the server, whose own end is not for it
                os._exit(0)
        asked.close()


def watch(asked: socket.socket, python: str) -> None:
    """Fork the process, and send its exit code; kill it if nobody waits for it any more."""
    length, streams, _, _ = socket.recv_fds(asked, 8, 3)
    given = json.loads(asked.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL))
    process = os.fork()
    if process == 0:
        asked.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        work(python=python, **given)
    ended = os.pidfd_open(process)
    if ended not in select.select([asked, ended], [], [])[0]:
        os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    try:
        asked.send(str(code if code >= 0 else 128 - code).encode())
    except OSError:  # it is gone
        return


def parents_of(asked_by: int) -> None:
    """Let psutil give this process the parents of another one, which waits for it: by them a stage finds its DVC."""
    import psutil

    parents, this = psutil.Process.parents, os.getpid()

    def of(process: Any) -> Any:
        return parents(psutil.Process(asked_by) if process.pid == this else process)

    psutil.Process.parents = of  # type: ignore[method-assign]


def work(words: list[str], cwd: str, environment: dict[str, str], asked_by: int, python: str) -> None:
    """Be ``python WORDS``; does not return.

    Args:
        words: the arguments; of Python's own at most one of -P and -u, before -m or -c.
        cwd: the folder.
        environment: all variables.
        asked_by: number of the process that asked for it.
        python: what it starts others with; empty for the real one.
    """
    parents_of(asked_by)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment | SURROUNDINGS)
    added = [folder for folder in environment.get("PYTHONPATH", "").split(":") if folder]
    flags = [word for word in words[:1] if word in ("-P", "-u")]
    sys.path[:1] = added if "-P" in flags else [cwd, *added]
    how, what, *rest = words[len(flags) :]
    if python:
        sys.executable = python
    sys.argv = [how, *rest]
    code: Any = 0
    try:
        if how == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(what, "<string>", "exec"), main.__dict__)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(ask(sys.argv[2], sys.argv[3:]))
