"""Sections of what is sampled and then chosen from: preference pairs and training answers."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from scalequest.domains import wording
from scalequest.params.sources import Positive, Section

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Sampling(Section):
    """How completions are drawn, and how many rows make a shard."""

    temperature: Annotated[float, Field(ge=0.0)]
    top_p: Annotated[float, Field(gt=0.0, le=1.0)]
    max_tokens: Positive
    shard_size: Positive


class SolverFeedback(Section):
    """Which pass rates make a question the chosen side of a pair."""

    n_samples: Annotated[int, Field(ge=2)]
    min_pass_rate: Fraction
    max_pass_rate: Fraction


class Preferences(Sampling):
    """How the optimizer rewrites, or how the solver's answers make pairs."""

    source: Literal["optimizer", "solver"]
    solver: SolverFeedback
    solvability_frac: Fraction
    style: Literal["sections", "few_shot"]
    max_growth: Annotated[float, Field(gt=1.0)]
    min_numbers: Fraction = 0.0  # a parameter file of before this rule drops no rewrite by it

    def solver_problems(self, domain: str) -> Iterator[str]:
        """Yield what contradicts ``source: solver``."""
        if wording(domain).ANSWERS == "code":
            yield f"preferences.source: solver compares final answers, which domain '{domain}' has none of; set optimizer"
        if self.temperature == 0:
            yield f"preferences.temperature: 0 gives {self.solver.n_samples} equal answers to each question; set one above 0"
        low, high = self.solver.min_pass_rate, self.solver.max_pass_rate
        if low > high:
            yield f"preferences.solver.min_pass_rate: {low} is above max_pass_rate {high}, so no question is chosen"


class RewardSelect(Section):
    """Best-of-n selection."""

    by: Literal["reward", "first", "random", "majority"]
    # What the stage depends on; part of a path in dvc.yaml. A parameter file of before this key has rewards.
    waits_for: Literal["rewards", "responses"] = "rewards"
    keep: Literal["best", "all_agreeing"]
    execute: bool
    min_reward: float | None
    min_agreement: Positive
    min_pass_rate: Fraction
    max_pass_rate: Fraction
    check_arithmetic: bool

    def problems(self, domain: str, n_samples: int) -> Iterator[str]:
        """Yield each contradiction as one line."""
        kind = wording(domain).ANSWERS
        if self.waits_for == "responses" and self.by == "reward":
            yield "reward_select.waits_for: responses leaves out the rewards that by: reward compares. Set by to first, random or majority"
        if self.waits_for == "responses" and self.min_reward is not None:
            yield f"reward_select.min_reward: {self.min_reward} needs the rewards that waits_for: responses leaves out. Set null"
        if self.execute and kind != "code":
            yield f"reward_select.execute: true runs responses as programs, which domain '{domain}' has none of; set false"
        if self.check_arithmetic and kind == "code":
            yield "reward_select.check_arithmetic: true reads written calculations, which programs have none of; set false"
        if self.min_agreement > n_samples:
            yield f"reward_select.min_agreement: {self.min_agreement} of {n_samples} answers (respond.n_samples) can never agree; lower it"
        if self.min_pass_rate > self.max_pass_rate:
            yield f"reward_select.min_pass_rate: {self.min_pass_rate} is above max_pass_rate {self.max_pass_rate}, so no question is left"
