"""Put the scores of a released model into docs/evaluation.md, from the files that `scalequest evaluate --scores` wrote.

    python benchmarks/scores_table.py [--check]

With --check nothing is written, and the exit code says whether the page is up to date (tests/test_evaluation.py asks).
"""

import argparse
import sys
from pathlib import Path

from scalequest.io import read_json, write_text

ROOT = Path(__file__).resolve().parents[1]
SCORES, PAGE = ROOT / "reports" / "results" / "smollm2-135m", ROOT / "docs" / "evaluation.md"
BEGIN, END = "<!-- smollm2:begin -->", "<!-- smollm2:end -->"


def render(folder: Path) -> str:
    """Return the table, one row per task, files in the order of their names."""
    lines = [
        "| task | items | new tokens | flexible, % | strict, % | unparsed, % | timeouts |",
        "| :--- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for path in sorted(folder.glob("*.json")):
        run = read_json(path)
        for task, s in run["tasks"].items():
            shares = (
                f"{100 * s[name]:.1f} ± {100 * s[f'{name}_stderr']:.1f}" for name in ("flexible", "strict", "unparsed")
            )
            lines.append(
                f"| `{task}` | {s['n']:,} | {run['settings']['max_tokens']:,} | {' | '.join(shares)} | {s['timeouts']:,} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    new = f"{before}{BEGIN}\n\n{render(SCORES)}\n\n{END}{after}"
    if check:
        sys.exit(0 if new == text else "docs/evaluation.md is behind the scores: python benchmarks/scores_table.py")
    write_text(PAGE, new)


if __name__ == "__main__":
    main()
