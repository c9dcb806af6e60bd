#!/usr/bin/env python3
"""Run the commands of README.md literally and in order, in a fresh clone of HEAD.

    .ci/readme.py                      # what a clone can do at once: under a minute
    .ci/readme.py --finished FOLDER    # what needs a finished run, in the folder of one
    .ci/readme.py --all                # everything, the whole pipeline first: an hour on two cores

Every block of README's `bash` code is run unless an HTML comment in the line before it says why not:

    <!-- ci: stops, WHY -->    is run; a command may end with 1 where it says WHY, and one has to
    <!-- ci: run, WHY -->      needs a finished run: only with --finished or --all
    <!-- ci: skip, WHY -->     takes long, or the whole machine: only with --all
    <!-- ci: never, WHY -->    names something of the reader's

What is left out is printed with its reason. The commands see the clone's own code and the virtual environment of this
checkout; with --all the clone installs its own.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r"(?:^<!-- ci: (?P<kind>\w+), (?P<why>[^\n]*?) -->\n)?^```bash\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
KINDS = ("stops", "run", "skip", "never")


@dataclass(frozen=True)
class Block:
    """One block of commands; ``kind`` is one of ``KINDS``, or empty for what a fresh clone can do."""

    line: int
    code: str
    kind: str = ""
    why: str = ""

    @property
    def commands(self) -> list[str]:
        """Its lines, those that end in a backslash with the next; comments are the shell's business."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def blocks_of(text: str) -> list[Block]:
    """Every block of a page.

    Raises:
        ValueError: a mark that is none, or not in the line before a block.
    """
    found = [
        Block(text.count("\n", 0, m.start("code")) + 1, m["code"], m["kind"] or "", m["why"] or "")
        for m in BLOCK.finditer(text)
    ]
    marks = re.findall(r"<!-- ci:.*", text)
    if len(marks) != sum(bool(block.kind) for block in found) or any(b.kind not in ("", *KINDS) for b in found):
        raise ValueError(f"marks {marks}: expected <!-- ci: {'|'.join(KINDS)}, WHY --> in the line before a bash block")
    return found


def clone(target: Path) -> None:
    """Clone HEAD as a stranger would; what is not committed stays out."""
    subprocess.run(["git", "clone", "-q", "--no-local", str(ROOT), str(target)], check=True)


def environment(folder: Path, own: bool) -> dict[str, str]:
    """For commands in ``folder``: its code, with its own environment or this checkout's."""
    found = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SCALEQUEST_PARAMS")}
    if own:
        return found | {"PATH": f"{folder / '.venv' / 'bin'}:{found['PATH']}"}
    venv = ROOT / os.environ.get("VENV", ".venv") / "bin"
    path = f"{venv}:{found['PATH']}" if venv.is_dir() else found["PATH"]
    return found | {"PATH": path, "PYTHONPATH": str(folder)}


def run(block: Block, folder: Path, variables: dict[str, str]) -> bool:
    """Run a block's commands, one shell each; whether all succeeded, or found what the block announces."""
    stopped = False
    for command in block.commands:
        print(f"$ {command}", flush=True)
        start = time.monotonic()
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        print(f"  {time.monotonic() - start:.1f} s", flush=True)
        announced = block.kind == "stops" and done.returncode == 1 and block.why in done.stdout + done.stderr
        stopped = stopped or announced
        if done.returncode and not announced:
            print(
                f"{done.stdout[-3000:]}{done.stderr[-3000:]}\nREADME.md:{block.line}: rc {done.returncode}: {command}"
            )
            return False
    if block.kind == "stops" and not stopped:
        print(f"README.md:{block.line}: no command said {block.why!r}")
        return False
    return True


def main(argv: list[str] | None = None) -> int:
    """Run what the options ask for; 1 where a command failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--all", action="store_true", help="the whole pipeline, too")
    chosen.add_argument("--finished", type=Path, metavar="FOLDER", help="a copy of the repository with a finished run")
    args = parser.parse_args(argv)
    kinds = {"", "stops", "run", "skip"} if args.all else {"run"} if args.finished else {"", "stops"}
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.finished or Path(temporary, "scalequest")
        if not args.finished:
            clone(folder)
        variables = environment(folder.resolve(), own=args.all)
        for block in blocks_of((ROOT / "README.md").read_text(encoding="utf-8")):
            if block.kind in kinds:
                wrong += not run(block, folder, variables)
            else:
                why = block.why or "needs no finished run, and was run without"
                print(f"- left out, {why}: {'; '.join(block.commands)}")
    print(f"README.md: {wrong} blocks failed" if wrong else "README.md: all commands that were run succeeded")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
