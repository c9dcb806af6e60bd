"""Choosing one of n answers to a problem, and how often each rule chooses a right one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scalequest.answers.check import same_answer
from scalequest.outcomes import RIGHT
from scalequest.statistics import Difference, mean_error, paired_difference


def majority(domain: str, answers: Sequence[str]) -> int:
    """Position of the first answer that agrees with the most others; of equals the earliest wins."""
    votes = [sum(same_answer(domain, answer, other) for other in answers) for answer in answers]
    return votes.index(max(votes))


@dataclass(frozen=True)
class BestOfN:
    """Right shares of the rules on the same N problems, each in [0, 1].

    Attributes:
        problems: number N of problems with at least one candidate.
        shares: share of right choices by rule: reward, random (expected), first, majority, any (at least one is right).
        errors: standard error of each share.
        reward_minus: reward's share minus that of random, first and majority, problem by problem.
    """

    problems: int
    shares: Mapping[str, float]
    errors: Mapping[str, float]
    reward_minus: Mapping[str, Difference]


def best_of_n(domain: str, problems: Sequence[Sequence[Mapping[str, Any]]], seed: int = 0) -> BestOfN | None:
    """How often the highest reward chooses a right answer, beside rules that need no model; None without a candidate.

    Args:
        domain: maths or code.
        problems: the samples of each problem, with ``sample``, ``final_answer``, ``finish_reason``, ``outcome``, ``reward``.
            Candidates ended by themselves and give an answer, as in stage ``reward_select``.
        seed: of the bootstrap.
    """
    found: dict[str, list[float]] = {rule: [] for rule in ("reward", "random", "first", "majority", "any")}
    for samples in problems:
        rows = sorted(
            (r for r in samples if r["finish_reason"] == "stop" and r["final_answer"]), key=lambda r: r["sample"]
        )
        if not rows:
            continue
        right = [float(row["outcome"] == RIGHT) for row in rows]
        found["reward"].append(right[max(range(len(rows)), key=lambda at: (rows[at]["reward"], -at))])
        found["random"].append(sum(right) / len(right))
        found["first"].append(right[0])
        found["majority"].append(right[majority(domain, [row["final_answer"] for row in rows])])
        found["any"].append(max(right))
    n = len(found["reward"])
    if not n:
        return None
    return BestOfN(
        problems=n,
        shares={rule: sum(values) / n for rule, values in found.items()},
        errors={rule: mean_error(values) for rule, values in found.items()},
        reward_minus={
            rule: paired_difference(found[rule], found["reward"], seed) for rule in ("random", "first", "majority")
        },
    )
