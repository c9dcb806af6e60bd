"""What a model returns for one prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

STOP, CUT, TOO_LONG = "stop", "length", "too_long"


@dataclass(frozen=True)
class Completion:
    """What came back for one prompt.

    Attributes:
        text: raw text, special tokens left out.
        finish_reason: ``stop`` (the model ended by itself), ``length`` (cut at ``max_tokens``) or
            ``too_long`` (the prompt did not fit, nothing was generated).
        n_tokens: generated tokens, the end token included.
    """

    text: str
    finish_reason: str
    n_tokens: int


# Maps N prompts (token ids) and one seed for all to N completions, in order.
Complete = Callable[[Sequence[list[int]], int], list[Completion]]
# The same with a seed for each prompt.
CompleteRows = Callable[[Sequence[list[int]], Sequence[int]], list[Completion]]
