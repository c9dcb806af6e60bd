"""The few numbers that runs are compared by: what ``dvc metrics`` and ``dvc exp show`` list."""

from typing import Any

from scalequest.io import rounded
from scalequest.report.chain import raised
from scalequest.report.run import Run

# Models in the summary, with what their column is called. Others are in the report.
MODELS = ("base", "student")


def summary(run: Run) -> dict[str, Any]:
    """Counts and shares of the run, then each task's flexible scores in percent.

    Returns:
        ``questions`` that came in, ``kept`` by the filters, the share called ``solvable``, ``pairs`` trained on, held-out accuracy
        of the ``reward`` model, ``warnings`` raised; by task: ``base``, ``student`` and its standard ``error``. What was not
        measured is left out.
    """
    found: dict[str, Any] = {
        "questions": run.ledger.num_rows,
        "kept": run.kept,
        "solvable": run.metrics["judge"].get("solvable_frac"),
        "pairs": run.student_metrics["examples"],
        "reward": run.metrics["reward_model"].get("held_out", {}).get("accuracy"),
        "warnings": len(raised(run)),
    }
    for task in run.tasks:
        scores = {model: run.scores[model][task] for model in MODELS if task in run.scores.get(model, {})}
        values = {model: rounded(100 * score["flexible"], 2) for model, score in scores.items()}
        if "student" in scores:
            values["error"] = rounded(100 * scores["student"]["flexible_stderr"], 2)
        if values:
            found[task] = values
    return {key: value for key, value in found.items() if value is not None}
