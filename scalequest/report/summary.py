"""The few numbers that runs are compared by: what ``dvc metrics`` and ``dvc exp show`` list."""

from typing import Any

from scalequest.io import rounded
from scalequest.report.chain import raised
from scalequest.report.run import Run

# How the published student is called among the scores.
STUDENT = "student"


def summary(run: Run) -> dict[str, Any]:
    """Counts and shares of the run, then the student's flexible score on each task in percent.

    Returns:
        ``questions`` that came in, ``kept`` by the filters, the share called ``solvable``,
        ``pairs`` trained on, held-out accuracy of the ``reward`` model, ``warnings`` raised; by
        task ``student`` and its standard error ``stderr``. What was not measured is left out. No
        key may be ``error``: DVC takes it for a failure to read the file.
    """
    found: dict[str, Any] = {
        "questions": run.ledger.num_rows,
        "kept": run.kept,
        "solvable": run.metrics["judge"].get("solvable_frac"),
        "pairs": run.student_metrics["examples"],
        "reward": run.metrics.get("reward_model", {}).get("held_out", {}).get("accuracy"),
        "warnings": len(raised(run)),
    }
    scores = run.scores.get(STUDENT, {})
    for task in (task for task in run.tasks if task in scores):
        found[task] = {
            STUDENT: rounded(100 * scores[task]["flexible"], 2),
            "stderr": rounded(100 * scores[task]["flexible_stderr"], 2),
        }
    return {key: value for key, value in found.items() if value is not None}
