"""Facts about the machine: which packages, CPU and GPU each stage last ran with. The audit reads them, no stage does.

They are in no metrics file and in no DVC output, because an equal result must have equal bytes on another machine.

- ``reports/environment.json`` is in Git, one file for all stages, rewritten only when a fact changed. A commit and an
  experiment (also one of ``dvc exp run --temp``) carry it along.
- ``.work/facts/STAGE/GIVEN.json`` keeps every run of this checkout with all it was given, what it wrote and what it took.

An entry counts only for the run that had the same inputs, code and parameters (``StageFacts.given``).
"""

import json
import logging
import time
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.io import one_at_a_time, read_json, write_json
from scalequest.runtime.facts import StageFacts, environment, git_facts

log = logging.getLogger("scalequest")

ENVIRONMENT_FILE = "reports/environment.json"
FACTS = Path(".work") / "facts"


@dataclass(frozen=True)
class Recorded:
    """The committed file: for each stage the run that it is about, and that run's environment."""

    environments: dict[str, list[str]]
    stages: dict[str, dict[str, str]]

    @classmethod
    def parse(cls, content: bytes | None) -> "Recorded":
        """The file's records; none of a file that is absent.

        Raises:
            UserError: it is not what ``record`` writes.
        """
        if content is None:
            return cls({}, {})
        try:
            data = json.loads(content)
            environments = {str(name): [str(line) for line in lines] for name, lines in data["environments"].items()}
            stages = {
                str(name): {"given": str(run.get("given", "")), "environment": str(run["environment"])}
                for name, run in data["stages"].items()
            }
            return cls(environments, stages)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UserError(
                f"{ENVIRONMENT_FILE}: cannot be read. Expected what stages write there, without merge conflicts. "
                f"Restore it: git checkout {ENVIRONMENT_FILE}"
            ) from None

    def of(self, stage: str, given: str) -> list[str] | None:
        """Environment lines of the stage's run with just this input, code and parameters; None where it is unknown."""
        entry = self.stages.get(stage, {})
        return self.environments.get(entry.get("environment", "")) if entry.get("given") == given else None

    def with_run(self, stage: str, given: str, lines: list[str]) -> "Recorded":
        """The records after one more run; environments of no stage are dropped."""
        name = sha256("\n".join(lines).encode()).hexdigest()[:8]
        stages = self.stages | {stage: {"given": given, "environment": name}}
        used = {entry["environment"] for entry in stages.values()}
        environments = {key: value for key, value in (self.environments | {name: lines}).items() if key in used}
        return Recorded(environments, stages)

    def as_json(self) -> dict[str, Any]:
        """For ``write_json``."""
        return {"environments": self.environments, "stages": self.stages}


@dataclass(frozen=True)
class Spent:
    """What one run of a stage took. Times differ from run to run, so no DVC output and no file of Git has them.

    Attributes:
        wall_s: seconds from the stage's start to its outputs.
        gpus: GPUs that it could use.
        rows: rows that it worked on in shards.
        resumed: rows that were there from an earlier attempt, whose time is not in ``wall_s``.
        tokens: of ``rows``: written by a model, or read by a scorer.
    """

    wall_s: float
    gpus: int = 0
    rows: int = 0
    resumed: int = 0
    tokens: int = 0


# What is read of a recorded run.
RECORDED = {"given": str, "deps": dict, "params": dict, "outs": dict, "environment": list}


def record(facts: StageFacts, spent: Spent) -> None:
    """Keep the environment of a finished stage, in the workspace (it may be an experiment's) and in the repository.

    Args:
        facts: with the hashes of what the stage wrote.
        spent: what it took; kept in the repository's ``.work`` alone.
    """
    lines = environment()
    full = {
        "stage": facts.name, "given": facts.given, "deps": facts.deps, "params": facts.params, "outs": facts.written,
        "environment": lines, "git": git_facts(), "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "spent": asdict(spent),
    }  # fmt: skip
    write_json(local_file(facts.root, facts.name, facts.given), full)
    file = Path(ENVIRONMENT_FILE)
    # Stages that run side by side share the file.
    with one_at_a_time(Path(".work") / "locks" / "environment"):
        before = Recorded.parse(file.read_bytes() if file.is_file() else None)
        after = before.with_run(facts.name, facts.given, lines)
        if after != before:
            write_json(file, after.as_json())


def local_file(root: Path, stage: str, given: str) -> Path:
    """Where this checkout keeps the facts of one run."""
    return root / FACTS / stage / f"{given}.json"


def local_runs(root: Path, stage: str) -> list[dict[str, Any]]:
    """Everything that this checkout recorded of a stage's runs, in no order; a damaged file is left out."""
    found = []
    for path in sorted((root / FACTS / stage).glob("*.json")):
        if facts := local_run(path):
            found.append(facts)
    return found


def local_run(path: Path) -> dict[str, Any] | None:
    """What this checkout recorded of one run; None, with a warning, where that is not what ``record`` writes."""
    try:
        facts = read_json(path)
    except (ValueError, OSError, RecursionError) as error:
        log.warning("%s: unreadable, that run's facts are unknown (%s)", path, type(error).__name__)
        return None
    if isinstance(facts, dict) and all(isinstance(facts.get(key), kind) for key, kind in RECORDED.items()):
        return facts
    log.warning("%s: unreadable, that run's facts are unknown (expected %s)", path, ", ".join(RECORDED))
    return None
