"""Chat formats: a tokenizer's chat template as token ids. The words of the prompts are in scalequest/domains."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import TemplateError

from scalequest.errors import UserError
from scalequest.models.template import check_templates

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
            UserError: there is no template, it takes too much time or memory, or it does not hold the user's words as they are.
        """
        name = getattr(tokenizer, "name_or_path", "the model")
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                f"{name}: its tokenizer has no chat template; take an instruct model or add chat_template.jinja"
            )
        templates = _templates(tokenizer.chat_template)
        special = getattr(tokenizer, "special_tokens_map", {})
        check_templates(name, templates, {key: str(value) for key, value in special.items() if isinstance(value, str)})
        if any("strftime_now" in template for template in templates):
            raise UserError(
                f"{name}: its chat template prints today's date, so prompts would differ from day to day; copy the model folder, "
                "write a fixed date into chat_template.jinja, and name it as path:DIR"
            )
        try:
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": _SENTINEL}], tokenize=False, add_generation_prompt=True
            )
        except (
            ValueError,
            TypeError,
            TemplateError,
        ) as error:  # several named templates without a default one, a broken one
            raise UserError(
                f"{name}: its chat template cannot be used ({error}). Expected one template that takes a user's turn. "
                "Choose one: chat_templates: {ROLE: alpaca}"
            ) from None
        if text.count(_SENTINEL) != 1:
            raise UserError(f"{name}: its chat template repeats or drops the user's words: {text!r}")
        if tokenizer.eos_token_id is None:
            raise UserError(f"{name}: its tokenizer has no end-of-sequence token, so no question could end")
        prefix, suffix = text.split(_SENTINEL)
        stripped = prefix.rstrip(" ")
        return cls(tokenizer, stripped, prefix[len(stripped) :], suffix)

    def encode(self, text: str) -> list[int]:
        """Token ids of a template's text: special tokens written in it count as such, none is added.

        Never for words that somebody wrote: these could close a turn and open another. See ``encode_words``.
        """
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def encode_words(self, text: str) -> list[int]:
        """Token ids of what a user or a model wrote: the name of a special token in it is text and no control token."""
        return self._encode_all([text], words=True)[0]

    def _encode_all(self, texts: Sequence[str], words: bool = False) -> list[list[int]]:
        """Token ids of each text, in order; a fast tokenizer shares them among the cores."""
        if not texts:
            return []
        # Stages switch it off, because libraries that fork would warn of it; for a million prompts it is wanted.
        before = os.environ.get("TOKENIZERS_PARALLELISM")
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        try:
            ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, split_special_tokens=words)[
                "input_ids"
            ]
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
        return [*self.encode_words(self.lead + text), self.question_end]

    def user_turn(self, content: str) -> list[int]:
        """A whole prompt: the user's words and the opened assistant turn."""
        return self.user_turns([content])[0]

    def user_turns(self, contents: Sequence[str]) -> list[list[int]]:
        """``user_turn`` of each, in order."""
        return self.conversations([[content] for content in contents])

    def conversation(self, turns: list[str]) -> list[int]:
        """A whole prompt of several turns, the user's first and last, and the opened assistant turn."""
        return self.conversations([turns])[0]

    def conversations(self, all_turns: Sequence[list[str]]) -> list[list[int]]:
        """``conversation`` of each, in order."""
        return self._encode_turns(all_turns, opened=True)

    def response(self, text: str) -> list[int]:
        """A response and its end token, as the continuation of ``user_turn``."""
        return [*self.encode_words(text), int(self.tokenizer.eos_token_id)]

    def solution(self, prompt: str, response: str) -> list[int]:
        """A solved question as one sequence: what the reward model reads, ``prompt`` being what the solver was asked.

        It has no end token: transformers reads a scalar head at the last token that is not padding, vLLM at the last
        token, and where padding and end are one token (as in SmolLM2) these would differ.
        """
        return self.solutions([(prompt, response)])[0]

    def solutions(self, solved: Sequence[tuple[str, str]]) -> list[list[int]]:
        """``solution`` of each prompt and response, in order."""
        prompts = self.user_turns([p for p, _ in solved])
        responses = self._encode_all([r for _, r in solved], words=True)
        return [prompt + response for prompt, response in zip(prompts, responses, strict=True)]

    def answered(self, solved: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Prompts and responses as the template itself writes them, both turns closed: what released reward models learned."""
        return self._encode_turns([list(pair) for pair in solved], opened=False)

    def _encode_turns(self, all_turns: Sequence[list[str]], opened: bool) -> list[list[int]]:
        """Token ids of each conversation, with exactly the control tokens that the template writes.

        A conversation is encoded as one text, as the model learned it: "?" and the line end after
        it may be one token. Only where that finds more or fewer control tokens than the template
        has, somebody wrote one, and template and words are encoded apart.
        """
        control = self._special_ids.__contains__
        pieces = {n: self._pieces(n, opened) for n in {len(turns) for turns in all_turns}}
        own = {n: sum(map(control, sum(map(self.encode, found[0]), []))) for n, found in pieces.items()}
        encoded = self._encode_all([self._text(turns, opened) for turns in all_turns])
        return [
            ids if sum(map(control, ids)) == own[len(turns)] else self._encode_apart(turns, *pieces[len(turns)])
            for turns, ids in zip(all_turns, encoded, strict=True)
        ]

    def _encode_apart(self, turns: list[str], pieces: list[str], trimmed: bool) -> list[int]:
        ids = []
        for piece, turn in zip(pieces, turns, strict=False):
            text = piece.rstrip(" ")  # a space before the words is encoded with them
            ids += self.encode(text) + self.encode_words(piece[len(text) :] + (turn.strip() if trimmed else turn))
        return ids + self.encode(pieces[-1])

    def _pieces(self, n: int, opened: bool) -> tuple[list[str], bool]:
        """The template's own text before, between and after ``n`` turns, and whether it trims the words.

        Raises:
            UserError: it drops, repeats or reorders the turns.
        """
        marks = [f"{_SENTINEL}{i}X" for i in range(n)]
        text = self._text([f" {mark} " for mark in marks], opened)
        trimmed = n > 0 and f" {marks[-1]} " not in text
        found = re.split("|".join(mark if trimmed else f" {mark} " for mark in marks), text)
        if len(found) != n + 1:
            name = getattr(self.tokenizer, "name_or_path", "the model")
            raise UserError(f"{name}: its chat template repeats or drops turns of a conversation: {text!r}")
        return found, trimmed

    def _text(self, turns: list[str], opened: bool) -> str:
        if opened and len(turns) == 1:
            return self.prefix + self.lead + turns[0] + self.suffix
        messages = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
        text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opened)
        return text


def _templates(template: Any) -> list[str]:
    """Every template of a tokenizer: it has one, or several by name, as a mapping or as a list of name and template."""
    if isinstance(template, str):
        return [template]
    parts = template.values() if isinstance(template, dict) else template
    return [text for part in parts for text in _templates(part)]
