"""The command line: what a user types, what comes back, and with which exit code."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scalequest import cli
from tests.audit.pipeline import ENVIRONMENT, Pipeline
from tests.fakes import ROOT


@pytest.fixture
def here(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A finished run with an experiment, and the working folder in it."""
    pipeline.params["filter"]["require_solvable"] = False
    pipeline.change("data/instruct.parquet", lambda rows: rows[:1])
    pipeline.write("models/student/model.safetensors", "other")
    pipeline.lock("filter", "reward_select", "instruct_tune")
    pipeline.experiment("cut")
    pipeline.checkout()
    monkeypatch.chdir(pipeline.root)
    return pipeline


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    out, err = capsys.readouterr()
    code = stop.value.code
    return (code if isinstance(code, int) else 0), out, err


def test_help_loads_no_command() -> None:
    script = "import sys; from scalequest.cli import main\ntry: main(['--help'])\nfinally: print([m for m in sys.modules if m in ('duckdb', 'yaml', 'pyarrow', 'pydantic', 'dvc', 'torch', 'scalequest.audit')])"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
    assert all(name in result.stdout for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_that_tells_how_to_call_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, name, "--help")
    assert code == 0
    assert f"scalequest {name}" in out


@pytest.mark.parametrize("words", [[], ["help"], ["--help"]])
def test_without_a_command_all_are_listed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, *words)
    assert code == 0
    # argparse puts the help of a long name on the next line.
    assert all(re.search(rf"^    {name}\s", out, re.MULTILINE) for name in cli.COMMANDS)


def test_help_for_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "help", "pin") == call(capsys, "pin", "--help")


def test_the_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    import tomllib

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    code, out, _ = call(capsys, "--version")
    assert code == 0
    assert out in (f"scalequest {wanted}\n", "scalequest unknown (not installed)\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["profil"], "'profil': no such command. Did you mean 'profile'?"),
        (["evalute", "models/student"], "Did you mean 'evaluate'?"),
        (["help", "audti"], "Did you mean 'audit'?"),
        (["zzzz"], "'zzzz': no such command. Expected one of: check, profile, "),
    ],
)
def test_an_unknown_command_names_its_neighbour(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, *words)
    assert (code, out) == (2, "")
    assert expected in err


def test_the_chain_as_text(here: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "audit", "models/student")
    md5 = here.md5("models/student")
    head = here.git("rev-parse", "--short=7", "HEAD")
    assert code == 0
    for line in (
        f"models/student  {md5} (2 files)",
        "scored by evaluate@student: sums strict 100.0 ± 0.0 %, flexible 100.0 ± 0.0 %, unparsed 0.0 ± 0.0 % of 1 items",
        "made with torch==1.0, cpu: test",
        f"tags.`dvc.outs` LIKE '%{md5}%'",
        f"  code        clean, commit {head}",
        "  params      seed=17, instruct_tune.epochs=1, instruct_tune.learning_rate=3e-05",
        "  params      models.student=path:/models/s",
        "2 rows)",
    ):
        assert line in out, line
    assert out.index("instruct_tune\n") < out.index("reward_select\n") < out.index("seeds\n")


def test_the_chain_as_json_holds_every_hash(here: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(call(capsys, "audit", "models/student", "--json", "--rev", "cut")[1])
    assert facts["revision"] == {"name": "cut", "commit": here.repository.experiments["cut"][0]}
    stages = {stage["stage"]: stage for stage in facts["stages"]}
    assert stages["filter"]["params"] == {"filter.require_solvable": False}
    assert stages["filter"]["code"]["files"] == {"stages/filter.py": here.md5("stages/filter.py")}
    assert {item["path"]: item["md5"] for item in stages["screen"]["inputs"]}["data/questions"] == here.md5(
        "data/questions"
    )
    assert stages["instruct_tune"]["environment"] == ["torch==1.0", "cpu: test"]
    assert stages["reward_select"]["outs"][0]["rows"] == 1


def test_the_chain_as_a_drawing(here: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    lines = call(capsys, "audit", "data/benchmarks", "--mermaid")[1].splitlines()
    seeds, benchmarks = here.md5("data/seeds.parquet")[:10], here.md5("data/benchmarks")[:10]
    assert lines == [
        "flowchart LR",
        '  s1["seeds"]',
        '  s0["benchmarks"]',
        f'  target(["data/benchmarks<br/>{benchmarks}"])',
        f'  s1 -->|"data/seeds.parquet<br/>{seeds}"| s0',
        "  s0 --> target",
    ]


def test_the_difference_names_the_first_cause(here: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "audit", "diff", "main", "cut", "models/student")
    assert code == 0
    why = out[out.index("why, the furthest upstream first:") :].splitlines()
    assert [line.strip() for line in why[1:3]] == ["filter", "parameter filter.require_solvable: true → false"]
    assert "models/student" in out[out.index("what follows:") :]


def test_two_equal_revisions_are_said_to_be_equal(here: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing differs" in call(capsys, "audit", "diff", "main", "HEAD", "models/student")[1]


def test_another_machine_is_a_cause(here: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    here.write("models/student/model.safetensors", "rounded otherwise")
    here.lock("instruct_tune")
    here.record("instruct_tune", environment=[line.replace("torch==1.0", "torch==2.0") for line in ENVIRONMENT])
    here.experiment("gpu")
    out = call(capsys, "audit", "diff", "main", "gpu", "models/student")[1]
    assert "torch==1.0 → torch==2.0" in out
    assert "did not repeat" not in out


def test_a_rows_life_as_text(here: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "audit", "--row", "sums/0/0")
    assert code == 0
    for line in ("generated by generate@sums", "screen: kept", "judge: solvable", "filter: kept", "← kept", "experiment cut", "read it itself"):  # fmt: skip
        assert line in out, line
    rejected = call(capsys, "audit", "--row", "sums/0/3")[1]
    assert "filter: unsolvable" in rejected
    assert "never answered" in rejected
    assert "no model in any revision or experiment was trained on it" in rejected


def test_data_and_text_as_text(here: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    out = call(capsys, "audit", "--data", "data/seeds.parquet")[1]
    assert "models/qft/sums" in out
    assert "through " in out
    assert "sums/0/3    completion: … Why is the sun green? …" in call(capsys, "audit", "--contains", "green")[1]
    assert "nowhere:" in call(capsys, "audit", "--contains", "purple")[1]


def test_a_hash_from_an_mlflow_run_leads_to_its_chain(here: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(call(capsys, "audit", "models/student", "--rev", "cut", "--json")[1])
    for digits in (facts["target"]["md5"], facts["target"]["md5"][:12]):
        found = json.loads(call(capsys, "audit", digits, "--json")[1])
        assert (found["target"], found["revision"]["name"]) == (facts["target"], "cut")


@pytest.mark.parametrize("arguments", [["models/student"], ["--row", "sums/0/1"], ["--data", "data/seeds.parquet"]])
def test_an_old_lock_of_another_schema_is_named_and_stops_no_answer(
    here: Pipeline, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    text = (here.root / "dvc.lock").read_text()
    here.write("dvc.lock", text.replace("2.0", "1.0"))
    old = here.commit("of another time")
    here.write("dvc.lock", text)
    here.commit()
    code, out, err = call(capsys, "audit", *arguments)
    assert (code, "models/student" in out) == (0, True)
    assert err.startswith(f"not looked at: {old[:7]}")
    assert "schema '1.0', this audit reads '2.0'" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["audit"], "expected one of PATH, diff A B PATH, --row ID"),
        (["audit", "models/student", "--row", "sums/0/0"], "expected one of PATH"),
        (["audit", "a", "b"], "one PATH expected, got 2: a b"),
        (["audit", "diff", "main", "models/student"], "expected two revisions and a path"),
        (["audit", "--row", "sums/0/0", "--mermaid"], "--mermaid: shows the chain of a PATH"),
        (["audit", "models/student", "--ignore-case"], "--ignore-case: goes with --contains TEXT"),
        (["audit", "models/studnt"], "Did you mean 'models/student'?"),
        (["audit", "models/student", "--rev", "cutt"], "revision 'cutt': looked among"),
        (["audit", "abcdef012345"], "hash 'abcdef012345': looked among the outputs of 2 versions of dvc.lock"),
        (["audit", "abcdef012345", "--rev", "main"], "looked among the outputs of main"),
        (["verify", "hashs"], "verify: no check 'hashs'; nearest: hashes"),
        (["publish", "--licence", "x"], "--licence x: expected NAME=ID"),
    ],
)
def test_bad_input_ends_with_two_and_one_line(
    here: Pipeline, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err


def test_verify_ends_with_one_and_the_first_broken_link(here: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "verify")
    assert (code, out.splitlines()[0].split(":")[0]) == (0, "stages")
    here.change("data/ledger.parquet", lambda rows: rows[1:])
    code, out, _ = call(capsys, "verify")
    assert code == 1
    assert "hashes: " in out
    assert "first broken link of workspace:\n  stage filter → data/ledger.parquet" in out
    code, out, _ = call(capsys, "verify", "hashes", "--json")
    assert code == 1
    assert json.loads(out)[0]["broken"][0]["where"] == "stage filter → data/ledger.parquet"


def test_a_reader_that_has_seen_enough_is_no_error(here: Pipeline) -> None:
    command = f"{sys.executable} -c 'from scalequest.cli import main; main()' audit models/student --json | head -1"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment, check=True)
    assert (result.stdout, result.stderr) == ("{\n", "")


def test_an_empty_journal_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").touch()
    assert call(capsys, "journal") == (0, "nothing is kept\n", "")
