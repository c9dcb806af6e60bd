"""What a training is worth: its tests by the model before, by the trained one, and by the one that was saved."""

import gc
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalequest.models.weights import save_model
from scalequest.problems.draw import draw
from scalequest.training.divergence import DivergenceError
from scalequest.training.rounding import round_model

if TYPE_CHECKING:
    from scalequest.training.job import Job


@dataclass(frozen=True)
class Measured:
    """What ``Kind.measure`` gives for the model before the training, once per precision.

    Attributes:
        float32: computed in float32.
        engine: computed in the engine's precision; empty for a scalar head, which may be drawn otherwise there.
    """

    float32: list[float]
    engine: list[float]


def sample(rows: Sequence[Any], n: int, seed: int) -> list[Any]:
    """At most ``n`` rows drawn by hash of ``seed`` and their ids, in the rows' order."""
    return [rows[at] for at in _drawn([row.id for row in rows], n, seed)]


def places(n: int, most: int, seed: int) -> list[int]:
    """At most ``most`` of N places, in order; all of them where there are no more."""
    return _drawn([str(place) for place in range(n)], most, seed)


def _drawn(ids: Sequence[str], n: int, seed: int) -> list[int]:
    return draw(ids, n, seed, purpose="measure")


def trained_and_saved(
    job: "Job", model: Any, tokenizer: Any, compared: Sequence[int]
) -> tuple[list[float], list[float]]:
    """Save the trained model, load it as the next stage does, and measure both.

    A model that is computed with in float32 is saved as it is. If it is loaded as it was, number for number, the trained
    model is not measured besides: it would give the same. Else both are, and the difference is what saving cost.

    Args:
        job: the training.
        model: the trained model, in float32. It is used up: what is left of it may have no numbers.
        tokenizer: saved with it.
        compared: places of the tests that both are measured on.

    Returns:
        The trained model's numbers on the ``compared`` tests, and the saved model's on all.

    Raises:
        DivergenceError: a number is not finite. Nothing is left in ``job.out``.
    """
    tests = [job.tests[place] for place in compared]
    exact = job.dtype == "float32"
    trained = [] if exact else measure(job, model, tests, "the trained model")
    model.config.use_cache = True  # off in training only; left off, whoever loads the model generates slowly
    save_model(round_model(model, job.dtype, job.seed), tokenizer, job.out)
    model.to("cpu" if exact else "meta")  # a GPU has room for the saved one only; on "meta" no number is left
    try:
        if not exact:
            return trained, in_precision(job, job.out, job.dtype, job.tests, "the saved model")
        loaded = load(job, job.out, job.dtype)
        saved = measure(job, loaded, job.tests, "the saved model")
        if same_weights(model, loaded):
            return [saved[place] for place in compared], saved
        loaded.to("meta")  # measured above; a GPU has room for the trained one only
        return measure(job, model, tests, "the trained model"), saved
    except DivergenceError:
        shutil.rmtree(job.out)
        raise


def same_weights(first: Any, second: Any) -> bool:
    """Whether two models have the same tensors under the same names, number for number."""
    import torch

    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(
        one[key].dtype == two[key].dtype and torch.equal(one[key].cpu(), two[key].cpu()) for key in one
    )


def before(job: "Job", tests: Sequence[Any]) -> Measured:
    """The tests by the model before the training."""
    name = "the model that came in"
    if job.kind.scalar_head:
        # Loaded as the trainer loads it: from one seed, another precision draws another head.
        scorer = job.kind.load(job.model, job.weights_dtype, job.seed).float()
        return Measured(measure(job, scorer, tests, name) if tests else [], [])
    engine = in_precision(job, job.model, job.dtype, tests, name)
    same = job.dtype == "float32"
    return Measured(engine if same else in_precision(job, job.model, "float32", tests, name), engine)


def in_precision(job: "Job", path: Path, dtype: str, tests: Sequence[Any], name: str) -> list[float]:
    """One number per test, by the model of a folder loaded in ``dtype``, as the next stage loads it."""
    return measure(job, load(job, path, dtype), tests, name) if tests else []


def load(job: "Job", path: Path, dtype: str) -> Any:
    """The model of a folder, after the memory of the one before it was given back."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return job.kind.load(path, getattr(torch, dtype), job.seed)


def measure(job: "Job", model: Any, tests: Sequence[Any], name: str) -> list[float]:
    """One number per test, by a model in evaluation mode.

    Raises:
        DivergenceError: a number is not finite.
    """
    import torch

    model.eval()
    if torch.cuda.is_available():  # a model gathered from several processes is in the CPU's memory
        model.cuda()
    values = job.kind.measure(model, tests)
    if broken := [value for value in values if not math.isfinite(value)]:
        raise DivergenceError(
            f"training diverged: {name} gives {broken[0]:g} on {len(broken)} of {len(values)} rows that it is tested on. "
            "Expected finite numbers. Lower the stage's learning_rate."
        )
    return values
