"""Collect the seed problems: questions, worked solutions and answers (or tests) from every configured source.

python -m stages.seeds --benchmarks data/benchmarks --out data/seeds.parquet --metrics reports/metrics/seeds.json

A question that a benchmark has is no seed. What else seeds share with benchmarks is reported by the rule of `screen`.
"""

import argparse
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalequest.domains import wording
from scalequest.io import read_jsonl, rounded
from scalequest.params import FileSource, ReasoningGymSource
from scalequest.problems.contamination import Contamination, set_phrases
from scalequest.problems.problem import Problem
from scalequest.problems.sources import load_source
from scalequest.records import PROBLEM, write_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.text import question_key

EXAMPLES = 5  # of each benchmark, in the metrics


@dataclass
class Seeds:
    """The seed problems of all sources.

    Attributes:
        problems: in the order of the sources, each question once.
        left_out: by source, number of rows left out, by reason.
        without_solution: by source, number of problems that teach the bare answer.
    """

    problems: list[Problem] = field(default_factory=list)
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)
    without_solution: dict[str, int] = field(default_factory=dict)


def collect_seeds(
    sources: Mapping[str, ReasoningGymSource | FileSource],
    seed: int,
    domain: str,
    benchmark_keys: Collection[str] = frozenset(),
) -> Seeds:
    """The problems of all sources; a question that an earlier source or a benchmark has is left out.

    Whether a problem may come without an answer is said by the domain (``Wording.SEEDS_NEED_ANSWERS``).

    Args:
        sources: by name, in order.
        seed: the run's, which draws ``n`` of a file's rows.
        domain: of the run.
        benchmark_keys: ``question_key`` of every benchmark item. The seed goes, so that a test set keeps its size.
    """
    seeds = Seeds()
    seen: set[str] = set()
    need_answer = wording(domain).SEEDS_NEED_ANSWERS
    for name, source in sources.items():
        loaded = load_source(name, source, seed, need_solution=True, need_answer=need_answer, exclude=benchmark_keys)
        own = [p for p in loaded.problems if question_key(p["question"]) not in seen]
        seen |= {question_key(p["question"]) for p in own}
        seeds.problems += own
        repeated = len(loaded.problems) - len(own)
        seeds.left_out[name] = loaded.left_out | ({"in_an_earlier_source": repeated} if repeated else {})
        seeds.without_solution[name] = loaded.without_solution
    return seeds


def overlap(
    problems: Sequence[Problem], benchmarks: Mapping[str, list[dict[str, str]]], n: int
) -> dict[str, dict[str, Any]]:
    """What seeds share with each benchmark, by the rule that drops generated questions: runs of
    ``n`` words that are no set phrase of the seeds, or a short item whole.

    Returns:
        By benchmark: ``items`` of it that share something with a seed, their share ``items_frac``, ``seeds`` that do,
        ``set_phrases``: runs of its items that were not looked for, and ``examples``: seed, item and shared span of the
        first ones, one for each item.
    """
    found = {}
    for name, items in benchmarks.items():
        index = Contamination(items, n)
        index.leave_out(set_phrases(index, items, (p["question"] for p in problems)))
        pairs = [(p["id"], match) for p in problems for match in index.matches(p["question"])]
        first = {match.item: {"seed": seed, "item": match.item, "span": match.span} for seed, match in reversed(pairs)}
        found[name] = {
            "items": len(first),
            "items_frac": rounded(len(first) / len(items)),
            "seeds": len({seed for seed, _ in pairs}),
            "set_phrases": len(index.set_aside),
            "examples": [first[item["id"]] for item in items if item["id"] in first][:EXAMPLES],
        }
    return found


def read_benchmarks(folder: Path) -> dict[str, list[dict[str, str]]]:
    """The items of each benchmark, by its name."""
    return {path.stem: list(read_jsonl(path)) for path in sorted(folder.glob("*.jsonl"))}


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Load, merge, write, compare with the benchmarks."""
    benchmarks = read_benchmarks(args.benchmarks)
    keys = {question_key(item["question"]) for items in benchmarks.values() for item in items}
    seeds = collect_seeds(run.params.seeds, run.params.seed, run.params.domain, keys)
    write_rows(args.out, seeds.problems, PROBLEM)
    n = run.params.screen.decontaminate_ngram
    shared = overlap(seeds.problems, benchmarks, n) if n else None  # without a rule nothing is compared
    for found in (shared or {}).values():  # by item: DVC takes a list of rows for a plot
        found["examples"] = {example["item"]: example for example in found["examples"]}
    run.metrics(
        args.metrics,
        {
            "problems": len(seeds.problems),
            "by_source": dict(Counter(p["source"] for p in seeds.problems)),
            "left_out": seeds.left_out,
            "without_solution": seeds.without_solution,
            "shared_with_benchmarks": shared,
        },
    )


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("benchmarks", "out", "metrics"))
