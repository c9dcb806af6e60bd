"""Sections of `seeds` and `benchmarks`: where problems come from."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
