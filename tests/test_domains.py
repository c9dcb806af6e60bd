"""What every domain has, and how one is chosen."""

import pytest

from scalequest.domains import DIFFICULTY, DOMAINS, SHORT, SOLVABILITY, WORKED, wording


@pytest.mark.parametrize("name", DOMAINS)
def test_every_domain_has_the_whole_wording(name: str):
    words = wording(name)
    for function in ("solve_prompt", "judge_turns", "rewrite_turns", "leaks_solution", "asks"):
        assert callable(getattr(words, function))
    assert "harder" in words.rewrite_turns("Q", DIFFICULTY, "sections")[-1]
    assert "harder" not in words.rewrite_turns("Q", SOLVABILITY, "sections")[-1]
    assert words.judge_turns("Q", "few_shot")[-1] == "Q"


@pytest.mark.parametrize("name", DOMAINS)
def test_the_short_form_asks_for_the_same_answer_in_other_words(name: str):
    ask = wording(name).solve_prompt
    assert ask("Q") == ask("Q", WORKED)
    assert ask("Q", SHORT) != ask("Q")
    assert ask("Q", SHORT).startswith("Q\n")
    mark = "```python" if name == "code" else "\\boxed{}"  # what the presence rule looks for
    assert mark in ask("Q", SHORT)
    assert mark in ask("Q", WORKED)


def test_the_papers_request_keeps_its_bytes():
    # docs/paper-differences.md: the responder's instruction is Qwen-Math's.
    assert (
        wording("maths").solve_prompt("Q?")
        == "Q?\nPlease reason step by step, and put your final answer within \\boxed{}."
    )
    assert wording("code").solve_prompt("Q?") == (
        "Q?\nPlease reason briefly, then write the complete Python code in one ```python block."
    )


def test_a_domain_is_chosen_by_its_exact_name():
    # The paper's code asks for "qwen2" before "qwen2.5-code" and so gives code models the mathematics prompts.
    assert wording("code") is not wording("maths")
    assert "```python" in wording("code").solve_prompt("Q")
    assert "boxed" in wording("maths").solve_prompt("Q")
    with pytest.raises(AssertionError):
        wording("code-maths")
