"""Ask the judge whether each screened question can be solved (paper, question filtering; Fig. 12).

    python -m stages.judge --model models/base/judge --screened data/screened --out data/judged --metrics M.json

The last standalone yes or no counts; no verdict is an outcome of its own, never a yes.
"""

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from scalequest.domains import wording
from scalequest.io import rounded
from scalequest.outcomes import KEPT, NO_VERDICT, SOLVABLE, UNSOLVABLE
from scalequest.records import JUDGED, SCREENED, read_rows, write_parts
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.runtime.workers import Work
from scalequest.sampling.engine import Engine
from scalequest.sampling.shards import map_shards

# ------------------------------------------------------------------------------------------------------------- judging

# A word of its own; "_Yes_" is one, too, though \b takes the underscore for a letter.
_VERDICT = re.compile(r"(?<![^\W_])(yes|no)(?![^\W_])", re.IGNORECASE)


def parse_verdict(completion: str) -> bool | None:
    """The judge's yes or no, the LAST standalone one; None if there is neither ("yesterday" is not a yes)."""
    found = _VERDICT.findall(completion)
    return found[-1].lower() == "yes" if found else None


OUTCOME = {True: SOLVABLE, False: UNSOLVABLE, None: NO_VERDICT}


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Judge what `screen` kept."""
    params, words = run.params.judge, wording(run.params.domain)
    questions = [row for row in read_rows(args.screened, SCREENED) if row["verdict"] == KEPT]

    def start() -> Work[dict[str, Any]]:
        engine = Engine(args.model, run.params.engine, run.params.runtime)
        complete = engine.complete(params)

        def work(rows: Sequence[dict[str, Any]], seed: int, _: int) -> tuple[list[dict[str, Any]], int]:
            asked = [words.judge_turns(row["question"], params.style) for row in rows]
            completions = complete(engine.chat.conversations(asked), seed)
            made = [
                {
                    "id": row["id"],
                    "verdict": OUTCOME[parse_verdict(c.text)],
                    "completion": c.text,
                    "finish_reason": c.finish_reason,
                }
                for row, c in zip(rows, completions, strict=True)
            ]
            return made, sum(c.n_tokens for c in completions)

        return work

    table = map_shards(run, questions, start, JUDGED, params.shard_size)
    write_parts(args.out, table)
    counts = Counter(table["verdict"].to_pylist())
    run.metrics(
        args.metrics,
        {
            "questions": len(questions),
            **{name: counts[name] for name in OUTCOME.values()},
            "solvable_frac": rounded(counts[SOLVABLE] / len(questions)),
        },
        {"one_verdict": len(counts) == 1, "no_verdicts": counts[NO_VERDICT] > len(questions) / 2},
    )


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("model", "screened", "out", "metrics"))
