"""docs/comparison.md: each of our own cells names a test or a command that is there."""

import re

import pytest

from scalequest.cli import COMMANDS
from tests.fakes import ROOT

LINES = [line for line in (ROOT / "docs" / "comparison.md").read_text().splitlines() if line.startswith("| ")][1:]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES]
MAKE = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)


def exists(shown: str) -> bool:
    """Whether a test, a file, or a command of ours is there."""
    if "::" in shown:
        file, _, name = shown.partition("::")
        path = ROOT / file
        return path.is_file() and re.search(rf"^def {name}\(", path.read_text(), re.MULTILINE) is not None
    if shown.startswith("scalequest "):
        return shown.split()[1] in COMMANDS
    if shown.startswith("make "):
        return shown.split()[1] in MAKE
    return (ROOT / shown).exists()


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_what_we_claim_is_shown(row: list[str]):
    assert len(row) == 8
    assert all(re.match("[✓◐✗?]", cell) for cell in row[1:7]), row
    shown = re.findall("`([^`]+)`", row[7])
    assert bool(shown) is not row[6].startswith("✗"), row
    assert [name for name in shown if not exists(name)] == []


def test_the_number_of_benchmarks_is_the_catalogues():
    catalogue = re.findall(r"^[a-z_0-9]+:", (ROOT / "eval" / "benchmarks.yaml").read_text(), re.MULTILINE)
    row = next(row for row in ROWS if row[0] == "benchmarks")
    assert row[6] == f"◐ {len(catalogue)}"
