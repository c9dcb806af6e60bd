"""Estimate how many made questions and answers are wrong, from a drawn sample of the training rows.

    scalequest errors                                        # by rules: what a program can decide
    scalequest errors --rows 500 --judge api:https://HOST/v1#MODEL
    scalequest errors --marks marks.jsonl --json             # also by a reader's marks

No output of the pipeline is changed; the answers of --judge are kept in .work/api/errors.jsonl.
Three judges, each with the number of rows that it decides:

- Rules. Each decides only some rows, and its rate holds for those. What a stage before has dropped
  is no rule here: its rate would be 0 whatever the rows are like.
- A model behind an endpoint. It says whether a question can be solved, and answers the question
  itself. Its answer is compared with the row's. It does the same for seeds as they are and for the
  same seeds broken. How often it is right there is printed beside its rates: without that they mean
  nothing.
- A reader's marks, saved from the report's data browser.

A comparison or a program that ran out of time is no verdict. The standard errors are those of the draw. They do not hold the
judge's own mistakes.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scalequest.answers.arithmetic import asked_value, check_arithmetic
from scalequest.answers.check import check, final_answer, kind_of, with_examples
from scalequest.answers.compare import close_pools, compare
from scalequest.answers.sandbox import PASSED, consent, run_programs
from scalequest.answers.sandbox import TIMEOUT as OUT_OF_TIME
from scalequest.answers.verdict import verdict_of
from scalequest.audit.tables import plain_pull
from scalequest.domains import PROGRAMS, WORKED, kind_of_answers, wording
from scalequest.errors import UserError
from scalequest.io import file_hash, rounded
from scalequest.outcomes import MISSING, NO_VERDICT, RIGHT, SOLVABLE, TIMEOUT, UNSOLVABLE, WRONG
from scalequest.params import Params, Sampling, endpoint_of, load_all
from scalequest.problems.calibration import calibration_metrics, calibration_rows, calibration_seeds, share
from scalequest.problems.draw import draw
from scalequest.problems.language import language_check
from scalequest.problems.marks import BAD, read_marks
from scalequest.problems.puzzles import known_answer
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
# Whether an answer is wrong, by its outcome; and whether a judge's answer is the one that it is compared with. None: no verdict.
IS_WRONG = {RIGHT: False, WRONG: True, MISSING: True, TIMEOUT: None}
IS_SAME = {RIGHT: True, WRONG: False, MISSING: None, TIMEOUT: None}


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


def by_question(rows: Sequence[Row], verdicts: Sequence[bool | None]) -> dict[str, list[bool]]:
    """Whether each of N rows is wrong, by question id; rows without a verdict are left out."""
    found: dict[str, list[bool]] = {}
    for row, verdict in zip(rows, verdicts, strict=True):
        if verdict is not None:
            found.setdefault(row["id"], []).append(verdict)
    return found


# --------------------------------------------------------------------------------------------------------------- rules


def dropped_before(params: Params) -> list[str]:
    """What stages before have dropped, in words: no training row is wrong in these ways, and no rate says anything of them."""
    select, marks, found = params.reward_select, params.filter.marks, []
    if _screened(params):
        found.append("questions in another language, or shorter than screen.min_words (screen)")
        if marks:
            found.append(f"questions that {marks.path} calls bad (filter.marks)")
    if select.check_arithmetic:
        found.append("answers with a wrong calculation (reward_select.check_arithmetic)")
    if select.execute:
        found.append("programs that fail on their question's assertions (reward_select.execute)")
    if select.min_agreement > 1:
        found.append("answers that agree with no other sample (reward_select.min_agreement)")
    return found


def _screened(params: Params) -> bool:
    """Whether the questions passed `screen` and `filter`; those of own.filtered did not."""
    return params.respond.questions == "filtered"


def question_rates(rows: Sequence[Row], params: Params) -> list[Rate]:
    """What rules find in questions; each question counts once."""
    distinct = list({row["id"]: row for row in rows}.values())
    questions, domain = [row["question"] for row in distinct], wording(params.domain)
    rules = {
        "asks for nothing": [not domain.asks(question) for question in questions],
        "holds its own answer": [domain.leaks_solution(question) for question in questions],
    }
    if not _screened(params):
        foreign, least = language_check(params.screen.language), params.screen.min_words
        rules |= {
            f"not in the language wanted ({params.screen.language})": [foreign(q) is not None for q in questions],
            "fewer words than screen.min_words": [len(words(question)) < least for question in questions],
        }
    return [rate_of("question", name, by_question(distinct, verdicts)) for name, verdicts in rules.items()]


def answer_rates(rows: Sequence[Row], params: Params, seeds: Sequence[Row]) -> list[Rate]:
    """What rules find in answers.

    Args:
        rows: of ``data/instruct.parquet``.
        params: of the run.
        seeds: with known answers; a made question that repeats one is compared with it.
    """
    kind, n = kind_of_answers(wording(params.domain), params.respond.form), params.respond.n_samples
    select = params.reward_select
    rules: list[tuple[str, Sequence[Row], Sequence[bool | None]]] = []
    if kind == "maths" and not select.check_arithmetic:
        steps = [check_arithmetic(row["response"]) for row in rows]
        rules.append(("writes a wrong calculation", rows, [s.wrong > 0 if s.checked else None for s in steps]))
    if kind in ("maths", PROGRAMS):
        asked = [(row, str(value)) for row in rows if (value := asked_value(row["question"])) is not None]
        outcomes = compare([value for _, value in asked], [row["final_answer"] for row, _ in asked])
        wrong = [IS_WRONG[outcome] for outcome in outcomes]
        rules.append(("wrong, where the question is plain arithmetic", [row for row, _ in asked], wrong))
    if kind == "code" and not select.execute:
        rules.append(("fails on its question's assertions", rows, failed_programs(rows)))
    answers = {question_key(seed["question"]): seed["answer"] for seed in seeds if seed["answer"]}
    repeats = [(row, answers[key]) for row in rows if (key := question_key(row["question"])) in answers]
    found = [final_answer(kind, row["response"]) for row, _ in repeats]
    wrong = [IS_WRONG[outcome] for outcome in check(kind, [answer for _, answer in repeats], found)]
    rules.append(("wrong, where the question is a seed's", [row for row, _ in repeats], wrong))
    if n > 1 and select.min_agreement < 2:
        # An answer that is alone is a sign of an error and no proof.
        rules.append(
            ("agrees with no other sample (a sign, no proof)", rows, [row["agreement"] * n < 1.5 for row in rows])
        )
    return [rate_of("answer", name, by_question(decided, verdicts)) for name, decided, verdicts in rules]


def failed_programs(rows: Sequence[Row]) -> list[bool | None]:
    """Whether each row's program fails on the assertions that its question states; None without assertions, or out of time."""
    programs = [with_examples(row["question"], final_answer("code", row["response"]) or "") for row in rows]
    tested = list(dict.fromkeys(program for program in programs if program.tests))
    ended = dict(zip(tested, run_programs(tested), strict=True)) if tested else {}
    outcomes = [ended[program].outcome if program in ended else OUT_OF_TIME for program in programs]
    return [None if outcome == OUT_OF_TIME else outcome != PASSED for outcome in outcomes]


# --------------------------------------------------------------------------------------------------------- the judge


def measuring(seeds: Sequence[Row], kind: str) -> list[Row]:
    """The seeds that a judge can be measured on, by the kind of the run's answers.

    In code it judges questions only, and all seeds count. Else its answers are compared: with answers of the run's kind and with
    plain ones.
    """
    return [seed for seed in seeds if kind == "code" or (seed["answer"] and kind_of(seed["answer"]) in (None, kind))]


def judge_rates(rows: Sequence[Row], seeds: Sequence[Row], params: Params, ask: Ask, seed: int) -> dict[str, Any]:
    """What a model says of the rows, and how often it is right about seeds.

    Args:
        rows: of ``data/instruct.parquet``.
        seeds: N drawn seeds, of ``measuring``.
        params: of the run.
        ask: the model.
        seed: of how seeds are broken.

    Returns:
        ``rates`` and ``undecided`` of the rows; ``accuracy`` on the seeds, of answers where it gives
        one; ``decides`` says of each of the two questions whether the model tells sound from broken
        by two standard errors.
    """
    domain = wording(params.domain)
    kind = kind_of_answers(domain, WORKED)
    distinct = list({row["id"]: row for row in rows}.values())
    checks = calibration_rows(seeds, domain.asks, seed)
    turns = [domain.judge_turns(row["question"], "reasoned") for row in [*distinct, *checks]]
    verdicts = [verdict_of(answer, "reasoned") for answer in ask(turns)]
    own, checked = verdicts[: len(distinct)], verdicts[len(distinct) :]
    unsolvable = [None if verdict == NO_VERDICT else verdict == UNSOLVABLE for verdict in own]
    _, warnings = calibration_metrics(checks, checked, seed)
    found: dict[str, Any] = {
        "rates": [rate_of("question", "cannot be solved", by_question(distinct, unsolvable))],
        "undecided": {"question": own.count(NO_VERDICT)},
        "accuracy": {
            "sound questions accepted": share([v == SOLVABLE for v in checked[: len(seeds)]], "frac"),
            "broken questions rejected": share([v == UNSOLVABLE for v in checked[len(seeds) :]], "frac"),
        },
        "decides": {"question": not warnings["judge_decides_nothing"]},
    }
    if kind == "code":
        found["left_out"] = (
            "answers: two programs are not compared. The rules run them where the question has assertions"
        )
        return found
    texts = ask([[domain.solve_prompt(row["question"])] for row in [*distinct, *seeds]])
    solved = [final_answer(kind, text.text) if text.finish_reason == "stop" else None for text in texts]
    of_rows, of_seeds = solved[: len(distinct)], solved[len(distinct) :]
    by_id = dict(zip((row["id"] for row in distinct), of_rows, strict=True))
    same = agreements(kind, [row["final_answer"] for row in rows], [by_id[row["id"]] for row in rows])
    otherwise = [None if yes is None else not yes for yes in same]
    found["rates"].append(rate_of("answer", "the judge answers otherwise", by_question(rows, otherwise)))
    found["undecided"]["answer"] = same.count(None)
    known = [known_answer(row["answer"]) for row in seeds]
    right, wrong = agreements(kind, known, of_seeds), agreements(kind, wrong_answers(kind, known), of_seeds)
    found["accuracy"] |= {
        "right answers accepted": share([yes for yes in right if yes is not None], "frac"),
        "wrong answers rejected": share([not yes for yes in wrong if yes is not None], "frac"),
    }
    both = [(float(no), float(yes)) for no, yes in zip(wrong, right, strict=True) if no is not None and yes is not None]
    difference = paired_difference([no for no, _ in both], [yes for _, yes in both], seed) if both else None
    found["decides"]["answer"] = difference is not None and difference.above_zero
    return found


def agreements(kind: str, answers: Sequence[str], found: Sequence[str | None]) -> list[bool | None]:
    """Whether a judge found each of N answers; None where it found none, or where the comparison ran out of time."""
    return [IS_SAME[outcome] for outcome in check(kind, answers, found)]


def wrong_answers(kind: str, answers: Sequence[str]) -> list[str]:
    """For each answer the next one that is another; another formula where all are the same."""
    return [
        next((a for a in [*answers[at + 1 :], *answers[:at]] if check(kind, [own], [a]) == [WRONG]), f"-1 - ({own})")
        for at, own in enumerate(answers)
    ]


# --------------------------------------------------------------------------------------------------------- all of it


def human_rate(rows: Sequence[Row], path: Path) -> tuple[Rate, int]:
    """What a reader marked among the training rows, and how many marks are of other questions.

    A reader chooses what to read, so this is no draw. All training rows count, drawn or not.
    """
    path = path.expanduser()
    if not path.is_file():
        raise UserError(f"--marks: {path}: no such file. Expected marks, saved from the report. Save them there.")
    marks = read_marks(path, file_hash(path))
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
        "dropped_before": dropped_before(params),
    }
    if ask:
        kind = kind_of_answers(wording(params.domain), WORKED)
        fit = measuring(seeds, kind)
        if len(fit) < 2:
            have = "" if kind == "code" else " have an answer that can be compared"
            raise UserError(
                f"errors: {len(fit)} seeds{have}. Expected at least 2, to measure the judge. Leave out --judge."
            )
        found["judge"] = judge_rates(drawn, calibration_seeds(fit, n_calibration, seed), params, ask, seed)
    if marks:
        rate, others = human_rate(rows, marks)
        found["reader"] = {"rates": [rate], "marks_of_other_questions": others}
    return found


def in_words(found: Mapping[str, Any]) -> str:
    """``error_rates`` as a table."""
    lines = [f"{found['drawn']:,} of {found['rows']:,} training rows, drawn by seed {found['seed']}"]
    lines += ["", f"{'by rules':<58}{'decided':>9}{'wrong':>7}   % ± standard error", *map(_line, found["rules"])]
    lines += [f"  not estimated, because dropped before: {what}" for what in found["dropped_before"]]
    if judge := found.get("judge"):
        lines += ["", f"by {judge['model']}" if "model" in judge else "by the judge", *map(_line, judge["rates"])]
        undecided = ", ".join(f"{n} {of}s" for of, n in judge["undecided"].items() if n)
        lines += [f"  without a verdict: {undecided}"] if undecided else []
        lines += [f"  {judge['left_out']}"] if "left_out" in judge else []
        lines += ["", "the same judge on seeds, whose answers are known"]
        for name, part in judge["accuracy"].items():
            lines.append(f"  {name:<56}{part['n']:>9}{'':>7}   {percent(part['frac'], part['standard_error'])}")
        for of, decides in judge["decides"].items():
            if not decides:
                lines.append(
                    f"  warning: it does not tell sound {of}s from broken ones (two standard errors): its rate means nothing"
                )
        if paid := judge.get("cost"):
            lines += ["", _paid(paid)]
    if reader := found.get("reader"):
        lines += ["", "by a reader's marks, which are no draw", *map(_line, reader["rates"])]
        if others := reader["marks_of_other_questions"]:
            lines.append(f"  {others} marks are of other questions")
    return "\n".join(lines)


def _line(rate: Rate) -> str:
    text = f"{rate.of}: {rate.rule}"
    return f"  {text:<56}{rate.decided:>9}{rate.wrong:>7}   {percent(rate.rate, rate.standard_error)}"


def _paid(cost: Mapping[str, float]) -> str:
    """What this call paid for; answers out of the journal cost nothing."""
    requests, without = cost["api_requests_paid"], cost["api_requests_without_usage"]
    tokens = f"{cost['api_input_tokens']:,} + {cost['api_output_tokens']:,} tokens"
    note = f" at least: {without:,} came without token counts" if without else ""
    return f"paid now: {requests:,} requests, {tokens}, ${cost['api_usd']:.4f}{note}"


def percent(share: float | None, error: float | None) -> str:
    """A share in percent with its error; a dash where there is none."""
    return "-" if share is None or error is None else f"{100 * share:.1f} ± {100 * error:.1f}"


def judge_model(source: str, params: Params, max_tokens: int, seed: int) -> ApiModel:
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
    return ApiModel(*endpoint, sampling, params.runtime.api.of("judge"), JOURNAL, seed)


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
    parser.add_argument("--marks", type=Path, metavar="FILE", help="a reader's marks, saved from the report")
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
            raise UserError(
                f"errors: {path} is not there. Expected a finished run. Run `{plain_pull(Path())} --allow-missing` for a "
                f"recorded one's tables, or `dvc repro {stage}`"
            )
    seed = params.seed if args.seed is None else args.seed
    consent(params.runtime.sandbox)
    judge = judge_model(args.judge, params, args.max_tokens, seed) if args.judge else None
    ask = judge.complete if judge else None
    try:
        rows, seeds = read_rows(INSTRUCT, INSTRUCTION), read_rows(SEEDS, PROBLEM)
        found = error_rates(rows, seeds, params, args.rows, seed, ask, n_calibration, args.marks)
    finally:
        close_pools()
    if judge:
        found["judge"] |= {"model": args.judge.removeprefix("api:"), "cost": judge.cost()}
    print(json.dumps(found, indent=2, default=asdict) if args.json else in_words(found))
    return 0
