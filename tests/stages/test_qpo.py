from pathlib import Path

import pytest

from scalequest.models.chat import ChatFormat
from scalequest.training.dpo import DPO, FEWEST_HELD_OUT
from scalequest.training.examples import Pair
from scalequest.training.job import Job
from scalequest.training.measured import Measured
from stages.qft import question_example
from stages.qpo import question_pair, split_pairs


@pytest.mark.parametrize("chat_name", ["chatml", "deepseek"])
def test_the_rewrite_is_chosen_and_both_sides_are_what_qft_taught(chat_name: str, request: pytest.FixtureRequest):
    chat: ChatFormat = request.getfixturevalue(chat_name)
    pair = question_pair(chat, {"id": "s/0", "question": "Tom has 3.", "rewrite": "Tom has 3. How many?"})
    chosen, rejected = question_example(chat, "Tom has 3. How many?"), question_example(chat, "Tom has 3.")
    # Same prefix, same end token, no blank line more on one side (docs/paper-differences.md, 8).
    assert pair.prompt == chosen.prompt == rejected.prompt
    assert pair.chosen == chosen.target
    assert pair.rejected == rejected.target


PAIRS = [Pair([1], [2], [3], f"sums/{i}") for i in range(200)]


def test_pairs_are_held_out_by_their_ids():
    learned, tested = split_pairs(PAIRS, 0.1, seed=17)
    assert FEWEST_HELD_OUT <= len(tested) < 40
    assert sorted([*learned, *tested], key=id) == sorted(PAIRS, key=id)
    # More pairs move none across, and another order changes nothing.
    again, same = split_pairs([*PAIRS[::-1], Pair([1], [2], [3], "new")], 0.1, seed=17)
    assert {p.id for p in tested} <= {p.id for p in same}
    assert {p.id for p in learned} <= {p.id for p in again}


@pytest.mark.parametrize(("n", "frac"), [(20, 0.1), (200, 0.0), (3, 0.9)])
def test_too_few_pairs_to_show_a_preference_are_all_learned_from(n: int, frac: float):
    assert split_pairs(PAIRS[:n], frac, seed=17) == (PAIRS[:n], [])


@pytest.mark.parametrize(
    ("saved", "lost", "no_preference"),
    [
        pytest.param([3.9, 4.1, 4.0, 4.0] * 4, False, False, id="kept"),
        pytest.param([0.5] * 16, True, False, id="a_margin_of_an_eighth"),
        pytest.param([1.9] * 16, True, False, id="just_below_half"),
        pytest.param([40.0] * 12 + [-4.0] * 4, False, True, id="12_of_16_are_two_standard_errors"),
        pytest.param([40.0] * 13 + [-4.0] * 3, False, False, id="13_of_16_are_more"),
        pytest.param([0.0] * 16, True, True, id="nothing_moved"),
    ],
)
def test_a_margin_lost_in_saving_and_a_preference_of_a_coin_are_flagged(
    saved: list[float], lost: bool, no_preference: bool
):
    # Measured once: 0.408 trained, 0.052 saved, and no warning (docs/paper-differences.md).
    job = Job(DPO(0.1), Path("in"), Path("out"), [], None, "bfloat16", 1, None, tests=PAIRS[:16], held_out=True)  # type: ignore[arg-type]
    base = Measured(float32=[1.0] * 16, engine=[0.0] * 16)
    metrics, flags = DPO(0.1).compare(job, base, trained=[5.0] * 16, saved=saved)
    assert flags == {"lost_in_saving": lost, "few_held_out": False, "no_preference": no_preference}
    assert metrics["margin_trained"] == 0.4
    assert metrics["margin"] == pytest.approx(0.1 * sum(saved) / 16)
    assert metrics["pairs_from"] == "held out"


@pytest.mark.parametrize(
    ("n", "held_out", "source"),
    [
        pytest.param(16, False, "training", id="a_margin_on_training_pairs_proves_nothing"),
        pytest.param(7, True, "held out", id="seven_are_too_few"),
    ],
)
def test_a_preference_that_nothing_can_show_is_flagged_and_not_called_one(n: int, held_out: bool, source: str):
    job = Job(DPO(0.1), Path("in"), Path("out"), [], None, "float32", 1, None, tests=PAIRS[:n], held_out=held_out)  # type: ignore[arg-type]
    metrics, flags = DPO(0.1).compare(job, Measured([0.0] * n, [0.0] * n), trained=[5.0] * n, saved=[5.0] * n)
    # All pairs are preferred, which training pairs always are.
    assert metrics["accuracy"] == 1.0
    assert metrics["pairs_from"] == source
    assert flags == {"lost_in_saving": False, "few_held_out": True}
