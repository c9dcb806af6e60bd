"""What a reasoning model thinks aloud is not part of its answer."""

import re

_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_END_OF_THOUGHT = re.compile(r"\A.*</(?:think|thinking|thought|reasoning)>", re.DOTALL | re.IGNORECASE)


def without_thoughts(text: str) -> str:
    """A response without its ``<think>`` blocks; what follows an opened block is thought, what precedes a closed one too."""
    return _END_OF_THOUGHT.sub("", _THOUGHT.sub("", text))
