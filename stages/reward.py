"""Score every response with the reward model, in vLLM's pooling runner (paper 2.5).

    python -m stages.reward --model models/reward --questions data/filtered.parquet --responses data/responses
        --out data/rewards --metrics M.json

The reward model reads the question plus the answer-format instruction, as the responder got it (the
paper's code leaves the instruction out). A released model reads both turns as its own template
closes them; a model that was trained here reads what it was trained on. Rewards are unbounded
logits, higher is better.
"""

import argparse
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from scalequest.domains import wording
from scalequest.io import rounded
from scalequest.records import (
    FILTERED,
    RESPONSE,
    REWARD,
    ROWS_HELD,
    RowGroup,
    read_table,
    row_groups,
    spans,
    write_stream,
)
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.sampling.score import stream_scores


class Answered(Iterable[tuple[str, str]]):
    """Prompt and response of each row of the responses, read by row group each time they are gone through.

    In memory are the prompts that one row group names: few, where questions and responses have one order.
    """

    def __init__(self, questions: Path, responses: Sequence[RowGroup], ask: Callable[[str], str]) -> None:
        self._questions, self._responses, self._ask = row_groups(questions, FILTERED), responses, ask
        ids = read_table(questions, FILTERED, ["id"])["id"]
        self._spans = spans(responses, "question_id", pa.concat_arrays([pa.array([], pa.string()), *ids.chunks]))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for group, (first, last) in zip(self._responses, self._spans, strict=True):
            prompts = self._prompts(first, last)
            data = group.read(["question_id", "response"])
            for start in range(0, group.rows, ROWS_HELD):
                for row in data.slice(start, ROWS_HELD).to_pylist():
                    yield prompts[row["question_id"]], row["response"]

    def _prompts(self, first: int, last: int) -> dict[str, str]:
        """By id, of the questions from one place to another."""
        found: dict[str, str] = {}
        start = 0
        for group in self._questions:
            low, high = max(first - start, 0), min(last + 1 - start, group.rows)
            if low < high:
                rows = group.read(["id", "question"]).slice(low, high - low).to_pylist()
                found.update((row["id"], self._ask(row["question"])) for row in rows)
            start += group.rows
        return found


def reward_tables(responses: Sequence[RowGroup], rewards: Sequence[float]) -> Iterator[pa.Table]:
    """The rows of all responses with their rewards, a row group at a time."""
    start = 0
    for group in responses:
        named = group.read(["id", "question_id", "sample"]).select(["id", "question_id", "sample"])
        own = pa.array(rewards[start : start + group.rows], pa.float32())
        yield pa.table([*named.columns, own], schema=REWARD)
        start += group.rows


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Score all responses."""
    words, asked_for = wording(run.params.domain), run.params.respond.form
    responses = row_groups(args.responses, RESPONSE)
    scores = stream_scores(
        run,
        args.model,
        Answered(args.questions, responses, lambda question: words.solve_prompt(question, asked_for)),
        sequences=lambda answered: answered,
        form="answered" if run.params.reward_model.method == "none" else "solutions",
        shard_size=run.params.reward.shard_size,
    )
    rewards = array("f", scores)
    write_stream(args.out, reward_tables(responses, rewards), REWARD)
    run.metrics(
        args.metrics,
        {
            "responses": len(rewards),
            "mean": rounded(sum(rewards) / len(rewards), 4),
            "lowest": rounded(min(rewards), 4),
            "highest": rounded(max(rewards), 4),
        },
    )


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("model", "questions", "responses", "out", "metrics"))
