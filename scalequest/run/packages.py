"""Packages that a run imports and this machine lacks.

A package that one stage imports inside a function is missed only when the run is there, which may be hours after its start.
So the imports of the stages are read from their code before anything runs.
"""

import ast
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TypeGuard

from scalequest.models.source import hub_gguf
from scalequest.params import Params, ReasoningGymSource, endpoint_of
from scalequest.run.deps import imports, nodes, tree

# What a package is called where it is installed from, if not by its module's name.
DISTRIBUTIONS = {
    "antlr4": "antlr4-python3-runtime",
    "lingua": "lingua-language-detector",
    "ruamel": "ruamel.yaml",
    "vl_convert": "vl-convert-python",
    "yaml": "pyyaml",
}
OURS = frozenset({"scalequest", "stages", "eval"})


def find_missing(params: Params, stages: Iterable[str], root: Path = Path()) -> list[str]:
    """One sentence for each package that these stages import with these parameters and that is not installed.

    Args:
        params: the parameters.
        stages: names of the stages that are to run, such as ``qft@sums``.
        root: the repository's root folder.
    """
    unused = idle(params)
    found: dict[str, tuple[Path, list[str]]] = {}
    for stage in dict.fromkeys(name.partition("@")[0] for name in stages):
        script = root / "stages" / f"{stage}.py"
        if script.is_file():
            for module, file in modules(root, script).items():
                found.setdefault(module, (file, []))[1].append(stage)
    return [
        f"the package {DISTRIBUTIONS.get(module, module.replace('_', '-'))} is not installed. Expected it for {', '.join(names)} "
        f"({file.relative_to(root)}). Run `make setup`"
        for module, (file, names) in sorted(found.items())
        if module not in unused and find_spec(module) is None
    ]


def idle(params: Params) -> set[str]:
    """Modules that the stages import only with other parameters than these."""
    every = [*params.seeds.values(), *params.benchmarks.values(), *dict(params.own.sources()).values()]
    models = params.models.values()
    used = {
        "gguf": any(source.startswith(("gguf:", "pypi:")) or hub_gguf(source)[1] for source in models),
        "lingua": params.screen.language == "lingua",
        "liger_kernel": params.runtime.fused_loss == "liger",
        "mlflow": params.runtime.mlflow,
        "ray": params.runtime.engine == "ray",
        "reasoning_gym": any(isinstance(source, ReasoningGymSource) for source in every),
        "vllm": not all(endpoint_of(source) for source in models),
    }
    return {module for module, needed in used.items() if not needed}


def modules(root: Path, script: Path) -> dict[str, Path]:
    """Top-level modules of other projects that a script and our modules below it import, and a file that imports each."""
    found: dict[str, Path] = {}
    seen, waiting = {script}, [script]
    while waiting:
        file = waiting.pop()
        for module in others(file):
            found.setdefault(module, file)
        new = below(root, file) - seen
        seen |= new
        waiting += sorted(new)
    return found


@cache
def below(root: Path, file: Path) -> frozenset[Path]:
    """The files of our modules that a file imports."""
    paths = [root / "scalequest" / name.replace(".", "/") for name in imports(file) if name]
    found = (path for base in paths for path in (base / "__init__.py", base.with_suffix(".py")))
    return frozenset(path for path in found if path.is_file())


@cache
def others(file: Path) -> frozenset[str]:
    """Top-level modules of other projects that a file needs; not those it can do without, in a ``try``."""
    found: list[str] = []
    for node in nodes(tree(file), skip=_guarded):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.append(node.module or "")
        elif isinstance(node, ast.Call) and _called(node) == "find_spec":
            found += [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    return frozenset(name.partition(".")[0] for name in found) - OURS - sys.stdlib_module_names


def _guarded(node: ast.AST) -> bool:
    """Whether a block goes on without what it imports."""
    if isinstance(node, ast.With):
        return any(_catches(call.args) for item in node.items for call in ast.walk(item) if _is_suppress(call))
    return isinstance(node, ast.Try) and any(
        (handler.type is None or _catches([handler.type])) and not _raises(handler) for handler in node.handlers
    )


def _raises(handler: ast.ExceptHandler) -> bool:
    return any(isinstance(node, ast.Raise) for node in ast.walk(handler))


def _is_suppress(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and _called(node) == "suppress"


def _called(node: ast.Call) -> str:
    """Name of a called function, without the module that it is in."""
    return ast.unparse(node.func).rpartition(".")[2]


def _catches(types: Sequence[ast.expr]) -> bool:
    names = {name.id for kind in types for name in ast.walk(kind) if isinstance(name, ast.Name)}
    return not names.isdisjoint({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})
