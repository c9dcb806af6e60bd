"""Run one stage of a recorded run again, in a folder of its own, with some of its shards computed and the others read.

A stage file runs unchanged: its command line, its reading, its prompts, its seeds and its cut into shards. Only the place
where it would start an engine is ours. There the drawn shards are computed, and of all other rows the recorded completion
is handed back. So the rest of the stage (verdicts, parsing, counts) is computed anew for every row.

    python -P -m scalequest.audit.rerun SPECS.json     # one process per engine; `scalequest verify --replay` starts it
"""

import argparse
import contextlib
import logging
import os
import runpy
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scalequest.errors import UserError
from scalequest.io import read_json, write_json
from scalequest.params import PARAMS_FILE, load_all
from scalequest.records import COMPLETION, QUESTION, SCORED, table
from scalequest.runtime import stage as runtime
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.threads import limit_spinning
from scalequest.runtime.workers import Shards, Work, work_here
from scalequest.sampling.completion import Completion
from scalequest.sampling.questions import question_rows
from scalequest.sampling.score import text_key
from scalequest.seeding import row_seed

# Finish reason of a row that is neither computed nor recorded: it is left out of the comparison.
NOT_KNOWN = "not_known"


@dataclass(frozen=True)
class Spec:
    """What to run again.

    Attributes:
        stage: DVC's name.
        command: words of the stage's command in ``dvc.lock``.
        folder: where to run; the inputs are there under their own paths.
        params: dotted names of the parameters that the stage may read.
        deps: path to hash of what it read.
        drawn: numbers of the shards to compute.
        recorded: Parquet files of what the stage wrote, for the rows that are not computed.
        steps: of a training: how many optimizer steps to take.
        plan: only cut the shards, start no engine.
        result: file for the ``Rerun``.
    """

    stage: str
    command: list[str]
    folder: str
    params: list[str]
    deps: dict[str, str]
    drawn: list[int] = field(default_factory=list)
    recorded: list[str] = field(default_factory=list)
    steps: int = 0
    plan: bool = False
    result: str = ""


@dataclass
class Rerun:
    """What came of it.

    Attributes:
        shards: items per shard, in the stage's own cut; empty where the stage asked no model.
        rows: items computed.
        tokens: generated or read for them.
        keys: for each drawn shard the ids of the rows computed, where rows have a seed.
        curve: of a training: the first steps, under the names of its plot.
        seconds: of all of it, the engine's start included.
        refused: why it could not be run again.
    """

    shards: list[int] = field(default_factory=list)
    rows: int = 0
    tokens: int = 0
    keys: list[str] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    refused: str = ""


class Enough(BaseException):
    """Everything that was asked for is known; no stage catches this."""


@dataclass
class Replayed(runtime.StageRun):
    """A stage's run in which only the drawn shards are computed."""

    spec: Spec | None = None
    found: Rerun = field(default_factory=Rerun)

    def work(
        self,
        start: Callable[[], Work],
        shards: Shards,
        schema: pa.Schema,
        environment: Mapping[str, str],
        gpus_per_engine: int = 1,
    ) -> Iterator[tuple[int, pa.Table, int]]:
        """Yield number, rows and tokens of each shard: computed where it is drawn, else from what is recorded."""
        assert self.spec is not None
        cut = list(shards)
        self.found.shards = [len(items) for _, _, items in cut]
        if self.spec.plan:
            raise Enough
        drawn = [shard for place, shard in enumerate(cut) if place in self.spec.drawn]
        recorded = {} if schema == SCORED else recorded_completions(self.spec.recorded)
        seeds = {row_seed(self.params.seed, self.name, key): key for key in recorded} if schema == COMPLETION else {}
        for place, (number, seed, items) in enumerate(cut):
            if place not in self.spec.drawn:
                yield number, table(self._recorded_rows(schema, number, seed, items, recorded, seeds), schema), 0
        for number, data, tokens in work_here(start, drawn, schema):
            self.found.rows += data.num_rows
            self.found.tokens += tokens
            if schema == QUESTION:
                self.found.keys += data["id"].to_pylist()
            yield number, data, tokens
        if schema == COMPLETION:
            self.found.keys += [seeds[item.seed] for _, _, items in drawn for item in items if item.seed in seeds]

    def _recorded_rows(
        self,
        schema: pa.Schema,
        number: int,
        seed: int,
        items: Sequence[Any],
        recorded: dict[str, dict[str, Any]],
        seeds: dict[int, str],
    ) -> list[dict[str, Any]]:
        assert self.spec is not None
        missing = {"text": "", "finish_reason": NOT_KNOWN, "n_tokens": 0}
        if schema == QUESTION:
            generator = str(next(value for key, value in _options(self.spec.command) if key == "generator"))
            known = [recorded.get(f"{generator}/{number}/{row}", missing) for row in range(len(items))]
            return question_rows(generator, len(items), number, seed, [], lambda *_: [Completion(**row) for row in known])  # fmt: skip
        if schema == COMPLETION:
            return [{"key": item.key, **recorded.get(seeds.get(item.seed, ""), missing)} for item in items]
        assert schema == SCORED, schema
        # A score is compared where it is computed; not a number marks the others.
        return [{"key": text_key(item), "score": float("nan")} for item in items]

    def metrics(self, path: Path, values: dict[str, Any], warnings: dict[str, bool] | None = None) -> None:
        """Write the numbers as the stage would; not where rows are left out, so that some are no numbers."""
        flags = {"warnings": {name: int(up) for name, up in warnings.items()}} if warnings else {}
        with contextlib.suppress(ValueError):
            write_json(path, values | flags)


def recorded_completions(files: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Request id to ``text``, ``finish_reason`` and ``n_tokens`` (0 where it is not kept), of a table that a stage wrote."""
    found: dict[str, dict[str, Any]] = {}
    for file in files:
        for row in pq.read_table(file).to_pylist():
            if "problem_id" in row:  # an attempt
                key = f"{row['problem_id']}#{row['sample']}"
            else:  # a response and a question have their request's id; a judgement and a rewrite are sample 0 of a row
                key = row["id"] if "sample" in row or "seed" in row else f"{row['id']}#0"
            text = row["completion"] if "completion" in row else row["response"]
            found[key] = {"text": text, "finish_reason": row["finish_reason"], "n_tokens": row.get("n_tokens", 0)}
    return found


def _options(command: Sequence[str]) -> list[tuple[str, str]]:
    """Option names and values of a stage's command."""
    words = list(command)
    return [(word.removeprefix("--"), words[at + 1]) for at, word in enumerate(words[:-1]) if word.startswith("--")]


def rerun(spec: Spec) -> Rerun:
    """Run a stage again in this process, in ``spec.folder``, and return what came of it; files it writes stay there."""
    found, started = Rerun(), time.monotonic()
    position = spec.command.index("-m")
    module, arguments = spec.command[position + 1], spec.command[position + 2 :]

    def again(main: Any, doc: str | None, paths: Sequence[str], names: Sequence[str] = ()) -> None:
        """Take the place of ``run_stage``: the same arguments and parameters, without DVC, tracking and exit."""
        parser = argparse.ArgumentParser(description=doc)
        for name in (*paths, *names):
            parser.add_argument(f"--{name.replace('_', '-')}", type=Path if name in paths else str, required=True)
        params = load_all(Path(PARAMS_FILE))
        runtime_here = params.runtime.model_copy(update={"engine": "local", "accelerate": None, "mlflow": False})
        params = params.model_copy(update={"runtime": runtime_here})
        facts = StageFacts(spec.stage, Path.cwd(), spec.deps, dict.fromkeys(spec.params))
        main(
            parser.parse_args(arguments), Replayed(runtime.Declared(params, spec.params), facts, spec=spec, found=found)
        )

    original = runtime.run_stage
    try:
        with contextlib.chdir(spec.folder), stopped_after(spec.steps, found):
            runtime.run_stage = again
            with contextlib.suppress(Enough):
                runpy.run_module(module, run_name="__main__")
    except UserError as error:
        found.refused = str(error)
    finally:
        runtime.run_stage = original
    found.seconds = time.monotonic() - started
    return found


@contextlib.contextmanager
def stopped_after(steps: int, found: Rerun) -> Iterator[None]:
    """End a training after ``steps`` optimizer steps, under the schedule of the whole one, and keep their curve; 0 = not."""
    if not steps:
        yield
        return
    import transformers

    from scalequest.training.job import Trained

    train = transformers.Trainer.train

    class Stop(transformers.TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step >= steps or state.global_step >= state.max_steps:
                found.curve = Trained({}, [entry for entry in state.log_history if "loss" in entry]).steps()
                raise Enough

    def stopping(trainer: Any, *arguments: Any, **named: Any) -> Any:
        trainer.add_callback(Stop())
        return train(trainer, *arguments, **named)

    setattr(transformers.Trainer, "train", stopping)  # noqa: B010 (types forbid the plain assignment)
    try:
        yield
    finally:
        setattr(transformers.Trainer, "train", train)  # noqa: B010


def main() -> None:
    """Run the specs of a file one after another, and write each one's result."""
    limit_spinning(os.environ)
    os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
    for values in read_json(Path(sys.argv[1])):
        spec = Spec(**values)
        write_json(Path(spec.result), asdict(rerun(spec)))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # vLLM and torch leave threads that can stall the interpreter's exit


if __name__ == "__main__":
    main()
