"""What a training answer must fulfil beyond the paper's rule that there is one. All of it is off by default.

Agreement between a solver's own samples stands for their truth where no answer is known (self-consistency, Wang et al. 2023).
The share that agrees, or passes, is the question's *pass rate*: near 1 the question teaches nothing new, near 0 its answers are
hardly ever right.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scalequest.answers.arithmetic import check_arithmetic

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Demands:
    """The demands of ``reward_select``; the defaults demand nothing, as the paper.

    Attributes:
        min_agreement: the least number of a question's n responses that give the kept answer, itself included.
        min_pass_rate: the least pass rate of a question, in [0, 1].
        max_pass_rate: its highest.
        check_arithmetic: whether a response with a wrong written calculation is dropped.
    """

    min_agreement: int = 1
    min_pass_rate: float = 0.0
    max_pass_rate: float = 1.0
    check_arithmetic: bool = False

    @classmethod
    def of(cls, section: Any) -> "Demands":
        """Those of a parameter section with the same keys."""
        return cls(section.min_agreement, section.min_pass_rate, section.max_pass_rate, section.check_arithmetic)

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Names of the outcomes (outcomes.SELECT_OUTCOMES) that these demands can give, in the order of the checks."""
        on = {
            "below_pass_rate": self.min_pass_rate > 0,
            "above_pass_rate": self.max_pass_rate < 1,
            "wrong_arithmetic": self.check_arithmetic,
            "too_few_agree": self.min_agreement > 1,
        }
        return tuple(name for name, active in on.items() if active)


def pass_rate(groups: Sequence[int | None], passed: int | None = None) -> float:
    """Share of a question's n responses that give its most frequent answer, or that pass its examples; in [0, 1].

    Args:
        groups: of the responses' answers, as from ``group_answers``; None for a response without an answer.
        passed: how many passed, where responses are programs that ran; None where they did not run.
    """
    if not groups:
        return 0.0
    if passed is None:
        votes = Counter(group for group in groups if group is not None)
        passed = max(votes.values(), default=0)
    return passed / len(groups)


def fulfilling(
    demands: Demands, candidates: Sequence[Row], groups: Mapping[str, int | None], rate: float
) -> tuple[list[Row], str]:
    """The candidates of one question that fulfil the demands, and the outcome of a question that has none left.

    Args:
        demands: those of the run.
        candidates: responses that ended by themselves and give an answer, at least one, with ``id`` and ``response``.
        groups: of all n responses of the question by id, so that ``agreement`` in the training rows counts the same.
        rate: the question's ``pass_rate``.
    """
    if rate < demands.min_pass_rate:
        return [], "below_pass_rate"
    if rate > demands.max_pass_rate:
        return [], "above_pass_rate"
    left = list(candidates)
    if demands.check_arithmetic:
        left = [row for row in left if not check_arithmetic(row["response"]).wrong]
        if not left:
            return [], "wrong_arithmetic"
    votes = Counter(groups.values())
    left = [row for row in left if votes[groups[row["id"]]] >= demands.min_agreement]
    return left, "" if left else "too_few_agree"


def agreeing(
    best: Row, candidates: Sequence[Row], groups: Mapping[str, int | None], rewards: Mapping[str, float], right: bool
) -> list[Row]:
    """The best candidate, then the others that count as right too, by reward and then sample; each text once.

    Args:
        best: the candidate that was chosen.
        candidates: those that fulfil the demands, the best among them.
        groups: by response id.
        rewards: by response id.
        right: whether all candidates count as right, because each passed its question's examples. Otherwise those do whose
            answer equals the best one's.
    """
    ordered = sorted(candidates, key=lambda row: (-rewards[row["id"]], row["sample"]))
    kept: dict[Any, Row] = {}
    for row in [best, *ordered]:
        if right or groups[row["id"]] == groups[best["id"]]:
            # Programs of one group differ in layout alone, and are one text.
            kept.setdefault(groups[row["id"]] if right else row["response"], row)
    return list(kept.values())
