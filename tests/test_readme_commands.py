"""The script that runs README's commands: `.ci/readme.py`."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import ROOT

SPEC = importlib.util.spec_from_file_location("ci_readme", ROOT / ".ci" / "readme.py")
assert SPEC is not None
assert SPEC.loader is not None
readme: Any = importlib.util.module_from_spec(SPEC)
sys.modules["ci_readme"] = readme  # dataclasses look their module up
SPEC.loader.exec_module(readme)


def block(code: str, kind: str = "") -> Any:
    return readme.Block(1, code, kind, "WHY")


def test_the_readmes_blocks_are_found_and_their_marks_are_known():
    text = (ROOT / "README.md").read_text()
    found = readme.blocks_of(text)
    assert len(found) == text.count("```bash")
    assert all(text.splitlines()[b.line - 1] == b.code.splitlines()[0] for b in found)
    tried = [command.split("#")[0].strip() for b in found if b.kind in ("", "stops") for command in b.commands]
    assert {"scalequest profile gpu-135m", "scalequest audit models/student"} <= set(tried)
    assert all(b.why for b in found if b.kind)
    # The first commands of a reader are in it, too: with --all.
    assert found[0].commands[0].startswith("make repro")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("<!-- ci: maybe, who knows -->\n```bash\nls\n```\n", id="unknown_mark"),
        pytest.param("<!-- ci: skip, far away -->\n\n```bash\nls\n```\n", id="not_before_a_block"),
        pytest.param("<!-- ci: skip -->\n```bash\nls\n```\n", id="without_a_reason"),
    ],
)
def test_a_mark_that_would_do_nothing_is_refused(text: str):
    with pytest.raises(ValueError, match=r"expected <!-- ci: stops\|run\|skip\|never, WHY -->"):
        readme.blocks_of(text)


def test_commands_are_run_as_they_stand(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "bin").mkdir()
    variables = readme.environment(tmp_path, own=False)
    assert variables["PYTHONPATH"] == str(tmp_path)
    code = '# a comment\necho one > file.txt && \\\n  echo two >> file.txt    # said\n\ntest "$(pwd)" = "$PWD"\n'
    assert block(code).commands == [
        "echo one > file.txt &&    echo two >> file.txt    # said",
        'test "$(pwd)" = "$PWD"',
    ]
    assert readme.run(block(code), tmp_path, variables)
    assert (tmp_path / "file.txt").read_text() == "one\ntwo\n"
    assert not readme.run(block("false | true\ntouch later\n"), tmp_path, variables)
    assert not (tmp_path / "later").exists()  # what follows a failure is not run
    assert "README.md:1: rc 1: false | true" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "command", "fine"),
    [
        ("stops", "echo WHY; exit 1", True),
        ("stops", "echo WHY; exit 2", False),  # a wrong command ends with 2
        ("stops", "exit 1", False),
        ("stops", "true", False),
        ("stops", f"{sys.executable} -c '1 / 0'", False),  # also ends with 1
        ("", "echo WHY; exit 1", False),
    ],
    ids=["announced", "bad_input", "another_reason", "nothing_found", "a_crash", "unannounced"],
)
def test_a_finding_is_allowed_where_it_is_announced_and_a_crash_nowhere(
    tmp_path: Path, kind: str, command: str, fine: bool
):
    assert readme.run(block(f"{command}\n", kind), tmp_path, readme.environment(tmp_path, own=False)) is fine


def test_ci_runs_it():
    run = (ROOT / ".ci" / "run").read_text()
    assert '"$bin/python" .ci/readme.py > ' in run  # beside the linters
    assert "wait $! || {" in run  # and its end counts
    assert run.rindex("trap") > run.index("wait $!")  # and is no longer killed then
    assert "- run: .venv/bin/python .ci/readme.py\n" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()
