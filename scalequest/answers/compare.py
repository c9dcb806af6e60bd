"""Final answers: finding them in a response, and telling whether two are the same mathematics.

One home for the answer filter, the labels of difficulty and reward, and the evaluation.
"""

import atexit
import re
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any

from scalequest.outcomes import MISSING, RIGHT, TIMEOUT, WRONG

_PLAIN = re.compile(r"-?\d{1,18}")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d*)?")
# Hard limit of one comparison. math-verify's own limit is a signal, which dies in threads and in hung C code.
TIMEOUT_S = 5.0
# Memory of one comparing process, code included; what needs more is wrong.
MEMORY_BYTES = 2 << 30
# An answer beyond these is wrong without being asked about, unless it is spelt as the gold answer is: it would cost the limits above
# to find out. Of all answers in MATH's 12,200 problems the longest has 159 characters and the deepest is 3 brackets deep.
LONGEST, DEEPEST = 1_000, 20
# Numbers of more than some ten thousand digits: 2^{10000}, a tower of three powers, 10000!
_IMMENSE = re.compile(r"\^\s*\{?\s*\d{5,}|\d\s*\^\s*\{?\s*\d+\s*\^\s*\{?\s*\d+\s*\^|\d{5,}\s*!|\d{3,}\s*!\s*!")


def normalise(answer: str) -> str:
    """A spelling that makes the common trivial differences equal: ``$ 1,000.0 $`` and ``1000``."""
    text = answer.strip().strip("$").strip().removeprefix("\\$").rstrip(".").strip()
    try:
        number = Decimal(text.replace(",", "") if _THOUSANDS.fullmatch(text) else text)
    except InvalidOperation:
        return re.sub(r"\s+", "", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    if not number.is_finite() or not -40 < number.adjusted() < 40:
        return text
    with localcontext(prec=len(text) + 1):  # by default 28 digits: longer numbers would be rounded to equality
        number = number.normalize()
    return format(number if number != 0 else Decimal(0), "f")


def compare(gold: Sequence[str], answers: Sequence[str | None], workers: int = 2) -> list[str]:
    """Compare N extracted answers with N gold answers, in order.

    Equal spellings are decided here, and an answer beyond all measure is wrong; the rest goes to math-verify in processes, where a comparison that runs longer than 5 s is killed with its process. The processes stay for the next call.

    Returns:
        For each pair ``right``, ``wrong``, ``no_answer`` (nothing was extracted) or ``timeout``.
    """
    pairs = list(zip(gold, answers, strict=True))
    outcomes = [_without_mathematics(g, a) for g, a in pairs]
    asked = sorted({(g, a) for (g, a), o in zip(pairs, outcomes, strict=True) if o is None and a is not None})
    settled = _verify(asked, workers) if asked else {}
    return [o or settled[g, a or ""] for (g, a), o in zip(pairs, outcomes, strict=True)]


def _without_mathematics(gold: str, answer: str | None) -> str | None:
    """The outcome where spelling and length decide it, else None."""
    if answer is None:
        return MISSING
    if len(answer) > LONGEST or _depth(answer) > DEEPEST or _IMMENSE.search(answer):
        return RIGHT if gold == answer else WRONG
    first, second = normalise(gold), normalise(answer)
    if first == second:
        return RIGHT
    # Two plain numbers that differ in value are different: no need to ask.
    return WRONG if _PLAIN.fullmatch(first) and _PLAIN.fullmatch(second) else None


def _depth(text: str) -> int:
    """How deep brackets of any kind are nested; those that are never closed count."""
    depth = deepest = 0
    for character in text:
        if character in "({[":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")}]":
            depth = max(0, depth - 1)
    return deepest


# ------------------------------------------------------------------------------------------------- math-verify's processes


def _equivalent(gold: str, answer: str) -> bool:
    """math-verify's judgement, in a worker process. Bare LaTeX gold parses to nothing, so both are put in ``$``."""
    import logging

    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    options: dict[str, Any] = {"parsing_timeout": None}
    try:
        return bool(verify(parse(f"${gold}$", **options), parse(f"${answer}$", **options), timeout_seconds=None))
    except Exception:  # a string that sympy cannot digest is a wrong answer, whatever it raises
        return False


def _warm_up() -> None:
    """Limit a new worker's memory (``9^{9^{9}}`` would take the machine's) and load math-verify.

    Loading takes seconds on a busy machine, which must not count as comparing.
    """
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    _equivalent("1", "2")


_pools: dict[int, Any] = {}


def _pool(workers: int) -> Any:
    """The running pool of so many processes; started once, because that takes seconds."""
    if workers not in _pools:
        from multiprocessing import get_context

        from pebble import ProcessPool

        # forkserver: a fork of a process that runs torch's threads may hang.
        context = get_context("forkserver")
        pool = ProcessPool(max_workers=workers, max_tasks=500, initializer=_warm_up, context=context)
        # One that cannot start would fail every comparison: it is asked what must hold, and its failure is raised.
        assert pool.schedule(_equivalent, args=("\\frac{1}{2}", "0.5")).result(), (
            "math-verify does not know 1/2 from 0.5"
        )
        _pools[workers] = pool
    return _pools[workers]


@atexit.register
def close_pools() -> None:
    """End the processes that compare; the next comparison starts new ones."""
    while _pools:
        _, pool = _pools.popitem()
        pool.stop()
        pool.join()


def _verify(pairs: Sequence[tuple[str, str]], workers: int) -> dict[tuple[str, str], str]:
    from pebble import ProcessExpired

    pool = _pool(workers)
    futures = [pool.schedule(_equivalent, args=pair, timeout=TIMEOUT_S) for pair in pairs]
    verdicts = {}
    for pair, future in zip(pairs, futures, strict=True):
        try:
            verdicts[pair] = RIGHT if future.result() else WRONG
        except (FutureTimeoutError, ProcessExpired, MemoryError, RecursionError):
            verdicts[pair] = TIMEOUT
    return verdicts
