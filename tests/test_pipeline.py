"""dvc.yaml against the code: what a stage depends on is what it imports, what it reads is what it lists."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scalequest.params import Params, read_yaml
from scalequest.run.deps import WING_1, code_dependencies, imports, rewritten, tree
from tests.fakes import LAPTOP, ROOT

# The section that no stage lists, because it cannot change a result.
UNLISTED = {"runtime"}

PIPELINE = read_yaml(ROOT / "dvc.yaml")
MODULES = sorted((ROOT / "scalequest").rglob("*.py"))
STAGE_FILES = sorted(p for p in (ROOT / "stages").glob("*.py") if p.stem != "__init__")


def definition(stage: Any) -> dict[str, Any]:
    """A stage's own fields, out of ``do`` where it is a ``foreach``."""
    return stage.get("do", stage)


STAGES: dict[str, dict[str, Any]] = {name: definition(stage) for name, stage in PIPELINE["stages"].items()}
each_stage = pytest.mark.parametrize("name", STAGES)


def entries(name: str, kind: str) -> dict[str, dict[str, Any]]:
    """Paths of a stage's outs, metrics or plots, with their settings."""
    found: dict[str, dict[str, Any]] = {}
    for entry in STAGES[name].get(kind, []):
        found |= {entry: {}} if isinstance(entry, str) else {path: dict(more or {}) for path, more in entry.items()}
    return found


def numbers(name: str) -> set[str]:
    """A stage's files of numbers. All but the summary are declared as plots, so that `dvc metrics show` stays narrow."""
    return {path for kind in ("metrics", "plots") for path in entries(name, kind) if path.endswith(".json")}


def listed_params(name: str) -> list[str]:
    return [p for p in STAGES[name].get("params", []) if isinstance(p, str)]


def instances(name: str) -> Iterator[Callable[[str], str]]:
    """For each instance of a `foreach`, or the stage itself: what fills in its names, parameters by the laptop's values."""
    data, each = read_yaml(LAPTOP), PIPELINE["stages"][name].get("foreach")

    def value(path: str, item: Any, key: str) -> str | None:
        found: Any = {"item": item, "key": key, **data}
        for part in path.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return found if isinstance(found, str) else None

    if isinstance(each, str):
        path, each = each.removeprefix("${").removesuffix("}"), data
        for part in path.split("."):
            each = each[part]
    for key, item in each.items() if isinstance(each, dict) else [("", {})]:
        yield lambda text, key=key, item=item: re.sub(  # type: ignore[misc]
            r"\$\{([^}]*)\}", lambda found: value(found[1], item, key) or found[0], text
        )


# --------------------------------------------------------------------------------------------------- reading the code


def attributes(path: Path) -> Iterator[str]:
    yield from (node.attr for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute))


def closure(name: str) -> list[Path]:
    """Files whose code can change a stage's bytes."""
    other = [dep for dep in STAGES[name]["deps"] if not dep.endswith(".py")]
    inside = [f for dep in other if dep.startswith("eval/tasks") for f in sorted((ROOT / dep).rglob("*.py"))]
    return [*inside, *(ROOT / path for path in code_dependencies(ROOT, name, other))]


def reads(path: Path) -> set[str]:
    """Dotted parameters that a file reads as ``run.params.section`` or ``run.params.section.key``."""
    found: set[str] = set()
    inner: set[int] = set()  # nodes that are a part of a longer chain
    for node in ast.walk(tree(path)):  # outer attributes come before inner ones
        if not isinstance(node, ast.Attribute | ast.Subscript) or id(node) in inner:
            continue
        chain: list[str] = []
        at: ast.expr = node
        while isinstance(at, ast.Attribute | ast.Subscript):
            inner.add(id(at))
            if isinstance(at, ast.Attribute):
                chain.append(at.attr)
            elif isinstance(at.slice, ast.Constant):  # one entry of a mapping: `models["optimizer"]`
                chain.append(str(at.slice.value))
            at = at.value
        if isinstance(at, ast.Name) and at.id == "run" and len(chain) > 1 and chain[-1] == "params":
            found.add(".".join(chain[-2::-1]))
        if isinstance(at, ast.Name) and at.id == "run" and chain == ["seed"]:  # run.seed() starts from the run's seed
            found.add("seed")
    return found


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """String literals of a file with their lines, docstrings left out."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


# ---------------------------------------------------------------------------------------------------- stages and files


def test_every_stage_has_a_file_and_every_file_a_stage():
    assert {p.stem for p in STAGE_FILES} == set(STAGES)


@each_stage
def test_every_stage_says_what_it_does(name: str):
    assert len(STAGES[name].get("desc", "").split()) >= 5


@each_stage
def test_a_stage_runs_its_own_file(name: str):
    assert re.match(rf"python -m stages\.{name}\b", STAGES[name]["cmd"])


@each_stage
def test_a_stage_file_has_a_test_file(name: str):
    # Each of these is another stage with other numbers, and is tested beside it.
    assert name in ("qpo_questions", "evaluate_student") or (ROOT / "tests" / "stages" / f"test_{name}.py").is_file()


@each_stage
def test_no_stage_imports_another(name: str):
    for node in ast.walk(tree(ROOT / "stages" / f"{name}.py")):
        if isinstance(node, ast.ImportFrom):
            assert not (node.module or "").startswith("stages")
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("stages") for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_no_shared_module_imports_a_stage(path: Path):
    names = [n.module or "" for n in ast.walk(tree(path)) if isinstance(n, ast.ImportFrom)]
    names += [a.name for n in ast.walk(tree(path)) if isinstance(n, ast.Import) for a in n.names]
    assert not [name for name in names if name.split(".")[0] == "stages"]


# --------------------------------------------------------------------------------------------------------------- deps


def test_dvc_yaml_lists_exactly_the_code_that_its_stages_import():
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert rewritten(ROOT, text) == text, "dvc.yaml is out of date: run `scalequest deps --write`"


# The tree says what reruns: three wings on a ground floor.
GROUND = {"errors", "io", "records", "params", "outcomes", "redaction", "signs", "text", "seeding", "statistics"}
WING_2, WING_3 = {"runtime"}, {"audit", "report", "publish", "run", "cli"}


def wing(path: Path) -> str:
    return path.relative_to(ROOT / "scalequest").with_suffix("").parts[0]


def test_every_module_belongs_to_a_wing():
    assert {wing(path) for path in MODULES} - {"__init__"} == GROUND | set(WING_1) | WING_2 | WING_3


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT / "scalequest")))
def test_imports_keep_to_the_wings(path: Path):
    # Wing 1 sees of `runtime` its types alone; the ground floor sees nothing above it but what `params` has to parse.
    own, used = wing(path), {name.split(".")[0] for name in imports(path)} - {""}
    if own in GROUND:
        assert used <= GROUND | ({"models", "domains"} if own == "params" else set())
    elif own in WING_1:
        assert used <= GROUND | set(WING_1)
    elif own in WING_2:
        assert not used & WING_3


@pytest.mark.parametrize("path", STAGE_FILES, ids=lambda p: p.stem)
def test_only_the_report_looks_on(path: Path):
    used = {name.split(".")[0] for name in imports(path)}
    assert not used & (WING_3 - ({"report"} if path.stem == "report" else set()))


@each_stage
def test_paths_on_the_command_line_are_declared(name: str):
    stage = STAGES[name]
    outputs = [*entries(name, "outs"), *entries(name, "metrics"), *entries(name, "plots")]
    words = set(stage["cmd"].split())
    for path in [dep for dep in stage["deps"] if not dep.endswith(".py")] + outputs:
        # `report` reads and writes folders of small files that are declared one by one.
        assert path in words or name == "report", f"{path} is declared but not handed to the stage"
    for word in words:
        if re.match(r"(data|models|reports|eval)/", word) and name != "report":
            assert word in stage["deps"] or word in outputs, f"{word} is used but neither a dependency nor an output"


# ------------------------------------------------------------------------------------------------------------- params


@each_stage
def test_listed_parameters_are_read_and_read_ones_listed(name: str):
    if name == "report":  # prints every section, by iterating over the names of Params
        assert set(listed_params(name)) == set(Params.model_fields) - UNLISTED
        return
    used: set[str] = set()
    for path in closure(name):
        used |= reads(path)
    used = {key for key in used if key.split(".")[0] not in UNLISTED}
    listed = listed_params(name)
    # `generators.${item.g}.seed_mix`: which generator is decided on the command line.
    sections = {key.split(".")[0] for key in listed}
    assert sections == {key.split(".")[0] for key in used}
    for key in listed:
        section, *rest = key.split(".")
        if section == "models" and name != "fetch_model":
            # The source of the model that the stage asks: scalequest.sampling.remote takes the folder's name as its role.
            # A name that is filled in has to be the same on both sides, in each instance.
            for filled in instances(name):
                roles = {Path(filled(dep)).name for dep in STAGES[name]["deps"] if filled(dep).startswith("models/")}
                assert filled(key).split(".", 1)[1] in roles
        elif rest and not rest[0].startswith("$"):
            # Single leaves are listed: the code may read no other leaf of that section.
            assert {k for k in used if k.split(".")[0] == section} == {k for k in listed if k.split(".")[0] == section}


def test_the_reader_of_parameters_sees_what_stages_read():
    assert reads(ROOT / "stages" / "qft.py") == {"generators", "seed", "qft"}
    assert reads(ROOT / "scalequest" / "training" / "job.py") == {"engine.dtype", "runtime", "seed"}
    assert reads(ROOT / "stages" / "generate.py") == {"generators.n_questions", "generate"}
    assert reads(ROOT / "scalequest" / "sampling" / "questions.py") == {"engine", "runtime"}


def test_every_section_is_listed_by_a_stage():
    listed = {key.split(".")[0] for name in STAGES for key in listed_params(name)}
    assert listed == set(Params.model_fields) - UNLISTED


def test_every_listed_parameter_exists():
    data = read_yaml(LAPTOP)
    for name in STAGES:
        for key in listed_params(name):
            found: Any = data
            for part in re.sub(r"\$\{[^}]*\}", "*", key).split("."):
                if part == "*":  # one generator or role, named on the command line
                    found = next(iter(found.values()))
                else:
                    assert part in found, f"{name} lists {key}, params.yaml has no such key"
                    found = found[part]


def test_the_generators_own_settings_are_listed_leaf_by_leaf():
    # Whole `generators` would rerun every generator for a change of one.
    # The report prints all of them.
    keys = {key for name in STAGES for key in listed_params(name) if key.startswith("generators") and name != "report"}
    assert keys == {f"generators.${{item.g}}.{own}" for own in ("seed_mix", "n_questions", "qft", "qpo")}


# ---------------------------------------------------------------------------------------------------- metrics, paths


@each_stage
def test_metrics_are_in_git_and_everything_else_in_the_cache(name: str):
    for path, settings in {**entries(name, "metrics"), **entries(name, "plots")}.items():
        assert settings.get("cache") is False, f"{path}: metrics and curves are small, so Git keeps them"
    if name != "report":  # its pages are small, too, and are read on the web
        for path, settings in entries(name, "outs").items():
            assert settings.get("cache", True) is True, f"{path}: an uncached output costs the stage its run cache"


@each_stage
def test_a_stage_leaves_a_metric(name: str):
    assert numbers(name) or name == "fetch_model"


def test_the_summary_alone_is_listed_by_dvc_metrics():
    """Hundreds of columns are no table. As uncached outs the files would cost their stages the run cache."""
    assert {path for name in STAGES for path in entries(name, "metrics")} == {"reports/summary.json"}


# Where a path may be written in Python, with the reason.
ALLOWED_PATHS = {
    ("tracking.py", "data/"),  # distinguishes data from code among the dependencies that DVC names
    ("tracking.py", "models/"),  # and models
    ("environment.py", "reports/environment.json"),  # no output of any stage, so dvc.yaml cannot name it
}


# What looks at a finished pipeline knows where things are, because that is what it is asked about.
LOOKING_ON = {"audit", "cli", "publish", "run"}


@pytest.mark.parametrize(
    "path",
    [*(m for m in MODULES if wing(m) not in LOOKING_ON), *STAGE_FILES],
    ids=lambda p: f"{p.parent.name}/{p.stem}",
)
def test_only_dvc_yaml_knows_paths(path: Path):
    for line, text in literals(path):
        found = re.search(r"(?<![\w./-])(data|models|reports)/", text)
        assert not found or (path.name, text) in ALLOWED_PATHS, f"{path.name}:{line}: {text!r}"


def test_the_reader_of_literals_sees_messages_and_not_docstrings(tmp_path: Path):
    file = tmp_path / "x.py"
    file.write_text('"""data/a"""\ndef f(x):\n    """data/b"""\n    raise ValueError(f"see data/{x}")\n')
    assert [text for _, text in literals(file)] == ["see data/"]


def test_no_tracked_file_holds_a_path_of_a_machine():
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a Git checkout: which files are tracked is not known")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    home = re.compile(r"(?<![\w.$}])/(?:home|Users|root|work|scratch|mnt)/\w")
    for name in filter(None, listed.stdout.split("\0")):
        file = ROOT / name
        if file.is_file():
            text = file.read_bytes().decode("utf-8", errors="replace")
            assert str(ROOT) not in text, f"{name} holds the path of this checkout"
            found = home.search(text)
            assert not found, f"{name} holds the path of a machine: {text[found.start() : found.start() + 40]!r}"


# ------------------------------------------------------------------------------------------------------- tools, imports


def test_every_test_that_the_documents_name_exists():
    text = (ROOT / "docs" / "paper-differences.md").read_text()
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text))
    missing = [
        f"{file}::{test}"
        for file, test in sorted(named)
        if not (ROOT / file).is_file()
        or not any(isinstance(n, ast.FunctionDef) and n.name == test for n in tree(ROOT / file).body)
    ]
    assert missing == []
    # 22 points of the paper's code, each with its entry.
    assert re.findall(r"^(\d+)\. \*\*Paper's code:\*\*", text, re.MULTILINE) == [str(n) for n in range(1, 23)]
    assert len(named) > 22


def test_tests_mirror_the_tree():
    modules = {path.relative_to(ROOT / "scalequest") for path in MODULES} | {
        Path("stages") / path.name for path in STAGE_FILES
    }
    mirrored = {
        str(path.parent.with_name(f"test_{path.parent.name}.py") if path.name == "__init__.py" and path.parent.name
            else path.with_name(f"test_{path.name}"))
        for path in modules
    }  # fmt: skip
    for path in (ROOT / "tests").rglob("test_*.py"):
        # A test of several modules together has a topic, and says which.
        name = str(path.relative_to(ROOT / "tests"))
        assert name in mirrored or ast.get_docstring(tree(path)), f"{name}: no module of this name, and no docstring"


def make_targets() -> tuple[set[str], set[str]]:
    """Targets with a rule, and those called phony."""
    text = (ROOT / "Makefile").read_text()
    rules = set(re.findall(r"^([a-z][\w-]*):(?!=)", text, re.MULTILINE))
    phony = set(" ".join(re.findall(r"^\.PHONY:(.*)$", text, re.MULTILINE)).split())
    return rules, phony


def test_the_makefile_has_the_targets_that_the_readme_promises():
    rules, phony = make_targets()
    assert {"help", "repro", "test", "test-fast", "lint", "fix", "setup"} <= rules
    assert rules == phony  # a file named like a target must not hide it


def test_every_make_target_says_what_it_does():
    for line in (ROOT / "Makefile").read_text().splitlines():
        if re.match(r"[a-z][\w-]*:(?!=)", line):
            assert "##" in line, line


def test_every_module_imports_without_torch_vllm_and_transformers():
    files = [
        p.relative_to(ROOT).with_suffix("")
        for p in [*MODULES, *STAGE_FILES]
        if p.stem not in ("__init__", "sandbox_child", "template_child")
    ]
    names = [".".join(file.parts) for file in files]
    code = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
heavy = ("torch", "vllm", "transformers", "trl", "peft", "datasets", "lm_eval", "mlflow", "dvc", "reasoning_gym", "lingua")
print(*[name for name in heavy if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def test_no_stage_with_an_engine_imports_numba() -> None:
    """On a CPU vLLM looks into every module of its process, and stops at numba's ("has no attribute 'get'")."""
    compiled = {p.relative_to(ROOT).as_posix() for p in ROOT.glob("scalequest/**/*.py") if "from numba import" in p.read_text()}  # fmt: skip
    assert len(compiled) >= 3
    engines = {name: body["deps"] for name, body in STAGES.items() if "scalequest/sampling/engine.py" in body["deps"]}
    assert {"preferences", "generate", "respond"} <= engines.keys()
    assert {name: found for name, deps in engines.items() if (found := compiled & set(deps))} == {}
