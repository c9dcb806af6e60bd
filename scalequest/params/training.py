"""Sections of trainings, and what one generator has of its own in them."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from scalequest.params.selection import Fraction
from scalequest.params.sources import Positive, Section


class Training(Section):
    """Settings of one training run (Hugging Face Trainer's meaning)."""

    method: Literal["full", "lora"]
    epochs: Positive
    learning_rate: Annotated[float, Field(gt=0.0)]
    warmup_frac: Fraction
    batch_size: Positive
    per_device_batch_size: Positive
    max_length: Annotated[int, Field(ge=16)]
    weight_decay: Annotated[float, Field(ge=0.0)]
    lora_r: Positive
    lora_alpha: Positive

    @property
    def steps_are_rounded(self) -> bool:
        """Whether weights are held in bfloat16 and stepped with stochastic rounding."""
        return False

    @model_validator(mode="after")
    def _accumulation_is_whole(self) -> "Training":
        if self.batch_size % self.per_device_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of per_device_batch_size {self.per_device_batch_size}"
            )
        return self


class SupervisedTraining(Training):
    """Training on examples with a target, which may be packed."""

    optimizer: Literal["adamw", "adamw_bfloat16"]
    packing: bool

    @property
    def steps_are_rounded(self) -> bool:
        """Whether weights are held in bfloat16 and stepped with stochastic rounding."""
        return self.optimizer == "adamw_bfloat16"


class OptionalTraining(Training):
    """Training that ``method: none`` replaces by the model as it was fetched."""

    method: Literal["full", "lora", "none"]  # type: ignore[assignment]


class Qpo(Training):
    """DPO on question pairs."""

    beta: Annotated[float, Field(gt=0.0)]
    holdout_frac: Annotated[float, Field(ge=0.0, lt=1.0)]


class Generator(Section):
    """What is one generator's own."""

    seed_mix: dict[str, Positive]
    n_questions: Positive
    # Values of the sections `qft` and `qpo` for this generator alone. Required: DVC reads them one by one.
    qft: dict[str, Any]
    qpo: dict[str, Any]


AnyTraining = TypeVar("AnyTraining", bound=Training)


def with_own(section: AnyTraining, own: Mapping[str, Any]) -> AnyTraining:
    """A training section with one generator's own values in it."""
    return type(section).model_validate(section.model_dump() | dict(own))


def own_problems(place: str, section: Training, own: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with one generator's own values, as one line each.

    Args:
        place: their key, such as ``generators.sums.qft``.
        section: what they change.
        own: the values.
    """
    known = list(type(section).model_fields)
    try:
        with_own(section, own)
    except ValidationError as error:
        for item in error.errors():
            key = ".".join([place, *map(str, item["loc"])])
            if item["type"] == "extra_forbidden":
                close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
                hint = f"did you mean '{close[0]}'?" if close else f"known keys here: {', '.join(sorted(known))}"
                yield f"{key}: unknown parameter; {hint}"
            elif item["type"] == "value_error":
                yield f"{key}: {item['msg'].removeprefix('Value error, ')}"
            else:
                yield f"{key}: got {item['input']!r}; {item['msg'][0].lower()}{item['msg'][1:]}"
