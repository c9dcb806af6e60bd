"""Sections of `seeds`, `benchmarks` and `own`: where problems and a user's own rows come from."""

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# What becomes part of ids and file names.
NAME = re.compile(r"[a-z][a-z0-9_]*")
# How a file of own rows may end.
OWN_FILES = (".parquet", ".jsonl", ".jsonl.gz", ".json")
Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A section: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ReasoningGymSource(Section):
    """Problems from one reasoning_gym data set; item ``i`` is drawn from ``seed + i``."""

    kind: Literal["reasoning_gym"]
    dataset: str
    n: Positive
    seed: Annotated[int, Field(ge=0)]
    # gsm_symbolic draws from 85 templates: its even or odd ones, so that a test set can hold other templates than the seeds.
    templates: Literal["all", "even", "odd"]
    config: dict[str, Any]

    @model_validator(mode="after")
    def _has_templates(self) -> "ReasoningGymSource":
        if self.templates != "all" and self.dataset != "gsm_symbolic":
            raise ValueError(
                f"templates '{self.templates}' needs dataset gsm_symbolic, got '{self.dataset}'; set 'all'"
            )
        return self


class FileSource(Section):
    """Rows of one file: JSONL (also .gz), a JSON list or Parquet, in this project's columns or those of a known test set."""

    # How many, drawn by the run's seed and kept in file order; null = all.
    n: Positive | None
    # Of the file's bytes; null = whatever is there (the stage then prints the hash to pin).
    sha256: str | None
    # These two may be left out. Column values that a row must have, {split: train}: few files hold more than is wanted.
    where: dict[str, str | int | bool] = {}
    # Keep the calculator marks of GSM8K's solutions, <<48/2=24>>, so that solver and controls are taught them.
    calculator_marks: bool = False


class JsonlSource(FileSource):
    """Problems from a local file with ``question``, ``answer`` and (for seeds) ``solution``."""

    kind: Literal["jsonl"]
    path: str


class HubSource(FileSource):
    """Problems from one file of a hub data set, pinned to a commit."""

    kind: Literal["hub"]
    repo: Annotated[str, Field(pattern=r"[\w.-]+/[\w.-]+")]
    commit: Annotated[str, Field(pattern=r"[0-9a-f]{40}")]
    file: str


class PackageSource(FileSource):
    """Problems from one file of an installed Python package, pinned to its version."""

    kind: Literal["package"]
    package: str
    version: str
    file: str


Source = Annotated[ReasoningGymSource | JsonlSource | HubSource | PackageSource, Field(discriminator="kind")]

OwnSource = Annotated[JsonlSource | HubSource | PackageSource, Field(discriminator="kind")]


class Own(Section):
    """Rows that a user brings in place of what stages make, by where they enter."""

    # Name to questions that are screened beside those of the generators.
    questions: dict[str, OwnSource]
    # Name to questions that are answered as they are; `respond.questions` names one.
    filtered: dict[str, OwnSource]
    # Generator to pairs that it is optimized on.
    preferences: dict[str, OwnSource]

    def sources(self) -> Iterator[tuple[str, FileSource]]:
        """Each source with its key in params.yaml."""
        for section in ("questions", "filtered", "preferences"):
            for name, source in getattr(self, section).items():
                yield f"own.{section}.{name}", source

    def problems(self, mix: Sequence[str], taken: Sequence[str]) -> Iterator[str]:
        """Yield each contradiction as one line.

        Args:
            mix: the generators that take part.
            taken: names that are a role's or a generator's.
        """
        for section in ("questions", "filtered"):
            for name in getattr(self, section):
                if not NAME.fullmatch(name) or name in taken:
                    yield (
                        f"own.{section}: '{name}' becomes part of ids and file names. Expected lower-case letters, digits and _, and "
                        f"not the name of a role or generator ({', '.join(taken)})"
                    )
        for name in sorted(set(self.questions) & set(self.filtered)):
            yield f"own.filtered: '{name}' is in own.questions, too. Expected another name, because ids start with it"
        for name in self.preferences:
            if name not in mix:
                yield f"own.preferences: '{name}' is no generator of the mix, which is {list(mix)}. Expected the one that `qpo` trains on them"
        for key, source in self.sources():
            if isinstance(source, JsonlSource) and not source.path.endswith(OWN_FILES):
                yield f"{key}.path: '{source.path}'. Expected a file that ends in {', '.join(OWN_FILES)}"
