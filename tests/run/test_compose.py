"""One YAML text over another: what is set is replaced, and every other line and comment stays."""

import pytest

from scalequest.run.compose import compose, load_values, merge

BASE = """\
# top
seed: 17                # every draw
mix: [a, b]
# ---- models
models:
  a: one                # generator
  b: two
# ---- engine
engine:
  dtype: float32        # float32 | bfloat16
  share: 0.9            # of the GPU;
                        # what is left
  api:
    retries: 5
shares: {a: 0.4, b: 0.6}  # of the set
empty: {}               # by role
"""


@pytest.mark.parametrize(
    ("overlay", "replaces", "expected"),
    [
        pytest.param("seed: 4711", [], [("seed: 17                # every draw", "seed: 4711              # every draw")], id="a_value_keeps_its_comment_and_column"),
        pytest.param("seed: 3  # my number", [], [("seed: 17                # every draw", "seed: 3                 # my number")], id="a_comment_of_its_own_takes_the_place"),
        pytest.param("mix: [c]", [], [("mix: [a, b]", "mix: [c]")], id="lists_replace"),
        pytest.param("models:\n  b: three\n  c: four  # new", [], [("  b: two", "  b: three\n  c: four  # new")], id="mappings_merge_and_new_keys_come_last"),
        pytest.param("models:\n  # all others\n  x: one\n  y: two  # why", ["models"], [("  a: one                # generator\n  b: two", "  # all others\n  x: one\n  y: two  # why")], id="a_named_mapping_is_replaced_whole"),
        pytest.param("engine:\n  share: 0.2  # little", [], [("  share: 0.9            # of the GPU;\n                        # what is left", "  share: 0.2            # little")], id="a_new_comment_replaces_all_lines_of_the_old"),
        pytest.param("engine:\n  api:\n    retries: 0", [], [("    retries: 5", "    retries: 0")], id="deep"),
        pytest.param("shares: {b: 0.7}", [], [("shares: {a: 0.4, b: 0.6}  # of the set", "shares: {a: 0.4, b: 0.7}  # of the set")], id="inline_mappings_merge"),
        pytest.param("shares: {b: 1.0}", ["shares"], [("shares: {a: 0.4, b: 0.6}  # of the set", "shares: {b: 1.0}          # of the set")], id="inline_mappings_are_replaced_where_named"),
        pytest.param("empty: {student: plain}", [], [("empty: {}               # by role", "empty: {student: plain}  # by role")], id="an_empty_mapping_is_filled"),
        pytest.param("empty:\n  student: plain", [], [("empty: {}               # by role", "empty: {student: plain}  # by role")], id="an_empty_mapping_is_filled_by_a_block"),
        pytest.param("models: {z: one}", ["models"], [("models:\n  a: one                # generator\n  b: two", "models: {z: one}")], id="a_block_becomes_inline"),
        pytest.param("", [], [], id="nothing"),
    ],
)  # fmt: skip
def test_composed_text(overlay: str, replaces: list[str], expected: list[tuple[str, str]]):
    text = BASE
    for old, new in expected:
        assert old in text
        text = text.replace(old, new)
    assert compose(BASE, overlay, replaces) == text
    assert load_values(compose(BASE, overlay, replaces)) == merge(load_values(BASE), load_values(overlay), replaces)


def test_a_block_replaced_by_null_keeps_what_follows():
    text = compose(BASE, "engine: null\n", [])
    assert "engine: null\nshares: {a: 0.4" in text
