"""Sampling answers of a model to a stage's rows: the engine, the prompts, the shards, the progress in one place.

A stage brings two pure functions, one that words a row's request and one that makes its output row of the answer:

    answers = sample(run, args.model, rows, prompts=judge_turns, sampling=run.params.judge)
    judged = [judged_row(row, answer) for row, [answer] in zip(rows, answers, strict=True)]
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalequest.params import Engine as EngineParams
from scalequest.params import Runtime, Sampling
from scalequest.records import COMPLETION
from scalequest.sampling.completion import Completion
from scalequest.sampling.engine import Engine
from scalequest.sampling.shards import map_shards

if TYPE_CHECKING:
    from scalequest.runtime.stage import StageRun

Row = dict[str, Any]
# What a model is asked: turns of user and assistant, the user's first and last.
Turns = list[str]


class Answering:
    """A started engine that maps a shard of requests to completions."""

    def __init__(self, model: Path, engine: EngineParams, runtime: Runtime, sampling: Sampling) -> None:
        self._engine = Engine(model, engine, runtime)
        self._complete = self._engine.complete(sampling)

    def __call__(self, requests: Sequence[list[Turns]], seed: int, _: int) -> tuple[list[Row], int]:
        """Completions of N rows' requests in one call, and the tokens generated."""
        prompts = self._engine.chat.conversations([turns for row in requests for turns in row])
        completions = self._complete(prompts, seed)
        return [asdict(c) for c in completions], sum(c.n_tokens for c in completions)


def sample(
    run: "StageRun",
    model: Path,
    rows: Sequence[Row],
    *,
    prompts: Callable[[Row], Turns],
    sampling: Sampling,
    n_samples: int = 1,
) -> list[list[Completion]]:
    """Ask a model about each row, ``n_samples`` times, in shards that resume.

    Args:
        run: the running stage.
        model: the model's folder.
        rows: N rows, in an order that depends on inputs and parameters only.
        prompts: the conversation that a row is asked with.
        sampling: how completions are drawn, and how many rows make a shard.
        n_samples: completions per row, each a request of its own in the same call.

    Returns:
        The completions of each row, N lists of ``n_samples``, in the rows' order.
    """
    requests = [[prompts(row)] * n_samples for row in rows]
    start = partial(Answering, model, run.params.engine, run.params.runtime, sampling)
    table = map_shards(run, requests, start, COMPLETION, sampling.shard_size)
    completions = [Completion(**row) for row in table.to_pylist()]
    return [completions[at : at + n_samples] for at in range(0, len(completions), n_samples)]
