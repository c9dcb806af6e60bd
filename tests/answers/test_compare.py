import operator
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from scalequest.answers import compare as compare_module
from scalequest.answers.compare import LONGEST, TIMEOUT_S, compare, normalise
from scalequest.errors import UserError
from scalequest.outcomes import MISSING, RIGHT, TIMEOUT, WRONG
from tests.fakes import ROOT


@pytest.mark.parametrize(
    ("answer", "spelling"),
    [
        pytest.param("1000", "1000", id="plain"),
        pytest.param("1,000", "1000", id="thousands"),
        pytest.param("12,345,678.50", "12345678.5", id="millions"),
        pytest.param("$ 1,000.0 $", "1000", id="dollars_around"),
        pytest.param("$5", "5", id="dollar_sign"),
        pytest.param("\\$5", "5", id="escaped_dollar_sign"),
        pytest.param("5.", "5", id="final_point"),
        pytest.param(" 5 ", "5", id="spaces"),
        pytest.param(".5", "0.5", id="point_first"),
        pytest.param("0.50", "0.5", id="final_zero"),
        pytest.param("-0", "0", id="negative_zero"),
        pytest.param("-0.0", "0", id="negative_decimal_zero"),
        pytest.param("+5", "5", id="plus"),
        pytest.param("007", "7", id="leading_zeros"),
        pytest.param("1e3", "1000", id="exponent"),
        pytest.param("123456789012345678901234567890", "123456789012345678901234567890", id="long_number_stays_whole"),
        pytest.param("\\dfrac{1}{2}", "\\frac{1}{2}", id="dfrac"),
        pytest.param("\\tfrac{1}{2}", "\\frac{1}{2}", id="tfrac"),
        pytest.param("$x + 1$", "x+1", id="spaces_inside"),
        pytest.param("NaN", "NaN", id="nan_is_a_word"),
        pytest.param("Infinity", "Infinity", id="infinity_is_a_word"),
        pytest.param("1,2", "1,2", id="a_list_is_no_number"),
        pytest.param("1, 2, 3", "1,2,3", id="a_list_with_spaces_is_no_number"),
        pytest.param("10,00", "10,00", id="groups_of_two_are_no_thousands"),
        pytest.param("", "", id="empty"),
    ],
)
def test_trivial_differences_of_spelling_vanish(answer: str, spelling: str):
    assert normalise(answer) == spelling


@pytest.mark.parametrize(
    "answer", ["1e999999999", "-1e-999999999", "9" * 5_000, "1" + ",000" * 2_000, "sNaN", "\ud800", "{" * 500, "\0"],
    ids=["overflow", "underflow", "long", "long_with_commas", "signalling_nan", "surrogate", "braces", "zero_byte"],
)  # fmt: skip
def test_no_answer_of_a_model_can_crash_a_comparison(answer: str):
    assert compare(["17", answer], ["17", answer]) == [RIGHT, RIGHT]


def test_long_numbers_that_differ_in_the_last_digit_are_different():
    # 30 digits: more than the 28 that Python's decimals keep by default.
    assert normalise("1" * 30) != normalise("1" * 29 + "2")


def test_most_pairs_need_no_process(monkeypatch: pytest.MonkeyPatch):
    def no_pool(*_: object) -> dict[tuple[str, str], str]:
        raise AssertionError("a pool was started")

    monkeypatch.setattr(compare_module, "_verify", no_pool)
    gold, found = (
        ["1/2004!", "AB", "18", "12*5=60", "10^{-99}", "(1, 2)"],
        ["1/2006!", "BA", "18 dollars", "60", "10^{-98}", "1, 2"],
    )
    assert compare(gold, found) == [WRONG, WRONG, RIGHT, RIGHT, WRONG, RIGHT]


# Outcomes that need no mathematics: decided by spelling, so that no process is started.
PLAIN = [
    ("equal", "5", "5", RIGHT),
    ("equal_after_normalising", "1000", "$1,000.00$", RIGHT),
    ("other_number", "5", "6", WRONG),
    ("other_sign", "5", "-5", WRONG),
    ("nothing_extracted", "5", None, MISSING),
]


def test_plain_numbers_are_decided_without_a_process(monkeypatch: pytest.MonkeyPatch):
    def no_pool(*_: object) -> dict[tuple[str, str], str]:
        raise AssertionError("a pool was started")

    monkeypatch.setattr("scalequest.answers.compare._verify", no_pool)
    _, gold, found, outcomes = map(list, zip(*PLAIN, strict=True))
    assert compare(gold, found) == outcomes


@pytest.mark.parametrize(
    ("gold", "answer", "outcome"),
    [
        pytest.param("1,2", "12", WRONG, id="list_and_number"),
        pytest.param("12", "1,2", WRONG, id="number_and_list"),
    ],
)
def test_a_list_is_not_the_number_without_its_commas(gold: str, answer: str, outcome: str):
    assert compare([gold], [answer]) == [outcome]


def test_mathematics_decides_what_spelling_does_not_and_order_is_kept():
    pairs = [
        ("\\frac{1}{2}", "0.5", RIGHT),
        ("3", "4", WRONG),
        ("\\frac{1}{3}", "0.333", WRONG),  # not equal, only near
        ("2\\sqrt{3}", "\\sqrt{12}", RIGHT),
        ("0.5", "\\frac{1}{2}", RIGHT),
        ("x+1", None, MISSING),
        ("(1,2)", "(2,1)", WRONG),
        ("\\frac{1}{2}", "0.5", RIGHT),  # the same pair again
        ("7", "}{\\frac", WRONG),  # nothing that can be parsed
        ("7", "7", RIGHT),
    ]
    gold, found, outcomes = map(list, zip(*pairs, strict=True))
    assert compare(gold, found) == outcomes


def test_loading_the_library_is_not_counted_as_comparing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # On a busy machine loading sympy takes longer than a comparison may. If that counted, the first comparisons would be
    # timeouts there and right elsewhere, and the labels would not be repeatable.
    (tmp_path / "latex2sympy2_extended").mkdir()
    (tmp_path / "latex2sympy2_extended" / "__init__.py").write_text("import time\ntime.sleep(1.5)\n")
    (tmp_path / "latex2sympy2_extended" / "latex2sympy2.py").write_text(
        "import sympy\n"
        "class ConversionConfig:\n    def __init__(self, **_): pass\n"
        "class _Latex2Sympy:\n    def __init__(self, **_): pass\n"
        "    def parse(self, text): return sympy.Integer(1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)  # also the worker processes' path
    monkeypatch.setattr(compare_module, "TIMEOUT_S", 1.0)
    compare_module.close_pools()
    assert compare(["x", "y"], ["z+1", "z+1"]) == [RIGHT, RIGHT]  # the stand-in calls everything equal
    compare_module.close_pools()


def test_the_processes_stay_for_the_next_comparison():
    compare(["2\\sqrt{3}"], ["\\sqrt{12}"])
    pool = compare_module._pools[compare_module._equivalent, 2]
    compare(["3\\sqrt{3}"], ["\\sqrt{27}"])
    assert compare_module._pools[compare_module._equivalent, 2] is pool


def test_a_process_that_holds_much_is_replaced_between_pairs(monkeypatch: pytest.MonkeyPatch):
    # Otherwise its limit would decide a pair by what the pairs before it left behind.
    used: list[object] = []
    pool_of = compare_module._pool
    monkeypatch.setattr(compare_module, "_pool", lambda *args: used.append(pool_of(*args)) or used[-1])
    monkeypatch.setattr(compare_module, "PAIRS_AT_ONCE", 2)
    pairs = [(str(n), str(n % 3)) for n in range(5)]
    expected = dict(zip(pairs, [RIGHT] * 3 + [WRONG] * 2, strict=True))
    for limit, n_pools in ((1 << 40, 1), (1, 3)):  # 5 pairs are asked 2 at a time
        monkeypatch.setattr(compare_module, "RECYCLED_BYTES", limit)
        used.clear()
        assert compare_module.decide(operator.eq, pairs, 1, int, ("x", "x")) == expected
        assert len({id(pool) for pool in used}) == n_pools
    compare_module.close_pools()


def test_no_process_outlives_the_one_that_compared():
    code = """
import os, psutil
from scalequest.answers.compare import compare
print(compare(["2\\\\sqrt{3}"], ["\\\\sqrt{12}"]), *[child.pid for child in psutil.Process().children(recursive=True)], flush=True)
os._exit(0)  # as a stage ends
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    verdict, *pids = result.stdout.split()
    assert verdict == "['right']"
    assert len(pids) >= 3  # two that compare, and the one that starts them
    deadline = time.monotonic() + 10
    while any(map(psutil.pid_exists, map(int, pids))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(psutil.pid_exists, map(int, pids)))


# With 48 cores, what a stage imports reserves 2 GiB of addresses and uses none of it.
MAPS_MUCH = """
import mmap
held = mmap.mmap(-1, 3 << 30, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
from scalequest.answers.compare import MEMORY_BYTES, compare, limit_memory
if __name__ == "__main__":
    print(compare(["2\\\\sqrt{3}"], ["\\\\sqrt{12}"], workers=1))
    limit_memory()
    bytes(MEMORY_BYTES // 2)
    try:
        bytes(MEMORY_BYTES)
    except MemoryError:
        print("limited")
"""


def test_what_is_mapped_before_a_comparison_takes_nothing_from_it(tmp_path: Path):
    (tmp_path / "maps.py").write_text(MAPS_MUCH)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "maps.py"], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert result.stdout.splitlines() == ["['right']", "limited"], result.stderr


LOADED = """
import sys
from scalequest.answers.compare import decide
def loaded(*_):
    return {"numpy", "pyarrow"} <= set(sys.modules)
if __name__ == "__main__":
    print(loaded(), decide(loaded, [("x", "y")], 1, int, ("x", "x")))
"""


def test_a_comparing_process_has_what_a_stage_has_imported(tmp_path: Path):
    """Whoever starts it, so that `scalequest check` finds what a stage would fail at."""
    (tmp_path / "loaded.py").write_text(LOADED)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "loaded.py"], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert result.stdout.splitlines() == ["False {('x', 'y'): 'right'}"], result.stderr


def test_comparing_processes_that_do_not_start_are_named():
    compare_module.close_pools()
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(UserError, match="no process for it starts here"):
        compare_module.decide(operator.eq, [("x", "x")], 1, _no_start, ("x", "x"))
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    # What starts the processes, and Python's own keeper of semaphores, stay for the next pool.
    assert len([child for child in left if child.status() != psutil.STATUS_ZOMBIE]) <= 2


def _no_start() -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        pytest.param("x+" * (LONGEST // 2 - 1) + "x", WRONG, id="as_long_as_an_answer_may_be"),
        pytest.param("+".join("1" * LONGEST), WRONG, id="too_long_to_be_asked"),
        pytest.param("\\frac{" * 50 + "1" + "}{2}" * 50, WRONG, id="too_deep_to_be_asked"),
        pytest.param("2^{100000}", WRONG, id="a_huge_power"),
        pytest.param("9^{9^{9^{9}}}", WRONG, id="a_tower"),
        pytest.param("10000!", WRONG, id="a_factorial"),
        pytest.param("2^{1993}", WRONG, id="a_power_as_contests_have_it"),
    ],
)
def test_an_answer_beyond_measure_is_wrong_without_being_asked_about(
    answer: str, outcome: str, monkeypatch: pytest.MonkeyPatch
):
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(
        "scalequest.answers.compare._verify", lambda pairs, _: asked.extend(pairs) or dict.fromkeys(pairs, WRONG)
    )
    assert compare(["\\sqrt{2}"], [answer]) == [outcome]
    assert bool(asked) is answer.startswith(("x+", "2^{1993}"))


@pytest.mark.slow  # one comparison runs into the limit of 5 s
def test_a_comparison_that_hangs_is_ended_and_the_others_are_judged():
    started = time.monotonic()
    outcomes = compare(
        ["1", "\\frac{1}{2}", "1", "2\\sqrt{3}"], ["10^{10^{10}}", "0.5", "9^{9^{9}}", "\\sqrt{12}"], workers=1
    )
    assert outcomes[0] in (TIMEOUT, WRONG)
    assert outcomes[2] in (TIMEOUT, WRONG)
    # One worker: what comes after a killed comparison runs in a new process.
    assert outcomes[1::2] == [RIGHT, RIGHT]
    # Two hanging ones of TIMEOUT_S each, and some seconds to start three workers.
    assert time.monotonic() - started < 2 * TIMEOUT_S + 15


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="zip"):
        compare(["1", "2"], ["1"])


def test_nothing_compared_is_nothing():
    assert compare([], []) == []
