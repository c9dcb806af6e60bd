"""Puzzles as plain data: every data set that is kept so repeats, and its own verifier knows right from wrong by what is kept."""

import json
import os
import subprocess
import sys
from functools import cache
from hashlib import sha256
from itertools import product
from typing import Any

import pytest

from scalequest.answers.puzzle import score
from scalequest.errors import UserError
from scalequest.params import ReasoningGymSource
from scalequest.problems.puzzles import PUZZLES, encoded, known_answer, puzzle_of
from scalequest.problems.sources import load_problems, load_source
from tests.fakes import ROOT

SEED, N = 21_000_000, 8
each_puzzle = pytest.mark.parametrize("dataset", PUZZLES)


def gym(dataset: str, n: int = N, **config: Any) -> ReasoningGymSource:
    return ReasoningGymSource(kind="reasoning_gym", dataset=dataset, n=n, seed=SEED, templates="all", config=config)


@cache
def items(dataset: str) -> tuple[Any, list[dict[str, Any]]]:
    """The data set and its first items."""
    import reasoning_gym

    n = 3 if dataset == "zebra_puzzles" else N  # which take 0.1 s each
    made = reasoning_gym.create_dataset(dataset, size=n, seed=SEED)
    return made, [made[at] for at in range(n)]


def fingerprints() -> dict[str, str]:
    """A hash of the items' questions and answers, by data set."""
    texts = {name: json.dumps([[i["question"], encoded(name, i)] for i in items(name)[1]]) for name in PUZZLES}
    return {name: sha256(text.encode()).hexdigest() for name, text in texts.items()}


def test_items_are_the_same_in_another_process_with_another_hash_seed():
    command = "import json; from tests.problems.test_puzzles import fingerprints; print(json.dumps(fingerprints()))"
    environment = os.environ | {"PYTHONHASHSEED": "5", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, env=environment, check=True
    )
    assert json.loads(result.stdout.splitlines()[-1]) == fingerprints()


@each_puzzle
def test_the_verifier_gives_the_known_answer_1_and_those_of_other_items_less(dataset: str):
    made, drawn = items(dataset)
    for item in drawn:
        puzzle = puzzle_of(encoded(dataset, item))
        assert score(puzzle, item["answer"]) == 1.0
        for other in {i["answer"] for i in drawn} - {item["answer"]}:
            assert score(puzzle, other) < 1.0
            assert score(puzzle, other) == made.score_answer(other, item)  # what is kept is all that the verifier reads
        for text in ("", "\0", "I do not know.", "\\boxed{", "1 " * 400, item["question"]):
            assert score(puzzle, text) < 1.0


@each_puzzle
def test_a_source_of_puzzles_keeps_the_entry_and_teaches_the_bare_answer(dataset: str):
    loaded = load_source("s", gym(dataset, 3), 17, need_solution=True)
    assert loaded.without_solution == 3
    for problem in loaded.problems:
        puzzle = puzzle_of(problem["answer"])
        assert puzzle.dataset == dataset
        assert set(puzzle.metadata) == set(PUZZLES[dataset])
        assert problem["solution"] == f"The answer is \\boxed{{{known_answer(problem['answer'])}}}."
        assert score(puzzle, known_answer(problem["answer"])) == 1.0


def holds(statement: tuple[Any, ...], knights: tuple[bool, ...]) -> bool:
    """Whether a statement is true if these are the knights."""
    sign, *parts = statement
    if sign in ("telling-truth", "lying"):
        return knights[parts[0]] is (sign == "telling-truth")
    values = [holds(part, knights) for part in parts]
    truths = {"not": lambda: not values[0], "and": lambda: all(values), "or": lambda: any(values),
              "->": lambda: not values[0] or values[1], "<=>": lambda: values[0] == values[1]}  # fmt: skip
    return truths[sign]()


def test_knights_and_knaves_have_one_solution_and_it_is_the_known_one():
    for item in items("knights_knaves")[1]:
        said, names = item["metadata"]["statements"], item["metadata"]["names"]
        worlds = product([True, False], repeat=len(said))
        possible = [w for w in worlds if all(holds(s, w) is w[k] for k, s in enumerate(said))]
        assert possible == [item["metadata"]["solution"]]
        assert all(name in item["answer"] for name in names)


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        ("syllogism", "calls fallacies valid"),
        ("propositional_logic", "has no answer to teach"),
        ("word_ladder", "follows Python's hash seed"),
        ("ransom_note", "follows Python's hash seed"),
        ("isomorphic_strings", "follows Python's hash seed"),
        ("graph_color", "gives no answer .item 0., only a verifier. Expected one to teach"),
    ],
)
def test_a_data_set_that_cannot_be_used_is_refused_by_its_reason(dataset: str, reason: str):
    with pytest.raises(UserError, match=rf"s\.dataset: '{dataset}' {reason}"):
        load_problems("s", gym(dataset, 2), 17, need_solution=True)


@pytest.mark.parametrize(
    "answer",
    [
        "7", "{1, 2}", "{", '{"puzzle": "aiw"}', '{"puzzle": "os", "answer": "1", "metadata": {}}', "{" * 100_000,
        '{"puzzle": ["aiw"], "answer": "1", "metadata": {}}', '{"puzzle": "aiw", "answer": 1, "metadata": {}}', "[]", "",
    ],
)  # fmt: skip
def test_any_other_answer_is_no_puzzle(answer: str):
    assert puzzle_of(answer) is None
    assert known_answer(answer) == answer
