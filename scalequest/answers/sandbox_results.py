"""The candidate's side of a program that computes an answer: run it, call its function, and say what came back.

Nothing here is secret, so there is no second process: what a program says of itself is its answer,
and is compared elsewhere. Runs in the sandbox; imports the standard library only.
"""

import inspect
import io
import math
import os
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from scalequest.answers.sandbox_tests import described, run_setup

# What a program came to, the first words of its report.
NUMBER, OTHER_FUNCTION, TEXT, PRINTED, NO_VALUE, NO_FUNCTION = (
    "number", "other_function", "text", "printed", "no_value", "no_function",
)  # fmt: skip
RAISED, EXITED, TIMEOUT, KILLED = "raised", "exited", "timeout", "killed"
# Signs of a value, and of printed text, that are kept.
VALUE_SIGNS = 300
# Rounding of a computation in binary: 0.1 + 0.2 is 0.3.
SIGNIFICANT_DIGITS = 12
# No answer to a word problem is larger; its digits would fill the report.
LARGEST_EXPONENT = 250


class Tail(io.TextIOBase):
    """Standard output of a program: the last signs of what it prints."""

    text = ""

    def write(self, text: str) -> int:
        """Keep the end."""
        self.text = (self.text + text)[-VALUE_SIGNS:]
        return len(text)


def written(value: Any) -> str | None:
    """A number as a person writes it, ``42`` for 42.0 and ``1/3`` for a fraction; None for what is no finite real number.

    Floats are rounded to 12 significant digits.
    """
    if isinstance(value, complex) and value.imag == 0:
        value = value.real
    if isinstance(value, float) and math.isfinite(value):
        value = Decimal(f"{value:.{SIGNIFICANT_DIGITS}g}")
    if isinstance(value, Fraction) and value.denominator != 1:
        sides = written(value.numerator), written(value.denominator)
        return "/".join(filter(None, sides)) if None not in sides else None
    if isinstance(value, Fraction):
        value = value.numerator
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    if isinstance(value, int):
        return str(int(value)) if value.bit_length() <= 3 * LARGEST_EXPONENT else None
    if not value.is_finite() or abs(value.adjusted()) > LARGEST_EXPONENT:
        return None
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def callable_without_arguments(value: Any) -> bool:
    """Whether a value is a function of the program (or one that wraps it) that needs no argument."""
    if not callable(value) or isinstance(value, type) or getattr(value, "__module__", None) != "program":
        return False
    try:
        inspect.signature(value).bind()
    except (TypeError, ValueError):
        return False
    return True


def find_function(namespace: dict[str, Any], name: str) -> tuple[Callable[[], Any] | None, str]:
    """The function that computes the answer, and how it was found.

    The one with the name asked for, else the last one that needs no argument, else the last such
    method of the last class that can be made without arguments.
    """
    if callable_without_arguments(namespace.get(name)):
        return namespace[name], NUMBER
    own = [value for value in namespace.values() if callable_without_arguments(value)]
    if own:
        return own[-1], OTHER_FUNCTION
    classes = [v for v in namespace.values() if isinstance(v, type) and getattr(v, "__module__", None) == "program"]
    for kind in reversed(classes):
        try:
            instance = kind()
        except Exception:
            continue
        names = [n for n, v in vars(kind).items() if callable(v) and not n.startswith("_")]
        methods = [getattr(instance, n) for n in sorted(names, key=lambda n: n == name)]
        if found := [method for method in methods if callable_without_arguments(method)]:
            return found[-1], OTHER_FUNCTION
    return None, NO_FUNCTION


def result_of(program: str, name: str) -> tuple[str, str]:
    """What a program came to (one of the names above), and the number, text, error or type that goes with it."""
    sys.stdout = printed = Tail()
    sys.stderr = Tail()
    try:
        namespace = run_setup("")
        exec(compile(program, "program.py", "exec", dont_inherit=True), namespace)
        function, how = find_function(namespace, name)
        value = function() if function else None
        if (number := written(value)) is not None:
            return how, number
        if isinstance(value, str) and value.strip():
            return TEXT, value.strip()[-VALUE_SIGNS:]
    except SystemExit:
        return (PRINTED, printed.text.strip()) if printed.text.strip() else (EXITED, "")
    except BaseException as error:
        return RAISED, described(error)
    if value is None and printed.text.strip():
        return PRINTED, printed.text.strip()
    return (NO_VALUE, type(value).__name__) if function else (NO_FUNCTION, "")


def report_result(program: str, name: str, report: int) -> None:
    """The work of a program's process: write what it came to, as ``WORD TEXT``, to the file with number ``report``."""
    word, text = result_of(program, name)
    os.write(report, f"{word} {text}".encode(errors="replace"))


def warm_up(
    modules: Sequence[str] = ("math", "fractions", "decimal", "datetime", "itertools", "functools", "re", "statistics"),
) -> None:
    """Import what most programs import, once for all processes that are forked later."""
    for module in modules:
        __import__(module)
