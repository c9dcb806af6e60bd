from typing import Any

import pytest

from scalequest.answers import symbolic

# What only ANTLR's full mode reads: a power of a letter before another term.
NEED_THE_FULL_MODE = ("-n^{2}+6", "x^2+x-2", "\\frac{2 x+7}{x^{2}+5 x+6}")


@pytest.fixture
def parsers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts of which a parser was made: once for the fast mode, again for the full one."""
    found: list[str] = []
    make = symbolic._Latex2Sympy.create_parser

    def watched(self: Any, text: str) -> Any:
        found.append(text)
        return make(self, text)

    monkeypatch.setattr(symbolic._Latex2Sympy, "create_parser", watched)
    symbolic._parsed.cache_clear()
    return found


def test_the_fast_mode_reads_most_answers(parsers: list[str]) -> None:
    assert symbolic.same_expression("2805\\sqrt{2}\\pi", "55\\pi\\cdot 51\\sqrt{2}")
    assert not symbolic.same_expression("\\frac{1+\\sqrt{5}}{2}", "\\frac{1-\\sqrt{5}}{2}")
    assert len(parsers) == len(set(parsers)) == 4


@pytest.mark.parametrize("text", NEED_THE_FULL_MODE)
def test_what_the_fast_mode_cannot_read_is_read_in_the_full_one(parsers: list[str], text: str) -> None:
    assert symbolic._parsed(text).free_symbols
    assert parsers == [text, text]


def test_what_neither_mode_reads_equals_nothing(parsers: list[str]) -> None:
    assert not symbolic.same_expression("\\frac{1}{", "\\frac{1}{")
    assert len(parsers) == 2


def test_what_has_no_meaning_is_not_read_again(parsers: list[str]) -> None:
    with pytest.raises(ValueError, match="mismatched dimensions"):
        symbolic._parsed("\\begin{pmatrix}1&2\\\\3\\end{pmatrix}")
    assert len(parsers) == 1
