"""The student's scores as the hub reads them: ``.eval_results/TASK.yaml`` beside the model.

https://huggingface.co/docs/hub/eval-results
"""

import re
from pathlib import Path
from typing import Any

from scalequest.io import write_text
from scalequest.publish.cards import Facts

# The task's id in the benchmark's own eval.yaml, where it is another than the name in params.yaml.
TASKS = {"openai/gsm8k": "gsm8k"}
_COMMIT = re.compile(r"[0-9a-f]{40}")


def eval_results(facts: Facts) -> dict[str, list[dict[str, Any]]]:
    """Entries by file name, for the test sets that came from the hub.

    The format names a data set of the hub. A score on another source, such as a local file with fewer items, would stand
    on the wrong leaderboard, so it is left out; README.md has every score.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    found = {}
    for task, values in facts.scores.get("student", {}).items():
        settings = {key: facts.params.get(f"benchmarks.{task}.{key}") for key in ("kind", "repo", "commit", "n")}
        repo, commit = str(settings["repo"]), str(settings["commit"])
        if settings["kind"] != "hub":
            continue
        entry = EvalResultEntry(
            dataset_id=repo,
            task_id=TASKS.get(repo, task),
            value=round(100 * values["flexible"], 2),
            dataset_revision=commit if _COMMIT.fullmatch(commit) else None,
            date=facts.date or None,
            source_url=facts.origin or None,
            notes=f"% right in any form, ± {100 * values['flexible_stderr']:.2f} (one standard error), {values['n']} items"
            f"{', drawn from all' if settings['n'] else ''}; zero-shot, greedy",
        )
        found[f"{task}.yaml"] = eval_result_entries_to_yaml([entry])
    return found


def write_eval_results(facts: Facts, model: Path) -> None:
    """Write the files into a model's folder; none where no test set came from the hub."""
    import yaml

    for name, entries in eval_results(facts).items():
        write_text(model / ".eval_results" / name, yaml.safe_dump(entries, sort_keys=False, allow_unicode=True))
