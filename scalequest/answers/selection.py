"""The training rows of one question: which of its sampled responses may be chosen, and which of them are kept (paper 2.5)."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from scalequest.answers.best_of import choose, group_answers
from scalequest.answers.check import final_answer, with_examples
from scalequest.answers.demands import Demands, agreeing, fulfilling, pass_rate
from scalequest.answers.sandbox import EXITED, PASSED, run_programs

NONE = Demands()


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


def select_all(
    question: dict[str, Any],
    responses: list[dict[str, Any]],
    rewards: dict[str, float],
    min_reward: float | None,
    kind: str,
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
        kind: of the answers, as ``Wording.ANSWERS`` names it.
        crashed: ids of responses that failed their question's assertions.
        by: one of RULES.
        seed: of this question, for the rule `random`.
        groups: of the responses' answers, in order, as from ``group_answers``; None groups them here.
        demands: what answers must fulfil beyond the paper's rule.
        executed: whether the responses were run, so that what did not crash has passed.
        keep: `best` (one row) or `all_agreeing`.
    """
    if groups is None:
        found = {question["id"]: [final_answer(kind, row["response"]) for row in responses]}
        groups = group_answers(kind, found)[question["id"]]
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
            "final_answer": final_answer(kind, row["response"]) or "",
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


def find_crashes(questions: Sequence[dict[str, Any]], responses: Mapping[str, list[dict[str, Any]]]) -> set[str]:
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
