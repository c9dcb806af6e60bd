"""Code dependencies of dvc.yaml, generated from what each stage imports.

    scalequest deps --check     # exit 1 and show the difference where dvc.yaml is out of date
    scalequest deps --write     # rewrite the code entries of each stage's deps

DVC reruns a stage when a file that it depends on changes. The code that a stage depends on is its own file and its
import closure inside wing 1, the modules that decide bytes: no more (an edit that cannot change a result must rerun
nothing) and no less. See "The tree" in README.md.
"""

import argparse
import ast
import difflib
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from scalequest.errors import UserError
from scalequest.io import write_text
from scalequest.params.file import read_text

PIPELINE = Path("dvc.yaml")
# The modules that decide bytes. `signs`, `text`, `seeding` and `statistics` are files of the ground floor that do, too.
WING_1 = (
    "models",
    "problems",
    "sampling",
    "training",
    "answers",
    "domains",
    "evaluation",
    "signs",
    "text",
    "seeding",
    "statistics",
)
# The wording of the run's domain, as dvc.yaml names it: which one is decided by `domain` of params.yaml.
WORDING = "scalequest/domains/${domain}.py"
# Programs that a module starts by path instead of importing them.
STARTED = {
    "scalequest/answers/sandbox.py": "scalequest/answers/sandbox_child.py",
    "scalequest/models/template.py": "scalequest/models/template_child.py",
}
_CODE = re.compile(r"\s*- (?:scalequest|stages)/\S+\.py$")


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file; of the wording's placeholder, that of every domain."""
    files = sorted(path.parent.glob("[a-z]*.py")) if path.name == Path(WORDING).name else [path]
    return ast.parse("\n".join(file.read_text(encoding="utf-8") for file in files))


def _only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def nodes(node: ast.AST, skip: Callable[[ast.AST], bool] = lambda _: False) -> Iterator[ast.AST]:
    """All nodes below ``node``, without blocks that only type checkers read and those to be skipped."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not _only_for_types(child) and not skip(child):
            yield from nodes(child, skip)


def imports(path: Path) -> Iterator[str]:
    """Dotted names of scalequest's modules that a file imports, also inside functions: ``answers.find``."""
    for node in nodes(tree(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "scalequest":
            package = (node.module or "").removeprefix("scalequest").lstrip(".")
            # `from scalequest.answers import sandbox` names a module, `from scalequest.answers.find import boxed` a definition.
            yield package
            yield from (f"{package}.{alias.name}".lstrip(".") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("scalequest.") for a in node.names if a.name.startswith("scalequest."))


def module_file(root: Path, name: str) -> Path | None:
    """File of a module of scalequest by its dotted name; None where the name is a definition's."""
    path = root / "scalequest" / name.replace(".", "/")
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if name and file.is_file() and file.stat().st_size:  # empty package files decide nothing
            return file
    return None


def reads_domain(path: Path) -> bool:
    """Whether a file chooses the run's wording."""
    return any(isinstance(node, ast.Attribute) and node.attr == "domain" for node in ast.walk(tree(path)))


def closure(root: Path, start: list[Path]) -> list[Path]:
    """The files of ``start`` and what they import, transitively, inside wing 1."""
    found = dict.fromkeys(start)
    waiting = list(found)
    while waiting:
        path = waiting.pop()
        names = {name for name in imports(path) if name.split(".")[0] in WING_1}
        files = {file for name in names if (file := module_file(root, name))}
        if started := STARTED.get(str(path.relative_to(root))):
            files.add(root / started)
        if any(name.split(".")[0] == "domains" for name in names):
            files.add(root / "scalequest" / "domains" / "__init__.py")
            if reads_domain(path):
                files.add(root / WORDING)
            if "domains.DOMAINS" in names:  # chooses among all of them
                files |= {
                    file for file in (root / "scalequest" / "domains").glob("[a-z]*.py") if file.stem != "__init__"
                }
        for file in files - set(found):
            found[file] = None
            waiting.append(file)
    return list(found)


def code_dependencies(root: Path, stage: str, other: list[str]) -> list[str]:
    """Code that a stage depends on, as paths below ``root``.

    Args:
        root: the repository.
        stage: name of the stage and of its file.
        other: its dependencies that are not code of ours; the Python files of a folder among them are covered by it, and
            what they import counts.
    """
    folders = [root / dep for dep in other if "$" not in dep and dep.split("/")[0] not in ("data", "models", "reports")]
    inside = [file for folder in folders if folder.is_dir() for file in sorted(folder.rglob("*.py"))]
    found = closure(root, [root / "stages" / f"{stage}.py", *inside])
    return sorted(str(file.relative_to(root)) for file in found if not any(file.is_relative_to(f) for f in folders))


def rewritten(root: Path, text: str) -> str:
    """``dvc.yaml`` with the code dependencies of every stage as they should be."""
    lines, out, stage = text.splitlines(), [], ""
    at = 0
    while at < len(lines):
        line = lines[at]
        out.append(line)
        at += 1
        if found := re.fullmatch(r"  (\w+):", line):
            stage = found[1]
        if not re.fullmatch(r"\s+deps:", line):
            continue
        entries = []
        while at < len(lines) and re.match(r"\s*- ", lines[at]):
            entries.append(lines[at])
            at += 1
        indent = re.match(r"\s*", entries[0])[0] if entries else "      "  # type: ignore[index]
        data = [entry for entry in entries if not _CODE.match(entry)]
        other = [entry.strip().removeprefix("- ") for entry in data]
        out += data + [f"{indent}- {path}" for path in code_dependencies(root, stage, other)]
    return "\n".join(out) + "\n"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest deps``."""
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument(
        "--check", action="store_true", help="exit 1 where dvc.yaml lists other code than stages import"
    )
    choice.add_argument("--write", action="store_true", help="rewrite the code entries of dvc.yaml")


def run(args: argparse.Namespace) -> int:
    """Compare or rewrite."""
    if not PIPELINE.is_file():
        raise UserError("dvc.yaml: no such file. Expected to run in the repository's root folder")
    before = read_text(PIPELINE)
    after = rewritten(Path(), before)
    if args.write and after != before:
        write_text(PIPELINE, after)
    difference = list(
        difflib.unified_diff(before.splitlines(), after.splitlines(), "dvc.yaml", "imports", lineterm="", n=1)
    )
    print("\n".join(difference) if difference else "dvc.yaml lists exactly the code that its stages import")
    if difference and args.check:
        print("error: dvc.yaml is out of date. Run `scalequest deps --write`", file=sys.stderr)
        return 1
    return 0
