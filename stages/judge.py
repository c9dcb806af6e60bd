"""Ask the judge whether each screened question can be solved (paper, question filtering; Fig. 12).

    python -m stages.judge --model models/base/judge --screened data/screened --out data/judged --metrics M.json

The last standalone yes or no counts; no verdict is an outcome of its own, never a yes.
"""

import argparse
import re
from collections import Counter
from typing import Any

from scalequest.domains import wording
from scalequest.io import rounded
from scalequest.outcomes import KEPT, NO_VERDICT, SOLVABLE, UNSOLVABLE
from scalequest.records import JUDGED, SCREENED, read_rows, write_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.sampling.completion import Completion
from scalequest.sampling.sample import sample

# ------------------------------------------------------------------------------------------------------------- judging

# A word of its own; "_Yes_" is one, too, though \b takes the underscore for a letter.
_VERDICT = re.compile(r"(?<![^\W_])(yes|no)(?![^\W_])", re.IGNORECASE)


def parse_verdict(completion: str) -> bool | None:
    """The judge's yes or no, the LAST standalone one; None if there is neither ("yesterday" is not a yes)."""
    found = _VERDICT.findall(completion)
    return found[-1].lower() == "yes" if found else None


OUTCOME = {True: SOLVABLE, False: UNSOLVABLE, None: NO_VERDICT}


def judged_row(row: dict[str, Any], answer: Completion) -> dict[str, Any]:
    """One row of the output from the judge's answer."""
    return {
        "id": row["id"],
        "verdict": OUTCOME[parse_verdict(answer.text)],
        "completion": answer.text,
        "finish_reason": answer.finish_reason,
    }


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Judge what `screen` kept."""
    params, words = run.params.judge, wording(run.params.domain)
    questions = [row for row in read_rows(args.screened, SCREENED) if row["verdict"] == KEPT]
    answers = sample(
        run, args.model, questions, prompts=lambda row: words.judge_turns(row["question"], params.style), sampling=params
    )  # fmt: skip
    judged = [judged_row(row, answer) for row, [answer] in zip(questions, answers, strict=True)]
    write_rows(args.out, judged, JUDGED)
    counts = Counter(row["verdict"] for row in judged)
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
