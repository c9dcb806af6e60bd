import operator
import re
from fractions import Fraction
from typing import Any

import pytest

from scalequest.answers.compare import normalise
from scalequest.answers.find import boxed
from scalequest.errors import UserError
from scalequest.params import ReasoningGymSource
from scalequest.problems.sources import load_problems, load_source
from scalequest.text import question_key


def gym(dataset: str, n: int, seed: int = 1_000_000, templates: str = "all", **config: Any) -> ReasoningGymSource:
    return ReasoningGymSource(kind="reasoning_gym", dataset=dataset, n=n, seed=seed, templates=templates, config=config)


OPERATORS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "x": operator.mul,
    "/": operator.truediv,
}
# "a op b = c" with plain numbers ($ and thousands commas allowed) that is not a part of a longer expression.
_NUMBER = r"\$?\d[\d,]*(?:\.\d+)?"
_STEP = re.compile(
    rf"({_NUMBER}) ?([+\-*/x]) ?({_NUMBER}) ?= ?({_NUMBER})(?!\d|[.,]\d|%|/| ?[+*/x÷-] ?[\d$(])",
)
_PART_OF_MORE = re.compile(r"[\d)%\w] ?[+\-*/x÷(^] ?\$?$|[\w.)/%]$|\d $|[+*/x÷] ?-$")


def steps(text: str) -> list[tuple[str, Fraction, Fraction]]:
    """Each plain step of a solution: its text, what it comes to, what the solution says."""
    found = []
    for line in text.splitlines():
        for match in _STEP.finditer(line):
            if not _PART_OF_MORE.search(line[: match.start()]):
                left, sign, right, told = match.groups()
                a, b, c = (Fraction(x.replace("$", "").replace(",", "")) for x in (left, right, told))
                found.append((match.group(), Fraction(OPERATORS[sign](a, b)), c))
    return found


def test_the_step_reader_finds_wrong_steps_and_only_plain_ones():
    assert steps("so 90 / 12 = 7 trays") == [("90 / 12 = 7", Fraction(15, 2), Fraction(7))]
    assert steps("he makes $2,000 + $500 = $2,500 a day") == [
        ("$2,000 + $500 = $2,500", Fraction(2500), Fraction(2500))
    ]
    # Each of these is a part of a longer expression, or not about plain numbers.
    assert steps("3 + 4 * 5 = 23\n150 pages x 1/3 = 50\n12÷1/2=24\n33-8-16 = 9\n50% * 50% = 25%\n2 * 3 = 6 + 0") == []


def test_chain_sums_are_worked_out_term_by_term():
    problems = load_problems("s", gym("chain_sum", 200, min_terms=2, max_terms=4, min_digits=1, max_digits=2), 17, True)
    assert len(problems) == 200
    for problem in problems:
        expression = re.fullmatch(r"What is (-?\d+(?: [+-] -?\d+)+)\?", problem["question"]).group(1)
        *lines, last = problem["solution"].splitlines()
        total, *rest = expression.split()
        # One line a sign, each starting from the total so far.
        assert len(lines) == len(rest) // 2
        for line, sign, term in zip(lines, rest[::2], rest[1::2], strict=True):
            result = OPERATORS[sign](int(total), int(term))
            assert line == f"{total} {sign} {term} = {result}"
            total = str(result)
        assert last == f"The answer is \\boxed{{{total}}}."
        assert problem["answer"] == total


def test_products_are_right():
    problems = load_problems("p", gym("products", 200, min_terms=2, max_terms=2, min_digits=1, max_digits=2), 17, True)
    assert len(problems) == 200
    for problem in problems:
        first, second = re.fullmatch(r"What is (\d+) \* (\d+)\?", problem["question"]).groups()
        product = int(first) * int(second)
        assert problem["solution"] == f"{first} * {second} = {product}\nThe answer is \\boxed{{{product}}}."
        assert problem["answer"] == str(product)


def test_legs_are_counted_by_animal_and_summed():
    config = {"min_animals": 1, "max_animals": 3, "min_instances": 1, "max_instances": 9}
    problems = load_problems("l", gym("leg_counting", 200, **config), 17, True)
    assert len(problems) == 200
    sizes = set()
    for problem in problems:
        herd = re.fullmatch(r"How many legs are there in total if you have (.+)\?", problem["question"]).group(1)
        numbers = [int(n) for n in re.findall(r"\d+", herd)]
        lines = problem["solution"].splitlines()
        counts = []
        for n, line in zip(numbers, lines[: len(numbers)], strict=True):
            count, legs, total = re.fullmatch(rf"{n} .+: (\d+) \* (\d+) = (\d+) legs", line).groups()
            assert int(count) == n
            assert int(count) * int(legs) == int(total)
            counts.append(int(total))
        if len(counts) > 1:
            assert lines[len(counts)] == f"{' + '.join(map(str, counts))} = {sum(counts)}"
        assert lines[-1] == f"The answer is \\boxed{{{sum(counts)}}}."
        assert problem["answer"] == str(sum(counts))
        assert len(lines) == len(counts) + (len(counts) > 1) + 1
        sizes.add(len(counts))
    assert sizes == {1, 2, 3}


@pytest.mark.parametrize("templates", ["even", "odd"])
def test_story_solutions_have_no_wrong_step(templates: str):
    problems = load_problems("g", gym("gsm_symbolic", 200, seed=7_000_000, templates=templates), 17, True)
    assert len(problems) == 200
    checked = 0
    for problem in problems:
        for text, value, told in steps(problem["solution"]):
            assert abs(value - told) <= Fraction(1, 10**6) * max(1, abs(told)), f"{problem['id']}: {text}"
            checked += 1
    # About two plain steps a story (measured: 1.8); fewer would mean that the reader above has gone blind.
    assert checked > 200


def test_story_solutions_box_the_answer_and_lose_the_marks():
    for problem in load_problems("g", gym("gsm_symbolic", 200, seed=7_000_000), 17, True):
        assert "####" not in problem["solution"]
        assert boxed(problem["solution"]) == problem["answer"]
        assert "Give the result" not in problem["question"]
        assert re.fullmatch(r"-?\d+(\.\d+)?", normalise(problem["answer"]))


def test_a_data_set_without_a_worked_solution_gives_its_answer():
    [problem, *_] = load_problems("d", gym("gcd", 3), 17, True)
    assert problem["solution"] == f"The answer is \\boxed{{{problem['answer']}}}."


def test_disjoint_seed_ranges_give_disjoint_questions():
    # Four terms of four digits: 9000**4 * 2**3 expressions, so a chance hit is out of the question. Where numbers are
    # small (the laptop run) ranges do overlap, and `benchmarks` drops what is a seed: see stages/test_benchmarks.py.
    config = {"min_terms": 4, "max_terms": 4, "min_digits": 4, "max_digits": 4}
    seeds = load_problems("a", gym("chain_sum", 300, 1_000_000, **config), 17, True)
    tests = load_problems("b", gym("chain_sum", 300, 101_000_000, **config), 17, False)
    keys = {question_key(p["question"]) for p in [*seeds, *tests]}
    assert len(keys) == 600
    # Overlapping ranges do share: item i of one is item i + 100 of the other.
    near = load_problems("c", gym("chain_sum", 300, 1_000_100, **config), 17, False)
    assert len(keys | {question_key(p["question"]) for p in near}) == 700


def test_the_same_range_gives_the_same_problems_and_more_of_it_only_appends():
    few = load_problems("a", gym("gsm_symbolic", 20, 5), 1, True)
    assert few == load_problems("a", gym("gsm_symbolic", 20, 5), 2, True)
    assert load_problems("a", gym("gsm_symbolic", 30, 5), 1, True)[:20] == few


def test_exact_duplicates_are_dropped_and_ids_stay_the_rows():
    # One-digit products: 100 ordered pairs of 0..9, so 60 distinct ones cannot come from 60 draws without repeats.
    problems = load_problems("p", gym("products", 60, min_terms=2, max_terms=2, min_digits=1, max_digits=1), 17, True)
    assert len({question_key(p["question"]) for p in problems}) == 60
    rows = [int(p["id"].removeprefix("p/")) for p in problems]
    assert rows == sorted(rows)
    assert rows[-1] > 59


def masked_runs(question: str, n: int = 8) -> set[str]:
    """Runs of n words with numbers and capitalised words masked: what two fillings of one template share."""
    masked = re.sub(r"\b[A-Z]\w+", "name", question)
    tokens = ["number" if w.isdigit() else w for w in re.findall(r"\w+", masked.lower())]
    return {" ".join(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}


def test_even_and_odd_templates_share_no_text():
    def runs(templates: str, seed: int) -> list[set[str]]:
        source = gym("gsm_symbolic", 400, seed=seed, templates=templates)
        return [masked_runs(p["question"]) for p in load_problems("g", source, 17, False)]

    even = set().union(*runs("even", 7_000_000))
    assert not even & set().union(*runs("odd", 107_000_000))
    # The measure sees a shared template: other fillings of the even ones nearly all have a run in common.
    again = runs("even", 207_000_000)
    assert sum(bool(own & even) for own in again) > 0.9 * len(again)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param(gym("rubiks_sums", 3), "x.dataset: reasoning_gym has no data set 'rubiks_sums'; it has", id="no_such_set"),
        pytest.param(gym("chain_sum", 3, terms=2), "x.config: reasoning_gym refuses {'terms': 2} for 'chain_sum'", id="no_such_setting"),
        pytest.param(gym("chain_sum", 3, min_terms=5, max_terms=2), "x.config: reasoning_gym refuses", id="contradictory_setting"),
        # One-digit products of two terms: at most 100 ordered pairs.
        pytest.param(gym("products", 101, min_terms=2, max_terms=2, min_digits=1, max_digits=1), "distinct problems, n is 101; lower n or widen config", id="too_few_distinct"),
    ],
)  # fmt: skip
def test_what_reasoning_gym_cannot_give_is_named(source: ReasoningGymSource, expected: str):
    with pytest.raises(UserError) as caught:
        load_problems("x", source, 17, True)
    assert expected in str(caught.value)


def test_excluded_items_of_reasoning_gym_are_replaced_by_the_next_ones():
    source = gym("products", 20, min_terms=2, max_terms=2, min_digits=1, max_digits=1)
    first = load_problems("p", source, 17, True)
    loaded = load_source("p", source, 17, True, exclude={question_key(p["question"]) for p in first[:5]})
    assert len(loaded.problems) == 20
    assert loaded.problems[:15] == first[5:]
    assert loaded.left_out == {"benchmark_item": 5}


def test_n_of_reasoning_gym_is_nested():
    for dataset in ("chain_sum", "gsm_symbolic", "leg_counting", "products"):
        small, large = (load_problems("g", gym(dataset, n), 17, True) for n in (20, 60))
        assert large[:20] == small


@pytest.mark.parametrize("dataset", ["time_intervals", "polynomial_multiplication"])
def test_a_data_set_that_cannot_be_repeated_is_refused(dataset: str):
    with pytest.raises(UserError, match=rf"'{dataset}' (draws from today's date|follows Python's hash seed)"):
        load_problems("x", gym(dataset, 3), 17, need_solution=True)
