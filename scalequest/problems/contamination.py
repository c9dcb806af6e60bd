"""Finds benchmark questions inside other questions: the one rule for generated questions and for seeds."""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from scalequest.signs import plain, plain_latex, with_commands, without_wording
from scalequest.text import question_key, spellings, words

# A number, a word, or a sign.
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|\w+|[^\w\s]")
# Punctuation that makes no other question of the same words. `!` is handled apart: it may be a factorial.
_LIGHT = set(".,;:?\"'")
_CLOSING = set(".?!;:\"')]}")
# A short question is looked for inside longer ones from this many words and signs on; shorter ones must be equal as a whole.
_LEAST = 3
# A run of words in this many different items is a set phrase, not a leak.
BOILERPLATE = 3
# So is one in this many different seeds, because a test set of 500 items may have a set phrase just once. Of 351 generated
# questions with 13 words of GSM8K's or MATH-500's items, 194 had no others than "where m and n are relatively prime
# positive integers. Find m + n", which is in one item and in 47 of 14,973 training questions. Any number from 5 to 20
# releases those 194. At 3, 7 more go, which share the code of a drawing or "A line is parameterized by". 10 leaves room on
# both sides: sets of seeds are of other sizes, and copies of an item that pass as other questions are few. 3 of the items'
# 49,043 runs are set aside at 10, and 7 at 3.
SEEDS_OF_A_PHRASE = 10
# Words of the runs by which a seed is compared with an item. With 8, seeds of an item's own template with other names passed
# as other questions.
COPIED = 5
_DIGITS = re.compile(r"\d+")

# Pairs of a run and an item that is not found by it.
Phrases = Collection[tuple[str, str]]


@dataclass(frozen=True)
class Match:
    """A benchmark item found in a question.

    Attributes:
        item: the item's id.
        span: the words that both share, or the item's whole text.
    """

    item: str
    span: str


@dataclass(frozen=True)
class _Token:
    text: str
    start: int
    end: int


def _tokens(text: str) -> list[_Token]:
    """Words, numbers and mathematical signs of a text without markup and punctuation."""
    found: list[_Token] = []
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token in _LIGHT:
            continue
        if token == "!" and not (found and found[-1].end == match.start() and _may_be_factorial(found[-1].text)):
            continue
        found.append(_Token(token.casefold(), match.start(), match.end()))
    return found


def light_names(text: str) -> list[str]:
    """The tokens of a text without markup and without ``!``, which may or may not be one: a quicker look than ``_tokens``."""
    return [token.casefold() for token in _TOKEN.findall(text) if token not in _LIGHT and token != "!"]


def _may_be_factorial(before: str) -> bool:
    return before[-1].isdigit() or before in ")]}$!" or len(before) == 1


# What LaTeX writes for what a plain text writes, too. An inner argument first, so fractions in fractions take several passes.
_MARKUP: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), lambda m: f"{_factor(m[1])}/{_factor(m[2])}"),
    (re.compile(r"\\sqrt\s*(?:\{([^{}]*)\}|([A-Za-z0-9]))"), lambda m: f"sqrt({m[1] or m[2]})"),
)
_PLAIN_FOR_MARKUP = (
    (re.compile(r"\\[()\[\]]|\\?\$|\\\\"), " "),
    (re.compile(r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degrees?(?![A-Za-z])|\bdegrees?\b)"), " degrees "),
    (re.compile(r"\\le(?:q|qslant)?(?![A-Za-z])"), "<="),
    (re.compile(r"\\ge(?:q|qslant)?(?![A-Za-z])"), ">="),
    (re.compile(r"\\neq?(?![A-Za-z])"), "!="),
    (re.compile(r"\\[lc]?dots(?![A-Za-z])|\.{3,}"), " dots "),
    (re.compile(r"\\(?=[A-Za-z])"), ""),
    (re.compile(r"_\s*\{\s*(\w+)\s*\}"), r"_\1"),
    (re.compile(r"\\?[{}]"), " "),
    (re.compile(r"[ \t]+"), " "),
)

_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d|,\d)")
# Without any of these a text has no markup.
_MARKED = re.compile(r"[\\$_{}]|\.{3}|degree|\d,\d")


def _factor(text: str) -> str:
    return text if re.fullmatch(r"\s*(?:\d+|\\?[A-Za-z]+)\s*", text) else f"({text})"


def without_markup(text: str) -> str:
    r"""A text as if it had been written without LaTeX: ``$17{+}25$`` is 17 + 25, ``\dfrac12`` is 1/2, ``1{,}000`` is 1000."""
    text = with_commands(plain(text))
    if not _MARKED.search(text):
        return text
    text = without_wording(plain_latex(text))
    for _ in range(3):
        for pattern, replacement in _MARKUP:
            text = pattern.sub(replacement, text)
    for pattern, sign in _PLAIN_FOR_MARKUP:
        text = pattern.sub(sign, text)
    return _THOUSANDS.sub(lambda m: m[0].replace(",", ""), text)


def ngrams(tokens: Sequence[str], n: int) -> Iterator[str]:
    """Runs of n words, joined by spaces."""
    return (" ".join(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


class Contamination:
    """Finds benchmark questions by shared runs of ``n`` words, set phrases aside.

    A set phrase is in several items, or in many seeds (``phrases``, from ``set_phrases``). An item
    that has no other runs keeps them.

    An item of fewer than ``n`` words is found where it is written out as a whole question: equal,
    or inside a longer text, where it ends with a sentence and no sign or number continues it on
    either side. Mathematical markup does not count on either side: ``What is $17{+}25$?`` is "What
    is 17 + 25?".
    """

    def __init__(self, items: Sequence[dict[str, str]], n: int, phrases: Phrases = frozenset()) -> None:
        self.n = n
        self._runs: dict[str, list[str]] = {}
        self._whole: dict[str, list[str]] = {}
        # First words -> length -> all words -> items.
        self._short: dict[tuple[str, ...], dict[int, dict[tuple[str, ...], list[str]]]] = {}
        for item in items if n else []:
            question, item_id = item["question"], item["id"]
            bare = without_markup(question)
            _add(self._whole, question_key(bare), item_id)
            tokens = words(bare)
            for run in ngrams(tokens, n):
                _add(self._runs, run, item_id)
            if len(tokens) < n and len(short := tuple(t.text for t in _tokens(bare))) >= _LEAST:
                lengths = self._short.setdefault(short[:_LEAST], {})
                _add(lengths.setdefault(len(short), {}), short, item_id)
        self.set_aside: list[tuple[str, str]] = []
        self.leave_out(boilerplate(self._runs, items))
        self.leave_out(phrases)

    def leave_out(self, phrases: Phrases) -> None:
        """Look for these runs no longer, and note them in ``set_aside``. An item that has no other runs keeps them."""
        runs, self._runs = self._runs, without_phrases(self._runs, phrases)
        self.set_aside += [
            (run, item) for run, found in runs.items() for item in found if item not in self._runs.get(run, ())
        ]

    @property
    def has_runs(self) -> bool:
        """Whether an item has ``n`` words."""
        return bool(self._runs)

    def runs(self, question: str) -> Iterator[tuple[str, list[str]]]:
        """The runs that a question shares with items, in its order, each with the items."""
        for text in spellings(question):
            yield from self._found_runs(without_markup(text))

    @property
    def whole_keys(self) -> Collection[str]:
        """``question_key`` of every item without its markup."""
        return self._whole.keys()

    @property
    def short_items(self) -> list[tuple[str, ...]]:
        """The tokens of every short item, without ``!`` as from ``light_names``."""
        return [
            tuple(name for name in names if name != "!")
            for lengths in self._short.values()
            for sequences in lengths.values()
            for names in sequences
        ]

    def match(self, question: str) -> tuple[str, str] | None:
        """The first item found, as its id and the span; None without one."""
        found = next(self._matches(question), None)
        return (found.item, found.span) if found else None

    def matches(self, question: str) -> list[Match]:
        """Every item found, each once, with the first span."""
        first: dict[str, Match] = {}
        for match in self._matches(question):
            first.setdefault(match.item, match)
        return list(first.values())

    def _matches(self, question: str) -> Iterator[Match]:
        if not self.n:
            return
        texts = [without_markup(text) for text in spellings(question)]
        for item in self._whole.get(question_key(texts[0]), ()):
            yield Match(item, question)
        for text in texts:
            for run, items in self._found_runs(text):
                yield from (Match(item, run) for item in items)
            yield from self._short_matches(text)

    def _found_runs(self, text: str) -> Iterator[tuple[str, list[str]]]:
        return ((run, items) for run in ngrams(words(text), self.n) if (items := self._runs.get(run)))

    def _short_matches(self, text: str) -> Iterator[Match]:
        if not self._short:
            return
        tokens = _tokens(text)
        names = tuple(token.text for token in tokens)
        for i in range(len(tokens) - _LEAST + 1):
            for length, sequences in self._short.get(names[i : i + _LEAST], {}).items():
                items = sequences.get(names[i : i + length]) if i + length <= len(tokens) else None
                if items and _begins(text, tokens, i) and _ends(text, tokens[i + length - 1].end):
                    span = text[tokens[i].start : tokens[i + length - 1].end]
                    yield from (Match(item, span) for item in items)


def set_phrases(
    index: Contamination, items: Sequence[dict[str, str]], seeds: Iterable[str]
) -> frozenset[tuple[str, str]]:
    """The runs of items that at least SEEDS_OF_A_PHRASE different seeds have, each with its item.

    A seed that is like the item does not count for it: numbers aside, it has half of the item's runs
    of COPIED words, or as many as 2 ``n`` words have. It is a copy or part of the item, or has its
    template. So neither copies among the seeds nor seeds of the items' templates hide a leak.

    Args:
        index: of the items.
        items: with `id` and `question`.
        seeds: their questions, read once. In memory are runs of items only.
    """
    texts = {item["id"]: _without_numbers(item["question"]) for item in items}
    found: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for seed in seeds if index.has_runs else ():
        shared: defaultdict[str, set[str]] = defaultdict(set)
        for run, holders in index.runs(seed):
            for item in holders:
                shared[item].add(run)
        own = _without_numbers(seed) if shared else frozenset()
        for item, runs in shared.items():
            if len(own & texts[item]) < min(2 * index.n - COPIED + 1, len(texts[item]) / 2):
                for run in runs:
                    if len(keys := found[run, item]) < SEEDS_OF_A_PHRASE:
                        keys.add(question_key(seed))
    return frozenset(pair for pair, keys in found.items() if len(keys) >= SEEDS_OF_A_PHRASE)


def _without_numbers(question: str) -> frozenset[str]:
    return frozenset(ngrams([_DIGITS.sub("0", word) for word in words(without_markup(question))], COPIED))


def boilerplate(runs: dict[str, list[str]], items: Sequence[dict[str, str]]) -> set[tuple[str, str]]:
    """The runs of at least BOILERPLATE different questions, each with its items: "Express your answer in the form ..."."""
    keys = {item["id"]: question_key(item["question"]) for item in items}
    common = [run for run, found in runs.items() if len({keys[item] for item in found}) >= BOILERPLATE]
    return {(run, item) for run in common for item in runs[run]}


def without_phrases(runs: dict[str, list[str]], phrases: Phrases) -> dict[str, list[str]]:
    """The runs and their items without these pairs. An item that has no other runs keeps them."""
    own = {item for run, found in runs.items() for item in found if (run, item) not in phrases}
    left = {
        run: [item for item in found if (run, item) not in phrases or item not in own] for run, found in runs.items()
    }
    return {run: found for run, found in left.items() if found}


def _add(index: dict[Any, list[str]], key: object, item: str) -> None:
    items = index.setdefault(key, [])
    if item not in items:
        items.append(item)


def _begins(text: str, tokens: list[_Token], i: int) -> bool:
    """Whether a question may begin at token ``i``: a word does anywhere, a formula where no sign or number comes before it."""
    first = tokens[i].text
    if i == 0 or (len(first) > 1 and first.isalpha()):
        return True
    between = text[tokens[i - 1].end : tokens[i].start]
    return bool(set(between) & (_CLOSING | {"\n"})) or tokens[i - 1].text[-1].isalpha()


def _ends(text: str, end: int) -> bool:
    """Whether a sentence or a clause ends at ``end``."""
    rest = text[end:].lstrip(" \t")
    return not rest or rest[0] in _CLOSING or rest[0] == "\n" or rest.startswith(("**", "__", ", "))
