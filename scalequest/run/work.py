"""What an estimate counts of a stage, and what it assumes."""

import re
from dataclasses import dataclass

from scalequest.errors import UserError
from scalequest.models.source import parse_source

SIZE = re.compile(r"(?<![\w.])(\d+(?:[._]\d+)?)\s*([bm])(?![a-z])", re.IGNORECASE)
# A token is about four bytes of text.
BYTES_PER_TOKEN = 4


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
    sequences: int = 0
    engines: int = 0
    trainings: int = 0
    api_usd: float = 0.0
    written: int = 0
    length: str | None = None
    fp8: bool = False


@dataclass(frozen=True)
class Assumptions:
    """Mean tokens per row, shares of rows that stay, and their source."""

    tokens: dict[str, float]
    keeps: dict[str, float]
    origin: str = "the paper"


def model_billions(source: str, sizes: dict[str, float]) -> float | None:
    """Billions of parameters by a model's name ("7B", "135M"); None for an API.

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
    number, unit = found[-1]
    return float(number.replace("_", ".")) / (1 if unit.lower() == "b" else 1000)
