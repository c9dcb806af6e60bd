"""The command `scalequest evaluate`: any model, any benchmark."""

from pathlib import Path

import pytest

from scalequest.cli import run as command_line
from scalequest.errors import UserError
from scalequest.params import HubSource, JsonlSource, Params
from scalequest.run.evaluate import first_source, known_benchmarks, write_benchmarks
from tests.fakes import LAPTOP, ROOT

CATALOGUE = ROOT / "eval" / "benchmarks.yaml"


def test_the_catalogue_has_the_usual_benchmarks():
    known = known_benchmarks({}, CATALOGUE)
    usual = {"gsm8k", "math", "math500", "college_math", "olympiadbench", "humaneval", "mbpp", "mbpp_sanitized"}
    assert usual <= known.keys()
    for sources in known.values():
        for source in sources:  # pinned, each by what it can be pinned by
            assert source.kind in ("hub", "package") or source.sha256


def test_params_own_benchmarks_go_before_the_catalogue(laptop: Params):
    known = known_benchmarks({"gsm8k": laptop.benchmarks["embedded_sums"]}, CATALOGUE)
    assert known["gsm8k"] == [laptop.benchmarks["embedded_sums"]]


def test_a_local_file_is_taken_before_the_hub(tmp_path: Path):
    file = JsonlSource(kind="jsonl", path=str(tmp_path / "x.jsonl"), n=None, sha256=None)
    hub = HubSource(kind="hub", repo="a/b", commit="0" * 40, file="x.jsonl", n=None, sha256=None)
    assert first_source("x", [file, hub]) is hub
    (tmp_path / "x.jsonl").write_text("")
    assert first_source("x", [file, hub]) is file
    (tmp_path / "x.jsonl").unlink()
    with pytest.raises(UserError, match=r"x: none of its files is there: .*x\.jsonl"):
        first_source("x", [file])


def test_an_unknown_benchmark_is_named_with_its_neighbour(tmp_path: Path):
    with pytest.raises(UserError, match=r"no benchmark 'gsm8'\. Did you mean 'gsm8k'\?"):
        write_benchmarks(["gsm8"], known_benchmarks({}, CATALOGUE), 17, tmp_path)


def test_a_catalogue_with_a_misspelt_key_is_refused(tmp_path: Path):
    (tmp_path / "c.yaml").write_text("x:\n  - {kind: jsonl, path: a, n: null, sha: null}\n")
    with pytest.raises(UserError, match=r"c\.yaml: x\.0\.jsonl\.sha256: Field required"):
        known_benchmarks({}, tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["m", "--tasks", ","], "--tasks: no name given", id="no_task"),
        pytest.param(["m", "--tasks", "humaneval", "--limit", "0"], "--limit 0", id="no_item"),
        pytest.param(["m", "--tasks", "humaneval", "--max-tokens", "4096"], "room for a prompt", id="no_room"),
        pytest.param(["m", "--tasks", "humanevil"], "Did you mean 'humaneval'", id="misspelt"),
        pytest.param(["models/studnt", "--tasks", "humaneval"], "models/studnt: no such folder. Expected a model. Run `dvc repro` or `dvc pull`", id="not_made"),
        pytest.param(["no-such-folder", "--tasks", "humaneval"], "no-such-folder: no such folder, and no repository", id="no_model"),
    ],
)  # fmt: skip
def test_what_is_wrong_on_the_command_line_is_named(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("SCALEQUEST_PARAMS", str(LAPTOP))  # whatever profile params.yaml holds at the moment
    with pytest.raises(UserError) as caught:
        command_line(["evaluate", *arguments])
    assert message in str(caught.value)
