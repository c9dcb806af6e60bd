"""Show some prompts of a stage and what its model makes of them, before a long run. Nothing is written.

    scalequest preview judge                # the first instance of a stage that has several
    scalequest preview generate@sums -n 10

The stage runs as `dvc repro` would run it: with its model, its inputs in the workspace and params.yaml as it is now. It ends
after these rows. Where each row has a seed of its own (all stages but `qpo_questions` and `generate`), the answers are those
that the run will get. Stages that score (`difficulty`, `reward`) show what is read and its score. An endpoint is paid for
these requests.
"""

import argparse
import contextlib
import os
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa

import scalequest.runtime.stage as runtime
from scalequest.audit.lock import LOCK
from scalequest.errors import UserError
from scalequest.io import read_whole
from scalequest.params import Sampling, load_all
from scalequest.records import SCORED
from scalequest.runtime.progress import Progress
from scalequest.runtime.threads import limit_spinning
from scalequest.runtime.workers import Shards, Work
from scalequest.sampling.completion import Completion
from scalequest.sampling.remote import Remote, Turns

# The stages that ask a model about rows.
STAGES = (
    "qpo_questions",
    "preferences",
    "generate",
    "judge",
    "difficulty_labels",
    "preference_check",
    "difficulty",
    "respond",
    "reward",
)
RULE = "─" * 88


@dataclass(frozen=True)
class Found:
    """A stage as dvc.yaml has it.

    Attributes:
        name: DVC's.
        command: words after ``python -m``, the module first.
        outs: paths that it would write.
    """

    name: str
    command: list[str]
    outs: frozenset[str]


class Shown(BaseException):
    """All that was asked for has been shown; no stage catches this."""


@dataclass
class Previewed(runtime.StageRun):
    """A stage's run that asks its model about ``n`` rows, shows them and ends."""

    stage: str = ""
    n: int = 5
    show: Callable[[str], None] = print
    totals: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        """DVC's name, which is part of each row's seed."""
        return self.stage

    def progress(self, total: int, resumed: int) -> Progress:
        """Remember how many rows there are."""
        self.totals.append(total)
        return super().progress(total, resumed)

    def work(
        self,
        start: Callable[[], Work],
        shards: Shards,
        schema: pa.Schema,
        environment: Mapping[str, str],
        gpus_per_engine: int = 1,
    ) -> Iterator[tuple[int, pa.Table, int]]:
        """Show ``n`` items at equal distances over all shards, and end the stage."""
        os.environ.update(environment)
        total = self.totals[-1] if self.totals else 0
        picked, seed = picked_items(shards, total, self.n)
        if not picked:
            self.show(f"{self.stage}: no row to ask about")
            raise Shown
        work = start()
        rows, _ = work(picked, seed, 0)
        self.show(f"{self.stage}: {len(rows)} of {total:,} {'texts' if schema == SCORED else 'requests'}")
        for number, (item, row) in enumerate(zip(picked, rows, strict=True), start=1):
            self.show(f"{RULE}\n{number}. {in_words(work, item, row)}")
        raise Shown
        yield


def picked_items(shards: Shards, total: int, n: int) -> tuple[list[Any], int]:
    """Items at ``n`` equal distances among ``total``, in order, and the first shard's seed. One shard is in memory at a time."""
    n = min(n, total)
    wanted = {k * total // n for k in range(n)}
    picked, seed, at = [], 0, 0
    for number, (_, own, items) in enumerate(shards):
        seed = seed if number else own
        picked += [item for place, item in enumerate(items, start=at) if place in wanted]
        at += len(items)
        if len(picked) == len(wanted):
            break
    return picked, seed


def in_words(work: Any, item: Any, row: Mapping[str, Any]) -> str:
    """One prompt as the model reads it, template included, and what came back."""
    if "score" in row:
        read = item if isinstance(item, str) else "\n".join(item)
        return f"read:\n{read}\n\nscore: {row['score']:.4f}"
    chat = work._engine.chat
    ids = chat.conversation(item.turns) if hasattr(item, "turns") else chat.question_prefix
    text = row.get("completion", row.get("text"))
    return f"prompt, {len(ids)} tokens:\n{chat.decode(ids)}\n\n{came_back(text, row['finish_reason'], row['n_tokens'])}"


def came_back(text: str, finish_reason: str, n_tokens: int) -> str:
    """A completion with how it ended."""
    ended = {"length": "cut at max_tokens", "stop": "ended by itself"}.get(finish_reason, finish_reason)
    return f"answer, {n_tokens} tokens, {ended}:\n{text}"


@contextlib.contextmanager
def few_requests(stage: str, n: int, show: Callable[[str], None]) -> Iterator[None]:
    """Let the client of an endpoint send ``n`` requests, show them and end the stage."""
    ask = Remote.ask

    def few(model: Remote, conversations: Sequence[Turns], sampling: Sampling, *_: Any, **__: Any) -> list[Completion]:
        total = len(conversations)
        k = min(n, total)
        asked = [conversations[at * total // k] for at in range(k)]
        answers = ask(model, asked, sampling)
        show(f"{stage}: {k} of {total:,} conversations")
        for number, (turns, answer) in enumerate(zip(asked, answers, strict=True), start=1):
            request = "\n".join(turns)
            back = came_back(answer.text, answer.finish_reason, answer.n_tokens)
            show(f"{RULE}\n{number}. request:\n{request}\n\n{back}")
        raise Shown

    setattr(Remote, "ask", few)  # noqa: B010 (types forbid the plain assignment)
    try:
        yield
    finally:
        setattr(Remote, "ask", ask)  # noqa: B010


def find_stage(name: str, root: Path = Path()) -> Found:
    """The stage of dvc.yaml by its name; of one with several instances the first.

    Raises:
        UserError: there is no such stage, it asks no model, or an input is not there.
    """
    return read_whole(root / LOCK, lambda: _find_stage(name, root))


def _find_stage(name: str, root: Path) -> Found:
    from dvc.repo import Repo

    base = name.split("@", 1)[0]
    if base in ("evaluate", "evaluate_student"):
        raise UserError(
            f"preview {name}: benchmarks have a command of their own. Run: scalequest evaluate models/student --tasks NAME --limit 5"
        )
    if base not in STAGES:
        raise UserError(f"preview {name}: no stage that asks a model. Expected one of {', '.join(STAGES)}. Name one.")
    with Repo(str(root)) as repo:
        stages = {stage.addressing: stage for stage in repo.index.stages}
        own = [stage for key, stage in stages.items() if name in (key, key.split("@", 1)[0])]
        if not own:
            there = [key for key in stages if key.split("@", 1)[0] == base]
            raise UserError(
                f"preview {name}: not in dvc.yaml. Expected {' or '.join(there) or 'a generator in `mix`'}. Name one."
            )
        stage = own[0]
        makers = {out.def_path: other.addressing for other in stages.values() for out in other.outs}
        missing = [dep.def_path for dep in stage.deps if not (root / dep.def_path).exists()]
        if missing:
            first = missing[0]
            made = [maker for path, maker in makers.items() if path == first or path.startswith(f"{first}/")]
            step = f"Run: dvc repro {' '.join(made)}" if made else "Restore it"
            raise UserError(f"preview {stage.addressing}: {first} is not there. Expected the stage's inputs. {step}")
        return Found(stage.addressing, stage.cmd.split()[2:], frozenset(out.def_path for out in stage.outs))


def preview(found: Found, n: int, show: Callable[[str], None] = print) -> None:
    """Run a stage until ``n`` rows have been shown. Its outputs would go to a temporary folder.

    Raises:
        UserError: the stage's own.
    """
    module, *arguments = found.command

    def again(main: Any, doc: str | None, paths: Sequence[str], names: Sequence[str] = ()) -> None:
        """Take the place of ``run_stage``: the same arguments and parameters, without DVC, tracking and exit."""
        parser = argparse.ArgumentParser(description=doc)
        for name in (*paths, *names):
            parser.add_argument(f"--{name.replace('_', '-')}", type=Path if name in paths else str, required=True)
        params = load_all()
        here = params.runtime.model_copy(update={"engine": "local", "workers": 1, "mlflow": False})
        params = params.model_copy(update={"runtime": here})
        run = Previewed(runtime.Declared(params, None), stage=found.name, n=n, show=show)
        main(parser.parse_args(words), run)
        show(f"{found.name}: no model was asked")

    original = runtime.run_stage
    with tempfile.TemporaryDirectory(prefix="scalequest-preview-") as folder:
        words = [str(Path(folder) / word) if word in found.outs else word for word in arguments]
        try:
            runtime.run_stage = again
            with contextlib.suppress(Shown), few_requests(found.name, n, show):
                runpy.run_module(module, run_name="__main__")
        finally:
            runtime.run_stage = original


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest preview``."""
    parser.add_argument(
        "stage", metavar="STAGE", help=f"one of {', '.join(STAGES)}; also with its instance: generate@sums"
    )
    parser.add_argument("-n", type=int, default=5, metavar="N", help="rows (default: 5)")


def run(args: argparse.Namespace) -> NoReturn:
    """Show the rows and end the process: vLLM and torch leave threads that can stall an interpreter's exit."""
    if args.n < 1:
        raise UserError(f"preview: -n {args.n}. Expected at least 1.")
    limit_spinning(os.environ)
    os.environ |= {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }
    preview(find_stage(args.stage), args.n)
    sys.stdout.flush()
    os._exit(0)
