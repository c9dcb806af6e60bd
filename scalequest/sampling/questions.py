"""Sampling questions from a generator: the open user turn goes in, a question comes back."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.params import Engine as EngineParams
from scalequest.params import Runtime, Sampling
from scalequest.records import QUESTION
from scalequest.sampling.completion import Complete
from scalequest.sampling.engine import Engine
from scalequest.sampling.shards import map_shards

if TYPE_CHECKING:
    from scalequest.runtime.stage import StageRun

# Above this share of cut questions the generator has not learned to stop.
MANY_CUT = 0.5
# Above this share of equal questions the others are accidents: one different question among thousands is no variety.
NEARLY_ALL = 0.9


def question_rows(
    generator: str, n: int, shard: int, seed: int, prefix: list[int], complete: Complete
) -> list[dict[str, Any]]:
    """Sample one shard of ``n`` questions; ids are ``generator/shard/row``."""
    completions = complete([prefix] * n, seed)
    return [
        {
            "id": f"{generator}/{shard}/{row}",
            "generator": generator,
            "question": completion.text.strip(),
            "completion": completion.text,
            "finish_reason": completion.finish_reason,
            "n_tokens": completion.n_tokens,
            "seed": seed,
        }
        for row, completion in enumerate(completions)
    ]


class Asking:
    """A started generator that maps a shard of numbers to questions."""

    def __init__(self, model: Path, engine: EngineParams, runtime: Runtime, sampling: Sampling, generator: str) -> None:
        self._generator, self._engine = generator, Engine(model, engine, runtime)
        self._complete = self._engine.complete(sampling, self._engine.chat.question_stops)

    def __call__(self, rows: Sequence[int], seed: int, shard: int) -> tuple[list[dict[str, Any]], int]:
        """Rows of one shard's questions, and the tokens generated."""
        prefix = self._engine.chat.question_prefix
        made = question_rows(self._generator, len(rows), shard, seed, prefix, self._complete)
        return made, sum(row["n_tokens"] for row in made)


def sample_questions(run: "StageRun", model: Path, generator: str, n: int, sampling: Sampling) -> pa.Table:
    """Sample ``n`` questions in shards (paper 2.4). Equal prompts in one shard still differ: one seed, many draws."""
    start = partial(Asking, model, run.params.engine, run.params.runtime, sampling, generator)
    return map_shards(run, range(n), start, QUESTION, sampling.shard_size)


def question_metrics(table: pa.Table) -> tuple[dict[str, Any], dict[str, bool]]:
    """Counts of sampled questions, and the warnings about them.

    Raises:
        UserError: every question was cut or is empty.
    """
    questions, reasons = table["question"].to_pylist(), Counter(table["finish_reason"].to_pylist())
    usable = [q for q, r in zip(questions, table["finish_reason"].to_pylist(), strict=True) if q and r == "stop"]
    if not usable:
        raise UserError(
            f"0 of {len(questions)} sampled questions are usable ({reasons['length']} cut at max_tokens, "
            f"{questions.count('')} empty): the generator has not learned to end a question; raise max_tokens or train it longer"
        )
    distinct, commonest = len(set(usable)), Counter(usable).most_common(1)[0][1]
    metrics = {
        "questions": len(questions),
        "cut_at_max_tokens": reasons["length"],
        "empty": questions.count(""),
        "distinct_frac": rounded(distinct / len(usable)),
        "mean_tokens": rounded(sum(table["n_tokens"].to_pylist()) / len(questions), 2),
    }
    return metrics, {
        "one_question": commonest > NEARLY_ALL * len(usable),
        "no_end": reasons["length"] > MANY_CUT * len(questions),
    }
