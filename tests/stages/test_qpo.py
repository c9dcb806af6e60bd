import pytest

from scalequest.models.chat import ChatFormat
from stages.qft import question_example
from stages.qpo import question_pair


@pytest.mark.parametrize("chat_name", ["chatml", "deepseek"])
def test_the_rewrite_is_chosen_and_both_sides_are_what_qft_taught(chat_name: str, request: pytest.FixtureRequest):
    chat: ChatFormat = request.getfixturevalue(chat_name)
    pair = question_pair(chat, {"question": "Tom has 3.", "rewrite": "Tom has 3. How many?"})
    chosen, rejected = question_example(chat, "Tom has 3. How many?"), question_example(chat, "Tom has 3.")
    # Same prefix, same end token, no blank line more on one side (docs/paper-differences.md, 8).
    assert pair.prompt == chosen.prompt == rejected.prompt
    assert pair.chosen == chosen.target
    assert pair.rejected == rejected.target
