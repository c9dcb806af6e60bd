"""What every domain has, and how one is chosen."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scalequest.answers.check import KINDS
from scalequest.domains import DIFFICULTY, DOMAINS, SHORT, SOLVABILITY, WORKED, wording
from tests.fakes import ROOT


@pytest.mark.parametrize("name", DOMAINS)
def test_every_domain_has_the_whole_wording(name: str):
    words = wording(name)
    for function in ("solve_prompt", "judge_turns", "rewrite_turns", "leaks_solution", "asks"):
        assert callable(getattr(words, function))
    assert words.ANSWERS in KINDS
    assert isinstance(words.SEEDS_NEED_ANSWERS, bool)
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


USE_IT = """
import json
from pathlib import Path
from scalequest.evaluation import domain_of
from scalequest.params import load_all
from scalequest.run.deps import code_dependencies
from stages.seeds import collect_seeds

params = load_all()
evaluate = code_dependencies(Path.cwd(), "evaluate", ["eval/tasks"])
print(json.dumps([params.domain, domain_of("7", params.domain), "scalequest/domains/physics.py" in evaluate]))
"""


def test_a_domain_is_one_file(tmp_path: Path):
    for name in ("scalequest", "stages", "eval/tasks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    maths = (ROOT / "scalequest" / "domains" / "maths.py").read_text()
    (tmp_path / "scalequest" / "domains" / "physics.py").write_text(maths)
    params = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(params.replace("domain: maths", "domain: physics", 1))
    result = subprocess.run(
        [sys.executable, "-c", USE_IT], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    # Legal as a parameter; its benchmarks with plain answers are asked in its words; the evaluation depends on it.
    assert json.loads(result.stdout) == ["physics", "physics", True]
