import pytest

from scalequest.answers import puzzle as puzzle_module
from scalequest.answers.puzzle import check, same_words, solves
from scalequest.outcomes import MISSING, RIGHT, WRONG

KNIGHTS = '{"puzzle": "knights_knaves", "answer": "Ann is a knight, and Bob is a knave.", "metadata": {}}'
YES = '{"puzzle": "course_schedule", "answer": "True", "metadata": {}}'
COLOR = '{"puzzle": "color_cube_rotation", "answer": "gray", "metadata": {}}'
# A: add 2, B: double. From 0 to 4: AB and AA have the shortest length, 2.
LOCK = (
    '{"puzzle": "quantum_lock", "answer": "A \u2192 A", "metadata": {"buttons": [{"name": "A", "type": "add", "value": 2, '
    '"active_state": "any"}, {"name": "B", "type": "multiply", "value": 2, "active_state": "any"}], "initial_state": "red", '
    '"initial_value": 0, "target_value": 4}}'
)


@pytest.mark.parametrize(
    ("answer", "text", "right"),
    [
        pytest.param(KNIGHTS, "Bob is a knave, Ann is a knight", True, id="another_order"),
        pytest.param(KNIGHTS, "\\text{Ann is a knight and Bob is a knave}", True, id="latex"),
        pytest.param(KNIGHTS, "Ann is a knight, and Bob is a knight", False, id="half"),
        pytest.param(KNIGHTS, "Ann is a knight, and Bob is a knave, and Bob is a knight", False, id="both"),
        pytest.param(LOCK, "A \u2192 B", True, id="another_right_answer"),
        pytest.param(LOCK, "A \u2192 B \u2192 C", False, id="no_such_button"),
        pytest.param(COLOR, "Gray", True, id="case"),
        pytest.param(COLOR, "gray or pink", False, id="two_colors"),
    ],
)
def test_the_verifier_decides_and_part_of_a_score_is_wrong(answer: str, text: str, right: bool):
    assert solves(answer, text) is right


def test_what_is_spelled_alike_needs_no_verifier(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(puzzle_module, "decide", lambda *_: pytest.fail("asked"))
    answers = [YES, YES, COLOR, YES, "7"]
    assert check(answers, ["true.", None, "$\\textbf{gray}$", "T" * 2_000, "7.0"]) == [
        RIGHT,
        MISSING,
        RIGHT,
        WRONG,
        RIGHT,
    ]


def test_outcomes_of_puzzles_and_plain_answers_are_in_order():
    found = ["Bob is a knave and Ann is a knight", "8", "blue", None, "1/2", "A \u2192 B"]
    assert check([KNIGHTS, "7", COLOR, LOCK, "0.5", LOCK], found) == [RIGHT, WRONG, WRONG, MISSING, RIGHT, RIGHT]


def test_answers_without_a_known_one_agree_by_their_words():
    pairs = [("Ann is a knight.", "ann is a  knight"), ("Yes", "\\text{yes}"), ("1", "1.0"), ("no", "on")]
    assert same_words(pairs) == [True, True, False, False]
