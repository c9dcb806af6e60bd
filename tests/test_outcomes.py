"""Names of outcomes and warnings have one home, and each has a sentence."""

import ast
import re

import pytest

from scalequest.outcomes import FILTER_OUTCOMES, NEXT_STEPS, OUTCOMES, REWRITE_OUTCOMES, SCREEN_OUTCOMES, WARNINGS
from tests.fakes import ROOT

FILES = sorted(p for folder in ("scalequest", "stages") for p in (ROOT / folder).rglob("*.py"))


def test_every_outcome_of_a_question_has_a_meaning_and_one_stage():
    assert not SCREEN_OUTCOMES.keys() & FILTER_OUTCOMES.keys()
    assert list(OUTCOMES) == [*SCREEN_OUTCOMES, *FILTER_OUTCOMES]
    assert all(outcome.meaning for outcome in OUTCOMES.values())
    assert all(REWRITE_OUTCOMES.values())


def test_the_papers_rates_leave_its_million():
    # 20.1% + 19.4% + 9.2% of 2M leave 1.03M (paper 2.4: 1M).
    rates = [float(o.paper) for o in OUTCOMES.values() if re.fullmatch(r"[\d.]+", o.paper)]
    assert 2 * (100 - sum(rates)) / 100 == pytest.approx(1.0, abs=0.03)


def body(stage: str, function: str) -> ast.FunctionDef:
    tree = ast.parse((ROOT / "stages" / f"{stage}.py").read_text())
    return next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function)


def returned(stage: str, function: str) -> set[str]:
    """Strings that a function returns first or alone: its verdicts."""
    values = [n.value for n in ast.walk(body(stage, function)) if isinstance(n, ast.Return)]
    values = [v.elts[0] if isinstance(v, ast.Tuple) else v for v in values]
    return {v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)}


def test_every_outcome_of_screen_is_found_by_its_code():
    text = "\n".join(
        (ROOT / "scalequest" / "problems" / f"{name}.py").read_text() for name in ("screening", "grouping")
    )
    assert [name for name in SCREEN_OUTCOMES if f'"{name}"' not in text] == []


def test_preferences_returns_known_outcomes():
    """Of rewrites, and of the questions that the solver's feedback pairs."""
    written = {n.value for n in ast.walk(body("preferences", "feedback_rows")) if isinstance(n, ast.Constant)}
    of_feedback = {"is_chosen", "no_partner"} & written
    assert returned("preferences", "pair_verdict") | of_feedback == set(REWRITE_OUTCOMES)


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_kept_is_defined_once(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value == "kept":
            assert path.name == "outcomes.py"


def test_every_warning_is_raised_and_every_raised_one_has_a_sentence():
    text = "\n".join(p.read_text() for p in FILES if p.name != "outcomes.py")
    assert [name for name in WARNINGS if f'"{name}"' not in text] == []
    assert all(re.fullmatch(r"[a-z_]+", name) and sentence for name, sentence in WARNINGS.items())


def test_every_warning_has_a_next_step():
    assert set(WARNINGS) <= set(NEXT_STEPS)
