"""Which questions are not in the language wanted: lingua's guess, or the paper's ASCII rule."""

import re
from collections.abc import Callable

# Below this many letters outside formulas a language cannot be found; the question is kept if it is in Latin script.
MIN_LETTERS = 20
# A question is foreign where English is less likely than this among LANGUAGES, and another language at least so likely. Names
# and terms pull short questions elsewhere. Latin is left out, because mathematical English is often taken for it.
MIN_ENGLISH, MIN_FOREIGN = 0.15, 0.4
# Characters of a text that are read for its language: a megabyte takes no longer than a page.
MOST_CHARACTERS = 10_000
# fmt: off
LANGUAGES = (
    "ENGLISH", "CHINESE", "JAPANESE", "KOREAN", "RUSSIAN", "ARABIC", "HINDI", "SPANISH", "FRENCH", "GERMAN", "PORTUGUESE",
    "ITALIAN", "DUTCH", "POLISH", "TURKISH", "VIETNAMESE", "INDONESIAN",
)
# Frequent words of English that few of LANGUAGES have, and short ones that more have. lingua takes about 500 µs per
# question; a text in Latin letters with enough of these words is English without asking it.
ENGLISH = frozenset((
    "the", "and", "what", "how", "many", "find", "convert", "which", "that", "each", "then", "there", "much", "does", "value", "number", "with",
    "from", "this", "they", "have", "has", "are", "if", "when", "she", "his", "her", "their", "than", "compute", "where", "such",
    "given", "would", "every", "after", "these", "between", "its", "into", "following", "equation", "express", "your", "answer",
    "simplify", "years", "year", "old", "more", "days", "day", "hours", "hour", "per", "twice", "will", "bought", "gets", "get", "took",
    "two", "three", "four", "all", "did", "were", "had", "them", "who", "let", "solve", "evaluate", "determine", "solutions", "some",
    "enough", "money", "week", "weeks", "minutes", "should", "could", "until", "while", "both", "about", "write", "using", "make",
))
# A text of few words that begins with one of them is English.
ASKING = frozenset(("convert", "compute", "evaluate", "express", "find", "simplify", "solve", "what", "how", "which"))
FEW_WORDS = 5
SHORT = frozenset(("a", "of", "is", "in", "to", "for", "by", "an", "at", "be", "on", "or", "as", "it", "he", "was", "not", "can", "i", "do"))
# fmt: on
MIN_ENGLISH_WORDS, MIN_ENGLISH_SHARE = 2, 0.25
_FORMULA = re.compile(r"\$[^$]*\$|\\\[.*?\\\]|\\\(.*?\\\)|\\[a-zA-Z]+|[\d_^{}]+", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]+")
# Last letter of the block Latin Extended-B. A name such as Kōhei or Sofía does not make a text foreign.
_LAST_LATIN = "\u024f"


def language_check(rule: str) -> Callable[[str], str | None]:
    """A function that returns the evidence that a question is not in the language wanted, or None if it is.

    Args:
        rule: ``any``, ``ascii`` (the paper's: code points up to 127) or ``lingua`` (keeps English).
    """
    if rule == "any":
        return lambda question: None
    if rule == "ascii":
        return _not_ascii
    from lingua import Language, LanguageDetectorBuilder

    detector = LanguageDetectorBuilder.from_languages(*(getattr(Language, name) for name in LANGUAGES)).build()

    def check(question: str) -> str | None:
        prose = _FORMULA.sub(" ", question[:MOST_CHARACTERS])
        if plainly_english(prose):
            return None
        letters = [c for c in prose if c.isalpha()]
        if len(letters) < MIN_LETTERS:
            others = [c for c in letters if c > _LAST_LATIN and not "\u0370" <= c <= "\u03ff"]  # Greek is mathematics
            return f"U+{ord(others[0]):04X}" if others else None
        values = detector.compute_language_confidence_values(prose)  # the likeliest first
        best = values[0]
        english = next(value.value for value in values if value.language == Language.ENGLISH)
        foreign = english < MIN_ENGLISH and best.value >= MIN_FOREIGN
        return f"{best.language.name.lower()} {best.value:.2f}" if foreign else None

    return check


def plainly_english(prose: str) -> bool:
    """Whether a text without formulas has enough frequent English words, and accents at most in names.

    One word is enough for a text of few words that begins with a request: lingua takes "Convert to rectangular form." for
    Spanish.
    """
    words = _WORD.findall(prose)
    accented = [] if prose.isascii() else [word for word in words if not word.isascii()]
    if any(word[0].islower() or max(word) > _LAST_LATIN for word in accented):
        return False
    words = [word.lower() for word in words]
    known = [word for word in words if word in ENGLISH]
    asks = len(words) <= FEW_WORDS and bool(ASKING.intersection(words[:1])) and not accented
    if len(set(known)) < MIN_ENGLISH_WORDS and not asks:
        return False
    return len(known) + sum(word in SHORT for word in words) >= MIN_ENGLISH_SHARE * len(words)


def _not_ascii(question: str) -> str | None:
    return None if question.isascii() else next(f"U+{ord(c):04X}" for c in question if ord(c) > 127)
