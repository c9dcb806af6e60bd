"""Choosing one of n answers to a problem, and how often each rule chooses a right one."""

import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from typing import Any

from scalequest.answers.check import same_answers
from scalequest.outcomes import RIGHT
from scalequest.statistics import Difference, mean_error, paired_difference

RULES = ("reward", "first", "random", "majority")
# Pairs of answers that are held in memory at once are at most this many times the pairs of one question.
QUESTIONS_AT_ONCE = 1_000

# Problems by the share of right answers among a problem's candidates, at most this much: how hard it is for who answers.
# Where none or all are right no rule can choose better than another.
BANDS = {"none_right": 0.0, "few_right": 1 / 3, "half_right": 2 / 3, "most_right": 1 - 1e-9, "all_right": 1.0}

Row = Mapping[str, Any]


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of at most ``size`` items, in order."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def group_answers(kind: str, answers: Mapping[str, Sequence[str | None]]) -> dict[str, list[int | None]]:
    """Which final answers of each question are equal, by their kind.

    Args:
        kind: of the answers, as ``check.KINDS`` has it.
        answers: by question, the final answer of each response; None for a response without one.

    Returns:
        By question and response a group's number: answers of one group are equal, each to each. None for a response without
        an answer. Groups are numbered in the order of their first answers.

    Equality is not transitive: 10% is 10, and 0.1; 5 apples are 5, and 5 fruits. So an answer belongs to the first group all of
    whose answers it equals. The most frequent answers come first, then those that equal most others, then by their text: the
    groups do not depend on the order of the responses.
    """
    groups: dict[str, list[int | None]] = {}
    for chunk in batched(answers.items(), QUESTIONS_AT_ONCE):
        votes = {question: Counter(a for a in row if a is not None) for question, row in chunk}
        pairs = sorted({pair for found in votes.values() for pair in combinations(sorted(found), 2)})
        equal = {pair for pair, same in zip(pairs, same_answers(kind, pairs), strict=True) if same}
        for question, row in chunk:
            number = _numbered(votes[question], equal)
            shown = {old: new for new, old in enumerate(dict.fromkeys(number[a] for a in row if a is not None))}
            groups[question] = [None if a is None else shown[number[a]] for a in row]
    return groups


def _numbered(votes: Mapping[str, int], equal: Collection[tuple[str, str]]) -> dict[str, int]:
    """The group of each answer: the first one all of whose answers it equals, else its own."""
    equals = {
        answer: {other for other in votes if (answer, other) in equal or (other, answer) in equal} for answer in votes
    }
    members: list[list[str]] = []
    number = {}
    for answer in sorted(votes, key=lambda a: (-votes[a], -len(equals[a]), a)):
        fits = (k for k, group in enumerate(members) if equals[answer].issuperset(group))
        number[answer] = next(fits, len(members))
        if number[answer] == len(members):
            members.append([])
        members[number[answer]].append(answer)
    return number


def choose(
    by: str, candidates: Sequence[Row], rewards: Mapping[str, float], groups: Mapping[str, int | None], seed: int
) -> Row:
    """The candidate that a rule takes; the order of the candidates does not matter.

    ``reward``: the highest reward. ``first``: the lowest sample number. ``random``: one drawn by
    ``seed``. ``majority``: one of the largest group of equal answers (self-consistency, Wang et al.
    2023). Ties go to the highest reward, then to the lowest sample.

    Args:
        by: one of RULES.
        candidates: responses of one question, at least one.
        rewards: by response id.
        groups: by response id, as from ``group_answers``.
        seed: of this question.
    """
    ordered = sorted(candidates, key=lambda row: row["sample"])
    votes = Counter(groups[row["id"]] for row in ordered)
    if by == "first":
        return ordered[0]
    if by == "random":
        return random.Random(seed).choice(ordered)
    if by == "majority":
        return max(ordered, key=lambda row: (votes[groups[row["id"]]], rewards[row["id"]], -row["sample"]))
    return max(ordered, key=lambda row: (rewards[row["id"]], -row["sample"]))


@dataclass(frozen=True)
class BestOfN:
    """Right shares of the rules on the same N problems, each in [0, 1].

    Attributes:
        problems: number N of problems with at least one candidate.
        shares: share of right choices by rule: reward, random (expected), first, majority, any (at least one is right).
        errors: standard error of each share.
        reward_minus: reward's share minus that of random, first and majority, problem by problem.
        bands: by name of BANDS the right choices of each rule, one value in [0, 1] per problem; those without a problem are
            left out.
    """

    problems: int
    shares: Mapping[str, float]
    errors: Mapping[str, float]
    reward_minus: Mapping[str, Difference]
    bands: Mapping[str, Mapping[str, Sequence[float]]]


def best_of_n(kind: str, problems: Sequence[Sequence[Mapping[str, Any]]], seed: int = 0) -> BestOfN | None:
    """How often the highest reward chooses a right answer, beside the other rules; None without a candidate.

    The rules are those of ``choose``, so the ties of the majority go to the reward here, too.

    Args:
        kind: of the answers, as ``check.KINDS`` has it.
        problems: the samples of each problem, with ``sample``, ``final_answer``, ``finish_reason``, ``outcome``, ``reward``.
            Candidates ended by themselves and give an answer, as in stage ``reward_select``.
        seed: of the bootstrap.
    """
    found: dict[str, list[float]] = {rule: [] for rule in ("reward", "random", "first", "majority", "any")}
    candidates = {
        str(k): [row for row in samples if row["finish_reason"] == "stop" and row["final_answer"]]
        for k, samples in enumerate(problems)
    }
    groups = group_answers(kind, {name: [row["final_answer"] for row in rows] for name, rows in candidates.items()})
    for name, rows in candidates.items():
        if not rows:
            continue
        # By sample number: the rows of a problem need no id of their own.
        numbered = [{"id": str(row["sample"])} | dict(row) for row in rows]
        rewards = {row["id"]: row["reward"] for row in numbered}
        group_of = {row["id"]: group for row, group in zip(numbered, groups[name], strict=True)}
        for rule in ("reward", "first", "majority"):
            found[rule].append(float(choose(rule, numbered, rewards, group_of, seed)["outcome"] == RIGHT))
        right = [float(row["outcome"] == RIGHT) for row in rows]
        found["random"].append(sum(right) / len(right))
        found["any"].append(max(right))
    n = len(found["reward"])
    if not n:
        return None
    in_band = [next(name for name, most in BANDS.items() if rate <= most) for rate in found["random"]]
    return BestOfN(
        problems=n,
        shares={rule: sum(values) / n for rule, values in found.items()},
        errors={rule: mean_error(values) for rule, values in found.items()},
        reward_minus={
            rule: paired_difference(found[rule], found["reward"], seed) for rule in ("random", "first", "majority")
        },
        bands={
            band: {
                rule: [v for v, b in zip(values, in_band, strict=True) if b == band] for rule, values in found.items()
            }
            for band in BANDS
            if band in in_band
        },
    )
