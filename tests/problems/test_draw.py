import ast
from collections import Counter
from collections.abc import Callable
from inspect import signature
from itertools import pairwise
from typing import Any

import pytest

from scalequest.problems.draw import draw, hash_place
from scalequest.training.examples import hold_out
from tests.fakes import ROOT

# A file as MATH's: sorted by subject, 60 + 30 + 10 rows.
IDS = [f"math/{n}" for n in range(100)]
SUBJECTS = ["algebra"] * 60 + ["geometry"] * 30 + ["counting"] * 10


def subjects(places: list[int]) -> Counter[str]:
    return Counter(SUBJECTS[at] for at in places)


def test_a_draw_is_not_the_first_rows_and_keeps_their_order():
    places = draw(IDS, 20, seed=0)
    assert len(places) == 20
    assert places == sorted(places) != list(range(20))
    assert len(subjects(places)) > 1


def test_strata_get_their_share():
    assert subjects(draw(IDS, 10, 0, SUBJECTS)) == {"algebra": 6, "geometry": 3, "counting": 1}


def test_evenly_takes_as_many_of_each_stratum_as_it_has():
    assert subjects(draw(IDS, 15, 0, SUBJECTS, evenly=True)) == {"algebra": 5, "geometry": 5, "counting": 5}
    assert subjects(draw(IDS, 60, 0, SUBJECTS, evenly=True)) == {"algebra": 25, "geometry": 25, "counting": 10}


@pytest.mark.parametrize("evenly", [False, True])
@pytest.mark.parametrize("strata", [None, SUBJECTS])
def test_sizes_nest(strata: list[str] | None, evenly: bool):
    drawn = [set(draw(IDS, n, 3, strata, evenly)) for n in range(101)]
    assert [len(d) for d in drawn] == list(range(101))
    assert all(small <= large for small, large in pairwise(drawn))


def test_the_files_order_and_other_rows_do_not_move_a_row():
    some = {IDS[at] for at in draw(IDS, 30, 5)}
    backwards = IDS[::-1]
    assert {backwards[at] for at in draw(backwards, 30, 5)} == some
    assert hash_place(5, "math/7") == hash_place(5, "math/7") != hash_place(6, "math/7")


def test_draws_for_two_purposes_are_independent():
    # Of 2,000 rows half are drawn for one thing; of those a fifth is held out for another, not all of them.
    ids = [f"math/{n}" for n in range(2_000)]
    drawn = [ids[at] for at in draw(ids, 1_000, 5, purpose="labels")]
    held_out = [i for i in drawn if hash_place(5, i, "held out") < 0.2]
    # 200 expected, standard deviation 12.6; four of them.
    assert abs(len(held_out) - 200) < 51
    assert all(hash_place(5, ids[at]) < 0.6 for at in draw(ids, 1_000, 5))


def test_another_seed_draws_others():
    assert draw(IDS, 30, 5) != draw(IDS, 30, 6)


def test_all_rows_where_more_are_asked_for_than_there_are():
    assert draw(IDS, None, 0) == draw(IDS, 100, 0, SUBJECTS) == draw(IDS, 1000, 0) == list(range(100))
    assert draw([], 5, 0) == []


def test_rows_with_the_same_id_have_places_of_their_own():
    # 400 pairs of 100 questions: 100 drawn pairs come from many questions, not from 25 whole ones.
    ids = [f"q/{n // 4}" for n in range(400)]
    drawn = [ids[at] for at in draw(ids, 100, 5)]
    assert len(drawn) == 100
    assert len(set(drawn)) > 50


def calls(function: str) -> dict[str, ast.Call]:
    """The calls of a function in the pipeline's own code, by file and line."""
    found: dict[str, ast.Call] = {}
    for path in [*ROOT.glob("scalequest/**/*.py"), *ROOT.glob("stages/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
                found[f"{path.relative_to(ROOT)}:{node.lineno}"] = node
    return found


@pytest.mark.parametrize("function", [draw, hash_place, hold_out])
def test_every_draw_has_a_purpose_and_no_two_files_share_one(function: Callable[..., Any]):
    at = list(signature(function).parameters).index("purpose")
    owners: dict[str, set[str]] = {}
    found = calls(function.__name__)
    assert found
    for place, call in found.items():
        named = [keyword.value for keyword in call.keywords if keyword.arg == "purpose"] + call.args[at : at + 1]
        assert named, (
            f"{place}: {function.__name__} without a purpose. Expected one of its own: correlated draws otherwise"
        )
        if not isinstance(named[0], ast.Name):  # a name is a purpose that is passed on
            owners.setdefault(ast.unparse(named[0]), set()).add(place.split(":")[0])
    assert all(len(files) == 1 for files in owners.values()), owners
