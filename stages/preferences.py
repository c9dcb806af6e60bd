"""Rewrite each sampled question and make preference pairs: chosen = rewrite, rejected = original.

    python -m stages.preferences --generator sums --optimizer models/base/optimizer --questions data/qpo_questions/sums
        --out data/preferences/sums.parquet --metrics M.json

Each rewrite has one aim, solvability or difficulty (paper 2.3). Rejects stay in the output with
their reason.

`preferences.source: solver` makes the pairs from the solver's own answers instead (after MathSmith and R-Zero, who train
generators on solver feedback): no rewriting model and no key. Chosen is a question whose answers agree, but not all of them;
rejected is one whose answers do not agree (direction solvability), or all but always do (direction difficulty).
`--optimizer` is the solver's folder then.

A generator in `own.preferences` takes its pairs from a user's file: no model is loaded.
"""

import argparse
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from scalequest.answers.best_of import group_answers
from scalequest.answers.check import final_answer
from scalequest.answers.demands import pass_rate
from scalequest.answers.thoughts import without_thoughts
from scalequest.domains import DIFFICULTY, GIVEN, SOLVABILITY, Wording, wording
from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.outcomes import KEPT
from scalequest.params import Preferences, SolverFeedback
from scalequest.problems.draw import hash_place
from scalequest.problems.numerals import numbers
from scalequest.problems.own import own_pairs
from scalequest.records import PREFERENCE, QUESTION, read_rows, write_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.sampling.completion import Completion
from scalequest.sampling.endpoint import REFUSAL
from scalequest.sampling.sample import sample
from scalequest.text import question_key

# ----------------------------------------------------------------------------------------------------------- rewriting

# What models put around the header: markdown, a number, "Finally", "Rewritten", "is". A header ends
# in a colon or a dash, or its line ends: "The final question asks for .." is none. Possessive (*+)
# where a run of blanks or signs would backtrack.
_FINAL_HEADER = re.compile(
    r"^[ \t#*>_\-\[]*+(?:\(?(?:(?:step|section)[ \t]*)?\d+[ \t]*[:,.)\-]*[ \t]*)?[#*_]*(?:the[ \t]+)?final(?:ly)?[ \t]+"
    r"(?:(?:rewritten|rewrite|created)[ \t]+)?(?:question|problem)(?:[ \t]+is|[ \t]*\([^()\n]{1,40}\))?[ \t#*_\]]*+(?:[:：\-–—][ \t#*_:\]]*+(.*?))?[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
# A direct answer often starts with a remark on itself, or with a label.
_PREAMBLE = re.compile(
    r"(?:(?:sure|certainly|of course|okay|absolutely)\b[!,.]*+\s*+)?[#*_\s]*+"
    r"(?:here(?:['’]s| is)\s[^\n:]*\b(?:problem|question|version|exercise|rewrite)\b[^\n:]*:"
    r"|(?:the |an? )?(?:(?:new|corrected|rewritten|revised|modified|better|harder|more (?:difficult|challenging)) )*(?:math )?"
    r"(?:problem|question|version|rewrite)(?: is)?(?:[ \t*_]*[:：]|[ \t*_]*\n)|Q[ \t*_]*[:.])[\s*_]*",
    re.IGNORECASE,
)
# A model may go on with a next example.
_NEXT_EXAMPLE = re.compile(r"\n+question:", re.IGNORECASE)


# A model may go on after its question, in a new line: it solves it, or explains what it changed.
_AFTERWARDS = re.compile(
    r"\n[ \t]*+(?:-{3,}|\*{3,}|_{3,}|={3,})[ \t]*(?=\n|\Z)|\n[ \t#*_>-]*+(?:"
    r"(?:so |now |first,? |okay,? )?let(?:['’]s| us)[ ]+(?:solve|find|calculate|compute|work|break|start|begin|see|think|figure|first|now|do|go|try)\b"
    r"|(?:detailed |full |sample |step-by-step |the |here is (?:the|a) |here's (?:the|a) )?"
    r"(?:solution|answer|explanation|reasoning|working|rationale|proof|changes)\b(?:[ ]+is\b|[^\n.?]{0,40}[*_]*:|[ ]*[*_]*[ ]*(?=\n|$))"
    r"|step[ ]+(?:1|one)\b"
    r"|(?:A|verification|review|check|comment|remark|correct answer|final answer)[*_ \t]*[:：]"
    r"|here(?:['’]s| is)[ ]+(?:how|why|what)\b"
    r"|\(?(?:note|remark)\b[^\n]*\b(?:I|original|rewritten|rewrite|changed|modified|revised|this (?:question|problem|version))\b"
    r"|(?:in order )?to[ ]+(?:solve|find|answer|calculate|compute|determine|get|figure)\b"
    r"|(?:first|firstly|now|next|then|so|thus|therefore|hence),?[ ]+(?:we|i|add|multiply|subtract|divide|calculate|find)\b"
    r"|(?:we|i)(?:['’]ll|['’]ve|[ ]+(?:will|can|need|must|should|first|start|added|changed|made|rewrote|modified))\b"
    r"|th(?:is|e)[ ]+(?:(?:new|revised|modified|rewritten|harder|above)[ ]+)?(?:problem|question|version|rewrite|change)[ ]+"
    r"(?:is|has|requires|adds|makes|now|asks|can|involves|introduces)\b"
    r")",
    re.IGNORECASE,
)


# Markup around the question, and a control token that an endpoint left in.
_TAG = re.compile(
    r"</?(?:b|strong|i|em|u|p|h[1-6]|question|problem|rewrite|answer|output)>|<\|[a-z_]+\|>|</?s>", re.IGNORECASE
)
_FENCE = re.compile(r"\A(`{3,}|~{3,})\w*\n(.*?)\n?\1\s*\Z", re.DOTALL)
_QUOTED_LINE = re.compile(r"^>[ \t]?", re.MULTILINE)
_SECOND_ITEM = re.compile(r"^[ \t]*2[.)]", re.MULTILINE)
_QUOTES = {'"': '"', "\u201c": "\u201d", "\u00ab": "\u00bb"}


def _unwrapped(text: str) -> str:
    """``text`` without a fence, a quotation's marks or emphasis around all of it."""
    text = text.strip()
    if fence := _FENCE.match(text):
        text = fence[2]
    if text.startswith(">"):
        text = _QUOTED_LINE.sub("", text)
    text = text.strip()
    if not _SECOND_ITEM.search(text):
        text = text.removeprefix("1. ").removeprefix("1) ")
    for mark in ("**", "*"):
        if (text.startswith(mark) and text.endswith(mark)) or text.count(mark) % 2:
            text = text.removeprefix(mark).removesuffix(mark).strip()
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1]
    elif text.count('"') % 2:  # one of a pair was cut off
        text = text.strip('"')
    return text.strip()


def _question_alone(text: str, asks: Callable[[str], bool]) -> str:
    """``text`` up to the first line in which its author solves it or talks about it, if what is left asks for something."""
    found = _AFTERWARDS.search(text)
    return text[: found.start()] if found and asks(text[: found.start()]) else text


def parse_rewrite(completion: str, style: str, asks: Callable[[str], bool] = lambda text: "?" in text) -> str:
    """The rewritten question in the optimizer's completion; empty if there is none.

    Args:
        completion: the whole answer. What the optimizer thinks aloud, and a solution or remark after the question, are left out.
        style: ``few_shot`` answers with the question; ``sections`` puts it under the header "FINAL QUESTION".
        asks: whether a text asks for something (``Wording.asks``).
    """
    completion = _TAG.sub("", without_thoughts(completion))
    if style == "few_shot":
        text = completion.strip()
        if remark := _PREAMBLE.match(text):
            text = text[remark.end() :]
        text = _NEXT_EXAMPLE.split(text, maxsplit=1)[0]
    else:
        headers = list(_FINAL_HEADER.finditer(completion))
        if not headers:
            return ""
        last = headers[-1]
        text = (last.group(1) or "") + completion[last.end() :]
    return _unwrapped(_question_alone(text.strip(), asks))


def flip(question_id: str, seed: int, solvability_frac: float) -> str:
    """The direction of one question: a coin that depends on the run's seed and the question's id only."""
    return SOLVABILITY if random.Random(f"{seed}/{question_id}").random() < solvability_frac else DIFFICULTY


def pair_verdict(
    question: str, rewrite: str, finish_reason: str, max_growth: float, min_numbers: float, words: Wording
) -> str:
    """``kept``, or why a rewrite makes no pair.

    Args:
        question: the original.
        rewrite: what the optimizer made of it.
        finish_reason: of the optimizer's answer.
        max_growth: ``preferences.max_growth``.
        min_numbers: ``preferences.min_numbers``. A small optimizer that is asked for a question that can be solved often
            repeats the last sentence of the original. QPO then teaches to leave out what the answer follows from.
        words: of the domain.
    """
    if finish_reason == REFUSAL:
        return "refused"
    if finish_reason != "stop":
        return "cut"
    if not rewrite:
        return "unparsed"
    if question_key(rewrite) == question_key(question):
        return "identical"
    if len(rewrite) > max_growth * len(question):
        return "over_long"
    if len(numbers(rewrite.lower())) < min_numbers * len(numbers(question.lower())):
        return "drops_numbers"
    if words.leaks_solution(rewrite):
        return "leaks_solution"
    if not words.asks(rewrite):
        return "asks_nothing"
    # Else the question mark itself, or a leaked answer, would tell chosen from rejected.
    if not words.asks(question):
        return "original_asks_nothing"
    if words.leaks_solution(question):
        return "original_leaks_solution"
    return KEPT


def rewrite_row(
    row: dict[str, Any], direction: str, completion: Any, params: Preferences, words: Wording
) -> dict[str, Any]:
    """One row of the output from one completion of the optimizer."""
    rewrite = parse_rewrite(completion.text, params.style, words.asks)
    return {
        "id": row["id"],
        "generator": row["generator"],
        "direction": direction,
        "question": row["question"],
        "rewrite": rewrite,
        "completion": completion.text,
        "finish_reason": completion.finish_reason,
        "verdict": pair_verdict(
            row["question"], rewrite, completion.finish_reason, params.max_growth, params.min_numbers, words
        ),
    }


def usable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Questions worth rewriting: ended by themselves, not empty, the first of exact duplicates."""
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["finish_reason"] == "stop" and row["question"]:
            first.setdefault(question_key(row["question"]), row)
    return list(first.values())


# ---------------------------------------------------------------------------------------------------- solver's feedback

CHOSEN = "chosen"


def solver_rates(
    questions: Sequence[dict[str, Any]], answers: Sequence[Sequence[Completion]], kind: str = "maths"
) -> list[float]:
    """Pass rate of each of N questions, in [0, 1]: the share of the n answers that are its most frequent; a cut one is none."""
    finals = {
        row["id"]: [final_answer(kind, answer.text) if answer.finish_reason == "stop" else None for answer in n]
        for row, n in zip(questions, answers, strict=True)
    }
    groups = group_answers(kind, finals)
    return [pass_rate(groups[row["id"]]) for row in questions]


def side_of(rate: float, limits: SolverFeedback) -> str:
    """CHOSEN, or the direction in which a question of that pass rate is the rejected side."""
    if rate < limits.min_pass_rate:
        return SOLVABILITY
    return DIFFICULTY if rate > limits.max_pass_rate else CHOSEN


def partners(
    sides: dict[str, str], lengths: dict[str, int], seed: int, solvability_frac: float, max_growth: float
) -> dict[str, str]:
    """The chosen question of each rejected one, by id; every question is in one pair at most.

    A chosen question has one direction, by its coin, as a rewrite has. It takes the first rejected question of that direction, in
    the order of a hash, that it is not more than ``max_growth`` times as long as.

    Args:
        sides: of the questions that may be in a pair, as from ``side_of``.
        lengths: of the same questions, in characters.
        seed: of the run.
        solvability_frac: share of the pairs for solvability.
        max_growth: ``preferences.max_growth``.
    """
    order = sorted(sides, key=lambda name: hash_place(seed, name, "preferences"))
    pools = {aim: [name for name in order if sides[name] == aim] for aim in (SOLVABILITY, DIFFICULTY)}
    found = {}
    for chosen in (name for name in order if sides[name] == CHOSEN):
        pool = pools[flip(chosen, seed, solvability_frac)]
        rejected = next((name for name in pool if lengths[chosen] <= max_growth * lengths[name]), None)
        if rejected is not None:
            pool.remove(rejected)
            found[rejected] = chosen
    return found


def feedback_rows(
    questions: Sequence[dict[str, Any]], rates: Sequence[float], params: Preferences, words: Wording, seed: int
) -> list[dict[str, Any]]:
    """One row per question: as the rejected side of a pair (``kept``), or why it is none.

    The rules about questions that ask nothing or hold their solution are those for rewrites, on both sides.
    """
    text = {row["id"]: row["question"] for row in questions}
    sides = {row["id"]: side_of(rate, params.solver) for row, rate in zip(questions, rates, strict=True)}
    why = {name: _unfit(question, words) for name, question in text.items()}
    fit = {name: side for name, side in sides.items() if not why[name]}
    lengths = {name: len(question) for name, question in text.items()}
    chosen = partners(fit, lengths, seed, params.solvability_frac, params.max_growth)
    used = set(chosen.values())
    rows = []
    for row, rate in zip(questions, rates, strict=True):
        name = row["id"]
        verdict = why[name] or (KEPT if name in chosen else "is_chosen" if name in used else "no_partner")
        rows.append(
            {
                "id": name,
                "generator": row["generator"],
                "direction": flip(name, seed, params.solvability_frac) if sides[name] == CHOSEN else sides[name],
                "question": row["question"],
                "rewrite": text[chosen[name]] if name in chosen else "",
                "completion": f"pass rate {rate:.3f}",
                "finish_reason": "stop",
                "verdict": verdict,
            }
        )
    return rows


def _unfit(question: str, words: Wording) -> str:
    if not words.asks(question):
        return "original_asks_nothing"
    return "original_leaks_solution" if words.leaks_solution(question) else ""


def solver_pairs(run: StageRun, solver: Path, questions: list[dict[str, Any]], words: Wording) -> list[dict[str, Any]]:
    """Ask the solver about each question, and pair the questions by how its answers agree."""
    params = run.params.preferences
    answers = sample(
        run, solver, questions, prompts=lambda row: [words.solve_prompt(row["question"])], sampling=params,
        n_samples=params.solver.n_samples,
    )  # fmt: skip
    return feedback_rows(questions, solver_rates(questions, answers, words.ANSWERS), params, words, run.params.seed)


def rewritten_pairs(
    run: StageRun, optimizer: Path, questions: list[dict[str, Any]], words: Wording
) -> list[dict[str, Any]]:
    """Flip, rewrite, parse, filter."""
    params = run.params.preferences
    aims = {row["id"]: flip(row["id"], run.params.seed, params.solvability_frac) for row in questions}
    answers = sample(
        run,
        optimizer,
        questions,
        prompts=lambda row: words.rewrite_turns(row["question"], aims[row["id"]], params.style),
        sampling=params,
    )
    return [
        rewrite_row(row, aims[row["id"]], answer, params, words)
        for row, [answer] in zip(questions, answers, strict=True)
    ]


# ------------------------------------------------------------------------------------------------------- a user's pairs


def given_rows(generator: str, pairs: Iterable[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """The rows of a user's pairs, each with id, chosen and rejected question. Two sides that say the same make no pair."""
    return [
        {
            "id": row_id,
            "generator": generator,
            "direction": GIVEN,
            "question": rejected,
            "rewrite": chosen,
            "completion": chosen,
            "finish_reason": "stop",
            "verdict": "identical" if question_key(chosen) == question_key(rejected) else KEPT,
        }
        for row_id, chosen, rejected in pairs
    ]


def take_given(args: argparse.Namespace, run: StageRun) -> None:
    """Write a user's pairs for this generator."""
    key, source = f"own.preferences.{args.generator}", run.params.own.preferences[args.generator]
    rows = given_rows(args.generator, own_pairs(args.generator, key, source, run.params.seed))
    kept = sum(row["verdict"] == KEPT for row in rows)
    if not kept:
        raise UserError(
            f"{key}: {len(rows)} pairs, each of two equal questions. Expected another chosen than rejected one. Correct the file."
        )
    write_rows(args.out, rows, PREFERENCE)
    identical = {"identical": len(rows) - kept} if kept < len(rows) else {}
    run.metrics(
        args.metrics,
        {
            "questions": len(rows),
            "usable": len(rows),
            "pairs": kept,
            "kept_frac": rounded(kept / len(rows)),
            "rejected": identical,
            "direction": {GIVEN: len(rows)},
        },
    )


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Make the pairs, and count what became of every usable question."""
    if args.generator in run.params.own.preferences:
        take_given(args, run)
        return
    params, words = run.params.preferences, wording(run.params.domain)
    sampled = read_rows(args.questions, QUESTION)
    questions = usable(sampled)
    make = solver_pairs if params.source == "solver" else rewritten_pairs
    pairs = make(run, args.optimizer, questions, words)
    verdicts = Counter(pair["verdict"] for pair in pairs)
    if not verdicts[KEPT] and params.source == "solver":
        raise UserError(
            f"{args.generator}: no preference pair: {len(sampled)} questions sampled, {len(questions)} usable, {dict(verdicts)}. "
            "Expected questions inside and outside of the pass rates of preferences.solver. Move min_pass_rate or max_pass_rate, or "
            "raise preferences.max_tokens, so that answers end, or qpo_questions.n_questions"
        )
    if not verdicts[KEPT]:
        raise UserError(
            f"{args.generator}: no preference pair survived: {len(sampled)} questions sampled, {len(questions)} usable, all "
            f"{sum(verdicts.values())} rewrites rejected ({dict(verdicts)}); take a stronger models.optimizer, another "
            f"preferences.style, or more qpo_questions.n_questions"
        )
    write_rows(args.out, pairs, PREFERENCE)
    directions = Counter(pair["direction"] for pair in pairs)
    run.metrics(
        args.metrics,
        {
            "questions": len(sampled),
            "usable": len(questions),
            "pairs": verdicts[KEPT],
            "kept_frac": rounded(verdicts[KEPT] / len(questions)),
            "rejected": {name: n for name, n in sorted(verdicts.items()) if name != KEPT},
            "direction": {name: directions[name] for name in (SOLVABILITY, DIFFICULTY)},
        },
    )


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("optimizer", "questions", "out", "metrics"), names=("generator",))
