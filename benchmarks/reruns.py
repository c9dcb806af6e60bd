"""How many stages DVC calls changed after an edit, beside how many can see it in their results.

    python benchmarks/reruns.py                     # from the code dependencies in dvc.yaml: seconds
    python benchmarks/reruns.py --checkout FOLDER   # by `dvc status` in a clone at the commit of a finished run's dvc.lock, each
                                                    # edit taken back; data need not be there

Every edit is a real one: its old text is in the file. "Before" was measured with `dvc status` on
7058399, when files were cut by topic. An edit of a file that no stage lists changes no stage; the
test that catches it is named instead.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from scalequest.audit.lock import live_stages  # noqa: E402
from scalequest.params import read_yaml  # noqa: E402

TRAININGS = ("solver", "qft", "qpo", "difficulty_model", "reward_model", "instruct_tune")
SAMPLERS = ("qpo_questions", "preferences", "generate", "judge", "difficulty_labels", "respond", "preference_check", "evaluate", "evaluate_student")  # fmt: skip
SCORERS = ("difficulty", "reward", "preference_check", "reward_model")


@dataclass(frozen=True)
class Edit:
    """One edit of one file.

    Attributes:
        what: for the table.
        file: below the repository.
        old: text that is in it.
        new: what replaces it.
        before: instances that `dvc status` called changed on 7058399, in a run of 36.
        sees: stages whose results can differ after it.
        pinned: of a file that no stage lists, the test that fails after the edit; empty where nothing can differ.
    """

    what: str
    file: str
    old: str
    new: str
    before: int
    sees: tuple[str, ...]
    pinned: str = ""


EDITS = (
    Edit("the judge's yes/no pattern", "scalequest/answers/verdict.py", "_EITHER = re.compile(_WORD, re.IGNORECASE)", "_EITHER = re.compile(_WORD)", 30, ("judge", "preference_check")),
    Edit("an error text of a model source", "scalequest/models/source.py", "expected api:https://HOST/v1#MODEL", "Expected api:https://HOST/v1#MODEL", 30, ("fetch_model",)),
    Edit("seconds between two lines of progress", "scalequest/runtime/progress.py", "PROGRESS_EVERY_S = 10.0", "PROGRESS_EVERY_S = 20.0", 19, ()),
    Edit("an error text of the scorer", "scalequest/sampling/scorer.py", "raise it; the sequence begins", "the sequence begins", 14, SCORERS),
    Edit("HumanEval's wording, in a maths run", "scalequest/problems/known_datasets.py", "Complete this Python function:", "Finish this Python function:", 8, ("seeds", "benchmarks")),
    Edit("sequences at once doubled (it sets gradient accumulation)", "scalequest/training/job.py", "at_once = params.per_device_batch_size * processes\n", "at_once = 2 * params.per_device_batch_size * processes\n", 0, TRAININGS),
    Edit("threads of Ray's workers", "scalequest/sampling/vllm.py", 'return {"OMP_NUM_THREADS": str(threads)}', 'return {"OMP_NUM_THREADS": str(2 * threads)}', 0, (*SAMPLERS, *SCORERS)),
    Edit("Parquet compression", "scalequest/records.py", 'COMPRESSION = "zstd"', 'COMPRESSION = "gzip"', 0, (), "tests/test_golden.py::test_parquet_files_have_their_bytes"),
    Edit("digits of the training curves", "scalequest/io.py", ":.6g", ":.5g", 0, (), "tests/test_golden.py::test_text_files_have_their_bytes"),
    Edit("rounding of metrics", "scalequest/io.py", "digits: int = 6", "digits: int = 5", 0, (), "tests/test_golden.py::test_text_files_have_their_bytes"),
    Edit("the name of an outcome", "scalequest/outcomes.py", 'KEPT = "kept"', 'KEPT = "passed"', 0, (), "tests/test_golden.py::test_text_files_have_their_bytes"),
)  # fmt: skip


def instances(root: Path) -> dict[str, list[str]]:
    """Name of each stage in ``dvc.yaml`` to those of its instances: ``qft`` to ``qft@sums`` and ``qft@stories``."""
    found: dict[str, list[str]] = {}
    for name in live_stages(read_yaml(root / "dvc.yaml"), read_yaml(root / "params.yaml")) or []:
        found.setdefault(name.split("@")[0], []).append(name)
    return found


def code(root: Path) -> dict[str, set[str]]:
    """Name of each stage to the Python files that it lists, with the wording of the run's domain put in."""
    domain = read_yaml(root / "params.yaml")["domain"]
    stages: dict[str, Any] = read_yaml(root / "dvc.yaml")["stages"]
    return {
        name: {dep.replace("${domain}", domain) for dep in stage.get("do", stage)["deps"] if dep.endswith(".py")}
        for name, stage in stages.items()
    }


def listing(root: Path, file: str) -> list[str]:
    """Instances that depend on a file: those that `dvc status` calls changed after any edit of it."""
    lists = code(root)
    return sorted(one for stage, names in instances(root).items() if file in lists[stage] for one in names)


def seeing(root: Path, edit: Edit) -> list[str]:
    """Instances whose results can differ after an edit."""
    return sorted(one for stage, names in instances(root).items() if stage in edit.sees for one in names)


def applied(root: Path, edit: Edit) -> str:
    """The file's text after the edit.

    Raises:
        ValueError: the old text is not there once.
    """
    text = (root / edit.file).read_text(encoding="utf-8")
    if text.count(edit.old) != 1:
        raise ValueError(
            f"{edit.file}: {edit.old!r} is there {text.count(edit.old)} times, expected once; update EDITS"
        )
    return text.replace(edit.old, edit.new)


def changed_deps(root: Path) -> dict[str, set[str]]:
    """Instances that `dvc status` calls changed, with the dependencies that it names."""
    done = subprocess.run(["dvc", "status", "--json"], cwd=root, capture_output=True, text=True, check=True)
    return {
        name: {path for change in changes if isinstance(change, dict) for path in change.get("changed deps", {})}
        for name, changes in json.loads(done.stdout).items()
    }


def check_clean(root: Path) -> None:
    """Refuse a checkout whose code is not that of its dvc.lock: its stages are changed before any edit.

    Raises:
        ValueError: it is so.
    """
    found = {path for deps in changed_deps(root).values() for path in deps if path.endswith(".py")}
    if found:
        raise ValueError(
            f"{root}: code that dvc.lock does not have: {sorted(found)}. Expected the commit of a finished run. Check it out: "
            "git checkout $(git log --format=%h -1 -- dvc.lock)"
        )


def status(root: Path, edit: Edit) -> list[str]:
    """Instances that `dvc status` calls changed by this edit; the edit is taken back."""
    file = root / edit.file
    before, after = file.read_bytes(), applied(root, edit)
    try:
        file.write_text(after, encoding="utf-8")
        return sorted(name for name, deps in changed_deps(root).items() if edit.file in deps)
    finally:
        file.write_bytes(before)


def rows(root: Path, measured: bool) -> Iterator[tuple[str, str, int, int, int, str]]:
    """The table: what, file, before, after, stages that can see it, and what catches it otherwise."""
    for edit in EDITS:
        after = status(root, edit) if measured else listing(root, edit.file)
        yield edit.what, edit.file, edit.before, len(after), len(seeing(root, edit)), edit.pinned


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, help="a clone with a finished run, for `dvc status`")
    args = parser.parse_args()
    root = args.checkout or ROOT
    if args.checkout:
        check_clean(root)
    print(f"Of {sum(map(len, instances(root).values()))} stages\n")
    print(
        "| edit | file | changed before | changed now | can see it | otherwise caught by |\n|---|---|---:|---:|---:|---|"
    )
    for what, file, before, after, sees, pinned in rows(root, args.checkout is not None):
        print(f"| {what} | `{file}` | {before} | {after} | {sees} | {f'`{pinned}`' if pinned else ''} |")


if __name__ == "__main__":
    main()
