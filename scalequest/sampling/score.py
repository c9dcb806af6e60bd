"""Scoring a stage's rows with a model that has a scalar head: the engine, the sequences, the shards in one place."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalequest.params import Engine as EngineParams
from scalequest.params import Runtime
from scalequest.records import SCORE
from scalequest.sampling.scorer import Scorer
from scalequest.sampling.shards import map_shards

if TYPE_CHECKING:
    from scalequest.runtime.stage import StageRun

Row = dict[str, Any]


class Scoring:
    """A started scorer that maps a shard of rows to scores; ``form`` is the ``ChatFormat`` method that encodes their texts."""

    def __init__(self, model: Path, engine: EngineParams, runtime: Runtime, form: str) -> None:
        self._scorer = Scorer(model, engine, runtime)
        self._encode = getattr(self._scorer.chat, form)

    def __call__(self, rows: Sequence[tuple[str, Any]], _seed: int, _shard: int) -> tuple[list[Row], int]:
        """Scores of N rows (id and texts), and the tokens read."""
        sequences = [ids + self._scorer.end for ids in self._encode([texts for _, texts in rows])]
        scores = self._scorer.score(sequences)
        made = [{"id": name, "score": score} for (name, _), score in zip(rows, scores, strict=True)]
        return made, sum(map(len, sequences))


def score(
    run: "StageRun",
    model: Path,
    rows: Sequence[Row],
    *,
    sequences: Callable[[Row], str | tuple[str, str]],
    form: str,
    shard_size: int,
) -> list[float]:
    """One number for each row, in shards that resume.

    Args:
        run: the running stage.
        model: folder of a model with a scalar head.
        rows: N rows with an ``id``.
        sequences: what the model reads of a row: a question, or a prompt and its response.
        form: the method of ``ChatFormat`` that encodes it: ``user_turns``, ``solutions`` or ``answered``.
        shard_size: rows per shard.

    Returns:
        N scores, in the rows' order.
    """
    items = [(row["id"], sequences(row)) for row in rows]
    start = partial(Scoring, model, run.params.engine, run.params.runtime, form)
    scores: list[float] = map_shards(run, items, start, SCORE, shard_size)["score"].to_pylist()
    return scores
