"""Chat formats, and the parsers of what comes back. The words of the prompts are in scalequest/domains, by domain.

The paper's code crosses two names: its "solvability" prompt asks for a harder question and its "difficulty" prompt
repairs solvability (docs/paper-differences.md, 1). Here ``solvability`` repairs and ``difficulty`` hardens.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from scalequest.errors import UserError

# --------------------------------------------------------------------------------------------------------- chat format

_SENTINEL = "QUESTIONGOESHERE"


@dataclass(frozen=True)
class ChatFormat:
    """A tokenizer's chat template as token ids, so that nothing downstream adds a second BOS or retokenizes a seam.

    Attributes:
        tokenizer: a Hugging Face tokenizer with a chat template.
        prefix: text up to where the user's words begin, without trailing spaces: after "User: " the first word would
            tokenize differently from "User:" + " word" (docs/paper-differences.md, 7).
        lead: the trailing spaces taken off ``prefix``; they go in front of the user's words.
        suffix: text from the end of the user's words to the open assistant turn.
    """

    tokenizer: Any
    prefix: str
    lead: str
    suffix: str

    @classmethod
    def of(cls, tokenizer: Any) -> "ChatFormat":
        """Read the format off the tokenizer's own template.

        Raises:
            UserError: there is no template, or it does not hold the user's words as they are.
        """
        name = getattr(tokenizer, "name_or_path", "the model")
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                f"{name}: its tokenizer has no chat template; take an instruct model or add chat_template.jinja"
            )
        if "strftime_now" in tokenizer.chat_template:
            raise UserError(
                f"{name}: its chat template prints today's date, so prompts would differ from day to day; copy the model folder, "
                "write a fixed date into chat_template.jinja, and name it as path:DIR"
            )
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": _SENTINEL}], tokenize=False, add_generation_prompt=True
        )
        if text.count(_SENTINEL) != 1:
            raise UserError(f"{name}: its chat template repeats or drops the user's words: {text!r}")
        if tokenizer.eos_token_id is None:
            raise UserError(f"{name}: its tokenizer has no end-of-sequence token, so no question could end")
        prefix, suffix = text.split(_SENTINEL)
        stripped = prefix.rstrip(" ")
        return cls(tokenizer, stripped, prefix[len(stripped) :], suffix)

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text`` as it stands; special tokens written in it count as such, none is added."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """``encode`` of each text, in order; a fast tokenizer shares them among the cores."""
        if not texts:
            return []
        # Stages switch it off, because libraries that fork would warn of it; for a million prompts it is wanted.
        before = os.environ.get("TOKENIZERS_PARALLELISM")
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        try:
            ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        finally:
            if before is None:
                del os.environ["TOKENIZERS_PARALLELISM"]
            else:
                os.environ["TOKENIZERS_PARALLELISM"] = before
        return ids

    def decode(self, ids: list[int]) -> str:
        """Text of token ids, special tokens shown."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False)
        return text

    @cached_property
    def question_prefix(self) -> list[int]:
        """The pre-query prompt: what a generator continues with a question (paper 2.1)."""
        return self.encode(self.prefix)

    @cached_property
    def question_end(self) -> int:
        """The token that ends a question: the template's own end of a user turn, else the end of sequence."""
        after = self.encode(self.suffix.lstrip())
        return after[0] if after and after[0] in self._special_ids else int(self.tokenizer.eos_token_id)

    @cached_property
    def _special_ids(self) -> set[int]:
        """Ids of the special tokens, also of those that no role (end, padding) of the tokenizer names."""
        added = getattr(self.tokenizer, "added_tokens_decoder", {})
        return {*self.tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}

    @cached_property
    def stop_ids(self) -> list[int]:
        """Tokens that end any completion. Ids, because vLLM strips special tokens before it compares stop strings."""
        return sorted({self.question_end, int(self.tokenizer.eos_token_id)})

    @cached_property
    def question_stops(self) -> list[str]:
        """Text that ends a question where the template marks a turn's end by words alone ("Assistant:"), else nothing."""
        after = self.suffix.strip()
        special = self.encode(after)[:1]
        return [] if not after or special[0] in self._special_ids else [after]

    @cached_property
    def answer_stops(self) -> list[str]:
        """Text that begins the user's next turn where the template marks it by words alone ("User:"), else nothing.

        A base model that never learned the end of sequence ends its answer by writing that turn itself.
        """
        roles = ("user", "assistant", "user")
        messages = [{"role": role, "content": f"{_SENTINEL}{n}"} for n, role in enumerate(roles)]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        between = text.partition(f"{_SENTINEL}1")[2].partition(f"{_SENTINEL}2")[0]
        words = between.replace(self.tokenizer.decode([self.tokenizer.eos_token_id]), "").strip()
        return [] if not words or self.encode(words)[0] in self._special_ids else [f"\n{words}"]

    def question(self, text: str) -> list[int]:
        """A question and its end token, as the continuation of ``question_prefix``."""
        return [*self.encode(self.lead + text), self.question_end]

    def user_turn(self, content: str) -> list[int]:
        """A whole prompt: the user's words and the opened assistant turn."""
        return self.encode(self._user_text(content))

    def user_turns(self, contents: Sequence[str]) -> list[list[int]]:
        """``user_turn`` of each, in order."""
        return self.encode_all([self._user_text(content) for content in contents])

    def conversation(self, turns: list[str]) -> list[int]:
        """A whole prompt of several turns, the user's first and last, and the opened assistant turn."""
        return self.encode(self._conversation_text(turns))

    def conversations(self, all_turns: Sequence[list[str]]) -> list[list[int]]:
        """``conversation`` of each, in order."""
        return self.encode_all([self._conversation_text(turns) for turns in all_turns])

    def _user_text(self, content: str) -> str:
        return self.prefix + self.lead + content + self.suffix

    def _conversation_text(self, turns: list[str]) -> str:
        if len(turns) == 1:
            return self._user_text(turns[0])
        roles = ("user", "assistant")
        messages = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
        text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text

    def response(self, text: str) -> list[int]:
        """A response and its end token, as the continuation of ``user_turn``."""
        return [*self.encode(text), int(self.tokenizer.eos_token_id)]

    def solution(self, prompt: str, response: str) -> list[int]:
        """A solved question as one sequence: what the reward model reads, ``prompt`` being what the solver was asked.

        It has no end token: transformers reads a scalar head at the last token that is not padding, vLLM at the last
        token, and where padding and end are one token (as in SmolLM2) these would differ.
        """
        return self.solutions([(prompt, response)])[0]

    def solutions(self, solved: Sequence[tuple[str, str]]) -> list[list[int]]:
        """``solution`` of each prompt and response, in order."""
        prompts, responses = self.user_turns([p for p, _ in solved]), self.encode_all([r for _, r in solved])
        return [prompt + response for prompt, response in zip(prompts, responses, strict=True)]

    def answered(self, solved: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Prompts and responses as the template itself writes them, both turns closed: what released reward models learned."""
        conversations = [[{"role": "user", "content": p}, {"role": "assistant", "content": r}] for p, r in solved]
        return self.encode_all(
            [self.tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=False) for c in conversations]
        )
