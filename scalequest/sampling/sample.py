"""Sampling a model's answers to a stage's rows: engine, prompts, seeds and batches in one place.

A stage brings two pure functions, one that words a row's request and one that makes its output row
of the answer:

    answers = sample(run, args.model, rows, prompts=judge_turns, sampling=run.params.judge)
    judged = [judged_row(row, answer) for row, [answer] in zip(rows, answers, strict=True)]

Each request has a seed of its own, made of the run's seed, the stage and the row's id. What a row
is answered does not depend on which other rows there are: after a changed threshold the rows that
stay keep their answers, and only new ones are paid for.

A model behind an endpoint is asked there (scalequest.sampling.remote).
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from hashlib import sha256
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from scalequest.errors import UserError
from scalequest.params import Engine as EngineParams
from scalequest.params import Runtime, Sampling
from scalequest.records import COMPLETION
from scalequest.sampling.completion import TOO_LONG, Completion
from scalequest.sampling.engine import Engine
from scalequest.sampling.remote import Remote
from scalequest.sampling.rows import Each, map_rows
from scalequest.seeding import row_seed

if TYPE_CHECKING:
    from scalequest.runtime.stage import StageRun

Row = dict[str, Any]
# What a model is asked: turns of user and assistant, the user's first and last.
Turns = list[str]


class Request(NamedTuple):
    """One request to a model: the turns, the seed of its random draws, and the key that both make."""

    turns: Turns
    seed: int

    @property
    def key(self) -> str:
        """Equal exactly when turns and seed are."""
        return sha256(json.dumps([self.seed, self.turns], ensure_ascii=False).encode()).hexdigest()[:32]


class Answering:
    """A started engine that maps requests to completions."""

    def __init__(self, model: Path, engine: EngineParams, runtime: Runtime, sampling: Sampling) -> None:
        self._engine = Engine(model, engine, runtime, row_seeds=True)
        self._complete = self._engine.complete_rows(sampling)

    def __call__(self, requests: Sequence[Request], _seed: int, _shard: int) -> tuple[list[Row], int]:
        """Completions of N requests in one call, and the tokens generated."""
        prompts = self._engine.chat.conversations([request.turns for request in requests])
        completions = self._complete(prompts, [request.seed for request in requests])
        rows = [
            {"key": r.key, "text": c.text, "finish_reason": c.finish_reason, "n_tokens": c.n_tokens}
            for r, c in zip(requests, completions, strict=True)
        ]
        return rows, sum(c.n_tokens for c in completions)


def sample(
    run: "StageRun",
    model: Path,
    rows: Sequence[Row],
    *,
    prompts: Callable[[Row], Turns],
    sampling: Sampling,
    n_samples: int = 1,
) -> list[list[Completion]]:
    """Ask a model about each row, ``n_samples`` times: ``stream_samples`` with all answers in memory."""
    return list(stream_samples(run, model, rows, prompts=prompts, sampling=sampling, n_samples=n_samples))


def stream_samples(
    run: "StageRun",
    model: Path,
    rows: Collection[Row],
    *,
    prompts: Callable[[Row], Turns],
    sampling: Sampling,
    n_samples: int = 1,
) -> Iterator[list[Completion]]:
    """Ask a model about each row, ``n_samples`` times; what was answered before is not asked again.

    All is answered when this returns. The answers are read while they are gone through.

    Args:
        run: the running stage.
        model: the model's folder, named after its role.
        rows: N rows with an ``id``, no two the same; they are gone through several times.
        prompts: the conversation that a row is asked with.
        sampling: how completions are drawn, and how many rows go to the engine at once.
        n_samples: completions per row; sample ``k`` is the same however many there are.

    Returns:
        The completions of each row, N lists of ``n_samples``, in the rows' order.
    """
    if remote := Remote.of(run, model):
        paid = remote.ask([prompts(row) for row in rows], sampling, n_samples)
        return (paid[at : at + n_samples] for at in range(0, len(paid), n_samples))
    run_seed, stage = run.params.seed, run.name

    def requests(row: Row) -> Iterator[Request]:
        turns = prompts(row)
        return (Request(turns, row_seed(run_seed, stage, f"{row['id']}#{k}")) for k in range(n_samples))

    found = map_rows(
        run,
        Each(rows, requests),
        attrgetter("key"),
        partial(Answering, model, run.params.engine, run.params.runtime, sampling),
        COMPLETION,
        sampling.shard_size * n_samples,
        model,
        {
            "seed": run_seed,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "engine": run.params.engine.model_dump(),
        },
    )
    if len(found) and all(row["finish_reason"] == TOO_LONG for row in found):
        raise UserError(
            f"{stage}: none of {len(rows)} prompts leaves room for max_tokens {sampling.max_tokens} in engine.max_model_len "
            f"{run.params.engine.max_model_len}. Raise max_model_len or lower max_tokens"
        )
    answers = (Completion(**row) for row in found)
    return (list(islice(answers, n_samples)) for _ in range(len(rows)))
