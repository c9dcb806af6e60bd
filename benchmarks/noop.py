"""A `dvc repro` that has nothing to do: this repository against a one-stage repository made beside it, in turn.

python benchmarks/noop.py [--rounds 5]
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ONE_STAGE = "stages:\n  one:\n    cmd: echo 1 > out\n    outs: [out]\n"


def seconds(folder: Path) -> float:
    """Wall time of one `dvc repro` in ``folder``, which must run nothing."""
    start = time.perf_counter()
    result = subprocess.run(["dvc", "repro"], cwd=folder, capture_output=True, text=True, check=True)
    elapsed = time.perf_counter() - start
    assert "Running stage" not in result.stdout, f"{folder} was not up to date: run `dvc repro` first"
    return elapsed


def main() -> None:
    """Make the other repository, measure in pairs, print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    here = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder)
        for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "config", "core.analytics", "false"]):
            subprocess.run(command, cwd=other, check=True)
        (other / "dvc.yaml").write_text(ONE_STAGE)
        subprocess.run(["dvc", "repro", "-q"], cwd=other, check=True)
        seconds(here)  # warm up
        pairs = [(seconds(here), seconds(other)) for _ in range(rounds)]
    ours, one = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"this repository {ours:.2f} s, one stage {one:.2f} s, ratio {ours / one:.2f} (medians of {rounds})")


if __name__ == "__main__":
    main()
