"""The journal: where a stage's finished shards and checkpoints are until its output is published.

It is in ``.work/journal/STAGE/FINGERPRINT``, outside every DVC output (DVC deletes a stage's
outputs before it runs), and the fingerprint covers the stage's inputs, parameters, code, packages
and machine: what fits is taken, what does not is left alone. A temporary experiment (``dvc exp run
--temp``) uses the journal of the real repository. What half-done runs left behind:

    scalequest journal           # list it
    scalequest journal --clean   # remove it; finished outputs stay
"""

import argparse
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.io import only_holder, read_json, write_json
from scalequest.runtime import rows
from scalequest.runtime.facts import StageFacts

log = logging.getLogger("scalequest")

DONE = "DONE"
LOCK = "lock"
IDENTITY = "identity.json"


@dataclass(frozen=True)
class Journal:
    """The scratch folder of one stage and fingerprint; ``None`` as folder keeps nothing.

    Attributes:
        forced: this is the first start of a rerun of what ``dvc.lock`` holds already (``dvc repro
            --force``), which is to compute everything again; a second start, after a kill, resumes.

    ``DONE`` marks one whose output was published. It stays until another stage starts, because DVC
    may still be killed between the stage's exit and its own commit. A stage that resumes takes the
    mark away until it is finished again.
    """

    folder: Path | None
    forced: bool = False

    @classmethod
    def of(cls, facts: StageFacts | None) -> "Journal":
        """The journal of the running stage; finished ones of other stages are removed on the way.

        Unfinished ones of this stage under other fingerprints stay: a parameter may be set back.
        """
        if facts is None:
            return cls(None)
        base = facts.root / ".work" / "journal"
        folder = base / facts.name / facts.fingerprint
        for done in base.glob(f"*/*/{DONE}"):
            if done.parent.parent.name != facts.name:
                _remove_finished(done.parent)
        identity_file = folder / IDENTITY
        forced = facts.recorded and ((folder / DONE).exists() or not identity_file.exists())
        if forced and folder.exists():
            # DVC has this very result and runs the stage again all the same (`repro --force`): then
            # it must be done again.
            for path in folder.iterdir():
                if path.name != LOCK:  # held by this very process
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        identity = {"stage": facts.name, "deps": facts.deps, "params": {k: str(v) for k, v in facts.params.items()}}
        if identity_file.exists():
            try:
                found = read_json(identity_file)
            except (ValueError, OSError, RecursionError):
                # The folder's name is the fingerprint, so the shards are this stage's all the same.
                log.warning("%s: unreadable, it is written again; finished shards are kept", identity_file)
                found = identity
            if found != identity:
                raise UserError(
                    f"{folder}: a journal of other inputs under this fingerprint; remove the folder and rerun"
                )
        write_json(identity_file, identity)
        (folder / DONE).unlink(missing_ok=True)  # of an earlier start, whose result DVC did not record
        return cls(folder, forced)

    def shard_path(self, shard: int, rounding: Mapping[str, Any]) -> Path | None:
        """File of one shard that was computed with this ``StageRun.rounding``; it exists only when complete.

        Shards of another rounding stay beside it, because a setting may be set back.
        """
        computed = sha256(json.dumps(rounding, sort_keys=True).encode()).hexdigest()[:8]
        return self.folder / f"shard-{shard:06d}-{computed}.parquet" if self.folder else None

    def discard_since(self, moment: float) -> None:
        """Remove the shards and checkpoints written after ``moment`` (seconds since the epoch).

        Their fingerprint may not be what they were made with, so a later run must not take them.
        """
        for path in self.folder.iterdir() if self.folder else ():
            files = [path, *path.rglob("*")] if path.is_dir() else [path]
            if path.name not in (LOCK, IDENTITY) and any(file.lstat().st_mtime >= moment for file in files):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def finish(self) -> None:
        """Mark the output as published."""
        if self.folder:
            (self.folder / DONE).touch()


def _remove_finished(folder: Path) -> None:
    """Remove a journal that is marked as finished, except where its stage runs again."""
    with suppress(UserError, OSError), only_holder(folder / LOCK, "{}"):
        if (folder / DONE).exists():  # its stage may have been resumed, and killed, since it was listed
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def only_writer(facts: StageFacts | None) -> Iterator[None]:
    """Keep a second writer off this stage's outputs (in this workspace) and off its journal (shared with experiments).

    A stage whose DVC was killed lives on, and two experiments with the same inputs may run side by
    side.

    Raises:
        UserError: another process holds one of the two.
    """
    if facts is None:
        yield
        return
    hint = "left over from a DVC that was killed, or by a parallel experiment; wait for it or stop it (kill PID), then run again"
    with (
        only_holder(
            Path(".work") / "locks" / facts.name, f"stage {facts.name} is still being run by process {{}}, {hint}"
        ),
        only_holder(
            facts.root / ".work" / "journal" / facts.name / facts.fingerprint / LOCK,
            f"the journal of stage {facts.name} with these inputs is in use by process {{}}, {hint}",
        ),
    ):
        yield


def left_behind(root: Path) -> Iterator[tuple[Path, int, int]]:
    """Each journal under ``root`` with its finished shards and its size in bytes."""
    for folder in sorted(path.parent for path in (root / ".work" / "journal").glob(f"*/*/{IDENTITY}")):
        files = [path for path in folder.rglob("*") if path.is_file()]
        # A shard can be there in several roundings.
        shards = {path.name.split("-")[1] for path in folder.glob("shard-*.parquet")}
        yield folder, len(shards), sum(path.stat().st_size for path in files)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest journal``."""
    parser.add_argument(
        "--clean", action="store_true", help="remove the journals and row stores that no running stage uses"
    )


def run(args: argparse.Namespace) -> int:
    """List or remove what is left behind."""
    empty = True
    for folder, shards, size in left_behind(Path()):
        empty = False
        state = "published" if (folder / DONE).exists() else "unfinished"
        print(f"{folder}: {state}, {shards} shards, {size / 1e6:.1f} MB")
        if args.clean:
            try:
                with only_holder(folder / LOCK, f"{folder}: kept, in use by process {{}}"):
                    shutil.rmtree(folder)
            except UserError as error:
                print(error)
            except OSError as error:
                print(f"{folder}: kept, it cannot be removed ({error.strerror})")
    total = 0
    for folder, files, size in rows.stores(Path(".work") / "rows"):
        total += size
        empty = False
        print(f"{folder}: finished rows, {files} files, {size / 1e6:.1f} MB")
        if args.clean and not rows.remove(folder):
            print(f"{folder}: kept, in use by a running stage")
    if empty:
        print("nothing is kept")
    if total:
        print(
            f"rows: {total / 1e6:.1f} MB of at most {rows.MOST_BYTES / 1e6:,.0f}; the least recently used are removed first"
        )
    return 0
