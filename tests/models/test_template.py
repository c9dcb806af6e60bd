"""Hostile chat templates: each is refused in a process with limits, before it runs in ours."""

import pytest

from scalequest.errors import UserError
from scalequest.models.chat import ChatFormat
from scalequest.models.template import _trial
from tests.fakes import ROOT, CharTokenizer

LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "error"),
    [
        pytest.param(LOOP, "did not end within 5 s of computing", id="loop_of_loops"),
        pytest.param("{{ 10 ** (10 ** 9) }}", "did not end within 5 s|takes more than 1024 MiB", id="power_in_one_instruction"),
        pytest.param("{% set x = 'a' * 2000000000 %}", "takes more than 1024 MiB", id="text_in_one_instruction"),
        pytest.param("{% if messages|length > 1 %}{{ 'a' * 2000000000 }}{% endif %}", "takes more than 1024 MiB", id="only_for_a_second_turn"),
        pytest.param("{% for i in range(99999) %}{{ 'a' * 999 }}{% endfor %}", "writes more than 1,048,576", id="many_short_pieces"),
        pytest.param("{{ '%099999999d' % 1 }}", "writes more than 1,048,576", id="padded_number"),
        pytest.param("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end", id="recursion"),
        pytest.param("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "calls itself without end", id="nested_without_end"),
        pytest.param("{#" + "a" * 1_100_000 + "#}", "it has 1,100,004 characters", id="longer_than_any_template"),
    ],
)  # fmt: skip
def test_a_template_bomb_is_refused_before_it_runs_here(template: str, error: str):
    def rendered(_: str) -> str:
        raise AssertionError("rendered in this process")

    tokenizer = CharTokenizer(["<end>"], "<end>", rendered)
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=f"its chat template is refused: .*({error})"):
        ChatFormat.of(tokenizer)


def test_templates_of_published_models_pass_the_trial():
    for file in (ROOT / "scalequest" / "models" / "templates").glob("*.jinja"):
        assert _trial(file.read_text(), (("bos_token", "<s>"), ("eos_token", "</s>"))) == ""
    # What templates do: refuse a second turn, mark what the assistant says, leave a loop, print JSON, ask for the date.
    for template in (
        "{% if messages|length > 1 %}{{ raise_exception('one turn') }}{% endif %}{{ messages[0].content }}",
        "{% generation %}{{ messages[0].content }}{% endgeneration %}",
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m|tojson(indent=2) }}{% break %}{% endfor %}",
        "{{ strftime_now('%d %b') }}{% set ns = namespace(x=1) %}{% set ns.x = 2 %}{{ ns.x }}",
    ):
        assert _trial(template, ()) == ""
