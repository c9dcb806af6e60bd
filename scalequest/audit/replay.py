"""Run a random part of a recorded run again on this machine, and compare it with what the run wrote.

Hashes say that files are those of the lock. They do not say that code, models and seeds make them: rows, lock, counts and
hashes that are changed together hold in every other check. Here they do not. A shard is drawn by chance, so whoever
changes a row cannot know whether it will be computed again.

What needs no model is done again whole: seeds, filters, and every column that a stage derives from a completion.
"""

import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import md5
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scalequest.audit.facts import environment_of
from scalequest.audit.lock import PARAMS, Lock, Stage
from scalequest.audit.repository import Repository
from scalequest.audit.rerun import NOT_KNOWN, Rerun, Spec
from scalequest.audit.tables import Store, pull_command
from scalequest.errors import UserError
from scalequest.io import read_json
from scalequest.runtime.facts import environment

# Stages that ask a model about rows, with the command's option that names it.
SAMPLED = {
    "qpo_questions": "model", "preferences": "optimizer", "generate": "model", "judge": "model",
    "difficulty_labels": "model", "difficulty": "model", "respond": "model", "reward": "model",
}  # fmt: skip
# Trainings, of which the first steps are taken again.
TRAINED = ("solver", "qft", "qpo", "difficulty_model", "reward_model", "instruct_tune")
# Stages without a model, run again whole.
WHOLE = ("seeds", "benchmarks", "screen", "filter", "reward_select")
STEPS = 3
# What two machines may differ by, relative to the value and at least to 1: scores and losses are sums of many products.
ROUNDING = {"float32": 1e-3, "bfloat16": 3e-2}
# Numbers of the metrics that depend on rows which no table keeps (the judge's calibration), and the warnings about them.
NOT_COMPARED = ("calibration", "warnings")

# For the price on a CPU, per core: measured with 135M parameters on two cores (benchmarks/README.md: 230 generated
# tokens/s, 28 s until an engine answers; LOG.md: 1.1 training steps of 2 sequences per second).
START_S, GENERATED_PER_S, TRAINED_PER_S, MEASURED_PARAMETERS = 28.0, 115.0, 150.0, 0.135e9
# On a GPU: scalequest/run/gpus.yaml, an H100 and the same model.
GPU_START_S, GPU_PER_S = 50.0, 21_700.0
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Unit:
    """What is drawn: one shard of a stage that asks a model, or the first steps of a training (``shard`` None).

    Attributes:
        rows: items of the shard, or sequences of the steps.
        tokens: to generate, read or train, about.
    """

    stage: str
    shard: int | None
    rows: int
    tokens: int

    def __str__(self) -> str:
        return f"{self.stage}, first {STEPS} steps" if self.shard is None else f"{self.stage}, shard {self.shard}"


@dataclass
class Plan:
    """What could be replayed, what was drawn, and what cannot be."""

    units: list[Unit]
    drawn: list[Unit]
    seed: int
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def chance(self, changed: int = 1) -> float:
        """Probability that at least one of ``changed`` changed units is among the drawn."""
        n, k = len(self.units), len(self.drawn)
        return 1 - math.comb(n - changed, k) / math.comb(n, k) if changed <= n - k else 1.0


@dataclass
class Compared:
    """One stage's comparison: values compared, and what differs."""

    stage: str
    what: str
    rows: int
    differs: list[str]
    largest: float = 0.0


def wanted_units(text: str, total: int) -> int:
    """Number of units for ``1%`` or ``3``, at least 1.

    Raises:
        UserError: it is neither a share nor a count.
    """
    try:
        share = text.endswith("%")
        value = float(text[:-1]) if share else int(text)
        if not 0 < value <= (100 if share else math.inf):
            raise ValueError(text)
    except ValueError:
        raise UserError(f"--replay {text}: expected a share above 0% and up to 100%, such as 1%, or a number of shards, such as 3") from None  # fmt: skip
    return min(total, max(1, math.ceil(total * value / 100 - 1e-9) if share else int(value)))


def draw_units(units: Sequence[Unit], amount: str, seed: int) -> list[Unit]:
    """Units drawn by ``seed``, each equally likely, in the order of ``units``; see ``wanted_units``."""
    places = random.Random(seed).sample(range(len(units)), wanted_units(amount, len(units)))
    return [units[place] for place in sorted(places)]


def start_process(specs: Sequence[Spec], root: Path) -> None:
    """Run specs in a process of their own, because a process can start one engine only.

    Raises:
        UserError: the process failed; its last lines are in the message.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump([asdict(spec) for spec in specs], file)
        file.flush()
        command = [sys.executable, "-P", "-m", "scalequest.audit.rerun", file.name]
        # The folder of the rerun holds data under the repository's paths; code comes from the repository.
        surroundings = {k: v for k, v in os.environ.items() if not k.startswith("DVC_")} | {"PYTHONPATH": str(root)}
        result = subprocess.run(command, cwd=root, env=surroundings, capture_output=True, text=True, check=False)
    if result.returncode:
        raise UserError(f"replay of {', '.join(spec.stage for spec in specs)} ended with {result.returncode}: {result.stderr.strip()[-2000:]}")  # fmt: skip


class Replay:
    """Draws and replays parts of one lock.

    Attributes:
        run: runs specs and leaves their results; another process by default.
    """

    def __init__(
        self,
        repository: Repository,
        lock: Lock,
        store: Store,
        folder: Path,
        run: Callable[[Sequence[Spec], Path], None] | None = None,
    ) -> None:
        self.repository, self.lock, self.store, self.folder, self.run = (
            repository,
            lock,
            store,
            folder,
            run or start_process,
        )
        self._number = 0

    # ------------------------------------------------------------------------------------------------------------ plan

    def plan(self, amount: str, seed: int) -> Plan:
        """Cut every stage as it was cut, and draw units by ``seed``; starts no engine.

        Raises:
            UserError: nothing can be replayed.
        """
        skipped = {name: why for name, stage in self.lock.stages.items() if (why := self._not_replayable(stage))}
        sampled = [s for s in self.lock.stages.values() if s.base in SAMPLED and s.name not in skipped]
        specs = [self._spec(stage, plan=True) for stage in sampled]
        self.run(specs, self.repository.root)
        units = []
        for stage, spec in zip(sampled, specs, strict=True):
            found = Rerun(**read_json(Path(spec.result)))
            if found.refused:
                skipped[stage.name] = found.refused
            each = self._tokens_per_row(stage)
            units += [Unit(stage.name, n, rows, round(rows * each)) for n, rows in enumerate(found.shards)]
        for stage in self.lock.stages.values():
            if stage.base in TRAINED and stage.name not in skipped:
                rows = STEPS * int(stage.params[f"{stage.base}.batch_size"])
                units.append(Unit(stage.name, None, rows, round(rows * self._tokens_per_row(stage))))
        if not units:
            why = next((why for why in skipped.values() if not why.startswith("not replayed")), "")
            raise UserError(
                "replay: no stage of dvc.lock asked or trained a model that can be run again"
                + (f": {why}" if why else "; run: dvc repro")
            )
        drawn = draw_units(units, amount, seed)
        return Plan(units, drawn, seed, skipped, sum(self._seconds(name, drawn) for name in {u.stage for u in drawn}))

    def _not_replayable(self, stage: Stage) -> str:
        """Why a stage is not replayed; empty where it is, or where there is nothing to replay."""
        if stage.name in self.lock.unused:
            return "the run did without rewards (reward_select.waits_for: responses)"
        if stage.base in TRAINED:
            if stage.params.get(f"{stage.base}.method") == "none":
                return "no training: the model is used as it was fetched"
            if not self._curve(stage):
                return "its loss curve is not recorded"
        elif stage.base in ("qpo_questions", "preferences") and any(
            key.startswith(f"own.preferences.{stage.option('generator')}.") for key in stage.params
        ):
            return "a user brought its pairs (own.preferences), and no model was asked"
        elif stage.base == "preferences" and stage.params.get("preferences.source") == "solver":
            return "its pairs depend on all questions, so a part cannot be made again"
        elif stage.base in SAMPLED and (role := behind_endpoint(stage)):
            return f"the {role} is behind an endpoint; its answers are kept, not made again"
        elif stage.base in ("seeds", "benchmarks"):
            kinds = {value for key, value in stage.params.items() if key.endswith(".kind")}
            if kinds - {"reasoning_gym"}:
                return f"it reads sources outside the repository ({', '.join(sorted(kinds - {'reasoning_gym'}))})"
        elif stage.base not in (*SAMPLED, *WHOLE):
            return "not replayed: its outputs are checked by their hashes only"
        read = [out for dep in stage.deps for _, out in self.lock.makers(dep.path)]
        kept = [out for out in stage.outs if stage.base not in TRAINED and not out.path.endswith((".json", ".csv"))]
        lost = dict.fromkeys(out.path for out in (*read, *kept) if not self.store.has(out, self.lock.revision))
        if not lost:
            return ""
        pull = pull_command(self.store.repository.root, self.lock.revision, list(lost))
        return f"{', '.join(lost)} of this lock is not here; run: {pull}"

    def _curve(self, stage: Stage) -> list[dict[str, str]]:
        """Rows of a training's recorded loss curve; empty where its bytes are not those of the lock."""
        out = stage.out(stage.option("plot") or "")
        content = self.repository.read(self.lock.revision, out.path) if out else None
        if not out or content is None or md5(content).hexdigest() != out.md5:
            return []
        head, *lines = content.decode().split()
        return [dict(zip(head.split(","), line.split(","), strict=True)) for line in lines]

    def _tokens_per_row(self, stage: Stage) -> float:
        """About how many tokens one row costs: as recorded, else by the length of its text."""
        if stage.base in TRAINED:
            out = stage.out(stage.option("metrics") or "")
            values = json.loads(self.repository.read(self.lock.revision, out.path) or b"{}") if out else {}
            return float(values.get("tokens", 0)) / max(1, values.get("examples", 1))
        files = self._files(stage, "out")
        names = set(pq.read_schema(files[0]).names) if files else set()
        text = next((name for name in ("completion", "response") if name in names), None)
        if "n_tokens" in names:
            return float(pc.mean(_read(files, ["n_tokens"])["n_tokens"]).as_py() or 0)
        if text:
            return float(pc.mean(pc.utf8_length(_read(files, [text])[text])).as_py() or 0) / CHARACTERS_PER_TOKEN
        return 64.0  # a question or a response that is read

    def _seconds(self, name: str, drawn: Sequence[Unit]) -> float:
        """About how long the drawn units of one stage take here."""
        stage = self.lock.stages[name]
        tokens = sum(unit.tokens for unit in drawn if unit.stage == name)
        model = next((dep for dep in stage.deps if dep.path == (stage.option(SAMPLED.get(stage.base, "base")))), None)
        size = max(1.0, (model.size or 0) / 4 / MEASURED_PARAMETERS) if model else 1.0
        if any(line.startswith("gpu: ") for line in environment()):
            return GPU_START_S + tokens * size / GPU_PER_S
        rate = (GENERATED_PER_S if stage.base in SAMPLED else TRAINED_PER_S) * (os.cpu_count() or 1)
        return START_S + tokens * size / rate

    # ------------------------------------------------------------------------------------------------------------- run

    def compare(self, plan: Plan) -> Iterator[Compared]:
        """Run what was drawn and what needs no model, and compare each stage with its record, upstream first."""
        drawn = {unit.stage for unit in plan.drawn}
        stages = [stage for stage in self.lock.order() if stage.name not in plan.skipped]
        free = [s for s in stages if s.base in WHOLE or (s.base in SAMPLED and s.name not in drawn)]
        specs = {stage.name: self._spec(stage) for stage in free}
        self.run(list(specs.values()), self.repository.root)
        for stage in stages:
            if stage.name in drawn:
                shards = [u.shard for u in plan.drawn if u.stage == stage.name and u.shard is not None]
                spec = self._spec(stage, drawn=shards, steps=0 if shards else STEPS)
                self.run([spec], self.repository.root)
                yield self._compared(stage, spec)
            elif stage.name in specs:
                yield self._compared(stage, specs[stage.name])

    def _spec(self, stage: Stage, **more: Any) -> Spec:
        """A folder with the stage's inputs as links, and what to do there."""
        self._number += 1
        folder = self.folder / f"{self._number}-{stage.name}"
        folder.mkdir(parents=True)
        (folder / PARAMS).write_bytes(self.repository.read(self.lock.revision, PARAMS) or b"")
        for dep in stage.deps:
            for _, out in self.lock.makers(dep.path):
                for name, path in self.store.files(out, self.lock.revision).items():
                    link = folder / out.path / name if name else folder / out.path
                    link.parent.mkdir(parents=True, exist_ok=True)
                    if not link.is_symlink():
                        link.symlink_to(path.resolve())
        deps = {dep.path: dep.md5 for dep in stage.deps}
        recorded = [str(path) for path in self._files(stage, "out")] if stage.base in SAMPLED else []
        result = str(self.folder / f"{self._number}.json")
        return Spec(stage.name, stage.cmd.split(), str(folder), list(stage.params), deps, recorded=recorded, result=result, **more)  # fmt: skip

    def _files(self, stage: Stage, option: str) -> list[Path]:
        """The recorded Parquet files of an output, in order."""
        out = stage.out(stage.option(option) or "")
        files = self.store.files(out, self.lock.revision) if out else {}
        return [files[name].resolve() for name in sorted(files)]

    # --------------------------------------------------------------------------------------------------------- compare

    def _compared(self, stage: Stage, spec: Spec) -> Compared:
        found = Rerun(**read_json(Path(spec.result)))
        if found.refused:
            return Compared(stage.name, "stops where the recorded run went on", 0, [found.refused])
        tolerance = ROUNDING[str(stage.params.get("engine.dtype", "float32"))]
        if spec.steps:
            return self._same_curve(stage, found, tolerance)
        what = f"shard {', '.join(map(str, spec.drawn))} again" if spec.drawn else "without a model"
        result = Compared(stage.name, what, found.rows, [])
        for out in stage.outs:
            made = Path(spec.folder) / out.path
            if out.path == stage.option("metrics"):
                if not result.differs and made.is_file():
                    result.differs += self._same_metrics(out.path, made, tolerance)
            elif (files := self._parquet(made)) is not None:
                recorded = self.store.files(out, self.lock.revision)
                old, new = (_read(side) for side in ([recorded[n] for n in sorted(recorded)], files))
                differs, largest = same_rows(old, new, tolerance)
                result.differs += [f"{out.path}: {line}" for line in differs]
                result.largest, result.rows = max(result.largest, largest), result.rows or old.num_rows
            elif made.exists():
                recorded = self.store.files(out, self.lock.revision)
                inside = {p.relative_to(made).as_posix(): p for p in made.rglob("*") if p.is_file()} or {"": made}
                result.differs += [f"{out.path}/{name}: other bytes" for name in sorted(recorded.keys() | inside.keys()) if not _same_bytes(recorded.get(name), inside.get(name))]  # fmt: skip
        return result

    @staticmethod
    def _parquet(made: Path) -> list[Path] | None:
        """Parquet files that a rerun wrote at an output's path; None where it is no table."""
        files = sorted(made.rglob("*")) if made.is_dir() else [made] if made.is_file() else []
        return files if files and all(file.suffix == ".parquet" for file in files) else None

    def _same_metrics(self, path: str, made: Path, tolerance: float) -> list[str]:
        content = self.repository.read(self.lock.revision, path)
        old, new = json.loads(content or b"{}"), read_json(made)
        for values in (old, new):
            for name in NOT_COMPARED:
                values.pop(name, None)
        return [f"{path}: {line}" for line in _unequal(old, new, tolerance)]

    def _same_curve(self, stage: Stage, found: Rerun, tolerance: float) -> Compared:
        recorded = self._curve(stage)
        result = Compared(stage.name, f"first {len(found.curve)} of {len(recorded)} steps again", 0, [])
        for old, new in zip(recorded, found.curve, strict=False):
            result.rows += 1
            for name, text in old.items():
                if not text or name not in new:
                    continue
                apart = _apart(float(text), new[name])
                result.largest = max(result.largest, apart)
                if apart > tolerance:
                    result.differs.append(
                        f"step {old['step']}: {name} is recorded as {text}, here it is {new[name]:.6g}"
                    )
        if not found.curve:
            result.differs.append("the training ended before its first step")
        return result


# ----------------------------------------------------------------------------------------------------------- values


def behind_endpoint(stage: Stage) -> str:
    """The role that the stage asks over the network; empty where its model is here."""
    roles = {
        name.removeprefix("models."): str(value) for name, value in stage.params.items() if name.startswith("models.")
    }
    return next((role for role, source in roles.items() if source.startswith("api:")), "")


def _apart(old: float, new: float) -> float:
    """Difference relative to the old value, and to 1 where that is larger."""
    return abs(old - new) / max(1.0, abs(old))


def _unequal(old: Any, new: Any, tolerance: float, name: str = "") -> list[str]:
    """Places of nested metrics that differ by more than rounding."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [line for key in keys for line in _unequal(old.get(key), new.get(key), tolerance, f"{name}.{key}".lstrip("."))]  # fmt: skip
    if isinstance(old, float) and isinstance(new, float | int):
        return [] if _apart(old, new) <= tolerance else [f"{name} is recorded as {old}, here it is {new}"]
    return [] if old == new else [f"{name} is recorded as {old}, here it is {new}"]


def _read(files: Sequence[Path], columns: list[str] | None = None) -> pa.Table:
    return pa.concat_tables([pq.read_table(file, columns=columns) for file in files])


def _same_bytes(one: Path | None, two: Path | None) -> bool:
    return one is not None and two is not None and one.read_bytes() == two.read_bytes()


def row_names(rows: pa.Table) -> list[str]:
    """Each row's name: its id, of an attempt its problem and sample."""
    if "id" in rows.column_names:
        return list(rows["id"].to_pylist())
    return [f"{problem}#{k}" for problem, k in zip(rows["problem_id"].to_pylist(), rows["sample"].to_pylist(), strict=True)]  # fmt: skip


def same_rows(old: pa.Table, new: pa.Table, tolerance: float) -> tuple[list[str], float]:
    """What differs between the recorded rows and those made here, and the largest difference of a number.

    Rows that were neither computed nor recorded are left out: their finish reason is ``NOT_KNOWN``, or their score no number.

    Returns:
        One line per column that differs (the number of rows and the first one), and a relative difference.
    """
    if old.column_names != new.column_names:
        return [f"columns {old.column_names} are recorded, here they are {new.column_names}"], 0.0
    names, made = row_names(old), row_names(new)
    if names != made:
        lost, more = sorted(set(made) - set(names)), sorted(set(names) - set(made))
        first = f"{lost[0]} is not recorded" if lost else f"{more[0]} is not made" if more else "the order is another"
        return [f"{len(names)} rows are recorded, {len(made)} are made here; {first}"], 0.0
    known = [True] * len(names)
    if "finish_reason" in new.column_names:
        known = [reason != NOT_KNOWN for reason in new["finish_reason"].to_pylist()]
    lines, largest = [], 0.0
    for column in old.column_names:
        pairs = zip(names, old[column].to_pylist(), new[column].to_pylist(), known, strict=True)
        differing = []
        for name, a, b, counts in pairs:
            if not counts or a == b or (isinstance(b, float) and math.isnan(b)):
                continue
            if isinstance(a, float) and isinstance(b, float):
                apart = _apart(a, b)
                largest = max(largest, apart)
                if apart <= tolerance:
                    continue
            differing.append((name, a, b))
        if differing:
            name, a, b = differing[0]
            lines.append(
                f"{column} of {len(differing)} rows, the first is {name}: recorded {_short(a)}, here {_short(b)}"
            )
    return lines, largest


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# ----------------------------------------------------------------------------------------------------------- command


def other_machine(repository: Repository, lock: Lock, names: Sequence[str]) -> str:
    """How the machine and packages of these stages' runs differ from the ones here; empty where they do not."""
    here = environment()
    there = [line for name in names for line in environment_of(repository, lock, lock.stages[name])]
    other = sorted({line for line in there if line not in here})
    return f"recorded with {', '.join(other)}; here {', '.join(line for line in here if line.split(':')[0].split('==')[0] in {o.split(':')[0].split('==')[0] for o in other})}" if other else ""  # fmt: skip


def plan_lines(plan: Plan) -> list[str]:
    """The plan and its price, for the terminal, before anything starts."""
    rows, tokens = (sum(getattr(unit, name) for unit in plan.drawn) for name in ("rows", "tokens"))
    return [
        f"replay: {len(plan.drawn)} of {len(plan.units)} shards and trainings, drawn by --seed {plan.seed}",
        *(f"  {unit}: {unit.rows} rows, about {unit.tokens:,} tokens" for unit in plan.drawn),
        "  and without a model, whole: seeds, filters, and what is read out of each completion",
        f"price: {rows:,} rows, about {tokens:,} tokens, about {plan.seconds:,.0f} s on this machine",
    ]


def chance_line(plan: Plan) -> str:
    """What the draw would have found."""
    several = min(10, len(plan.units))
    return (
        f"A change in one of the {len(plan.units)} is found with a probability of {plan.chance():.1%}, "
        f"in {several} of them with {plan.chance(several):.1%}."
    )
