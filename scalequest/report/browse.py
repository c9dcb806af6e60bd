"""The browsers: a question's whole life, test items with every model's answer, rewrites beside their originals."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from scalequest.outcomes import KEPT, OUTCOMES, REWRITE_OUTCOMES, Outcome
from scalequest.problems.puzzles import known_answer
from scalequest.report.blocks import Block, Browser, Column, Section, Text, clip
from scalequest.report.page import browser_json, packed
from scalequest.report.run import Run
from scalequest.report.tables import DRAW, answers, checked_pairs, judged, preference_rows, reward_in_words, shuffled

# Rows of a browser, and bytes of its packed rows: the page must stay under 5 MB.
QUESTIONS, ITEMS, REWRITES = 5_000, 2_000, 1_000
QUESTION_BYTES, ITEM_BYTES, REWRITE_BYTES = 2_900_000, 700_000, 400_000
SNIPPET = 240
# Of each outcome at least this many rows are drawn, where there are as many.
RARE = 100
DRAWN = "Drawn by a hash of the ids, not picked."
HOW = (
    "Click a question to read everything that is known of it. Arrow keys go from row to row, `/` jumps to the search. The address "
    "of the page holds the search, so it can be copied."
)


def snippet(text: str) -> str:
    """The beginning of a text on one line."""
    return " ".join(text.split())[:SNIPPET]


def fitting(make: Callable[[int], Browser], n: int, limit: int) -> Browser:
    """The browser with as many of ``n`` rows as fit into ``limit`` bytes when packed."""
    browser = make(n)
    while n and (size := len(packed(browser_json(browser)))) > limit:
        n = min(n - 1, int(n * 0.97 * limit / size))
        browser = make(n)
    return browser


def reading(row: dict[str, Any]) -> str:
    """What the grader read in an answer to a test item."""
    if 0 < row["strict"] < 1:  # of several answers; the first is shown
        return f"{row['strict']:.0%} right"
    if row["strict"] > 0:
        return "right"
    if row["flexible"] > 0:
        return "right, other form"
    if row["timeout"] > 0:
        return "check timed out"
    if row["finish_reason"] != "stop":
        return "cut" if row["finish_reason"] == "length" else row["finish_reason"]
    return "no answer read" if row["unparsed"] > 0 else "wrong"


# ----------------------------------------------------------------------------------------------------------- questions


def drawn_questions(run: Run) -> list[int]:
    """Places in the ledger: at least ``RARE`` of each outcome, the others as they come, in the order of the draw."""
    drawn = run.ledger.first_drawn(QUESTIONS, DRAW, "outcome")
    rare = [row for own in drawn.values() for row in own[:RARE]]
    others = [row for own in drawn.values() for row in own[RARE:]]
    return [place for _, place in sorted((sorted(rare) + sorted(others))[:QUESTIONS])]


def question_browser(run: Run, args: argparse.Namespace) -> Browser:
    """Every drawn question with all that the run knows of it."""
    rows = run.ledger.take(drawn_questions(run))
    ids = {row["id"] for row in rows}
    verdicts, sampled = judged(args, ids), answers(args, ids, run.rewarded)
    # Of several rows of a question (reward_select.keep) the first is the choice.
    chosen = {row["id"]: row for row in reversed(run.data.having("id", ids))}
    twins = _twins(run, rows)
    present = {row["outcome"] for row in rows}
    order = [name for name in [*run.outcomes, KEPT] if name in present]
    columns = [
        Column("id", "id", "text"),
        Column("question", "question", "text"),
        Column("outcome", "outcome", "category", list(dict.fromkeys(order))),
        Column("generator", "generator", "category"),
        Column("judge", "judge", "category"),
        Column("difficulty", "difficulty", "number"),
        Column("reward", "reward", "number"),
        Column("agreement", "agreement", "number"),
        Column("answer", "final answer", "text"),
    ]
    lives = [
        _life(row, verdicts.get(row["id"]), sampled.get(row["id"], []), chosen.get(row["id"]), twins) for row in rows
    ]

    def make(n: int) -> Browser:
        title = f"Questions: {n:,} of {len(run.ledger):,}"
        note = (
            f"{DRAWN} {HOW} `g` and `b` mark the row good or bad. Marks stay in your browser; saved as JSONL, they are read by "
            "`filter.marks`."
        )
        return Browser("questions", title, note, columns, lives[:n], marks=True)

    return fitting(make, len(lives), QUESTION_BYTES)


def _twins(run: Run, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Text of the generated questions that others are duplicates of."""
    wanted = {row["matched"] for row in rows if row["matched"]}
    return {row["id"]: row["question"] for row in run.ledger.having("id", wanted)}


def _number(value: float | None) -> float | None:
    return None if value is None or value != value else round(value, 4)


def _life(
    row: dict[str, Any],
    verdict: dict[str, Any] | None,
    sampled: Sequence[dict[str, Any]],
    chosen: dict[str, Any] | None,
    twins: dict[str, str],
) -> dict[str, Any]:
    texts = [("Question", clip(row["question"]), "")]
    if row["outcome"] != KEPT:
        texts.append((f"Dropped: {row['outcome']}", _why(row), ""))
    if twin := twins.get(row["matched"] or ""):
        texts.append((f"Its twin {row['matched']}", clip(twin), ""))
    if verdict:
        texts.append(("Judge", clip(verdict["completion"]), verdict["verdict"]))
    marked = False
    for answer in sampled:
        remarks = [reward_in_words(answer["reward"])]
        if answer["finish_reason"] != "stop":
            remarks.append("cut" if answer["finish_reason"] == "length" else answer["finish_reason"])
        if chosen and not marked and answer["response"] == chosen["response"]:
            marked = True
            remarks.append(f"chosen: final answer {snippet(chosen['final_answer'])}")
        texts.append((f"Answer {answer['sample'] + 1}", clip(answer["response"]), " · ".join(remarks)))
    if chosen and not marked:
        texts.append(("Training answer", clip(chosen["response"]), reward_in_words(chosen["reward"])))
    cells = [
        row["id"], snippet(row["question"]), row["outcome"], row["generator"], row["verdict"] or "not asked",
        _number(row["difficulty"]), _number(chosen["reward"] if chosen else None), _number(chosen["agreement"] if chosen else None),
        snippet(chosen["final_answer"]) if chosen else "",
    ]  # fmt: skip
    return {"cells": cells, "texts": texts}


def _why(row: dict[str, Any]) -> str:
    facts = [OUTCOMES.get(row["outcome"], Outcome("dropped")).meaning.replace("`", "")]
    if row["matched"]:
        facts.append(f"matches {row['matched']}")
    if row["evidence"]:
        facts.append(f"evidence: {row['evidence']}")
    if row["outcome"] == "too_easy":
        facts.append(f"difficulty {row['difficulty']:.3f}, lowest kept {row['min_difficulty']:.3f}")
    return "\n".join(facts)


# --------------------------------------------------------------------------------------------------------------- items


def item_browser(run: Run) -> Browser | None:
    """Every test item with the answers of the base, solver, students and others side by side; None without any."""
    models = [model for model in run.scores if run.items.get(model)]
    keys = list(dict.fromkeys(key for model in models for key in run.items[model]))
    if not keys:
        return None
    columns = [Column("id", "id", "text"), Column("question", "question", "text"), Column("task", "task", "category")]
    columns += [Column(model, model, "category") for model in models]
    order = [keys[place] for place in shuffled(f"{task}/{name}" for task, name in keys)][:ITEMS]
    rows = []
    for task, name in order:
        found = {model: run.items[model].get((task, name)) for model in models}
        first = next(row for row in found.values() if row)
        texts = [
            ("Question", clip(first["question"]), task),
            ("Expected answer", clip(known_answer(first["answer"])), ""),
        ]
        texts += [
            (model, clip(row["completion"]) if row else "", reading(row) if row else "not asked")
            for model, row in found.items()
        ]
        cells = [f"{task}/{name}", snippet(first["question"]), task]
        rows.append({"cells": cells + [reading(row) if row else "not asked" for row in found.values()], "texts": texts})

    def make(n: int) -> Browser:
        title = f"Test items with every model's answer: {n:,} of {len(keys):,}"
        note = (
            f"{DRAWN} `right`: right in the form that was asked for. `right, other form`: only the flexible reading finds it. "
            "Choose for example student `right` and base `wrong`."
        )
        return Browser("items", title, note, columns, rows[:n], beside=range(2, 2 + len(models)))

    return fitting(make, len(rows), ITEM_BYTES)


# --------------------------------------------------------------------------------------------------------- preferences


def rewrite_browser(run: Run, args: argparse.Namespace) -> Browser:
    """Drawn rewrites beside their originals, those that `preference_check` measured first."""
    rewrites, checked = preference_rows(args, run.params.mix), checked_pairs(args)
    order = sorted(shuffled(row["id"] for row in rewrites), key=lambda place: rewrites[place]["id"] not in checked)
    columns = [
        Column("id", "id", "text"),
        Column("question", "original", "text"),
        Column("verdict", "verdict", "category"),
        Column("direction", "aim", "category"),
        Column("generator", "generator", "category"),
        Column("judge", "judge, original → rewrite", "category"),
        Column("harder", "difficulty gained", "number"),
        Column("growth", "length ratio", "number"),
    ]
    wrote = "The solver's answers" if run.params.preferences.source == "solver" else "What the optimizer wrote"
    made = [_rewrite(row, checked.get(row["id"]), wrote) for row in (rewrites[place] for place in order[:REWRITES])]

    def make(n: int) -> Browser:
        title = f"Rewrites beside their originals: {n:,} of {len(rewrites):,}"
        note = (
            f"{DRAWN} A pair teaches the generator to prefer the rewrite. `aim` is what it was rewritten for. The {len(checked):,} pairs "
            "that `preference_check` measured come first, with the judge's word and the scorer's difficulty of both."
        )
        return Browser("rewrites", title, note, columns, made[:n], beside=(0, 1))

    return fitting(make, len(made), REWRITE_BYTES)


def _rewrite(row: dict[str, Any], checked: dict[str, Any] | None, wrote: str) -> dict[str, Any]:
    verdict = "pair" if row["verdict"] == KEPT else row["verdict"]
    original, rewrite = ((checked or {}).get(side, {}) for side in ("rejected", "chosen"))
    text = row["rewrite"] or ""
    if verdict == "pair":
        names, remarks = ("Original (rejected)", "Rewrite (chosen)"), [_measured(side) for side in (original, rewrite)]
    else:
        meaning = REWRITE_OUTCOMES.get(row["verdict"], "").replace("`", "")
        names, remarks = ("Original", "Rewrite"), ["", f"no pair: {meaning or verdict}"]
    texts = [(names[0], clip(row["question"]), remarks[0]), (names[1], clip(text), remarks[1])]
    if "completion" in original and "completion" in rewrite:
        texts += [
            (f"Judge on the {name}", clip(side["completion"]), side["verdict"])
            for name, side in (("original", original), ("rewrite", rewrite))
        ]
    if row["completion"].strip() != text.strip():
        texts.append((wrote, clip(row["completion"]), row["finish_reason"]))
    judge = (
        f"{original['verdict']} → {rewrite['verdict']}"
        if "verdict" in original and "verdict" in rewrite
        else "not asked"
    )
    harder = rewrite["score"] - original["score"] if "score" in original and "score" in rewrite else None
    growth = len(text) / len(row["question"]) if row["question"] and text else None
    cells = [
        row["id"], snippet(row["question"]), verdict, row["direction"], row["generator"], judge, _number(harder), _number(growth),
    ]  # fmt: skip
    return {"cells": cells, "texts": texts}


def _measured(side: dict[str, Any]) -> str:
    """What the judge and the scorer say of one side of a pair."""
    parts = [side["verdict"]] if "verdict" in side else []
    return " · ".join(parts + ([f"difficulty {side['score']:.3f}"] if "score" in side else []))


def data_browser(run: Run, args: argparse.Namespace) -> Section:
    """The section of the questions."""
    blocks: list[Block] = [
        Text(
            "What a model wrote is shown as it is, right or wrong. Formulas are rendered; `as written` shows the letters."
        ),
        question_browser(run, args),
    ]
    return Section("Data browser", blocks, page_only=True)
