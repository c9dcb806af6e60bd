"""Answer each kept question n times (paper 2.5). All responses are kept, cut ones too.

python -m stages.respond --model models/solver --questions data/filtered.parquet
    --out data/responses --metrics M.json
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import Any

from scalequest.domains import wording
from scalequest.io import rounded
from scalequest.records import FILTERED, RESPONSE, read_rows, write_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.sampling.completion import Completion
from scalequest.sampling.sample import sample


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


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Sample n responses per question."""
    params, words = run.params.respond, wording(run.params.domain)
    questions = read_rows(args.questions, FILTERED)
    answers = sample(
        run, args.model, questions, prompts=lambda row: [words.solve_prompt(row["question"], params.form)], sampling=params,
        n_samples=params.n_samples,
    )  # fmt: skip
    rows = [row for question, n in zip(questions, answers, strict=True) for row in response_rows(question, n)]
    write_rows(args.out, rows, RESPONSE)
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
