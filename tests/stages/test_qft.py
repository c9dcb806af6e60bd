from itertools import pairwise
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.models.chat import ChatFormat
from scalequest.params import Params, with_own
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.stage import StageRun
from stages.qft import pick_seeds, question_example
from tests.fakes import changed

SEEDS = [
    {"id": f"{source}/{i}", "source": source, "stratum": f"level {i // 10}", "question": f"{source} {i}"}
    for i in range(20)
    for source in ("sums", "legs")
]


def pick_questions(seed_mix: dict[str, int], seed: int) -> list[str]:
    return [row["question"] for row in pick_seeds(SEEDS, seed_mix, seed)]


def test_each_source_gives_what_the_mix_asks_for_in_the_seeds_order():
    picked = pick_questions({"legs": 5, "sums": 3}, seed=17)
    assert sum(q.startswith("legs") for q in picked) == 5
    assert sum(q.startswith("sums") for q in picked) == 3
    assert picked == [row["question"] for row in SEEDS if row["question"] in picked]


def test_the_draw_follows_the_seed_and_the_source_alone():
    assert pick_questions({"sums": 5}, seed=1) == pick_questions({"sums": 5}, seed=1)
    assert pick_questions({"sums": 5}, seed=1) != pick_questions({"sums": 5}, seed=2)
    # Another source in the mix moves nothing.
    with_legs = pick_questions({"legs": 2, "sums": 5}, seed=1)
    assert [q for q in with_legs if q.startswith("sums")] == pick_questions({"sums": 5}, seed=1)


def test_sizes_are_nested_and_subjects_keep_their_shares():
    drawn = [set(pick_questions({"sums": n}, seed=3)) for n in range(1, 21)]
    assert all(small < large for small, large in pairwise(drawn))
    # Ten of twenty: half of each level.
    assert sum(int(question.split()[1]) < 10 for question in drawn[9]) == 5


def test_the_seeds_order_moves_no_draw():
    picked = pick_seeds(SEEDS[::-1], {"sums": 7, "legs": 2}, seed=4)
    assert {row["id"] for row in picked} == {row["id"] for row in pick_seeds(SEEDS, {"sums": 7, "legs": 2}, seed=4)}


def test_a_source_that_is_short_is_named():
    with pytest.raises(UserError, match=r"seed_mix\.legs: 21 asked for, the seeds hold 20 distinct ones"):
        pick_questions({"sums": 1, "legs": 21}, seed=17)


@pytest.mark.parametrize("chat_name", ["chatml", "deepseek"])
def test_the_question_and_its_end_are_learned_and_the_template_is_not(chat_name: str, request: pytest.FixtureRequest):
    chat: ChatFormat = request.getfixturevalue(chat_name)
    example = question_example(chat, "Tom has 3. How many?")
    assert example.prompt == chat.question_prefix
    assert chat.decode(example.target).strip() == "Tom has 3. How many?" + chat.decode([chat.question_end])
    # Nothing after the end token, and no second one: a generator that learns more writes on.
    assert example.target.index(chat.question_end) == len(example.target) - 1
    # What the model sees is the chat's own text up to that token.
    turn = chat.decode(chat.user_turn("Tom has 3. How many?"))
    assert turn.startswith(chat.decode(example.prompt + example.target[:-1]))


def test_a_training_starts_from_the_runs_seed_and_the_stages_name(laptop: Params, tmp_path: Path):
    # Pinned: runtime/ is no dependency of a stage, so another formula would change every model and no stage would notice.
    # From `python -c "print(int(hashlib.sha256(b'17/qft@sums/0').hexdigest()[:8], 16) >> 1)"`.
    assert StageRun(changed(laptop, seed=17), StageFacts("qft@sums", tmp_path)).seed() == 1041515102
    assert StageRun(changed(laptop, seed=17), StageFacts("qpo@sums", tmp_path)).seed() != 1041515102


def test_a_curve_has_six_digits_and_an_empty_cell_for_what_is_missing(laptop: Params, tmp_path: Path):
    # Pinned: runtime/ is no dependency of a stage, and these are the bytes of its plots.
    rows = [{"step": 1, "loss": 0.123456789, "margin": 1e-9}, {"step": 2, "loss": 2.0}]
    StageRun(laptop).plot(tmp_path / "plots" / "p.csv", ("step", "loss", "margin"), rows)
    assert (tmp_path / "plots" / "p.csv").read_text() == "step,loss,margin\n1,0.123457,1e-09\n2,2,\n"


def test_a_generators_own_values_come_before_the_sections(laptop: Params):
    assert with_own(laptop.qft, {}) == laptop.qft
    own = with_own(laptop.qpo, {"learning_rate": 1e-6, "beta": 0.5})
    assert (own.learning_rate, own.beta) == (1e-6, 0.5)
    assert own.model_copy(update={"learning_rate": laptop.qpo.learning_rate, "beta": laptop.qpo.beta}) == laptop.qpo
