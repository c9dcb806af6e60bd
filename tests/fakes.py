"""Stand-ins that need no model: a tokenizer of single characters, an engine that answers from a queue."""

import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from scalequest.params import JsonlSource, Params
from scalequest.run.profile import compose_profile
from scalequest.sampling.completion import Completion

ROOT = Path(__file__).resolve().parents[1]


@cache
def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder of this process. Made when it is needed: a worker that pytest-xdist ends does not tidy up."""
    return tempfile.TemporaryDirectory(prefix="scalequest-tests-")


def parameter_file(profile: str) -> Path:
    """Return a complete parameter file of a profile, whatever params.yaml holds at the moment."""
    text = compose_profile(profile, ROOT)
    if text == (ROOT / "params.yaml").read_text():
        return ROOT / "params.yaml"
    file = Path(scratch().name) / f"{profile}.yaml"
    file.write_text(text)
    return file


LAPTOP = parameter_file("laptop")

# Generated tokens per second of the run gpu-135m, on an H100: no step that reads prompts had a CUDA graph then.
RATE_OF_GPU_135M = 21_700
REAL_DATA = ROOT.parent / "shared" / "data"


def real_data(name: str) -> Path:
    """A file of real benchmark data that may lie beside the checkout; without it the test is skipped."""
    path = REAL_DATA / name
    if not path.is_file():
        pytest.skip(f"{name} is not beside this checkout (looked for ../shared/data/{name})")
    return path


def pinned_file(path: Path, n: int | None = None, **more: Any) -> JsonlSource:
    """A local file as a source of problems, pinned to what is in it now."""
    digest = sha256(path.read_bytes()).hexdigest() if path.is_file() else "0" * 64
    return JsonlSource(kind="jsonl", path=str(path), n=n, sha256=digest, **more)


# First id of the special tokens: above every code point.
SPECIAL = 0x110000


def render_chatml(question: str) -> str:
    """ChatML as Qwen2 has it: a system turn that the user did not ask for, then the user's turn, then the open answer."""
    return (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )


def render_deepseek(question: str) -> str:
    """DeepSeekMath's: BOS is written by the template, the user's words follow a space, no token ends the turn."""
    return f"<|bos|>User: {question}\n\nAssistant:"


class CharTokenizer:
    """One id a character (its code point), one id a special token; like a real one it adds BOS unless told not to."""

    def __init__(
        self, special: Sequence[str], eos: str | None, render: Callable[[str], str] | None, bos: str | None = None
    ) -> None:
        self._ids = {token: SPECIAL + number for number, token in enumerate(special)}
        self._render, self._bos = render, bos
        self.name_or_path = "char-model"
        self.chat_template = "{{ a template }}" if render else None
        self.eos_token_id = self._ids[eos] if eos else None
        self.all_special_ids = list(self._ids.values())

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        assert not tokenize
        assert add_generation_prompt
        assert self._render is not None
        return self._render("\n".join(message["content"] for message in messages))

    def __call__(
        self, texts: list[str], add_special_tokens: bool, split_special_tokens: bool = False
    ) -> dict[str, list[list[int]]]:
        return {"input_ids": [self.encode(text, add_special_tokens, split_special_tokens) for text in texts]}

    def encode(self, text: str, add_special_tokens: bool = True, split_special_tokens: bool = False) -> list[int]:
        specials = "" if split_special_tokens else "|".join(map(re.escape, self._ids))
        ids = [
            self._ids[part] if not split_special_tokens and part in self._ids else ord(part)
            for part in re.findall(rf"{specials}|[\s\S]" if specials else r"[\s\S]", text)
        ]
        return [self._ids[self._bos], *ids] if self._bos and add_special_tokens else ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        names = {number: "" if skip_special_tokens else token for token, number in self._ids.items()}
        return "".join(names[i] if i in names else chr(i) for i in ids)


def chatml_tokenizer() -> CharTokenizer:
    return CharTokenizer(["<|im_start|>", "<|im_end|>", "<|endoftext|>"], "<|im_end|>", render_chatml)


def deepseek_tokenizer() -> CharTokenizer:
    return CharTokenizer(["<|bos|>", "<|eos|>"], "<|eos|>", render_deepseek, bos="<|bos|>")


def stopped(text: str) -> Completion:
    """A completion that ended by itself: one token a character and the end token."""
    return Completion(text, "stop", len(text) + 1)


def cut(text: str) -> Completion:
    """A completion that ran into ``max_tokens``."""
    return Completion(text, "length", len(text))


class QueueEngine:
    """An engine that answers from a queue, in order, and remembers its calls; put in a stage in ``Engine``'s place."""

    def __init__(self, chat: Any, answers: Iterable[str | Completion]) -> None:
        self.chat = chat
        self.answers = deque(stopped(a) if isinstance(a, str) else a for a in answers)
        self.calls: list[
            tuple[list[str], Any]
        ] = []  # the decoded prompts and the seed of each call, or the seeds of its rows
        self.model: Path | None = None

    def __call__(self, model: Path, engine: Any, runtime: Any, row_seeds: bool = False) -> "QueueEngine":
        self.model = model
        return self

    def complete(
        self, sampling: Any, stop_ids: Sequence[int] = ()
    ) -> Callable[[Sequence[list[int]], int], list[Completion]]:
        def complete(prompts: Sequence[list[int]], seed: Any) -> list[Completion]:
            self.calls.append(([self.chat.decode(p) for p in prompts], seed))
            return [self.answers.popleft() for _ in prompts]

        return complete

    def complete_rows(self, sampling: Any) -> Callable[[Sequence[list[int]], Sequence[int]], list[Completion]]:
        """The same with a seed for each prompt."""
        return self.complete(sampling)  # type: ignore[return-value]

    @property
    def prompts(self) -> list[str]:
        return [prompt for prompts, _ in self.calls for prompt in prompts]


def changed(params: Params, **sections: Any) -> Params:
    """The parameters with some keys of some sections replaced: ``changed(laptop, judge={"shard_size": 2})``."""
    update = {
        name: getattr(params, name).model_copy(update=new) if hasattr(getattr(params, name), "model_copy") else new
        for name, new in sections.items()
    }
    return params.model_copy(update=update)


def shard_file(folder: Path | None, shard: int) -> Path:
    """The one file of a finished shard in a journal's folder."""
    assert folder
    [path] = folder.glob(f"shard-{shard:06d}-*.parquet")
    return path
