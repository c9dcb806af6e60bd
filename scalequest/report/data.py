"""Rows of the data, kept and rejected."""

from typing import Any

from scalequest.outcomes import KEPT, OUTCOMES, Outcome
from scalequest.report.blocks import Block, Sample, Samples, Section, Text, code
from scalequest.report.run import Run
from scalequest.report.tables import Stored, reward_in_words

KEPT_SHOWN = 3


def shown_rows(table: Stored, n: int, *by: str) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """Draw, for each value of the columns ``by``, at most ``n`` rows by hash of their id: the same rows in every report."""
    drawn = table.first_drawn(n, "report", *by)
    places = [place for own in drawn.values() for _, place in own]
    rows = dict(zip(places, table.take(places), strict=True))
    return {key: [rows[place] for _, place in own] for key, own in drawn.items()}


def kept_sample(row: dict[str, Any]) -> Sample:
    """Show a training row."""
    facts = (
        f"{reward_in_words(row['reward'])} · agreement {row['agreement']:.2f} · candidates {row['n_candidates']} · answer "
        f"{code(row['final_answer'])}"
    )
    texts = (("Question", row["question"]), ("Response", row["response"]))
    return Sample(code(row["id"]), facts, texts)


def rejected_sample(row: dict[str, Any]) -> Sample:
    """Show a rejected question and why."""
    facts = [f"`{row['outcome']}`: {OUTCOMES.get(row['outcome'], Outcome('dropped')).meaning}"]
    if row["matched"]:
        facts.append(f"matches {code(row['matched'])}")
    if row["evidence"]:
        facts.append(f"evidence {code(row['evidence'])}")
    if row["outcome"] == "too_easy":
        facts.append(f"difficulty {row['difficulty']:.3f}, lowest kept {row['min_difficulty']:.3f}")
    return Sample(code(row["id"]), " · ".join(facts), (("Question", row["question"]),))


def look(run: Run) -> Section:
    """Show rows of the data, kept and rejected."""
    mix, filters = list(run.asked), [name for name in run.outcomes if name != KEPT]
    blocks: list[Block] = [Text("Drawn by a hash of the ids, not picked: model text as it is, right or wrong.")]
    kept, rejected = shown_rows(run.data, KEPT_SHOWN, "generator"), shown_rows(run.ledger, 1, "generator", "outcome")
    for g in mix:
        good = [kept_sample(row) for row in kept.get((g,), [])]
        bad = [rejected_sample(row) for name in filters for row in rejected.get((g, name), [])]
        blocks += [Samples(f"Kept: `{g}`", good), Samples(f"Rejected: `{g}`, one for each filter", bad, folded=True)]
    return Section("A look at the data", blocks)
