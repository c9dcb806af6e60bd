"""What the engine is given: the part of the parameters that makes the bytes of what models write and score."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from scalequest.params.sources import Positive, Section


class Engine(Section):
    """vLLM settings that are part of what makes the bytes."""

    dtype: Literal["float32", "bfloat16"]
    max_num_seqs: Positive
    max_model_len: Annotated[int, Field(ge=64)]
    quantization: Literal["fp8"] | None
    kv_cache_dtype: Literal["auto", "fp8"]
    repeatability: Literal["seeded", "batch_invariant"]

    @property
    def fp8(self) -> list[str]:
        """The settings that ask for 8 bits, as they are written in params.yaml."""
        return [f"engine.{key}: fp8" for key in ("quantization", "kv_cache_dtype") if getattr(self, key) == "fp8"]

    @property
    def as_saved(self) -> "Engine":
        """These settings with the weights and the cache in ``dtype``: for scores, and for the grade of a model."""
        return self.model_copy(update={"quantization": None, "kv_cache_dtype": "auto"})

    @model_validator(mode="after")
    def _fp8_computes_in_bfloat16(self) -> "Engine":
        if self.fp8 and self.dtype != "bfloat16":
            raise ValueError(f"{', '.join(self.fp8)} needs engine.dtype bfloat16, got {self.dtype}")
        return self
