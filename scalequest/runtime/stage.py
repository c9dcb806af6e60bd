"""What every stage does around its own work: arguments, parameters, one writer at a time, metrics, tracking, exit codes.

A stage file ends with ``run_stage(main, __doc__, paths=(...))`` and its ``main(args, run)`` holds the work.
"""

import argparse
import errno
import faulthandler
import importlib
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from scalequest.errors import UserError
from scalequest.io import csv_text, private_folder, write_json, write_text
from scalequest.outcomes import WARNINGS
from scalequest.params import PARAMS_FILE, Params, load_all
from scalequest.redaction import keep_secret, redacted, refuse_secrets
from scalequest.runtime import environment
from scalequest.runtime.facts import (
    StageFacts,
    current_stage,
    differences,
    hardware,
    package_versions,
    visible_gpu_names,
    visible_gpus,
)
from scalequest.runtime.journal import Journal, only_writer
from scalequest.runtime.progress import Notice, Progress, noticed
from scalequest.runtime.rows import RowStore
from scalequest.runtime.threads import limit_spinning
from scalequest.runtime.tracking import tracked
from scalequest.runtime.worker_processes import places, work_in_processes
from scalequest.runtime.workers import Shards, Work, work_here, work_on_ray
from scalequest.seeding import shard_seed

log = logging.getLogger("scalequest")


class Declared:
    """The parameters that ``dvc.yaml`` lists for a stage; reading another one is our own bug, caught at once."""

    def __init__(self, params: Params, declared: Sequence[str] | None) -> None:
        self._params = params
        self._tops = None if declared is None else {key.split(".", 1)[0] for key in declared} | {"runtime"}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # asked for while being unpickled in a worker, before anything is there
            raise AttributeError(name)
        if self._tops is not None and name not in self._tops:
            raise AssertionError(f"params.{name} is read but not listed under this stage's params in dvc.yaml")
        return getattr(self._params, name)


@dataclass
class StageRun:
    """One run of one stage.

    Attributes:
        params: the sections that this stage declares, and ``runtime``.
        facts: what DVC knows of the stage; None outside DVC, where nothing can be resumed.
    """

    params: Any
    facts: StageFacts | None = None
    logged: dict[str, float] = field(default_factory=dict)
    curves: list[dict[str, float]] = field(default_factory=list)
    stores: list[RowStore] = field(default_factory=list)
    worked: list[Progress] = field(default_factory=list)
    notice: Notice | None = None

    @cached_property
    def journal(self) -> Journal:
        """Where this stage keeps finished shards and checkpoints until its output is published."""
        return Journal.of(self.facts)

    def progress(self, total: int, resumed: int) -> Progress:
        """Progress lines over ``total`` rows, of which ``resumed`` were there before."""
        self.worked.append(Progress(self.name, total, resumed, self.notice))
        return self.worked[-1]

    def spent(self, started: float) -> environment.Spent:
        """What the stage took since ``started``, in seconds since the epoch."""
        resumed = sum(work.resumed for work in self.worked)
        rows, tokens = sum(work.done for work in self.worked) - resumed, sum(work.tokens for work in self.worked)
        return environment.Spent(round(time.time() - started, 3), visible_gpus(), rows, resumed, tokens)

    def work(
        self,
        start: Callable[[], Work],
        shards: Shards,
        schema: pa.Schema,
        environment: Mapping[str, str],
        gpus_per_engine: int = 1,
    ) -> Iterator[tuple[int, pa.Table, int]]:
        """Yield number, rows and tokens of each shard, worked on where ``runtime`` says; ``environment`` is the workers'."""
        runtime = self.params.runtime
        if runtime.engine == "ray":
            return work_on_ray(start, shards, schema, runtime, environment, gpus_per_engine)
        gpus = visible_gpu_names() if runtime.workers > 1 else []
        devices = places(runtime.workers, len(shards), gpus, gpus_per_engine)
        if len(devices) > 1:
            return work_in_processes(start, shards, schema, environment, devices)
        return work_here(start, shards, schema)

    def rounding(self, environment: Mapping[str, str], on_gpu: Mapping[str, Any]) -> dict[str, Any]:
        """Settings under ``runtime`` that round a row otherwise here: what was finished with others is not mixed in.

        Args:
            environment: variables of the processes that do the work.
            on_gpu: settings that count only where there is a GPU.
        """
        return {**environment, **(on_gpu if "gpu" in hardware() else {})}

    def row_store(
        self, decides: dict[str, Any], model: Path, code: Sequence[str], schema: pa.Schema, wanted: Iterable[str]
    ) -> RowStore:
        """Finished rows of this stage under what decides them.

        Args:
            decides: settings that decide a row's bytes.
            model: folder of the model that makes the row, a dependency of the stage.
            code: folders and files whose code decides a row's bytes.
            schema: of a row.
            wanted: keys of the rows that are asked for, in order.
        """
        if self.facts is None:
            return RowStore.open(None, self.name, decides, schema, wanted)
        hashes = {
            dep: found
            for dep, found in self.facts.deps.items()
            if any(Path(dep).is_relative_to(path) for path in (str(model), *code))
        }
        assert str(model) in hashes, (
            f"{model} is no dependency of {self.name}: its rows would be taken for another model's"
        )
        identity = decides | {"deps": hashes, "packages": package_versions(), "machine": hardware()}
        store = RowStore.open(self.facts.root, self.name, identity, schema, wanted, self.journal.forced)
        self.stores.append(store)
        return store

    @property
    def name(self) -> str:
        """DVC's name of the stage, ``qft@sums``."""
        return self.facts.name if self.facts else "by-hand"

    def seed(self) -> int:
        """Seed of this stage's one training, in [0, 2**31): from the run's seed and the stage's name."""
        return shard_seed(self.params.seed, self.name, 0)

    def metrics(self, path: Path, values: dict[str, Any], warnings: dict[str, bool] | None = None) -> None:
        """Write the stage's metrics file, numbers only and equal on another machine; log the warnings that are up.

        Args:
            path: the file.
            values: nested numbers and names.
            warnings: whether each one is up; kept in the file as 0 or 1.

        Raises:
            UserError: they hold a secret; nothing is written.
        """
        flags = {name: int(found) for name, found in (warnings or {}).items()}
        for name in (name for name, found in flags.items() if found):
            log.warning("warning: %s: %s", name, WARNINGS[name])
        values = values | ({"warnings": flags} if flags else {})
        refuse_secrets(json.dumps(values), str(path), *(self.params.runtime.api.key_variables if self.params else ()))
        write_json(path, values)
        self.logged |= flatten(values)

    def plot(self, path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, float]]) -> None:
        """Write curves for ``dvc plots``, see ``scalequest.io.csv_text``."""
        write_text(path, csv_text(columns, rows))


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested numbers under dotted names; what is no number is left out."""
    flat: dict[str, float] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= flatten(value, f"{name}.")
        elif isinstance(value, int | float):
            flat[name] = float(value)
    return flat


class WithoutSecrets(logging.Formatter):
    """Log lines without tokens, keys and passwords, whichever library writes them."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, masked."""
        return redacted(super().format(record))


def run_stage(
    main: Callable[[argparse.Namespace, StageRun], None],
    doc: str | None,
    paths: Sequence[str],
    names: Sequence[str] = (),
) -> None:
    """Run a stage from the command line.

    Args:
        main: the work; gets the parsed arguments and the run.
        doc: the stage's docstring, shown by ``--help``.
        paths: options that take a path, all required: ``"out"`` is ``--out PATH``.
        names: options that take a plain name, all required.
    """
    limit_spinning(os.environ)
    # Read when the libraries are imported: bars of a dozen libraries would drown the few lines that matter.
    os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "MLFLOW_LOGGING_LEVEL": "ERROR", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
    # A segmentation fault raises no exception: without this only the code -11 is seen. The variable is for child processes.
    faulthandler.enable()
    os.environ.setdefault("PYTHONFAULTHANDLER", "1")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(WithoutSecrets("%(message)s"))
    for noisy in ("httpx", "absl", "datasets", "urllib3", "alembic", "lm_eval"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in paths:
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, required=True)
    for name in names:
        parser.add_argument(f"--{name.replace('_', '-')}", required=True)
    args = parser.parse_args()
    # DVC ignores Ctrl-C and waits; a stage that ended with 0 would be recorded as complete.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    code, reason = _attempt(main, args)
    if reason:
        print(redacted(reason), file=sys.stderr)
    # vLLM and torch leave threads that can stall interpreter exit; everything of ours is on disk by now.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _attempt(main: Callable[[argparse.Namespace, StageRun], None], args: argparse.Namespace) -> tuple[int, str]:
    """Run the work between what DVC calls a stage's start and its end; the exit code, and what to print with it."""
    started = time.time()
    code, reason = 1, ""
    try:
        # Facts first: parameters that change between the two are then seen as changed at the end. Under DVC only the file
        # that DVC records is read, whatever SCALEQUEST_PARAMS names.
        facts = current_stage()
        if facts:
            load_code(facts)
        params = load_all(None if facts is None else Path(PARAMS_FILE))
        for variable in params.runtime.api.key_variables:
            keep_secret(variable)
        for folder in {facts.root, Path()} if facts else ():
            private_folder(folder / ".work")  # paid answers and prompts
        run = StageRun(Declared(params, list(facts.params) if facts else None), facts)
        with (
            only_writer(facts),
            noticed(facts.root if facts else None, run.name) as run.notice,
            tracked(run, params, started) as ended,
        ):
            main(args, run)
            if facts:
                ended.facts = confirm(run, started)
                environment.record(ended.facts, run.spent(started))
                run.journal.finish()  # last: another stage may remove what is marked as finished
        return 0, ""
    except UserError as error:
        hint = (
            "\n(outputs of an earlier run are in DVC's cache: `dvc checkout` brings them back)"
            if os.environ.get("DVC_STAGE")
            else ""
        )
        code, reason = 2, f"error: {error}{hint}"
    except KeyboardInterrupt:
        code, reason = 130, "stopped; finished shards are kept, run again to resume"
    except OSError as error:
        if error.errno == errno.ENOSPC:
            where = error.filename or "an output"
            code = 2
            reason = f"error: disk full while writing {where}: free some space and run again; finished shards are kept"
        else:
            reason = traceback.format_exc()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # printed in full, and then the same quick exit as any other
        reason = traceback.format_exc()
    return code, reason


def load_code(facts: StageFacts) -> None:
    """Import all of our own code that the stage depends on, now: an edit made later cannot reach a module already loaded.

    Each module imports without torch and vLLM, so this costs nothing that the stage would not pay later.
    """
    for path in facts.deps:
        # A program that is started by path (the sandbox's child) is read when it starts; `confirm` covers it.
        if path.startswith("scalequest/") and path.endswith(".py") and not path.endswith("_child.py"):
            importlib.import_module(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))


def confirm(run: StageRun, started: float) -> StageFacts:
    """The stage's facts after its work, with the hashes of what it wrote: what DVC is about to record.

    DVC hashes inputs and reads parameters when a stage has ended. What was edited meanwhile would be recorded as what the
    stage ran with, and its run cache would hand out the result for it.

    Raises:
        UserError: inputs, code or parameters are no longer those that the stage started with.
    """
    before, now = run.facts, current_stage(outputs=True)
    assert before is not None
    assert now is not None
    changed = differences(before, now)
    if not changed:
        return now
    if any(found.kind != "params.yaml" for found in changed):
        # Parameters are read once, at the start. Code and inputs may have been read after the edit.
        run.journal.discard_since(started)
        for store in run.stores:
            store.discard_since(started)
    lines = "\n  ".join(map(str, changed))
    raise UserError(
        f"stage {before.name} had inputs that changed while it ran; nothing was recorded:\n  {lines}\n"
        "Expected files that stay as they are while a stage runs. Restore them and run `dvc repro` to resume finished "
        "work, or keep the edit and run `dvc repro` to run the stage with it. To edit beside a run: dvc exp run --temp"
    )
