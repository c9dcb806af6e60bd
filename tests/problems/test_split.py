from scalequest.problems.split import split_for_solver

SEEDS = [{"id": f"a/{i}"} for i in range(1_000)]


def ids(rows: list[dict]) -> set[str]:
    return {row["id"] for row in rows}


def test_each_seed_is_taught_or_left_to_measure():
    taught, unseen = split_for_solver(SEEDS, "lora", 0.6, 17)
    assert not ids(taught) & ids(unseen)
    assert ids(taught) | ids(unseen) == ids(SEEDS)
    # 600 expected, standard deviation sqrt(1,000 * 0.6 * 0.4) = 15.5; four of them.
    assert abs(len(taught) - 600) < 62


def test_more_seeds_or_a_larger_share_move_none_back():
    taught, unseen = split_for_solver(SEEDS, "full", 0.5, 17)
    more_taught, more_unseen = split_for_solver([*SEEDS, {"id": "b/0"}], "full", 0.5, 17)
    assert ids(taught) <= ids(more_taught)
    assert ids(unseen) <= ids(more_unseen)
    assert ids(taught) < ids(split_for_solver(SEEDS, "full", 0.7, 17)[0])
    assert ids(taught) != ids(split_for_solver(SEEDS, "full", 0.5, 18)[0])


def test_a_solver_that_is_not_trained_has_seen_nothing():
    assert split_for_solver(SEEDS, "none", 0.6, 17) == ([], SEEDS)
