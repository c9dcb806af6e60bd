"""Answer each kept question n times (paper 2.5). All responses are kept, cut ones too.

python -m stages.respond --model models/solver --questions data/filtered.parquet
    --out data/responses --metrics M.json
"""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from scalequest.domains import wording
from scalequest.io import rounded
from scalequest.records import FILTERED, RESPONSE, StoredRows, table, write_stream
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.sampling.completion import Completion
from scalequest.sampling.sample import stream_samples

# Questions whose responses are rows in memory at once.
QUESTIONS_HELD = 1_000


def distinct_responses(rows: list[dict[str, Any]]) -> Counter[str]:
    """Number of distinct responses of each question."""
    return Counter(question for question, _ in {(row["question_id"], row["response"]) for row in rows})


def response_rows(question: dict[str, Any], answers: Sequence[Completion]) -> list[dict[str, Any]]:
    """The rows of one question's answers, sample 0 first."""
    return [
        {
            "id": f"{question['id']}#{k}",
            "question_id": question["id"],
            "sample": k,
            "response": answer.text.strip(),
            "finish_reason": answer.finish_reason,
            "n_tokens": answer.n_tokens,
        }
        for k, answer in enumerate(answers)
    ]


def response_tables(
    questions: Iterable[dict[str, Any]], answers: Iterable[Sequence[Completion]], found: Counter[str]
) -> Iterator[pa.Table]:
    """The rows of all answers, some questions at a time; what the metrics need is added to ``found``."""
    answered = zip(questions, answers, strict=True)
    while some := list(islice(answered, QUESTIONS_HELD)):
        rows = [row for question, n in some for row in response_rows(question, n)]
        distinct = distinct_responses(rows)
        found.update(row["finish_reason"] for row in rows)
        found.update(
            responses=len(rows),
            tokens=sum(row["n_tokens"] for row in rows),
            distinct=distinct.total(),
            single=sum(n == 1 for n in distinct.values()),
        )
        yield table(rows, RESPONSE)


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Sample n responses per question."""
    params, words = run.params.respond, wording(run.params.domain)
    questions = StoredRows(args.questions, FILTERED)
    answers = stream_samples(
        run, args.model, questions, prompts=lambda row: [words.solve_prompt(row["question"], params.form)], sampling=params,
        n_samples=params.n_samples,
    )  # fmt: skip
    found: Counter[str] = Counter()
    n = write_stream(args.out, response_tables(questions, answers, found), RESPONSE)
    run.metrics(
        args.metrics,
        {
            "questions": len(questions),
            "responses": n,
            "cut_at_max_tokens": found["length"],
            "prompt_too_long": found["too_long"],
            "mean_tokens": rounded(found["tokens"] / n, 2),
            "mean_distinct": rounded(found["distinct"] / len(questions), 4),
        },
        {"one_response": params.n_samples > 1 and found["single"] > len(questions) / 2},
    )


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("model", "questions", "out", "metrics"))
