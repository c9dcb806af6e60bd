"""Keep one response per question, among those that give an answer: by default the best rewarded (paper 2.5).

python -m stages.reward_select --questions data/filtered.parquet --responses data/responses --rewards data/rewards
    --out data/instruct.parquet --metrics M.json

`reward_select.by` is the rule of the choice, so that the reward's part in the result can be measured (paper, Figure 5).

The demands that the field found since (`min_agreement`, `min_pass_rate`, `max_pass_rate`, `check_arithmetic`) drop answers and
questions before that choice. `keep: all_agreeing` keeps every response that gives the chosen answer: several rows of one id.

In a code run `reward_select.execute` first runs every candidate in the sandbox, with the assertions that its question states, and
drops those that do not pass. (A program that waits for input gets none, and raises.)

With `respond.form: program` the sandbox runs every response, and the number that its function returns is its answer.

With `reward_select.waits_for: responses` no reward is read: `--rewards` names the responses, ties go to the lowest sample
number, and the column `reward` is null.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from multiprocessing.util import Finalize
from typing import Any, NamedTuple

import pyarrow as pa

from scalequest.answers import compare as comparing
from scalequest.answers.arithmetic import asked_value, check_arithmetic
from scalequest.answers.best_of import RULES, choose, group_answers
from scalequest.answers.check import final_answer
from scalequest.answers.compare import compare
from scalequest.answers.demands import Demands
from scalequest.answers.program import read_programs
from scalequest.answers.sandbox import consent
from scalequest.answers.selection import find_crashes, fulfilling_candidates, select_all
from scalequest.domains import PROGRAMS, kind_of_answers, wording
from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.outcomes import PROGRAM_OUTCOMES, RIGHT
from scalequest.params import RewardSelect
from scalequest.records import (
    FILTERED,
    INSTRUCTION,
    RESPONSE,
    REWARD,
    Piece,
    pieces,
    read_table,
    row_groups,
    table,
    write_stream,
)
from scalequest.runtime.processes import cores, map_tasks
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.seeding import row_seed
from scalequest.statistics import proportion_above_chance, ratio_error, reported

STAGE = "reward_select"
# Share of wrong steps, and of wrong answers to plain arithmetic, that needs no warning.
TOLERATED = 0.05
# Questions that a process reads at once, with their responses: with five each, one row group of them.
QUESTIONS_READ = 10_000
# Fewer questions are worked on in this process: others take seconds to start.
LEAST_FOR_PROCESSES = 5_000
# Questions whose rows are Python objects at once.
QUESTIONS_HELD = 1_000
# Outcomes that need no demand.
ALWAYS = ("no_answer", "crashed", "low_reward")


def tables_of(params: RewardSelect) -> list[pa.Schema]:
    """The tables that are read for the questions: responses and, where the choice waits for them, rewards."""
    return [RESPONSE, REWARD] if params.waits_for == "rewards" else [RESPONSE]


def rules_of(params: RewardSelect) -> tuple[str, ...]:
    """The rules that can choose with what is read."""
    return tuple(rule for rule in RULES if rule != "reward" or params.waits_for == "rewards")


def same_choices(equal: Mapping[tuple[str, str], int], n: int, rules: Sequence[str] = RULES) -> dict[str, float]:
    """How often two rules take the same response.

    Args:
        equal: by pair of rules, the number of questions for which they do.
        n: number of questions that have a candidate.
        rules: those that were compared.

    Returns:
        By pair of rules (``first_majority``) a share of the questions, in [0, 1].
    """
    return {f"{one}_{other}": rounded(equal[one, other] / max(1, n), 4) for one, other in combinations(rules, 2)}


def steps_of(rows: Sequence[dict[str, Any]]) -> Counter[tuple[int, int]]:
    """Number of questions by their steps of written arithmetic, and how many of these are wrong."""
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        checked, wrong = found.get(row["id"], (0, 0))
        own = check_arithmetic(row["response"])
        found[row["id"]] = checked + own.checked, wrong + own.wrong
    return Counter(found.values())


def arithmetic_of(found: Mapping[tuple[int, int], int]) -> tuple[dict[str, Any], bool]:
    """Steps of written arithmetic, how many are wrong, and whether more than 5% are, by two standard errors.

    The steps of one response are not independent; ``standard_error`` is that of the responses.

    Args:
        found: as from ``steps_of``.
    """
    steps = sum(checked * n for (checked, _), n in found.items())
    wrong = sum(wrong * n for (_, wrong), n in found.items())
    error = ratio_error(found)
    values = {
        "steps": steps,
        "wrong": wrong,
        "wrong_frac": rounded(wrong / steps, 4) if steps else None,
        "standard_error": reported(error),
    }
    known = error if error == error else 0.0
    return values, proportion_above_chance(wrong, steps, TOLERATED, known)


def checkable_outcomes(rows: Sequence[dict[str, Any]]) -> Counter[str]:
    """Outcomes of the answers to questions of plain arithmetic, which a program can answer."""
    known = [(row, value) for row in rows if (value := asked_value(row["question"])) is not None]
    return Counter(compare([str(value) for _, value in known], [row["final_answer"] for row, _ in known]))


def checkable_of(outcomes: Counter[str]) -> tuple[dict[str, Any], bool]:
    """How many answers that a program can check are right, and whether more than 5% are wrong, by two errors."""
    n, right = outcomes.total(), outcomes[RIGHT]
    values = {"n": n, "right": right, "right_frac": rounded(right / n, 4) if n else None}
    return values, proportion_above_chance(n - right, n, TOLERATED)


def _relax(demands: Demands) -> str:
    """What to change where demands dropped everything."""
    return f". Or relax what gives {', '.join(demands.outcomes)} (reward_select)" if demands.outcomes else ""


# ---------------------------------------------------------------------------------------------- a piece of the questions


class Settings(NamedTuple):
    """What decides about a question."""

    params: RewardSelect
    kind: str
    seed: int


@dataclass
class Found:
    """What some questions came to, their training rows apart; parts add up to the whole.

    Attributes:
        counts: numbers of questions and responses, by name.
        dropped: questions without a row, by reason.
        same: questions for which two rules choose alike, by pair of rules.
        steps: as from ``steps_of``, of the training rows.
        outcomes: as from ``checkable_outcomes``, of the training rows.
        programs: responses by what their program came to, where answers are programs.
        values: numbers by name, in the order of the rows.
    """

    counts: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    same: Counter[tuple[str, str]] = field(default_factory=Counter)
    steps: Counter[tuple[int, int]] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    programs: Counter[str] = field(default_factory=Counter)
    values: dict[str, list[float]] = field(default_factory=lambda: {"all": [], "kept": [], "agreement": []})

    def add(self, other: "Found") -> None:
        """Add the next part."""
        for mine, theirs in zip(self._counters(), other._counters(), strict=True):
            mine.update(theirs)
        for name, values in other.values.items():
            self.values[name] += values

    def fold(self) -> None:
        """Keep only the sum of the values: added one by one, so that the parts' sizes change no bit of it."""
        self.values = {name: [sum(values)] for name, values in self.values.items()}

    def _counters(self) -> list[Counter[Any]]:
        return [self.counts, self.dropped, self.same, self.steps, self.outcomes, self.programs]


def select_some(
    questions: Sequence[dict[str, Any]],
    responses: Mapping[str, list[dict[str, Any]]],
    rewards: dict[str, float] | None,
    settings: Settings,
) -> tuple[list[dict[str, Any]], Found]:
    """The training rows of some questions, and what the metrics need.

    Args:
        questions: their rows.
        responses: by question id.
        rewards: by response id; None for a run without rewards, whose rows get null.
        settings: what decides.
    """
    params, kind, seed = settings
    rules = rules_of(params)
    # Equal rewards decide nothing: what the highest would settle goes to the lowest sample.
    compared = (
        dict.fromkeys((row["id"] for rows in responses.values() for row in rows), 0.0) if rewards is None else rewards
    )
    crashed = find_crashes(questions, responses) if params.execute else set()
    found, rows = Found(), []
    if kind == PROGRAMS:  # together, before their answers are asked for one by one
        every = [row["response"] for q in questions for row in responses[q["id"]]]
        found.programs.update(reading.outcome for reading in read_programs(every))
    groups = group_answers(
        kind, {q["id"]: [final_answer(kind, r["response"]) for r in responses[q["id"]]] for q in questions}
    )
    demands, executed = Demands.of(params), params.execute
    for q in questions:
        own, group, draw = responses[q["id"]], groups[q["id"]], row_seed(seed, STAGE, q["id"])
        taken = select_all(
            q, own, compared, params.min_reward, kind, crashed, params.by, draw, group, demands, executed, params.keep
        )
        if isinstance(taken, str):
            found.dropped[taken] += 1
        else:
            rows += taken if rewards is not None else [row | {"reward": None} for row in taken]
            found.counts["kept"] += 1
            found.counts["several"] += len(taken) if len(own) > 1 else 0
            found.counts["alone"] += sum(
                len(own) > 1 and row["agreement"] * len(own) < 1.5 for row in taken
            )  # its answer alone
        if candidates := fulfilling_candidates(own, group, crashed, demands, executed)[0]:
            group_of = {row["id"]: g for row, g in zip(own, group, strict=True)}
            chosen = {rule: choose(rule, candidates, compared, group_of, draw)["id"] for rule in rules}
            found.counts["with_candidates"] += 1
            found.same.update(pair for pair in combinations(rules, 2) if chosen[pair[0]] == chosen[pair[1]])
    found.counts.update(
        questions=len(questions),
        rows=len(rows),
        crashed=len(crashed),
        candidates=sum(row["n_candidates"] for row in rows),
    )
    found.values |= {
        "kept": [r["reward"] for r in rows if rewards is not None],
        "agreement": [r["agreement"] for r in rows],
    }
    if kind in ("maths", PROGRAMS):
        found.outcomes = checkable_outcomes(rows)
    if kind == "maths":
        found.steps = steps_of(rows)
    return rows, found


_settings: Settings | None = None


def _start(settings: Settings) -> None:
    global _settings
    _settings = settings


def _start_process(settings: Settings) -> None:
    """Prepare one of several processes: each compares formulas in one process of its own, which ends with it."""
    _start(settings)
    comparing.PROCESSES = 1
    Finalize(None, comparing.close_pools, exitpriority=100)


def select_piece(piece: Piece) -> tuple[pa.Table, Found]:
    """The training rows of a piece, read here, and what the metrics need."""
    assert _settings is not None
    questions, (responses, *scored) = piece.read(tables_of(_settings.params), "question_id")
    ids = questions["id"]
    rewards = None
    for scores in scored:
        rewards = dict(zip(scores["id"].to_pylist(), scores["reward"].to_pylist(), strict=True))
    at: dict[str, list[int]] = {row_id: [] for row_id in ids.to_pylist()}
    for place, question in enumerate(responses["question_id"].to_pylist()):
        at[question].append(place)
    tables, whole = [INSTRUCTION.empty_table()], Found()
    for start in range(0, piece.rows, QUESTIONS_HELD):
        some = questions.slice(start, QUESTIONS_HELD).to_pylist()
        taken = responses.take(pa.array([place for q in some for place in at[q["id"]]], pa.int64())).to_pylist()
        if rewards is not None and (missing := [row["id"] for row in taken if row["id"] not in rewards]):
            raise UserError(
                f"reward of response '{missing[0]}': none ({len(missing)} of {len(taken)} have none). Expected one per response. Rerun: "
                "dvc repro reward"
            )
        own: dict[str, list[dict[str, Any]]] = {q["id"]: [] for q in some}
        for row in taken:
            own[row["question_id"]].append(row)
        rows, found = select_some(some, own, rewards, _settings)
        tables.append(table(rows, INSTRUCTION))
        whole.add(found)
    whole.values["all"] = list((rewards or {}).values())
    whole.counts["rewards"] = len(rewards or {})
    return pa.concat_tables(tables), whole


# --------------------------------------------------------------------------------------------------------- all of them


def select_pieces(work: Sequence[Piece], settings: Settings, processes: int) -> Iterator[tuple[pa.Table, Found]]:
    """What each piece came to, in order. The number of processes changes only the time."""
    if settings.params.execute or settings.kind == PROGRAMS or sum(piece.rows for piece in work) < LEAST_FOR_PROCESSES:
        processes = 1  # the sandbox has processes of its own
    start = _start if processes < 2 or len(work) < 2 else _start_process
    return map_tasks(select_piece, work, processes, start, (settings,))


def selected(found: Found, parts: Iterator[tuple[pa.Table, Found]], demands: Demands) -> Iterator[pa.Table]:
    """The training rows of all parts; what the metrics need is added to ``found``.

    Raises:
        UserError: no question is left.
    """
    for rows, part in parts:
        found.add(part)
        found.fold()
        yield rows
    if not found.counts["kept"]:
        raise UserError(
            f"no question is left after reward_select: of {found.counts['questions']}, {dict(found.dropped)}. Expected at least one. "
            "Raise respond.max_tokens or n_samples, lower reward_select.min_reward, or use a solver that answers in the form that its "
            f"prompt asks for (a box, a Python block){_relax(demands)}"
        )


def mean_rewards(sums: Mapping[str, float], kept: int, scored: int) -> dict[str, Any]:
    """Mean reward of the ``kept`` rows and of all ``scored`` responses; nothing where no response was scored."""
    if not scored:
        return {}
    return {"mean_reward": {"kept": rounded(sums["kept"] / kept, 4), "all": rounded(sums["all"] / scored, 4)}}


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Select for every question."""
    consent(run.params.runtime.sandbox)
    kind = kind_of_answers(wording(run.params.domain), run.params.respond.form)
    settings = Settings(run.params.reward_select, kind, run.params.seed)
    paths = (args.responses, args.rewards)
    tables = [row_groups(path, schema) for path, schema in zip(paths, tables_of(settings.params), strict=False)]
    ids = read_table(args.questions, FILTERED, ["id"])["id"]
    work, found = pieces(row_groups(args.questions, FILTERED), ids, tables, "question_id", QUESTIONS_READ), Found()
    demands = Demands.of(settings.params)
    write_stream(args.out, selected(found, select_pieces(work, settings, cores()), demands), INSTRUCTION)
    counts, sums = found.counts, {name: sum(values) for name, values in found.values.items()}
    n, several, alone = counts["rows"], counts["several"], counts["alone"]
    metrics: dict[str, Any] = {
        "questions": counts["questions"],
        "kept": counts["kept"],
        "dropped": {name: found.dropped[name] for name in (*ALWAYS, *demands.outcomes)},
        "crashed_responses": counts["crashed"],
        **mean_rewards(sums, n, counts["rewards"]),
        "mean_agreement": rounded(sums["agreement"] / n, 4),
        "agrees_with_none": {"n": alone, "frac": rounded(alone / several, 4) if several else None},
        "mean_candidates": rounded(counts["candidates"] / n, 4),
        "same_choice": same_choices(found.same, counts["with_candidates"], rules_of(settings.params)),
    }
    warnings = {"no_agreement": proportion_above_chance(alone, several, 0.5)}
    if settings.params.keep != "best":
        metrics["rows"] = n
    if kind == PROGRAMS:
        metrics["programs"] = {name: found.programs[name] for name in PROGRAM_OUTCOMES}
    if kind == "maths":
        metrics["arithmetic"], warnings["wrong_arithmetic"] = arithmetic_of(found.steps)
    if kind in ("maths", PROGRAMS):
        metrics["checkable"], warnings["wrong_checkable"] = checkable_of(found.outcomes)
    run.metrics(args.metrics, metrics, warnings)


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("questions", "responses", "rewards", "out", "metrics"))
