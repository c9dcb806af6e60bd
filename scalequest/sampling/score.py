"""Scoring a stage's rows with a scalar head: engine, sequences and batches in one place.

A score depends on what is read alone. What was scored before is found again by its text, whichever
other rows there are.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from scalequest.params import Engine as EngineParams
from scalequest.params import Runtime
from scalequest.records import SCORED
from scalequest.sampling.rows import Each, map_rows
from scalequest.sampling.scorer import Scorer

if TYPE_CHECKING:
    from scalequest.runtime.stage import StageRun

Row = dict[str, Any]
# What a stage scores: a row, or a part of one.
Item = TypeVar("Item")
# What a model reads: a question, or a prompt and its response.
Texts = str | tuple[str, str]


def text_key(texts: Texts) -> str:
    """Equal exactly when the texts are."""
    return sha256(json.dumps(texts, ensure_ascii=False).encode()).hexdigest()[:32]


class Scoring:
    """A started scorer that maps texts to scores; ``form`` is the ``ChatFormat`` method that encodes them."""

    def __init__(self, model: Path, engine: EngineParams, runtime: Runtime, form: str) -> None:
        self._scorer = Scorer(model, engine, runtime)
        self._encode = getattr(self._scorer.chat, form)

    def __call__(self, read: Sequence[Texts], _seed: int, _shard: int) -> tuple[list[Row], int]:
        """Scores of N texts, and the tokens read."""
        sequences = [ids + self._scorer.end for ids in self._encode(read)]
        scores = self._scorer.score(sequences)
        made = [{"key": text_key(texts), "score": score} for texts, score in zip(read, scores, strict=True)]
        return made, sum(map(len, sequences))


def score(
    run: "StageRun",
    model: Path,
    rows: Sequence[Item],
    *,
    sequences: Callable[[Item], Texts],
    form: str,
    shard_size: int,
) -> list[float]:
    """One number for each row: ``stream_scores`` with all of them in memory."""
    return list(stream_scores(run, model, rows, sequences=sequences, form=form, shard_size=shard_size))


def stream_scores(
    run: "StageRun",
    model: Path,
    rows: Iterable[Item],
    *,
    sequences: Callable[[Item], Texts],
    form: str,
    shard_size: int,
) -> Iterator[float]:
    """One number for each row; what was scored before is not scored again.

    All is scored when this returns. The scores are read while they are gone through.

    Args:
        run: the running stage.
        model: folder of a model with a scalar head.
        rows: N rows; they are gone through several times.
        sequences: what the model reads of a row.
        form: the method of ``ChatFormat`` that encodes it: ``user_turns``, ``solutions`` or
            ``answered``.
        shard_size: rows that go to the engine at once.

    Returns:
        N scores in single precision, in the rows' order.
    """
    found = map_rows(
        run,
        Each(rows, lambda row: (sequences(row),)),
        text_key,
        partial(Scoring, model, run.params.engine, run.params.runtime, form),
        SCORED,
        shard_size,
        model,
        {"form": form, "engine": run.params.engine.as_saved.model_dump()},
    )
    return (row["score"] for row in found)
