from collections import Counter
from itertools import pairwise

import pytest

from scalequest.problems.draw import draw, hash_place

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
