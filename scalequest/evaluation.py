"""Score a model on benchmarks with lm-eval, asked as the pipeline asks it: greedy, pass@1, chat template on (paper 3.1).

Or avg@k: k sampled answers per item, each drawn by a seed of its own, and their mean.

lm-eval loads the tasks and calls their scoring; the answers come from the pipeline's own engine. Prompts, stops and the
decoding of an answer are therefore those of every other stage, also for a base model whose end of sequence is not its
template's end of turn: where lm-eval's vLLM model would run on into an invented next turn.

Each task reports a strict score (the answer has the form that was asked for), a flexible one (any form), the share of
answers that could not be parsed and that were cut at max_tokens, standard errors, and the number of checks that ran into
their time limit, which is the one thing in here that a slow machine changes.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from scalequest.answers import sandbox
from scalequest.answers.check import kind_of
from scalequest.answers.program import read_programs
from scalequest.domains import DOMAINS, PLAIN, PROGRAM, WORKED, wording
from scalequest.errors import UserError
from scalequest.io import read_jsonl, rounded, write_jsonl
from scalequest.outcomes import MANY_CUT, MANY_UNPARSED, RIGHT, TIMEOUT, WARNINGS
from scalequest.params import Engine as EngineParams
from scalequest.params import Runtime, Sampling
from scalequest.problems.draw import draw, hash_place
from scalequest.records import SAMPLE, item_of, write_rows
from scalequest.sampling.engine import Engine
from scalequest.sampling.remote import Remote
from scalequest.seeding import row_seed
from scalequest.statistics import shares_error

if TYPE_CHECKING:
    import argparse

    from scalequest.runtime.stage import StageRun

log = logging.getLogger("scalequest")

SHARES = ("strict", "flexible", "unparsed", "cut")
# What a benchmark is scored by that has no task file of its own name.
ANY_TASK = "domain.yaml"
# Draws and splits of test items depend on their ids alone: runs with other seeds are scored on the same items.
ITEMS_SEED = 0
DEV, TEST = "dev", "test"
# Parts of a scores file besides the reported tasks.
PARTS = (DEV, "few_shot")

Solved = tuple[str, str]  # what a model is asked, and the answer that it is shown


@dataclass(frozen=True)
class Draws:
    """How answers are drawn.

    Attributes:
        samples: answers per item.
        temperature: 0 = greedy, one answer.
        top_p: share of the probability that is drawn from, in (0, 1].
        seed: each answer is drawn by this, its item's id and its number among the samples, whatever else is asked.
    """

    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


GREEDY = Draws()


@dataclass(frozen=True)
class Exam:
    """What a model is asked, and how.

    Attributes:
        tasks: folder of task files.
        benchmarks: folder of items, NAME.jsonl each.
        names: the tasks, in the order of the scores.
        max_tokens: new tokens per answer.
        limit: items drawn per task; None = all.
        dev_frac: share of the items, in [0, 1), that settings may be chosen on; their scores are kept apart.
        domain: of the run; that of a benchmark can be another (``domain_of``).
        draws: how answers are drawn.
        form: how mathematics is asked for, a form of ``solve_prompt``; other benchmarks have one form.
    """

    tasks: Path
    benchmarks: Path
    names: Sequence[str]
    max_tokens: int
    limit: int | None = None
    dev_frac: float = 0.0
    domain: str = PLAIN
    draws: Draws = GREEDY
    form: str = WORKED


# --------------------------------------------------------------------------------------------------------------- tasks


def split_of(item: str, dev_frac: float) -> str:
    """``dev`` or ``test``, by a hash of the item's id: the same in every run, and for every model."""
    return DEV if hash_place(ITEMS_SEED, item, "split") < dev_frac else TEST


def domain_of(answer: str, own: str) -> str:
    """The domain whose prompt and comparison fit a benchmark item, which need not be the run's: HumanEval in a mathematics run.

    Args:
        answer: the item's.
        own: the run's domain. It takes what has its kind of answer, and plain answers unless its own are programs.
    """
    kinds = {name: wording(name).ANSWERS for name in dict.fromkeys((own, PLAIN, *DOMAINS))}
    kind = kind_of(answer) or (kinds[PLAIN] if kinds[own] == "code" else kinds[own])
    return next(name for name, other in kinds.items() if other == kind)


def resolve_tasks(
    source: Path,
    benchmarks: Path,
    target: Path,
    names: Sequence[str],
    limit: int | None = None,
    domain: str = PLAIN,
    samples: int = 1,
    form: str = WORKED,
) -> None:
    """Write a task file and the items of each benchmark to ``target``.

    The task file is the benchmark's own, else that of all; task and benchmark have one name. ``${task}`` and
    ``${benchmarks}`` are filled in (lm-eval wants absolute paths). Each item says its domain, by the benchmark's first, and the
    form in which it is asked.
    Of more than ``limit`` items that many are drawn by a hash of their ids, in proportion to their strata (subjects)
    where they have one. With several ``samples`` an item is there as often, with the ids ``ITEM#0``, ``ITEM#1``, ...

    Raises:
        UserError: the benchmark was not written, or has no item.
    """
    for name in names:
        path = benchmarks / f"{name}.jsonl"
        if not path.is_file():
            raise UserError(f"evaluate.tasks: task '{name}' needs {path}. Run: dvc repro benchmarks")
        items = list(read_jsonl(path))
        if not items:
            raise UserError(f"{path}: no item. Expected at least one. Look at the benchmark's source in params.yaml")
        strata = [str(item.get("stratum", "")) for item in items]
        ids = [str(item.get("id", at)) for at, item in enumerate(items)]
        places = draw(ids, limit, ITEMS_SEED, strata, purpose="evaluate.limit")
        own_domain = domain_of(str(items[0].get("answer")), domain)
        asked_as = {"domain": own_domain, "form": form if own_domain == PLAIN else WORKED}
        asked = (items[at] | asked_as | numbered for at in places for numbered in _numbered(ids[at], samples))
        write_jsonl(target / f"{name}.jsonl", asked)
        own = source / f"{name}.yaml"
        text = (own if own.is_file() else source / ANY_TASK).read_text(encoding="utf-8")
        text = text.replace("${task}", name).replace("${benchmarks}", str(target.resolve()))
        (target / f"{name}.yaml").write_text(text, encoding="utf-8")
    for helper in source.glob("*.py"):
        shutil.copy(helper, target)


def _numbered(item: str, samples: int) -> list[dict[str, str]]:
    return [{"id": f"{item}#{k}"} for k in range(samples)] if samples > 1 else [{}]


def few_shot_examples(seeds: Sequence[dict[str, str]], k: int) -> list[dict[str, str]]:
    """``k`` seeds with a solution, drawn by hash, equal numbers of each source that has enough; the same for every model.

    Raises:
        UserError: fewer than ``k`` seeds have a solution.
    """
    solved = [row for row in seeds if row["solution"]]
    if len(solved) < k:
        raise UserError(f"evaluate.few_shot: {k} examples, but {len(solved)} seeds have a solution. Lower few_shot")
    sources = [row["source"] for row in solved]
    ids = [row["id"] for row in solved]
    return [solved[at] for at in draw(ids, k, ITEMS_SEED, sources, evenly=True, purpose="evaluate.few_shot")]


# ------------------------------------------------------------------------------------------------------------- answers


def lm_of(
    engine: Engine | Remote, max_tokens: int, examples: Sequence[Solved] = (), draws: Draws = GREEDY, form: str = WORKED
) -> Any:
    """The engine as a model of lm-eval, which records the finish reason of each answer.

    Returns:
        An ``lm_eval.api.model.LM`` with ``finished``: task and number of the item to "stop", "length" (cut at
        ``max_tokens``) or "too_long" (the prompt did not fit, and was answered with nothing).
    """
    from lm_eval.api.model import LM

    # shard_size has no meaning here: all requests go to the engine in one call.
    shown = [turn for example in examples for turn in example]
    sampling = Sampling(temperature=draws.temperature, top_p=draws.top_p, max_tokens=max_tokens, shard_size=1)

    class EngineLM(LM):
        def __init__(self) -> None:
            super().__init__()
            self.finished: dict[tuple[str, int], str] = {}

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            answers = [""] * len(requests)
            stops = [tuple(request.args[1].get("until") or ()) for request in requests]
            for until in dict.fromkeys(stops):  # a task file may name stop strings of its own
                places = [at for at, found in enumerate(stops) if found == until]
                prompts = engine.chat.conversations([[*shown, requests[at].args[0]] for at in places])
                if draws.temperature:
                    seeds = [answer_seed(draws.seed, requests[at].doc["id"]) for at in places]
                    completions = engine.complete_rows(sampling, until)(prompts, seeds)
                else:
                    completions = engine.complete(sampling, until)(prompts, 0)
                for at, completion in zip(places, completions, strict=True):
                    answers[at] = completion.text
                    self.finished[requests[at].task_name, requests[at].doc_id] = completion.finish_reason
            if form == PROGRAM:  # together: lm-eval asks for the scores one by one
                read_programs([a for a, r in zip(answers, requests, strict=True) if r.doc.get("form") == PROGRAM])
            return answers

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            raise UserError("evaluate: a task asks for likelihoods. Expected output_type: generate_until in its file")

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            raise UserError("evaluate: a task asks for likelihoods. Expected output_type: generate_until in its file")

    return EngineLM()


def answer_seed(seed: int, row: str) -> int:
    """Seed of one answer, by the id of its row; the only answer to an item is the first of several."""
    return row_seed(seed, "evaluate", row if "#" in row else f"{row}#0")


def run_exam(
    model: Path | Remote, exam: Exam, engine: EngineParams, runtime: Runtime, examples: Sequence[Solved] = ()
) -> list[dict[str, Any]]:
    """Ask a model all items, zero-shot; with ``examples``, once more with these as earlier turns of each conversation.

    Returns:
        A row of ``records.SAMPLE`` per answer, tasks in the exam's order, items in the benchmark's; then those with examples.
    """
    sandbox.consent(runtime.sandbox)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder)
        samples = exam.draws.samples
        resolve_tasks(exam.tasks, exam.benchmarks, target, exam.names, exam.limit, exam.domain, samples, exam.form)
        # Read when the libraries are imported. Everything is local: nothing after this may go to the network.
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(target / "cache")}
        # A model is graded as it is saved.
        # An engine over several GPUs draws in its own processes, which follow seeds of rows alone.
        if isinstance(model, Remote):
            started: Engine | Remote = model
        else:
            row_seeds = exam.draws.temperature > 0 or runtime.gpus_per_engine(model) > 1
            started = Engine(model, engine.as_saved, runtime, row_seeds=row_seeds)
        rows = list(_asked(started, exam, target, ()))
        if examples:
            rows += _asked(started, exam, target, examples)
    return rows


def _asked(engine: Engine | Remote, exam: Exam, tasks: Path, examples: Sequence[Solved]) -> Iterator[dict[str, Any]]:
    import lm_eval
    from lm_eval.tasks import TaskManager

    lm = lm_of(engine, exam.max_tokens, examples, exam.draws, exam.form)
    result: dict[str, Any] = lm_eval.simple_evaluate(
        model=lm,
        tasks=list(exam.names),
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    return sample_rows(result, exam, lm.finished, len(examples))


# -------------------------------------------------------------------------------------------------------------- scores


def item_scores(
    compare_answers: Callable[[Sequence[str], Sequence[str | None]], list[str]],
    answer: str,
    strict: str | None,
    flexible: str | None,
) -> dict[str, float]:
    """What a benchmark item scores, 0 or 1 each.

    Args:
        compare_answers: gives the outcomes of N final answers against N answers.
        answer: the problem's.
        strict: final answer of the response as the strict score reads it (docs/evaluation.md).
        flexible: the same as the flexible score reads it.
    """
    strict_outcome, flexible_outcome = compare_answers([answer] * 2, [strict, flexible])
    return {
        "strict": float(strict_outcome == RIGHT),
        "flexible": float(flexible_outcome == RIGHT),
        "unparsed": float(flexible is None),
        "timeout": float(TIMEOUT in (strict_outcome, flexible_outcome)),
    }


def sample_rows(
    result: dict[str, Any], exam: Exam, finished: dict[tuple[str, int], str], shots: int = 0
) -> Iterator[dict[str, Any]]:
    """A row of ``records.SAMPLE`` per item of lm-eval's result, tasks in the exam's order, items in the file's."""
    for name in exam.names:
        for sample in sorted(result["samples"][name], key=lambda sample: sample["doc_id"]):
            doc = sample["doc"]
            yield {
                "task": name,
                "split": split_of(item_of(str(doc["id"])), exam.dev_frac),
                "shots": shots,
                **{key: doc[key] for key in ("id", "question", "answer")},
                "completion": sample["resps"][0][0],
                "finish_reason": finished[name, sample["doc_id"]],
                **{metric: sample[metric] for metric in ("strict", "flexible", "unparsed", "timeout")},
            }


def task_scores(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Scores of N >= 1 items with k >= 1 answers each: n, each share in [0, 1] with its standard error, and two counts.

    ``timeouts`` are checks that ran into their limit, ``too_long`` prompts that did not fit into the context. A share is
    the mean over all answers (avg@k), its error that of the items and their answers. With several answers also
    ``samples``, and the standard deviation of the k runs that answer each item once, as papers report it (``flexible_sd``).
    """
    values = [row | {"cut": float(row["finish_reason"] == "length")} for row in rows]
    items: dict[str, list[dict[str, Any]]] = {}
    for row in values:
        items.setdefault(item_of(row["id"]), []).append(row)
    k = min(map(len, items.values()))
    scores: dict[str, float] = {
        "n": len(items),
        **({"samples": k} if k > 1 else {}),
        "timeouts": sum(int(row["timeout"]) for row in rows),
        "too_long": sum(row["finish_reason"] == "too_long" for row in rows),
    }
    for share in SHARES:
        scores[share] = rounded(fmean(row[share] for row in values))
        shares = [fmean(row[share] for row in answers) for answers in items.values()]
        scores[f"{share}_stderr"] = rounded(shares_error(shares))
        if k > 1:
            runs = [fmean(answers[at][share] for answers in items.values()) for at in range(k)]
            scores[f"{share}_sd"] = rounded(stdev(runs))
    return scores


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Scores by task, of the test items; those of the development items and with examples are apart.

    Returns:
        ``{task: scores}``, and ``{"dev": {task: scores}}`` and ``{"few_shot": {task: scores}}`` where there are such rows.
        The few-shot scores are of the test items, too.
    """

    def by_task(chosen: Sequence[dict[str, Any]]) -> dict[str, Any]:
        names = dict.fromkeys(row["task"] for row in chosen)
        return {name: task_scores([row for row in chosen if row["task"] == name]) for name in names}

    zero_shot = [row for row in rows if not row["shots"]]
    few_shot = [row for row in rows if row["shots"] and row["split"] == TEST]
    parts = dict(
        zip(PARTS, (by_task([row for row in zero_shot if row["split"] == DEV]), by_task(few_shot)), strict=True)
    )
    return by_task([row for row in zero_shot if row["split"] == TEST]) | {k: v for k, v in parts.items() if v}


def tasks_of(scores: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The reported scores of a scores file by task: what is no task (dev, few_shot, warnings) is left out."""
    return {name: values for name, values in scores.items() if isinstance(values, dict) and "flexible" in values}


def all_scores(scores: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Every score of a scores file: the reported ones by task, then ``dev/TASK`` and ``few_shot/TASK``."""
    apart = {f"{part}/{name}": s for part in PARTS for name, s in tasks_of(scores.get(part) or {}).items()}
    return tasks_of(scores) | apart


def doubts(scores: dict[str, Any]) -> dict[str, bool]:
    """What is doubtful about any of the scores, by its name in ``outcomes``.

    Settings are chosen by the development scores and the gain is taken against the few-shot base: a parser that reads
    nothing misleads there as well.
    """
    tasks = all_scores(scores).values()
    return {
        "score_zero": any(task["flexible"] == 0 for task in tasks),
        "many_unparsed": any(task["unparsed"] > MANY_UNPARSED for task in tasks),
        "many_cut": any(task["cut"] > MANY_CUT for task in tasks),
    }


def scores_in_words(scores: dict[str, Any]) -> str:
    """The scores as a table for a terminal, and the warnings below it."""
    lines = [
        f"{'task':<18} {'items':>5} {'flexible, %':>14} {'strict, %':>14} {'unparsed, %':>12} {'cut, %':>7} {'timeouts':>9}"
    ]
    for name, s in all_scores(scores).items():
        flexible, strict = (f"{100 * s[k]:.1f} ± {100 * s[f'{k}_stderr']:.1f}" for k in ("flexible", "strict"))
        shares = f"{100 * s['unparsed']:>12.1f} {100 * s['cut']:>7.1f}"
        lines.append(f"{name:<18} {s['n']:>5,} {flexible:>14} {strict:>14} {shares} {s['timeouts']:>9,}")
    several = [
        f"{name}: mean of {s['samples']} answers per item; deviation of the single runs: flexible "
        f"{100 * s['flexible_sd']:.1f}, strict {100 * s['strict_sd']:.1f} points"
        for name, s in all_scores(scores).items()
        if "samples" in s
    ]
    return "\n".join([*lines, *several, *warning_lines(scores)])


def warning_lines(scores: dict[str, Any]) -> list[str]:
    """One line per doubtful score, with its place."""
    return [
        f"warning: {name}: {WARNINGS[flag]}"
        for name, s in all_scores(scores).items()
        for flag, up in doubts({name: s}).items()
        if up
    ]


# --------------------------------------------------------------------------------------------------------------- stage


def evaluate_model(
    args: "argparse.Namespace", run: "StageRun", examples: Sequence[Solved] = (), remote: Remote | None = None
) -> None:
    """The work of the evaluation stages: ask ``remote`` or else the model of ``args``, write its samples and scores."""
    params = run.params.evaluate
    draws = Draws(params.samples, params.temperature, params.top_p, run.params.seed)
    exam = Exam(
        args.tasks,
        args.benchmarks,
        params.tasks,
        params.max_tokens,
        params.limit,
        params.dev_frac,
        run.params.domain,
        draws,
        params.form,
    )
    rows = run_exam(remote or args.model, exam, run.params.engine, run.params.runtime, examples)
    scores = summarize(rows)
    write_rows(args.samples, rows, SAMPLE)
    for line in warning_lines(scores):  # the warnings of the metrics do not say which score is meant
        log.info("%s", line)
    run.metrics(args.scores, scores, doubts(scores))
