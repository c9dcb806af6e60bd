"""An experiment as text: the list, the plan and the table with the verdicts."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from scalequest.outcomes import NOT_RUN
from scalequest.report.results import p_in_words, signed
from scalequest.run.experiment.grid import Claim, Grid
from scalequest.run.experiment.results import CellResult, Judged

DASH = "–"
SMALL = "by less than counts"
HOW = """
Differences are in points of 100, ± one standard error. Scores are paired: the same benchmark items, one student beside the
other, and the error is that of the items and, with several training seeds, of the seeds. Shares and means of questions are
not paired. A claim **holds** where the difference is more than two errors above zero and at least five items differ, "by
less than counts" where it is, plus two errors, still below the least one that counts. Where it does not hold so, it **does
not hold** if the difference plus two errors is below the least one that counts. Otherwise it is **undecided**, and the
verdict names the number that settles it whatever the difference is. For "not below", the least one that counts is added to
the difference first. With one training seed, the error lacks what another would change. The error of questions never has
what another training of their generator would change."""


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """Return a Markdown table; ``align`` has one letter per column, l or r."""
    marks = {"l": ":---", "r": "---:"}
    cells = [list(head), [marks[a] for a in align], *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def difference_cell(judged: Judged) -> list[str]:
    """Difference, counts and p-value of one claim."""
    m = judged.measured
    if m is None:
        return [DASH] * 3
    counts = f"{m.higher:,} / {m.lower:,}" if m.higher is not None and m.lower is not None else DASH
    unit = m.what if m.seeds == 1 else f"{m.what} × {m.seeds} seeds"
    p = f", {p_in_words(m.p_value)}" if m.p_value is not None else ""
    return [f"{signed(m.value)} ± {m.error:.1f}", counts, f"{m.n:,} {unit}{p}"]


def verdict_cell(judged: Judged) -> str:
    """The verdict, what it needs, and hints: a difference too small to count, one training seed."""
    m = judged.measured
    single = m is not None and judged.claim.of_students and m.seeds == 1
    needs = f": {judged.verdict.needs}" if judged.verdict.needs else ""
    hints = ", ".join(hint for hint, given in ((SMALL, judged.verdict.small), ("one training seed", single)) if given)
    return f"**{judged.verdict.outcome}**{needs}{hints and f' ({hints})'}"


def claims_table(judged: Sequence[Judged]) -> str:
    """One row per claim."""
    rows = []
    for entry in judged:
        claim = entry.claim
        sign = "−" if claim.direction == "above" else "not below"
        rows.append([
            claim.says, claim.paper, f"{claim.better} {sign} {claim.than}", claim.measured, *difference_cell(entry),
            f"{claim.matters:g}", verdict_cell(entry),
        ])  # fmt: skip
    head = ["claim", "paper", "cells", "metric", "difference", "higher / lower", "of", "counts from", "verdict"]
    return markdown(head, rows, "llllrrlrl")


def cells_table(grid: Grid, results: Mapping[str, CellResult], states: Mapping[str, str]) -> str:
    """One row per cell: what it sets, its rows and its value by each metric of the claims."""
    metrics: dict[str, Claim] = {}
    for claim in grid.spec.claims:
        metrics.setdefault(claim.measured, claim)
    rows = []
    for cell in grid.cells.values():
        result = results.get(cell.name)
        values = []
        for claim in metrics.values():
            value = result.value(claim) if result else None
            values.append(DASH if value is None else f"{value[0]:.1f} ± {value[1]:.1f}")
        trained = ", ".join(f"{n:,}" for n in dict.fromkeys(result.rows.values())) if result else ""
        commit = f"{result.commit or ''}"[:7] if result else ""
        rows.append([
            cell.name, "; ".join(f"`{line}`" for line in cell.changes) or "the base", states[cell.name],
            trained or DASH, *values, f"`{commit}`" if commit else DASH,
        ])  # fmt: skip
    return markdown(["cell", "sets", "state", "rows", *metrics, "commit"], rows, "lllr" + "r" * len(metrics) + "l")


def page(grid: Grid, results: Mapping[str, CellResult], states: Mapping[str, str], judged: Sequence[Judged], gpu: Mapping[str, float | None], assumed: Sequence[str] = (), notes: Sequence[str] = ()) -> str:  # fmt: skip
    """The page of one experiment, from its finished and kept cells.

    Args:
        grid: the experiment.
        results: what these cells made, by name.
        states: state of every cell.
        judged: its claims.
        gpu: estimated hours of the cells that are not finished; None where a model's size is not known.
        assumed: what these hours had to assume.
        notes: on the cells, beside those on the claims.
    """
    spec = grid.spec
    done = sum(name in results for name in grid.cells)
    lines = [
        f"# {grid.name}: {spec.question}",
        "",
        f"Paper: {spec.paper}. Parameters: `{spec.on}`. {done} of {len(grid.cells)} cells are finished. Written by",
        f"`scalequest experiment {grid.name} --table` from `experiments/{grid.name}.yaml`.",
        "",
        "## Claims",
        "",
        claims_table(judged),
        HOW,
        "",
        "## Cells",
        "",
        cells_table(grid, results, states),
    ]
    left = {name: hours for name, hours in gpu.items() if name not in results}
    if left:
        listed = ", ".join(f"{name} {DASH if hours is None else f'{hours:.2f}'}" for name, hours in left.items())
        why = f" Marked as not run: {spec.why.rstrip('.')}." if NOT_RUN in states.values() else ""
        lines += ["", "## Not run", "", f"Hours of one H100: {listed}; evaluation is not estimated.{why}"]
        lines += ["", *(f"- {note}" for note in assumed)] if assumed else []
    listed_notes = dict.fromkeys([*(note for entry in judged for note in entry.notes), *notes])
    if listed_notes:
        lines += ["", "## Notes", "", *(f"- {note}." for note in listed_notes)]
    return "\n".join(lines) + "\n"


def plain(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns for a terminal."""
    table = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


def where(root: Path, name: str) -> Path:
    """The page of an experiment."""
    return root / "reports" / "experiments" / f"{name}.md"
