r"""Whether two final answers are the same mathematics. One home for the answer filter, the labels and the scores.

An answer is brought into one notation (``notation.clean``), then taken apart until its parts are numbers, words or formulas:

1. lists, tuples, sets and matrices by their parts;
2. equations by what they say (below);
3. numbers by their exact value (``exact.exact_value``), words by their spelling;
4. what is left by sympy, in processes with limits (``symbolic.same_expression``).

Choices, where two answers may or may not be called the same:

- **Decimals.** Numbers are compared exactly. A decimal also equals what it rounds, if that has no
  finite decimal expansion: 0.333333 is 1/3, 3.141593 is pi, 0.333 is neither. The tolerance is
  relative, 1e-6.
- **Mixed numbers.** ``1 1/2`` and ``1\frac{1}{2}`` are 3/2.
- **Percent.** ``10%`` is 0.1, and it is 10 where the other answer has no percent sign.
- **Units.** A unit, currency or degree sign that one answer leaves out is ignored. Two different ones make the answers different;
  nothing is converted: ``5 cm`` is not ``50 mm``, ``5 m/s`` is not ``5 m``, and ``$5`` is not ``5%``.
- **Times of day.** ``12:30 PM`` is also 12:30, which leaves the half of the day out; it is not ``12:30 AM``.
- **Ranges.** ``3-5`` and ``3 to 5`` are ``[3,5]``. ``3 - 5``, ``10-5`` and ``$3-5$`` are differences.
- **Thousands.** Commas or blanks between groups of exactly three digits: ``1,000`` is 1000,
  ``10,00`` is a list. Within brackets a comma separates: ``(1,234)`` is a pair.
- **Order.** Sets and lists without brackets have no order; tuples, intervals and vectors have one.
  ``1, 2`` is also the pair (1, 2). ``(1,2)`` is not ``[1,2]``, and ``\{1,2\}`` is neither.
  ``3 \pm 1`` is the list 4, 2.
- **Equations.** ``x = 5`` is also 5: a name on one side stands for the other side. ``f(x) = x + 1``
  is also x + 1, but ``f(x) = 0`` and ``x^2 = 0`` are equations and no number. Without a variable
  both sides count: ``12*5 = 60`` is not ``12*6 = 72``, but it is 60.
- **Letters.** A sequence of letters is a word, whatever their case: AB is not BA, ``no`` is not ``on``. Only within a formula
  small letters are a product.
- **Dates, times, ratios** are compared part by part: ``2024-05-12`` is no difference, and ``1:2`` is not ``2:4``.
- **Bases.** A base that one answer leaves out is ignored: ``101_2`` is also 101.
"""

import atexit
import re
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any

from scalequest.answers.equality import equal
from scalequest.answers.notation import clean
from scalequest.errors import UserError
from scalequest.outcomes import MISSING, RIGHT, TIMEOUT, WRONG

# Hard limit of one comparison, in seconds. A limit by signal would do nothing in a thread or in C code that hangs.
TIMEOUT_S = 5.0
# Memory that a comparing process may allocate after loading; a pair that needs more is a timeout.
MEMORY_BYTES = 1536 << 20
# A process that came to hold this much is replaced after the pairs in work, long before its limit decides a pair. Without such
# pairs a process stays: a new one loads sympy and learns its grammar again, a third of the time at 500 pairs per process.
RECYCLED_BYTES = 512 << 20
# Pairs between two looks at the memory.
PAIRS_AT_ONCE = 1_000
# Processes that compare formulas, where the caller names no number. One of several processes that compare sets 1.
PROCESSES = 2
# An answer beyond these is wrong without a comparison, unless it is spelled as the gold answer is: it would cost the limits above
# to find out. Of all answers in MATH's 12,200 problems the longest has 159 characters and the deepest is 3 brackets deep.
LONGEST, DEEPEST = 1_000, 20
# Numbers of more than some ten thousand digits: 2^{10000}, a tower of three powers, 10000!
_IMMENSE = re.compile(r"\^\s*\{?\s*\d{5,}|\d\s*\^\s*\{?\s*\d+\s*\^\s*\{?\s*\d+\s*\^|\d{5,}\s*!|\d{3,}\s*!\s*!")
_PLAIN_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def normalise(answer: str) -> str:
    """A spelling that makes the common trivial differences equal: ``$ 1,000.0 $`` and ``1000``."""
    text = clean(answer) if len(answer) <= LONGEST else answer.strip()
    if _PLAIN_NUMBER.fullmatch(text.removesuffix(" dollar")):  # $5 is spelled as a number
        text = text.removesuffix(" dollar")
    if not _PLAIN_NUMBER.fullmatch(text):
        return text
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    if not -40 < number.adjusted() < 40:
        return text
    with localcontext(prec=len(text) + 1):  # by default 28 digits: longer numbers would be rounded to equality
        number = number.normalize()
    return format(number if number != 0 else Decimal(0), "f")


def compare(gold: Sequence[str], answers: Sequence[str | None], workers: int | None = None) -> list[str]:
    """Compare N extracted answers with N gold answers, in order.

    What needs no sympy is decided here. The rest goes to processes; a comparison that takes longer than 5 s is killed with its
    process. The processes stay for the next call.

    Returns:
        For each pair ``right``, ``wrong``, ``no_answer`` (nothing was extracted) or ``timeout``.
    """
    pairs = list(zip(gold, answers, strict=True))
    decided = {pair: _without_sympy(*pair) for pair in dict.fromkeys(pairs)}
    asked = sorted((g, a) for (g, a), outcome in decided.items() if outcome is None and a is not None)
    settled = _verify(asked, workers or PROCESSES) if asked else {}
    return [decided[g, a] or settled[g, a or ""] for g, a in pairs]


# ----------------------------------------------------------------------------------------------------------- decided here


class _UndecidedError(Exception):
    """The answers differ in a formula."""


def _undecided(first: str, second: str) -> bool:
    raise _UndecidedError


def _without_sympy(gold: str, answer: str | None) -> str | None:
    """The outcome where no formula has to be compared, else None."""
    if answer is None:
        return MISSING
    if gold == answer:
        return RIGHT
    if any(len(text) > LONGEST or _depth(text) > DEEPEST or _IMMENSE.search(text) for text in (gold, answer)):
        return WRONG
    if normalise(gold) == normalise(answer):
        return RIGHT
    try:
        return RIGHT if equal(gold, answer, _undecided) else WRONG
    except _UndecidedError:
        return None


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


# ------------------------------------------------------------------------------------------------- processes for formulas


def _equivalent(gold: str, answer: str) -> bool:
    """The comparison with sympy, in a worker process."""
    from scalequest.answers.symbolic import same_expression

    return equal(gold, answer, same_expression)


def _warm_up() -> None:
    """Load sympy in a new worker, and limit its memory (``9^{9^{9}}`` would take the machine's).

    Loading takes seconds on a busy machine, which must not count as comparing.
    """
    _equivalent("\\sqrt{2}", "\\sqrt{3}")
    limit_memory()


def limit_memory() -> None:
    """Limit what this process takes from now on.

    RLIMIT_AS limits all addresses, and how many a process already has depends on the machine: numpy, which stages import,
    reserves 42 MB per core. With 2 GiB in all, no process started where it had 48 cores.
    """
    import resource

    import psutil

    limit = psutil.Process().memory_info().vms + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


Judge = Callable[[str, str], bool]
_pools: dict[tuple[Judge, int], Any] = {}


def _pool(judge: Judge, workers: int, warm_up: Callable[[], None], known: tuple[str, str]) -> Any:
    """The running pool of that many processes for a judge; started once, because that takes seconds."""
    if (judge, workers) not in _pools:
        from multiprocessing import get_context

        from pebble import ProcessPool

        # forkserver: a fork of a process that runs torch's threads may hang.
        context = get_context("forkserver")
        # A stage has imported these. A caller that has not, such as `scalequest check`, must fail where a stage would.
        context.set_forkserver_preload(["__main__", "numpy", "pyarrow"])
        pool = ProcessPool(max_workers=workers, initializer=warm_up, context=context)
        # A pool that cannot start would fail every comparison: ask it what must hold, and raise its failure.
        try:
            assert pool.schedule(judge, args=known).result(), (
                f"the comparing process does not know that {known} are one"
            )
        except (BrokenExecutor, MemoryError) as error:
            pool.stop()
            pool.join()
            raise UserError(
                f"comparing answers failed: no process for it starts here ({error or 'too little memory'}). Expected one that finds "
                f"{known} equal. Its own error is above. Free memory, or install what it misses, and run again"
            ) from error
        _pools[judge, workers] = pool
    return _pools[judge, workers]


@atexit.register
def close_pools() -> None:
    """End the processes that compare; the next comparison starts new ones."""
    while _pools:
        _close(next(iter(_pools)))


def _close(key: tuple[Judge, int]) -> None:
    pool = _pools.pop(key)
    pool.stop()
    pool.join()


def _verify(pairs: Sequence[tuple[str, str]], workers: int) -> dict[tuple[str, str], str]:
    return decide(_equivalent, pairs, workers, _warm_up, ("2\\sqrt{3}", "\\sqrt{12}"))


def decide(
    judge: Judge, pairs: Sequence[tuple[str, str]], workers: int, warm_up: Callable[[], None], known: tuple[str, str]
) -> dict[tuple[str, str], str]:
    """What a judge says of each pair, asked in processes that are killed after TIMEOUT_S with what they do.

    Args:
        judge: whether a pair of gold answer and answer is one; a function of a module.
        pairs: to judge.
        workers: number of processes; they stay for the next call.
        warm_up: runs first in each process: it limits the memory and loads what takes seconds.
        known: a pair that the judge says yes to.

    Returns:
        By pair ``right``, ``wrong`` or ``timeout``.

    Raises:
        UserError: no such process starts.
    """
    from pebble import ProcessExpired

    verdicts = {}
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        some, largest = pairs[start : start + PAIRS_AT_ONCE], 0
        pool = _pool(judge, workers, warm_up, known)
        futures = [pool.schedule(_judged, args=(judge, *pair), timeout=TIMEOUT_S) for pair in some]
        for pair, future in zip(some, futures, strict=True):
            try:
                same, peak = future.result()
                verdicts[pair], largest = RIGHT if same else WRONG, max(largest, peak)
            except (FutureTimeoutError, ProcessExpired, MemoryError, RecursionError):
                verdicts[pair] = TIMEOUT
        if largest > RECYCLED_BYTES:
            _close((judge, workers))
    return verdicts


def _judged(judge: Judge, gold: str, answer: str) -> tuple[bool, int]:
    """What a judge says, and the most memory that its process has held, in bytes."""
    import resource

    return judge(gold, answer), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
