"""Keep one response per question, among those that give an answer: by default the best rewarded (paper 2.5).

python -m stages.reward_select --questions data/filtered.parquet --responses data/responses --rewards data/rewards
    --out data/instruct.parquet --metrics M.json

`reward_select.by` is the rule of the choice, so that the reward's part in the result can be measured (paper, Figure 5).

The demands that the field found since (`min_agreement`, `min_pass_rate`, `max_pass_rate`, `check_arithmetic`) drop answers and
questions before that choice. `keep: all_agreeing` keeps every response that gives the chosen answer: several rows of one id.

In a code run `reward_select.execute` first runs every candidate in the sandbox, with the assertions that its question states, and
drops those that do not pass. (A program that waits for input gets none, and raises.)
"""

import argparse
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any

from scalequest.answers.arithmetic import asked_value, check_arithmetic
from scalequest.answers.best_of import RULES, choose, group_answers
from scalequest.answers.check import final_answer, with_examples
from scalequest.answers.compare import compare
from scalequest.answers.demands import Demands, agreeing, fulfilling, pass_rate
from scalequest.answers.sandbox import EXITED, PASSED, consent, run_programs
from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.outcomes import RIGHT
from scalequest.records import FILTERED, INSTRUCTION, RESPONSE, REWARD, read_rows, write_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.seeding import row_seed
from scalequest.statistics import mean_error, proportion_above_chance, reported

STAGE = "reward_select"
# Share of wrong steps, and of wrong answers to plain arithmetic, that needs no warning.
TOLERATED = 0.05
NONE = Demands()
# Outcomes that need no demand.
ALWAYS = ("no_answer", "crashed", "low_reward")


def find_candidates(
    responses: Sequence[dict[str, Any]], groups: Sequence[int | None], crashed: Collection[str]
) -> tuple[list[dict[str, Any]], bool]:
    """The responses that may be chosen: they ended by themselves, give an answer, and did not crash.

    The second value says whether some only fell out because they crashed.
    """
    complete = [
        row
        for row, group in zip(responses, groups, strict=True)
        if row["finish_reason"] == "stop" and group is not None
    ]
    return [row for row in complete if row["id"] not in crashed], bool(complete)


def select(
    question: dict[str, Any],
    responses: list[dict[str, Any]],
    rewards: dict[str, float],
    min_reward: float | None,
    domain: str,
    crashed: Collection[str] = (),
    by: str = "reward",
    seed: int = 0,
    groups: Sequence[int | None] | None = None,
    demands: Demands = NONE,
    executed: bool = False,
) -> dict[str, Any] | str:
    """The training row of one question, or why it has none: the first row of ``select_all``."""
    found = select_all(
        question, responses, rewards, min_reward, domain, crashed, by, seed, groups, demands, executed, keep="best"
    )
    return found if isinstance(found, str) else found[0]


def select_all(
    question: dict[str, Any],
    responses: list[dict[str, Any]],
    rewards: dict[str, float],
    min_reward: float | None,
    domain: str,
    crashed: Collection[str] = (),
    by: str = "reward",
    seed: int = 0,
    groups: Sequence[int | None] | None = None,
    demands: Demands = NONE,
    executed: bool = False,
    keep: str = "best",
) -> list[dict[str, Any]] | str:
    """The training rows of one question, the chosen one first, or why it has none (a name of SELECT_OUTCOMES).

    A candidate ended by itself and gives an answer (the paper's rule: a box or an announcing phrase; for code, a block that
    compiles), and its id is not among the ``crashed``. Of those that fulfil the ``demands``, ``by`` chooses one; a choice below
    ``min_reward`` drops the question, and a response below it is not kept beside the choice.
    ``agreement`` is the share of all responses whose answer equals the chosen one's, in (0, 1].

    Args:
        question: its row.
        responses: its samples, in any order.
        rewards: by response id.
        min_reward: the least reward that is kept; None keeps all.
        domain: `maths` or `code`.
        crashed: ids of responses that failed their question's assertions.
        by: one of RULES.
        seed: of this question, for the rule `random`.
        groups: of the responses' answers, in order, as from ``group_answers``; None groups them here.
        demands: what answers must fulfil beyond the paper's rule.
        executed: whether the responses were run, so that what did not crash has passed.
        keep: `best` (one row) or `all_agreeing`.
    """
    if groups is None:
        found = {question["id"]: [final_answer(domain, row["response"]) for row in responses]}
        groups = group_answers(domain, found)[question["id"]]
    candidates, dropped = fulfilling_candidates(responses, groups, crashed, demands, executed)
    if not candidates:
        return dropped
    group_of = {row["id"]: group for row, group in zip(responses, groups, strict=True)}
    best = choose(by, candidates, rewards, group_of, seed)
    if min_reward is not None and rewards[best["id"]] < min_reward:
        return "low_reward"
    kept = [best] if keep == "best" else agreeing(best, candidates, group_of, rewards, right=executed)
    return [
        {
            "id": question["id"],
            "generator": question["generator"],
            "question": question["question"],
            "response": row["response"],
            "final_answer": final_answer(domain, row["response"]) or "",
            "reward": rewards[row["id"]],
            "agreement": sum(group == group_of[row["id"]] for group in groups) / len(responses),
            "n_candidates": len(candidates),
        }
        for row in kept
        if min_reward is None or rewards[row["id"]] >= min_reward
    ]


def fulfilling_candidates(
    responses: Sequence[dict[str, Any]],
    groups: Sequence[int | None],
    crashed: Collection[str],
    demands: Demands,
    executed: bool,
) -> tuple[Sequence[Mapping[str, Any]], str]:
    """The candidates that fulfil the demands, and the outcome of a question that has none."""
    candidates, crashes = find_candidates(responses, groups, crashed)
    if not candidates:
        return [], "crashed" if crashes else "no_answer"
    group_of = {row["id"]: group for row, group in zip(responses, groups, strict=True)}
    return fulfilling(demands, candidates, group_of, pass_rate(groups, len(candidates) if executed else None))


def same_choices(chosen: dict[str, dict[str, str]]) -> dict[str, float]:
    """How often two rules take the same response.

    Args:
        chosen: by rule, the response's id by question.

    Returns:
        By pair of rules (``first_majority``) a share of the questions, in [0, 1].
    """
    return {
        f"{one}_{other}": rounded(
            sum(chosen[one][q] == chosen[other][q] for q in chosen[one]) / max(1, len(chosen[one])), 4
        )
        for one, other in combinations(RULES, 2)
    }


def arithmetic_of(rows: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], bool]:
    """Steps of written arithmetic in N responses, how many are wrong, and whether more than 5% are, by two standard errors.

    The steps of one response are not independent; ``standard_error`` is that of the responses.
    """
    found = [(row["id"], check_arithmetic(row["response"])) for row in rows]
    steps, wrong = sum(a.checked for _, a in found), sum(a.wrong for _, a in found)
    outcomes = [(name, float(k < a.wrong)) for name, a in found for k in range(a.checked)]
    error = mean_error([value for _, value in outcomes], [name for name, _ in outcomes])
    values = {
        "steps": steps,
        "wrong": wrong,
        "wrong_frac": rounded(wrong / steps, 4) if steps else None,
        "standard_error": reported(error),
    }
    known = error if error == error else 0.0
    return values, proportion_above_chance(wrong, steps, TOLERATED, known)


def checkable_of(rows: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], bool]:
    """Answers to questions of plain arithmetic, which a program can answer, and whether more than 5% are wrong, by two errors."""
    known = [(row, value) for row in rows if (value := asked_value(row["question"])) is not None]
    outcomes = compare([str(value) for _, value in known], [row["final_answer"] for row, _ in known])
    n, right = len(known), outcomes.count(RIGHT)
    values = {"n": n, "right": right, "right_frac": rounded(right / n, 4) if n else None}
    return values, proportion_above_chance(n - right, n, TOLERATED)


def find_crashes(questions: list[dict[str, Any]], responses: dict[str, list[dict[str, Any]]]) -> set[str]:
    """Ids of the responses whose program does not pass its question's assertions.

    Without assertions a program has to end without an error; ``sys.exit`` is an end then. With assertions it is not, because they
    would not have run.
    """
    programs = {
        row["id"]: with_examples(question["question"], program)
        for question in questions
        for row in responses[question["id"]]
        if (program := final_answer("code", row["response"]))
    }
    verdicts = dict(zip(programs, run_programs(list(programs.values())), strict=True)) if programs else {}
    return {
        name
        for name, verdict in verdicts.items()
        if verdict.outcome != PASSED and (verdict.outcome != EXITED or programs[name].tests)
    }


def _relax(demands: Demands) -> str:
    """What to change where demands dropped everything."""
    return f". Or relax what gives {', '.join(demands.outcomes)} (reward_select)" if demands.outcomes else ""


def _seed(run: StageRun, question: dict[str, Any]) -> int:
    return row_seed(run.params.seed, STAGE, question["id"])


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Select for every question."""
    consent(run.params.runtime.sandbox)
    params, domain = run.params.reward_select, run.params.domain
    questions = read_rows(args.questions, FILTERED)
    rewards = {row["id"]: row["reward"] for row in read_rows(args.rewards, REWARD)}
    responses: dict[str, list[dict[str, Any]]] = {row["id"]: [] for row in questions}
    for row in read_rows(args.responses, RESPONSE):
        responses[row["question_id"]].append(row)
    crashed = find_crashes(questions, responses) if params.execute else set()
    groups = group_answers(
        domain, {q: [final_answer(domain, r["response"]) for r in rows] for q, rows in responses.items()}
    )

    demands = Demands.of(params)
    taken = [
        select_all(
            q,
            responses[q["id"]],
            rewards,
            params.min_reward,
            domain,
            crashed,
            params.by,
            _seed(run, q),
            groups[q["id"]],
            demands,
            params.execute,
            params.keep,
        )
        for q in questions
    ]
    rows = [row for found in taken if not isinstance(found, str) for row in found]
    dropped = Counter(found for found in taken if isinstance(found, str))
    if not rows:
        raise UserError(
            f"no question is left after reward_select: of {len(questions)}, {dict(dropped)}. Expected at least one. Raise "
            "respond.max_tokens or n_samples, lower reward_select.min_reward, or use a solver that answers in the form that its "
            f"prompt asks for (a box, a Python block){_relax(demands)}"
        )
    write_rows(args.out, rows, INSTRUCTION)
    choices: dict[str, dict[str, str]] = {rule: {} for rule in RULES}
    for q in questions:
        candidates, _ = fulfilling_candidates(responses[q["id"]], groups[q["id"]], crashed, demands, params.execute)
        group_of = {row["id"]: g for row, g in zip(responses[q["id"]], groups[q["id"]], strict=True)}
        for rule in RULES if candidates else ():
            choices[rule][q["id"]] = choose(rule, candidates, rewards, group_of, _seed(run, q))["id"]
    several = [row for row in rows if len(responses[row["id"]]) > 1]
    alone = sum(row["agreement"] * len(responses[row["id"]]) < 1.5 for row in several)  # its own answer alone
    metrics: dict[str, Any] = {
        "questions": len(questions),
        "kept": len(taken) - dropped.total(),
        "dropped": {name: dropped[name] for name in (*ALWAYS, *demands.outcomes)},
        "crashed_responses": len(crashed),
        "mean_reward": {
            "kept": rounded(sum(r["reward"] for r in rows) / len(rows), 4),
            "all": rounded(sum(rewards.values()) / len(rewards), 4),
        },
        "mean_agreement": rounded(sum(r["agreement"] for r in rows) / len(rows), 4),
        "agrees_with_none": {"n": alone, "frac": rounded(alone / len(several), 4) if several else None},
        "mean_candidates": rounded(sum(r["n_candidates"] for r in rows) / len(rows), 4),
        "same_choice": same_choices(choices),
    }
    warnings = {"no_agreement": proportion_above_chance(alone, len(several), 0.5)}
    if params.keep != "best":
        metrics["rows"] = len(rows)
    if domain != "code":
        metrics["arithmetic"], warnings["wrong_arithmetic"] = arithmetic_of(rows)
        metrics["checkable"], warnings["wrong_checkable"] = checkable_of(rows)
    run.metrics(args.metrics, metrics, warnings)


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("questions", "responses", "rewards", "out", "metrics"))
