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


def rates_within(low: float, high: float, n_samples: int, least: int = 0) -> bool:
    """Whether the pass rate of a question can be in a band: ``least`` or more of its n answers, divided by n."""
    return any(low <= k / n_samples <= high for k in range(least, n_samples + 1))


class SolverFeedback(Section):
    """Which pass rates make a question the chosen side of a pair."""

    n_samples: Annotated[int, Field(ge=2)]
    min_pass_rate: Fraction
    max_pass_rate: Fraction

    def problems(self, solvability_frac: float) -> Iterator[str]:
        """Yield why no question can be chosen or none rejected, as one line."""
        low, high, n = self.min_pass_rate, self.max_pass_rate, self.n_samples
        if low > high:
            yield f"preferences.solver.min_pass_rate: {low} is above max_pass_rate {high}, so no question is chosen"
            return
        band = f"preferences.solver: pass rates from min_pass_rate {low} to max_pass_rate {high}, and with n_samples {n} a rate is a multiple of 1/{n}"
        if not rates_within(low, high, n):
            yield f"{band}, so no question is chosen. Expected such a multiple in the band. Widen it, or raise n_samples"
        # Questions without a whole answer have rate 0, those whose answers agree have rate 1.
        below, above = low > 0 and solvability_frac > 0, high < 1 and solvability_frac < 1
        if not (below or above):
            yield (
                f"{band}, so no question is rejected (preferences.solvability_frac {solvability_frac}). Expected min_pass_rate above 0 "
                "with a solvability_frac above 0, or max_pass_rate below 1 with one below 1"
            )


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
        yield from self.solver.problems(self.solvability_frac)


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
        low, high = self.min_pass_rate, self.max_pass_rate
        # A question with a candidate has a rate of 1/n at least. With `execute` the rate is of what passes, not of what agrees.
        least = 1 if self.execute else self.min_agreement
        if low > high:
            yield f"reward_select.min_pass_rate: {low} is above max_pass_rate {high}, so no question is left"
        elif least <= n_samples and not rates_within(low, high, n_samples, least):
            yield (
                f"reward_select: pass rates from min_pass_rate {low} to max_pass_rate {high} leave no question. With respond.n_samples "
                f"{n_samples} and min_agreement {self.min_agreement} a rate is a multiple of 1/{n_samples}, at least "
                f"{least}/{n_samples}. Expected one in the band. Widen it, or change min_agreement or n_samples"
            )
