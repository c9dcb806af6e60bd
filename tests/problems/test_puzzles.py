"""Puzzles as plain data: every data set that is kept so repeats, and its own verifier knows right from wrong by what is kept."""

import json
import os
import re
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


def relation(question: str) -> str:
    """What the first person asked for is to the second, by the story alone and without the sex."""
    story, asked = question.split("\n\n")
    couples = re.findall(r"(\w+) is married to (\w+)\.(?: They have (?:a child|children) called ([^.]+)\.)?", story)
    spouse = {one: other for first, second, _ in couples for one, other in ((first, second), (second, first))}
    parents = {child: {a, b} for a, b, called in couples for child in re.split(", | and ", called) if child}
    grand = {child: set().union(*(parents.get(p, set()) for p in two)) for child, two in parents.items()}
    one, two = (name for name in re.findall(r"[A-Z]\w+", asked.split("?")[0]) if name in spouse | parents)
    found = {
        "parent": one in parents.get(two, ()), "child": two in parents.get(one, ()), "spouse": spouse.get(one) == two,
        "sibling": one in parents and parents[one] == parents.get(two), "grandparent": one in grand.get(two, ()),
        "parent's sibling": bool(parents.get(one, set()) & grand.get(two, set())),
    }  # fmt: skip
    return next((name for name, holds in found.items() if holds), "another")


RELATIONS = {
    "mother": "parent", "father": "parent", "son": "child", "daughter": "child", "wife": "spouse", "husband": "spouse",
    "sister": "sibling", "brother": "sibling", "grandmother": "grandparent", "grandfather": "grandparent",
    "aunt": "parent's sibling", "uncle": "parent's sibling",
}  # fmt: skip


@pytest.mark.parametrize("config", [{"max_family_size": 6}, {"min_family_size": 11, "max_family_size": 14}])
def test_family_relationships_hold_in_their_stories(config: dict[str, int]):
    """In-laws, nieces and nephews have the answer of the other person (reasoning_gym's issue 535)."""
    drawn = load_source("s", gym("family_relationships", 200, **config), 17, need_solution=True).problems
    answers = {problem["question"]: known_answer(problem["answer"]) for problem in drawn}
    assert {q: a for q, a in answers.items() if RELATIONS.get(a) != relation(q)} == {}
    assert len(set(answers.values())) >= 10


def test_the_puzzles_of_alice_are_counted_right():
    """A boy's sisters are the girl and her sisters. Of two circles of colleagues only one is counted (its issue 534)."""
    drawn = load_source("s", gym("aiw", 200), 17, need_solution=True).problems
    for problem in drawn:
        question = problem["question"]
        [girls] = re.findall(r"(\d+) (?:sisters|female friends)", question)
        assert known_answer(problem["answer"]) == str(int(girls) + 1), question


TURNED = {  # what is on top, at the front, right, back, left and bottom after a side is turned to the top
    "front": (1, 5, 2, 0, 4, 3), "back": (3, 0, 2, 5, 4, 1), "right": (2, 1, 5, 3, 0, 4), "left": (4, 1, 0, 3, 5, 2),
    "bottom": (5, 3, 2, 1, 4, 0), "top": (0, 1, 2, 3, 4, 5),
}  # fmt: skip


def test_turned_cubes_have_their_colors():
    sides = ("top", "front", "right", "back", "left", "bottom")
    drawn = load_source("s", gym("color_cube_rotation", 200, max_rotations=4), 17, need_solution=True).problems
    for problem in drawn:
        head, *turns, asked = [part for part in problem["question"].split("\n\n") if part]
        colors = dict(re.findall(r"(?<=- a )(\w+) (\w+)(?= side)", head.replace("- an ", "- a ")))
        cube = [next(color for color, place in colors.items() if place == side) for side in sides]
        for turn in turns:
            side = next(word for word in re.findall(r"\w+", turn) if word in sides)
            cube = [cube[place] for place in TURNED[side]]
        wanted = re.search(r"color of the (\w+) side", asked)[1]
        assert known_answer(problem["answer"]) == cube[sides.index(wanted)], problem["question"]


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
