"""What the stages wrote, read for the report."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalequest.audit.outside import LOCKS, changed_sources, other_versions
from scalequest.errors import UserError
from scalequest.io import read_json
from scalequest.outcomes import KEPT, OUTCOMES
from scalequest.records import INSTRUCTION, LEDGER, REWARD, SAMPLE, by_item, read_rows
from scalequest.report.tables import Asked, Stored
from scalequest.runtime.environment import ENVIRONMENT_FILE, Recorded

# The stages that write metrics: once, and once per generator.
SINGLE = ("seeds", "benchmarks", "solver", "difficulty_labels", "difficulty_model", "difficulty", "screen", "judge",
          "filter", "respond", "reward_model", "reward", "reward_select")  # fmt: skip
# Those that a run without rewards leaves out (reward_select.waits_for).
REWARDING = ("reward_model", "reward")
# Those whose instances are neither generators nor students.
FIXED = {"preference_check": ("solvability", "difficulty")}
EACH = ("qft", "qpo_questions", "preferences", "qpo", "generate")


Items = dict[tuple[str, str], dict[str, Any]]  # task and id of an item to its row of records.by_item


@dataclass(frozen=True)
class Run:
    """What the report is made from.

    Attributes:
        params: the declared parameters.
        scores: model to task to its scores on the test items: base, base_fewshot, solver, students, then others by name.
        dev: the same on the development items; empty without ``evaluate.dev_frac``.
        metrics: DVC's stage name to its metrics; of the evaluation stages, their scores files.
        outcomes: outcome of the generated questions to its count for each generator of the mix; ``kept`` comes last.
        ledger: every generated question, on disk.
        questions: what is counted of each of them.
        data: the training rows, on disk.
        rewards: of all sampled answers; none in a run without rewards.
        items: model to its test items, for the models of ``scores`` whose answers are there.
    """

    params: Any
    scores: dict[str, dict[str, Any]]
    dev: dict[str, dict[str, Any]]
    metrics: dict[str, dict[str, Any]]
    outcomes: dict[str, list[int]]
    ledger: Stored
    questions: Asked
    data: Stored
    rewards: NDArray[np.float32]
    items: dict[str, Items]

    @property
    def asked(self) -> dict[str, int]:
        """Number of questions by generator of the mix, and by file of own questions after them."""
        return asked_questions(self.params, self.metrics)

    @property
    def rewarded(self) -> bool:
        """Whether the choice of the answers waited for rewards."""
        return reads_rewards(self.params)

    @property
    def tasks(self) -> list[str]:
        """List the tasks in the order of ``evaluate.tasks``, then others that were scored."""
        found = {task for scores in self.scores.values() for task in scores}
        return [*self.params.evaluate.tasks, *sorted(found - set(self.params.evaluate.tasks))]

    @property
    def students(self) -> list[str]:
        """Name the students that were scored, ``student`` first."""
        return [model for model in self.scores if is_student(model)]

    @property
    def student_metrics(self) -> dict[str, Any]:
        """Metrics of the training of the student that is published."""
        return self.metrics["instruct_tune@student"]

    @property
    def kept(self) -> int:
        """Count the questions that passed every filter."""
        return sum(self.outcomes[KEPT])


def asked_questions(params: Any, metrics: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Number of questions that came into the run, by generator and by file of own questions."""
    stages = [*(("generate", name) for name in params.mix), *(("own_questions", name) for name in params.own.questions)]
    return {name: metrics[f"{stage}@{name}"]["questions"] for stage, name in stages}


def reads_rewards(params: Any) -> bool:
    """Whether a run with these parameters trains a reward model and scores the answers."""
    return bool(params.reward_select.waits_for == "rewards")


def is_student(model: str) -> bool:
    """Whether a model's name is a student's (``instruct_tune.seeds``)."""
    return model.split("_")[0] == "student"


def read_scores(folder: Path, students: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read the scores files by model: base, solver, student, other students, then others by name.

    Those of students that have left ``instruct_tune.seeds`` are passed over.

    Raises:
        UserError: there are none.
    """
    order = {"base": 0, "solver": 1, "student": 2}
    paths = sorted(
        (path for path in folder.glob("*.json") if path.stem in students or not is_student(path.stem)),
        key=lambda path: (order.get(path.stem, 3 if is_student(path.stem) else 4), path.stem),
    )
    if not paths:
        raise UserError(f"{folder}: no scores there. Run: dvc repro evaluate evaluate_student")
    return {path.stem: read_json(path) for path in paths}


def read_metrics(
    folder: Path, mix: Sequence[str], students: Sequence[str], own: Sequence[str] = (), rewarded: bool = True
) -> dict[str, dict[str, Any]]:
    """Read the metrics by DVC's stage name; those of a generator or student that has left the run are passed over.

    Args:
        folder: with a file per stage.
        mix: the generators.
        students: their names.
        own: files of own questions.
        rewarded: whether answers are scored; else the metrics of an earlier run's reward model are passed over.

    Raises:
        UserError: a stage has written none.
    """
    found = {}
    left_out = () if rewarded else REWARDING
    for path in sorted(folder.rglob("*.json")):
        stage, *instance = path.relative_to(folder).with_suffix("").parts
        if stage in left_out:
            continue
        # Generators and students come and go; a stage whose instances are written in dvc.yaml keeps them.
        present = {"instruct_tune": students, "own_questions": own}.get(stage, mix if stage in EACH else instance)
        if not instance or instance[0] in present:
            found["@".join([stage, *instance])] = read_json(path)
    each = [f"{stage}@{generator}" for stage in EACH for generator in mix]
    each += [f"own_questions@{name}" for name in own]
    fixed = [f"{stage}@{instance}" for stage, instances in FIXED.items() for instance in instances]
    expected = [
        *(name for name in SINGLE if name not in left_out),
        *fixed,
        *each,
        *(f"instruct_tune@{student}" for student in students),
    ]
    if missing := [name for name in expected if name not in found]:
        raise UserError(f"{folder}: no metrics of {', '.join(missing)}. Run: dvc repro {' '.join(missing)}")
    return found


def count_outcomes(questions: Asked, generated: dict[str, int]) -> dict[str, list[int]]:
    """Count the generated questions by outcome, for each generator in the order of ``generated``.

    Raises:
        UserError: the ledger does not have as many rows of each generator as it generated.
    """
    counts = questions.counts()
    found: dict[str, int] = {}
    for (generator, _), n in counts.items():
        found[generator] = found.get(generator, 0) + n
    if found != generated:
        raise UserError(
            f"ledger: {found} questions by generator, but {generated} were generated. Run: dvc repro filter"
        )
    names = [*OUTCOMES, *sorted({outcome for _, outcome in counts} - {*OUTCOMES, KEPT}), KEPT]
    return {name: [counts.get((generator, name), 0) for generator in generated] for name in names}


def tasks_of(scores: dict[str, Any]) -> dict[str, Any]:
    """Take the tasks of a scores file, or of a part of it; what else it holds has no score."""
    return {task: values for task, values in scores.items() if isinstance(values, dict) and "flexible" in values}


def scores_by_model(files: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Split scores files into models: the few-shot part of ``base`` is a model ``base_fewshot`` after it."""
    found = {}
    for model, scores in files.items():
        found[model] = tasks_of(scores)
        if few_shot := tasks_of(scores.get("few_shot", {})):
            found[f"{model}_fewshot"] = few_shot
    return found


def read_items(folder: Path, files: Sequence[str]) -> dict[str, Items]:
    """Read the test items by model, few-shot answers apart, the scores of several answers as their mean.

    A model without a samples file is passed over.
    """
    found: dict[str, Items] = {}
    for model in files:
        if not (path := folder / f"{model}.parquet").is_file():
            continue
        for row in by_item(read_rows(path, SAMPLE)):
            if row["split"] == "test":
                name = f"{model}_fewshot" if row["shots"] else model
                found.setdefault(name, {})[row["task"], row["id"]] = row
    return found


def stage_of(model: str) -> str:
    """Name the stage that scores a model."""
    return f"evaluate_student@{model}" if is_student(model) else f"evaluate@{model}"


def from_outside(params: Any, stages: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Warnings of what DVC does not watch, by stage: changed local sources, and package versions that the lock does not name."""
    plain = {
        key: {n: s.model_dump(by_alias=True) for n, s in getattr(params, key).items()}
        for key in ("seeds", "benchmarks")
    }
    given = {
        "models": params.models,
        "instruct_tune": params.instruct_tune.model_dump(),
        "filter": params.filter.model_dump(),
        "own": params.own.model_dump(by_alias=True),
        **plain,
    }
    file = Path(ENVIRONMENT_FILE)
    recorded = Recorded.parse(file.read_bytes() if file.is_file() else None)
    made = {
        stage: recorded.environments.get(entry["environment"], []) for stage, entry in recorded.stages.items() if stage in stages
    }  # fmt: skip
    locks = {path: Path(path).read_text() for paths in LOCKS.values() for path in paths if Path(path).is_file()}
    found = [(stage, "source_changed") for stage, _ in changed_sources(given, Path())]
    found += [(stage, "lock_changed") for stages_of in other_versions(made, locks).values() for stage in stages_of]
    warnings: dict[str, dict[str, Any]] = {}
    for stage, flag in found:
        warnings.setdefault(stage, {})[flag] = 1
    return warnings


def read_run(args: argparse.Namespace, params: Any) -> Run:
    """Read what the stages wrote."""
    students = list(params.instruct_tune.seeds)
    files = read_scores(args.scores, students)
    rewarded = reads_rewards(params)
    metrics = read_metrics(args.metrics, params.mix, students, list(params.own.questions), rewarded)
    ledger = Stored(args.ledger, LEDGER)
    questions = Asked(ledger)
    metrics |= {stage_of(model): scores for model, scores in files.items()}
    for stage, flags in from_outside(params, list(metrics)).items():
        values = metrics.get(stage, {})
        metrics[stage] = values | {"warnings": values.get("warnings", {}) | flags}
    dev = {model: tasks_of(scores.get("dev", {})) for model, scores in files.items()}
    return Run(
        params=params,
        scores=scores_by_model(files),
        dev={model: scores for model, scores in dev.items() if scores},
        metrics=metrics,
        outcomes=count_outcomes(questions, asked_questions(params, metrics)),
        ledger=ledger,
        questions=questions,
        data=Stored(args.data, INSTRUCTION),
        rewards=Stored(args.rewards, REWARD).numbers("reward") if rewarded else np.zeros(0, np.float32),
        items=read_items(args.samples, list(files)),
    )
