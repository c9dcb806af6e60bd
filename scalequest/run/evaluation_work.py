"""The work of the stages ``evaluate`` and ``evaluate_student``, for an estimate."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scalequest.errors import UserError
from scalequest.evaluation import all_scores
from scalequest.io import read_json
from scalequest.params import FileSource, HubSource, Params
from scalequest.run.work import BYTES_PER_TOKEN, Assumptions, FinishedRun, Work, asked

# The stages' names, and the role of the model that each asks (dvc.yaml).
COMPARED = {"base": "student", "solver": "solver"}


@dataclass(frozen=True)
class Measured:
    """What a finished run says of its evaluation.

    Attributes:
        items: number of items by benchmark.
        cut: share of the answers that ended at ``evaluate.max_tokens``, by model, ``base/few_shot`` among them.
    """

    items: Mapping[str, int] = field(default_factory=dict)
    cut: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, run: FinishedRun) -> "Measured":
        """Read the metrics of ``benchmarks`` and the scores, where the run has them."""
        counted = run.metrics("benchmarks") or {}
        items = {name: found["items"] for name, found in counted.items() if isinstance(found, dict)}
        cut: dict[str, float] = {}
        for file in sorted(run.scores.glob("*.json")):
            scores = all_scores(read_json(file))
            few_shot = {name for name in scores if name.startswith("few_shot/")}
            for key, names in ((file.stem, set(scores) - few_shot), (f"{file.stem}/few_shot", few_shot)):
                parts = [scores[name] for name in sorted(names) if "cut" in scores[name]]
                if parts:
                    cut[key] = sum(s["cut"] * s["n"] for s in parts) / sum(s["n"] for s in parts)
        return cls(items, cut)


def item_counts(
    params: Params, measured: Mapping[str, int], published: Mapping[str, int]
) -> tuple[dict[str, int], list[str]]:
    """Number of items that each task asks, after ``evaluate.limit``, and notes on those that are not sure.

    A benchmark has the items that ``n`` gives, else those of its local file, else those that a finished run counted,
    else those of the published set of its name. One with none of these is named, and not counted.

    Args:
        params: the run.
        measured: items by benchmark of a finished run.
        published: items by name of a published set.
    """
    counts: dict[str, int] = {}
    by_name: list[str] = []
    unknown: list[str] = []
    for name in params.evaluate.tasks:
        source = params.benchmarks.get(name)
        found = None if source is None else source.n or (_items_of(name, source, params.seed))
        if found is None:
            found = measured.get(name)
        if found is None and name in published:
            found = published[name]
            by_name.append(f"{name} {found:,}")
        if found is None:
            unknown.append(name)
        else:
            counts[name] = found if params.evaluate.limit is None else min(found, params.evaluate.limit)
    notes = (
        [f"Items by the published size, because the file is not here or cannot be read: {', '.join(by_name)}."]
        if by_name
        else []
    )
    notes += [
        f"Items of {name} are not known: not counted. Set benchmarks.{name}.n, or add the file; `scalequest check` says what it lacks."
        for name in unknown
    ]
    return counts, notes


def _items_of(name: str, source: Any, seed: int) -> int | None:
    """Items that the stage ``benchmarks`` would write from a file on this machine.

    None if the file is not here, is not the pinned one, or has rows that cannot be read.
    """
    if not isinstance(source, FileSource) or isinstance(source, HubSource):
        return None
    from scalequest.problems.sources import load_problems

    try:
        return len(load_problems(name, source, seed, need_solution=False))
    # The loader's errors, and what it raises at a row with the columns of a known data set and not its values. An estimate goes
    # on without the number; `scalequest check` names the row.
    except (UserError, KeyError, AttributeError, TypeError, ValueError):
        return None


def evaluation(
    params: Params,
    assumed: Assumptions,
    sizes: dict[str, float],
    items: Mapping[str, int],
    cut: Mapping[str, float],
) -> list[Work]:
    """The work of ``evaluate@base``, ``evaluate@solver`` and ``evaluate_student``, all students together.

    An item is asked ``evaluate.samples`` times, and of the base as often again after ``evaluate.few_shot`` solved seeds.
    An answer has the length of a response, or of a seed's solution where the model learned from these, at most
    ``evaluate.max_tokens``. Of a model whose share of cut answers is known, that share has ``evaluate.max_tokens``.

    Args:
        params: the run.
        assumed: mean tokens.
        sizes: parameters of models whose names do not say.
        items: number of items per task, after ``evaluate.limit``.
        cut: share of cut answers by model (``Measured``).
    """
    token, exam = assumed.tokens, params.evaluate
    prompt = token["question"] + token["template"]
    solver = "response" if params.solver.method == "none" else "solution"
    lengths = {"base": "response", "solver": solver}
    taught = "solution" if params.instruct_tune.data == "seeds" else solver
    n_answers = sum(items.values()) * exam.samples

    def tokens_of(model: str, length: str) -> float:
        at_limit = cut.get(model, 0.0)
        return at_limit * exam.max_tokens + (1 - at_limit) * min(token[length], exam.max_tokens)

    def examined(
        stage: str, role: str, generated: float, read: float, n: float, models: int, length: str | None
    ) -> Work:
        # Models are graded as they were saved, so never in 8 bits (Engine.as_saved).
        return asked(
            params, sizes, role, stage, n, read, generated,
            written=generated * BYTES_PER_TOKEN, length=length, engines=models,
        )  # fmt: skip

    result = []
    for name, role in COMPARED.items():
        generated = n_answers * tokens_of(name, lengths[name])
        read, n = n_answers * prompt, n_answers
        shown = exam.few_shot if name == "base" else 0
        if shown:
            generated += n_answers * tokens_of("base/few_shot", "solution")
            read += n_answers * (prompt + shown * (prompt + token["solution"]))
            n += n_answers
        # The rates of responses were measured with short prompts, so the shown seeds are counted beside them.
        result.append(examined(f"evaluate@{name}", role, generated, read, n, 1, None if shown else "response"))
    students = params.instruct_tune.seeds
    generated = sum(n_answers * tokens_of(name, taught) for name in students)
    n = n_answers * len(students)
    result.append(examined("evaluate_student", "student", generated, n * prompt, n, len(students), "response"))
    return result
