"""Answer each kept question n times (paper 2.5). Every response is kept, also one that was cut.

python -m stages.respond --model models/solver --questions data/filtered.parquet --out data/responses --metrics M.json
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from scalequest.domains import wording
from scalequest.io import rounded
from scalequest.records import FILTERED, RESPONSE, read_rows, write_parts
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.runtime.workers import Work
from scalequest.sampling.engine import Engine
from scalequest.sampling.shards import map_shards


def distinct_responses(rows: list[dict[str, Any]]) -> Counter[str]:
    """Number of distinct responses of each question."""
    return Counter(question for question, _ in {(row["question_id"], row["response"]) for row in rows})


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Sample n responses a question; each is a request of its own, all of a shard in one call."""
    params, ask = run.params.respond, wording(run.params.domain).solve_prompt
    questions = read_rows(args.questions, FILTERED)

    def start() -> Work[dict[str, Any]]:
        engine = Engine(args.model, run.params.engine, run.params.runtime)
        complete = engine.complete(params)

        def work(rows: Sequence[dict[str, Any]], seed: int, _: int) -> tuple[list[dict[str, Any]], int]:
            samples = [(row, k) for row in rows for k in range(params.n_samples)]
            completions = complete(engine.chat.user_turns([ask(row["question"]) for row, _ in samples]), seed)
            made = [
                {"id": f"{row['id']}#{k}", "question_id": row["id"], "sample": k, "response": c.text.strip(),
                 "finish_reason": c.finish_reason, "n_tokens": c.n_tokens}
                for (row, k), c in zip(samples, completions, strict=True)
            ]  # fmt: skip
            return made, sum(c.n_tokens for c in completions)

        return work

    table = map_shards(run, questions, start, RESPONSE, params.shard_size)
    write_parts(args.out, table)
    rows = table.to_pylist()
    distinct = distinct_responses(rows)
    single = sum(n == 1 for n in distinct.values())
    run.metrics(
        args.metrics,
        {
            "questions": len(questions),
            "responses": len(rows),
            "cut_at_max_tokens": sum(row["finish_reason"] == "length" for row in rows),
            "prompt_too_long": sum(row["finish_reason"] == "too_long" for row in rows),
            "mean_tokens": rounded(sum(row["n_tokens"] for row in rows) / len(rows), 2),
            "mean_distinct": rounded(sum(distinct.values()) / len(questions), 4),
        },
        {"one_response": params.n_samples > 1 and single > len(questions) / 2},
    )


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("model", "questions", "out", "metrics"))
