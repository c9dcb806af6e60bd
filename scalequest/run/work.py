"""What an estimate counts of a stage, what it assumes, and the finished run that it takes this from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.io import read_json
from scalequest.models.source import parse_source
from scalequest.params import Params, read_yaml

SIZE = re.compile(r"(?<![\w.])(\d+(?:[._]\d+)?)\s*([bm])(?![a-z])", re.IGNORECASE)
# A token is about four bytes of text.
BYTES_PER_TOKEN = 4
# Stages that tune a generator, by what `generate.from` names.
TUNING = {"base": (), "qft": ("qft",), "qpo": ("qft", "qpo_questions", "preferences", "qpo")}


def asked_by(params: Mapping[str, Any]) -> str | None:
    """What ``generate.from`` names in a run's parameters; None where the code of that day had no such choice."""
    section = params.get("generate")
    named = section.get("from") if isinstance(section, dict) else None
    return None if named is None else str(named)


@dataclass(frozen=True)
class Work:
    """The work of one stage, all its branches together.

    Attributes:
        rows: rows that it reads.
        billions: parameters of its model; None for an API, or no model.
        generated, read, trained: tokens.
        length: the length of what it generates, by which a GPU's rate is chosen: question, judgement or
            response. Those rates were measured with the prompts that belong to them, so reading costs
            nothing more; None: other lengths, and reading counts.
        fp8: whether it generates in 8 bits.
        samples: training sequences, times the passes over them.
        packed: whether it trains on packs of rows, which a cost per sequence does not limit.
        sequences: sequences that are read and hardly answered; each costs time beside its tokens.
        engines, trainings: number of starts.
        api_usd: dollars for an endpoint.
        written: bytes of its output.
    """

    stage: str
    rows: int
    billions: float | None = None
    generated: int = 0
    read: int = 0
    trained: int = 0
    samples: int = 0
    packed: bool = False
    sequences: int = 0
    engines: int = 0
    trainings: int = 0
    api_usd: float = 0.0
    written: int = 0
    length: str | None = None
    fp8: bool = False


@dataclass(frozen=True)
class Assumptions:
    """Mean tokens per row, shares of rows that stay, and their source.

    Attributes:
        notes: a sentence on each value that this source does not know.
    """

    tokens: dict[str, float]
    keeps: dict[str, float]
    origin: str = "the paper"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FinishedRun:
    """Metrics and scores of a finished run.

    Attributes:
        path: the folder or the file that holds them.
        scores: the folder of its scores.
        params: its parameter file, which may not be there.
        kept: metrics by stage, of a file that holds all; None where each stage has a file in ``path``.
    """

    path: Path
    scores: Path
    params: Path
    kept: Mapping[str, Any] | None = None

    @classmethod
    def at(cls, path: Path) -> "FinishedRun":
        """Find a run by the place of its metrics, and read the file that holds all of them.

        Args:
            path: the folder ``reports/metrics``, with ``eval/scores`` and ``params.yaml`` beside
                ``reports``, or a run in ``reports/results`` or its file ``metrics.json``, with
                ``scores`` and ``params.yaml`` beside that.

        Raises:
            UserError: there is nothing at ``path``, or the file has no metrics.
        """
        if (path / "metrics.json").is_file():  # the folder of a kept run
            path /= "metrics.json"
        if path.is_dir():
            root = path.resolve().parent.parent
            return cls(path, root / "eval" / "scores", root / "params.yaml")
        if not path.is_file():
            raise UserError(
                f"estimate: {path}: no such file or folder. Expected reports/metrics, or metrics.json of a run in reports/results. Leave --from-run out"
            )
        whole = read_json(path)
        if not isinstance(whole, dict) or not isinstance(whole.get("metrics"), dict):
            raise UserError(
                f"estimate: {path}: no `metrics` in it. Expected metrics of each stage, as in reports/results/gpu-135m/metrics.json. Leave --from-run out"
            )
        return cls(path, path.parent / "scores", path.parent / "params.yaml", whole["metrics"])

    def asked_by(self, mix: Sequence[str]) -> str:
        """What its ``generate.from`` names. Without it in the parameters: ``qpo`` if any of QPO's stages has metrics, else ``qft``.

        Args:
            mix: the run's generators.
        """
        named = asked_by(read_yaml(self.params)) if self.params.is_file() else None
        of_qpo = set(TUNING["qpo"]) - set(TUNING["qft"])
        return named or ("qpo" if any(self.metrics(f"{stage}/{g}") for stage in of_qpo for g in mix) else "qft")

    def metrics(self, name: str) -> dict[str, Any] | None:
        """Metrics of a stage, such as ``generate/sums``; None where the run has none."""
        if self.kept is not None:
            return self.kept.get(name)
        file = self.path / f"{name}.json"
        found: dict[str, Any] | None = read_json(file) if file.is_file() else None
        return found


def model_billions(source: str, sizes: dict[str, float]) -> float | None:
    """Billions of parameters by a model's name ("7B", "135M"), of several the most ("7B-1M": 1M tokens); None for an API.

    Raises:
        UserError: the name does not say.
    """
    kind, name, _ = parse_source("ROLE", source)
    if kind == "api":
        return None
    if name in sizes:
        return sizes[name]
    found = SIZE.findall(name.replace("/", " ").replace("-", " "))
    if not found:
        raise UserError(
            f"estimate: size of model '{name}': not in its name. Expected a size such as 7B. Add `{name}: BILLIONS` under `sizes` in scalequest/run/gpus.yaml"
        )
    return max(float(number.replace("_", ".")) / (1 if unit.lower() == "b" else 1000) for number, unit in found)


def asked(
    params: Params,
    sizes: dict[str, float],
    role: str,
    stage: str,
    rows: float,
    read: float,
    generated: float,
    *,
    written: float = 0.0,
    length: str | None = None,
    engines: int = 1,
    sequences: float = 0.0,
    fp8: bool = False,
) -> Work:
    """The work of a stage that asks a model, which an engine here runs or an endpoint is paid for.

    Args:
        params: the run, with the model and the endpoint's prices.
        sizes: parameters of models whose names do not say.
        role: the model's.
        stage: its name.
        rows: rows that the stage reads.
        read: tokens of the prompts.
        generated: tokens of the answers.
        written: bytes of the stage's output, by engine or endpoint.
        length: of the answers, by which a GPU's rate is chosen. This and what follows count for an engine alone.
        engines: number of starts.
        sequences: those that are read and hardly answered.
        fp8: whether it generates in 8 bits.
    """
    billions = model_billions(params.models[role], sizes)
    if billions is None:
        prices = params.runtime.api.of(role)
        usd = (read * prices.usd_per_million_input + generated * prices.usd_per_million_output) / 1e6
        return Work(stage, round(rows), generated=round(generated), api_usd=usd, written=round(written))
    return Work(
        stage,
        round(rows),
        billions,
        generated=round(generated),
        read=round(read),
        sequences=round(sequences),
        engines=engines,
        written=round(written),
        length=length,
        fp8=fp8,
    )
