"""What a reasoning model thinks aloud is not part of its answer."""

import re

# The delimiters of published models: <think> (DeepSeek, Qwen), <thought>, \u25c1think\u25b7 (Kimi), [THINK] (Magistral),
# <|begin_of_thought|> (OpenThinker).
_NAME = r"(?:think|thinking|thought|reasoning)"
_OPEN = rf"<{_NAME}>|\u25c1{_NAME}\u25b7|<\|begin_of_{_NAME}\|>|(?-i:\[THINK\])"
_CLOSE = rf"</{_NAME}>|\u25c1/{_NAME}\u25b7|<\|end_of_{_NAME}\|>|(?-i:\[/THINK\])"
_THOUGHT = re.compile(rf"(?:{_OPEN}).*?(?:{_CLOSE}|\Z)", re.DOTALL | re.IGNORECASE)
_END_OF_THOUGHT = re.compile(rf"\A.*(?:{_CLOSE})", re.DOTALL | re.IGNORECASE)


def without_thoughts(text: str) -> str:
    """A response without its ``<think>`` blocks; what follows an opened block is thought, what precedes a closed one too."""
    return _END_OF_THOUGHT.sub("", _THOUGHT.sub("", text))
