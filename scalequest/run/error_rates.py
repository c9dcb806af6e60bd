"""Estimate how many made questions and answers are wrong, from a drawn sample of the training rows. Nothing is written.

    scalequest errors                                        # by rules: what a program can decide
    scalequest errors --rows 500 --judge api:https://HOST/v1#MODEL
    scalequest errors --marks marks.jsonl --json             # also by a reader's marks

Three judges, each with the number of rows that it decides:

- Rules. Each decides only some rows, and its rate holds for those.
- A model behind an endpoint. It says whether a question can be solved, and answers the question itself. Its answer is compared
  with the row's as in every other stage. It does the same for seeds as they are and for the same seeds broken. How often it
  is right there is printed beside its rates: without that they mean nothing.
- A reader's marks, saved from the report's data browser.

The standard errors are those of the draw. They do not hold the judge's own mistakes.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scalequest.answers.arithmetic import asked_value, check_arithmetic
from scalequest.answers.check import check, final_answer, kind_of, same_answers, with_examples
from scalequest.answers.compare import close_pools, compare
from scalequest.answers.program import read_programs
from scalequest.answers.sandbox import PASSED, consent, run_programs
from scalequest.answers.verdict import verdict_of
from scalequest.domains import PROGRAMS, kind_of_answers, wording
from scalequest.errors import UserError
from scalequest.io import file_hash, rounded
from scalequest.outcomes import NO_VERDICT, RIGHT, SOLVABLE, UNSOLVABLE
from scalequest.params import Params, Sampling, endpoint_of, load_all
from scalequest.problems.broken import broken
from scalequest.problems.draw import draw
from scalequest.problems.language import language_check
from scalequest.problems.marks import BAD, read_marks
from scalequest.records import INSTRUCTION, PROBLEM, read_rows
from scalequest.sampling.completion import Completion
from scalequest.sampling.endpoint import ApiModel
from scalequest.statistics import mean_error, paired_difference, proportion_error, reported, worse_error
from scalequest.text import question_key, words

Row = Mapping[str, Any]
# Conversations to completions, in order.
Ask = Callable[[Sequence[list[str]]], list[Completion]]
INSTRUCT, SEEDS = Path("data", "instruct.parquet"), Path("data", "seeds.parquet")
JOURNAL = Path(".work", "api", "errors.jsonl")


@dataclass(frozen=True)
class Rate:
    """How many of the rows that a judge decides are wrong.

    Attributes:
        of: ``question`` or ``answer``.
        rule: what was asked, in words.
        decided: rows with a verdict.
        wrong: of these.
        rate: in [0, 1]; None where nothing is decided.
        standard_error: of the rate over questions; None where nothing is decided.
    """

    of: str
    rule: str
    decided: int
    wrong: int
    rate: float | None
    standard_error: float | None


def rate_of(of: str, rule: str, verdicts: Mapping[str, Sequence[bool]]) -> Rate:
    """The rate of wrong rows.

    Args:
        of: ``question`` or ``answer``.
        rule: in words.
        verdicts: by question id, whether each of its rows is wrong. Rows of one question are not independent.
    """
    values = [float(wrong) for rows in verdicts.values() for wrong in rows]
    groups = [name for name, rows in verdicts.items() for _ in rows]
    wrong, n = sum(values), len(values)
    if not n:
        return Rate(of, rule, 0, 0, None, None)
    errors = [proportion_error(wrong, n)] + ([mean_error(values, groups)] if n > len(verdicts) else [])
    return Rate(of, rule, n, int(wrong), rounded(wrong / n, 4), reported(worse_error(*errors)))


def by_question(rows: Sequence[Row], wrong: Callable[[Row], bool | None]) -> dict[str, list[bool]]:
    """Whether each row is wrong, by question id; rows without a verdict are left out."""
    found: dict[str, list[bool]] = {}
    for row in rows:
        if (verdict := wrong(row)) is not None:
            found.setdefault(row["id"], []).append(verdict)
    return found


# --------------------------------------------------------------------------------------------------------------- rules


def question_rates(rows: Sequence[Row], params: Params) -> list[Rate]:
    """What rules find in questions; each question counts once."""
    distinct = list({row["id"]: row for row in rows}.values())
    domain, foreign = wording(params.domain), language_check(params.screen.language)
    rules: list[tuple[str, Callable[[str], bool]]] = [
        ("asks for nothing", lambda question: not domain.asks(question)),
        ("holds its own answer", domain.leaks_solution),
        (f"not in the language wanted ({params.screen.language})", lambda question: foreign(question) is not None),
        ("fewer words than screen.min_words", lambda question: len(words(question)) < params.screen.min_words),
    ]
    return [
        rate_of("question", name, by_question(distinct, lambda row, rule=rule: rule(row["question"])))  # type: ignore[misc]
        for name, rule in rules
    ]


def answer_rates(rows: Sequence[Row], params: Params, seeds: Sequence[Row]) -> list[Rate]:
    """What rules find in answers.

    Args:
        rows: of ``data/instruct.parquet``.
        params: of the run.
        seeds: with known answers; a made question that repeats one is compared with it.
    """
    kind, n = kind_of_answers(wording(params.domain), params.respond.form), params.respond.n_samples
    rates = []
    if kind == "maths":
        steps = {id(row): check_arithmetic(row["response"]) for row in rows}
        rates.append(
            rate_of(
                "answer",
                "writes a wrong calculation",
                by_question(rows, lambda row: steps[id(row)].wrong > 0 if steps[id(row)].checked else None),
            )
        )
    if kind in ("maths", PROGRAMS):
        values = [(row, value) for row in rows if (value := asked_value(row["question"])) is not None]
        outcomes = compare([str(value) for _, value in values], [row["final_answer"] for row, _ in values])
        rates.append(_by_outcome("wrong, where the question is plain arithmetic", [r for r, _ in values], outcomes))
    if kind == PROGRAMS:
        readings = dict(zip(map(id, rows), read_programs([row["response"] for row in rows]), strict=True))
        rates.append(
            rate_of("answer", "its program gives no number", by_question(rows, lambda row: readings[id(row)].stated is None))
        )  # fmt: skip
    if kind == "code":
        rates.append(program_rate(rows))
    answers = {question_key(seed["question"]): seed["answer"] for seed in seeds if seed["answer"]}
    repeats = [(row, answers[key]) for row in rows if (key := question_key(row["question"])) in answers]
    found = [final_answer(kind, row["response"]) for row, _ in repeats]
    outcomes = check(kind, [answer for _, answer in repeats], found)
    rates.append(_by_outcome("wrong, where the question is a seed's", [row for row, _ in repeats], outcomes))
    if n > 1:
        # An answer that stands alone is a sign of an error and no proof.
        alone = by_question(rows, lambda row: row["agreement"] * n < 1.5)
        rates.append(rate_of("answer", "agrees with no other sample (a sign, no proof)", alone))
    return rates


def program_rate(rows: Sequence[Row]) -> Rate:
    """Programs that fail on the assertions that their question states; without assertions nothing is decided."""
    programs = {id(row): with_examples(row["question"], final_answer("code", row["response"]) or "") for row in rows}
    tested = {key: program for key, program in programs.items() if program.tests}
    distinct = list(dict.fromkeys(tested.values()))
    verdicts = dict(zip(distinct, run_programs(distinct), strict=True)) if distinct else {}
    failed = {key: verdicts[program].outcome != PASSED for key, program in tested.items()}
    return rate_of("answer", "fails on its question's assertions", by_question(rows, lambda row: failed.get(id(row))))


def _by_outcome(rule: str, rows: Sequence[Row], outcomes: Sequence[str]) -> Rate:
    right = {id(row): outcome == RIGHT for row, outcome in zip(rows, outcomes, strict=True)}
    return rate_of("answer", rule, by_question(rows, lambda row: not right[id(row)]))


# --------------------------------------------------------------------------------------------------------- the judge


def judge_rates(rows: Sequence[Row], seeds: Sequence[Row], params: Params, ask: Ask, seed: int) -> dict[str, Any]:
    """What a model says of the rows, and how often it is right about seeds.

    Args:
        rows: of ``data/instruct.parquet``.
        seeds: N drawn seeds, with answers.
        params: of the run.
        ask: the model.
        seed: of how seeds are broken.

    Returns:
        ``rates`` and ``undecided`` of the rows; ``accuracy`` on the seeds; ``decides`` says of each of the two questions
        whether the model tells sound from broken by two standard errors.
    """
    words_of = wording(params.domain)
    kind = kind_of_answers(words_of, "worked")
    distinct = list({row["id"]: row for row in rows}.values())
    unsound = [text for _, text in broken(seeds, words_of.asks, seed)]
    asked = [row["question"] for row in [*distinct, *seeds]]
    verdicts = [
        verdict_of(answer, "reasoned")
        for answer in ask([words_of.judge_turns(question, "reasoned") for question in [*asked, *unsound]])
    ]
    own = verdicts[: len(distinct)]
    sound, false = verdicts[len(distinct) : len(asked)], verdicts[len(asked) :]
    of_question = dict(zip((row["id"] for row in distinct), own, strict=True))
    unsolvable = by_question(distinct, lambda row: _unsolvable(of_question[row["id"]]))
    found: dict[str, Any] = {
        "rates": [rate_of("question", "cannot be solved", unsolvable)],
        "undecided": {"question": own.count(NO_VERDICT)},
        "accuracy": {
            "sound questions accepted": accuracy([v == SOLVABLE for v in sound]),
            "broken questions rejected": accuracy([v == UNSOLVABLE for v in false]),
        },
    }
    found["decides"] = {
        "question": paired_difference([float(v == SOLVABLE) for v in false], [float(v == SOLVABLE) for v in sound], seed).above_zero
    }  # fmt: skip
    if kind == "code":
        found["left_out"] = (
            "answers: two programs are not compared. The rules run them where the question has assertions"
        )
        return found
    texts = ask([[words_of.solve_prompt(question)] for question in asked])
    solved = [final_answer(kind, text.text) if text.finish_reason == "stop" else None for text in texts]
    known = dict(zip((row["id"] for row in distinct), solved, strict=False))
    pairs = [(row, str(known[row["id"]])) for row in rows if known[row["id"]] is not None]
    equal = same_answers(kind, [(answer, row["final_answer"]) for row, answer in pairs])
    differs = {id(row): not same for (row, _), same in zip(pairs, equal, strict=True)}
    found["rates"].append(rate_of("answer", "the judge answers otherwise", by_question(rows, lambda row: differs.get(id(row)))))  # fmt: skip
    found["undecided"]["answer"] = len(rows) - len(pairs)
    of_seeds = solved[len(distinct) :]
    right = _agrees(kind, [row["answer"] for row in seeds], of_seeds)
    wrong = _agrees(kind, wrong_answers(kind, seeds), of_seeds)
    found["accuracy"] |= {
        "right answers accepted": accuracy(right),
        "wrong answers rejected": accuracy([not yes for yes, answer in zip(wrong, of_seeds, strict=True) if answer is not None]),
    }  # fmt: skip
    found["decides"]["answer"] = paired_difference(list(map(float, wrong)), list(map(float, right)), seed).above_zero
    return found


def _unsolvable(verdict: str) -> bool | None:
    return None if verdict == NO_VERDICT else verdict == UNSOLVABLE


def _agrees(kind: str, answers: Sequence[str], found: Sequence[str | None]) -> list[bool]:
    """Whether each found answer is the known one; no answer is not."""
    return [outcome == RIGHT for outcome in check(kind, answers, found)]


def wrong_answers(kind: str, seeds: Sequence[Row]) -> list[str]:
    """For each seed the answer of the next one that has another; another formula where all have the same."""
    answers = [row["answer"] for row in seeds]
    return [
        next((a for a in [*answers[at + 1 :], *answers[:at]] if not same_answers(kind, [(a, own)])[0]), f"-1 - ({own})")
        for at, own in enumerate(answers)
    ]


def accuracy(right: Sequence[bool]) -> dict[str, Any]:
    """Number, share and standard error."""
    n = len(right)
    return {
        "n": n,
        "frac": rounded(sum(right) / n, 4) if n else None,
        "standard_error": reported(proportion_error(sum(right), n)) if n else None,
    }


# --------------------------------------------------------------------------------------------------------- all of it


def human_rate(rows: Sequence[Row], path: Path) -> tuple[Rate, int]:
    """What a reader marked among the training rows, and how many marks are of other questions.

    A reader chooses what to read, so this is no draw. All training rows count, drawn or not.
    """
    marks = read_marks(path, file_hash(path) if path.is_file() else "")
    distinct = {row["id"]: row for row in rows}
    own = {
        name: [mark.mark == BAD]
        for name, mark in marks.items()
        if name in distinct and distinct[name]["question"].startswith(mark.question)
    }
    return rate_of("question", "marked bad by a reader", own), len(marks) - len(own)


def error_rates(
    rows: Sequence[Row], seeds: Sequence[Row], params: Params, n: int, seed: int, ask: Ask | None = None,
    n_calibration: int = 0, marks: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Draw ``n`` rows and estimate error rates by every judge that is there.

    Args:
        rows: all training rows.
        seeds: all seeds.
        params: of the run.
        n: rows to draw; all where there are fewer.
        seed: of the draw.
        ask: a stronger model, if there is one.
        n_calibration: seeds that measure it.
        marks: a reader's marks, if there are any.
    """
    drawn = [rows[at] for at in draw([row["id"] for row in rows], n, seed, purpose="error rates")]
    found: dict[str, Any] = {
        "rows": len(rows),
        "drawn": len(drawn),
        "seed": seed,
        "rules": [*question_rates(drawn, params), *answer_rates(drawn, params, seeds)],
    }
    if ask:
        answered = [row for row in seeds if row["answer"] and kind_of(row["answer"]) is None]
        if len(answered) < 2:
            raise UserError(
                f"errors: {len(answered)} seeds have an answer that can be compared. Expected at least 2, to measure the judge. "
                "Leave out --judge."
            )
        strata = [(row["source"], row["stratum"]) for row in answered]
        at = draw([row["id"] for row in answered], n_calibration, seed, strata, purpose="errors: judge")
        found["judge"] = judge_rates(drawn, [answered[place] for place in at], params, ask, seed)
    if marks:
        rate, others = human_rate(rows, marks)
        found["reader"] = {"rates": [rate], "marks_of_other_questions": others}
    return found


def in_words(found: Mapping[str, Any]) -> str:
    """``error_rates`` as a table."""
    lines = [f"{found['drawn']:,} of {found['rows']:,} training rows, drawn by seed {found['seed']}"]
    lines += ["", f"{'by rules':<58}{'decided':>9}{'wrong':>7}   % ± standard error", *map(_line, found["rules"])]
    if judge := found.get("judge"):
        lines += ["", f"by {judge['model']}" if "model" in judge else "by the judge", *map(_line, judge["rates"])]
        undecided = ", ".join(f"{n} {of}s" for of, n in judge["undecided"].items() if n)
        lines += [f"  without a verdict: {undecided}"] if undecided else []
        lines += [f"  {judge['left_out']}"] if "left_out" in judge else []
        lines += ["", "the same judge on seeds, whose answers are known"]
        for name, share in judge["accuracy"].items():
            lines.append(f"  {name:<56}{share['n']:>9}{'':>7}   {percent(share['frac'], share['standard_error'])}")
        for of, decides in judge["decides"].items():
            if not decides:
                lines.append(
                    f"  warning: it does not tell sound {of}s from broken ones (two standard errors): its rate means nothing"
                )
    if reader := found.get("reader"):
        lines += ["", "by a reader's marks, which are no draw", *map(_line, reader["rates"])]
        if others := reader["marks_of_other_questions"]:
            lines.append(f"  {others} marks are of other questions")
    return "\n".join(lines)


def _line(rate: Rate) -> str:
    text = f"{rate.of}: {rate.rule}"
    return f"  {text:<56}{rate.decided:>9}{rate.wrong:>7}   {percent(rate.rate, rate.standard_error)}"


def percent(share: float | None, error: float | None) -> str:
    """A share in percent with its error; a dash where there is none."""
    return "-" if share is None or error is None else f"{100 * share:.1f} ± {100 * error:.1f}"


def judge_model(source: str, params: Params, max_tokens: int, seed: int) -> Ask:
    """The model of an ``api:`` source, asked greedily; its answers are kept, so that the same sample costs nothing again.

    Raises:
        UserError: it is no endpoint.
    """
    endpoint = endpoint_of(source)
    if endpoint is None:
        raise UserError(
            f"--judge: '{source}'. Expected api:https://HOST/v1#MODEL, with the key in the environment (runtime.api.key_variable)."
        )
    sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=max_tokens, shard_size=1)
    model = ApiModel(*endpoint, sampling, params.runtime.api.of("judge"), JOURNAL, seed)
    return lambda conversations: model.complete(conversations)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest errors``."""
    parser.add_argument("--rows", type=int, default=200, metavar="N", help="training rows to draw (default: 200)")
    parser.add_argument("--seed", type=int, metavar="S", help="of the draw (default: that of params.yaml)")
    parser.add_argument(
        "--judge", metavar="api:URL#MODEL", help="a stronger model; its key and prices are those of runtime.api"
    )
    parser.add_argument(
        "--calibration", type=int, metavar="N", help="seeds that measure the judge (default: judge.n_calibration)"
    )
    parser.add_argument("--max-tokens", type=int, default=2048, metavar="N", help="of the judge (default: 2048)")
    parser.add_argument("--marks", type=Path, metavar="FILE", help="a reader's marks (default: those of filter.marks)")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Draw, judge and print."""
    params = load_all()
    n_calibration = params.judge.n_calibration if args.calibration is None else args.calibration
    for option, value, least in (("--rows", args.rows, 1), ("--calibration", n_calibration, 2), ("--max-tokens", args.max_tokens, 1)):  # fmt: skip
        if value < least:
            raise UserError(f"errors: {option} {value}. Expected at least {least}.")
    for path, stage in ((INSTRUCT, "reward_select"), (SEEDS, "seeds")):
        if not path.is_file():
            raise UserError(f"errors: {path} is not there. Expected a finished run. Run: dvc repro {stage}")
    seed = params.seed if args.seed is None else args.seed
    consent(params.runtime.sandbox)
    marks = args.marks or (Path(params.filter.marks.path) if params.filter.marks else None)
    ask = judge_model(args.judge, params, args.max_tokens, seed) if args.judge else None
    try:
        rows, seeds = read_rows(INSTRUCT, INSTRUCTION), read_rows(SEEDS, PROBLEM)
        found = error_rates(rows, seeds, params, args.rows, seed, ask, n_calibration, marks)
    finally:
        close_pools()
    if args.judge:
        found["judge"]["model"] = args.judge.removeprefix("api:")
    print(json.dumps(found, indent=2, default=asdict) if args.json else in_words(found))
    return 0
