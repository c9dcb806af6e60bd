import subprocess
from pathlib import Path

import pytest

from scalequest.io import write_json
from scalequest.report.record import (
    commit_in_words,
    direct,
    level,
    machine_of,
    read_lineage,
    recorded,
    size_in_words,
    source_facts,
)
from tests.report.finished import Folder

EPYC = ["torch==2.13.0+cpu", "cpu: AMD EPYC", "cores: 2", "python: 3.11.7"]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"commit": "0123456789abcdef", "dirty": "false"}, "Source: commit `0123456789ab`, code and parameters committed."),
        ({"commit": "0123456789abcdef", "dirty": "true"}, "Source: commit `0123456789ab`, with uncommitted changes to code or parameters."),
        ({"commit": "unknown", "dirty": "unknown"}, "The commit of the source is unknown."),
    ],
)  # fmt: skip
def test_the_commit_is_named_with_its_state(facts: dict[str, str], words: str) -> None:
    assert commit_in_words(facts) == words


def test_a_commit_of_results_changes_nothing_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
        return subprocess.run(["git", *who, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {seeds: {cmd: x}, report: {cmd: x}}\n")
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    (tmp_path / "code.py").write_text("# what a stage ran\n")
    (tmp_path / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  seeds:\n    cmd: x\n    deps:\n    - {path: code.py, hash: md5, md5: aa, size: 1}\n"
    )
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "code")
    code = {"commit": git("rev-parse", "HEAD"), "dirty": "false"}
    assert source_facts(read_lineage(tmp_path)) == code
    (tmp_path / "results.json").write_text("{}")
    git("add", "-A")
    git("commit", "-qm", "results")
    assert source_facts(read_lineage(tmp_path)) == code
    (tmp_path / "code.py").write_text("# edited\n")
    assert source_facts(read_lineage(tmp_path)) == code | {"dirty": "true"}
    git("commit", "-qam", "other code")
    assert source_facts(read_lineage(tmp_path)) == {"commit": git("rev-parse", "HEAD"), "dirty": "false"}


def test_the_report_does_not_count_its_own_run(tmp_path: Path) -> None:
    stages = {name: {"given": "x", "environment": "aa"} for name in ("seeds", "report")}
    write_json(tmp_path / "reports/environment.json", {"environments": {"aa": EPYC}, "stages": stages})
    assert set(recorded(tmp_path).stages) == {"seeds"}


def test_a_machine_is_its_kind_without_packages() -> None:
    assert machine_of(EPYC) == "AMD EPYC, cores 2, python 3.11.7"
    assert machine_of(["torch==2.13.0"]) == ""


def test_the_level_of_repeatability_follows_the_machines() -> None:
    assert "the same bytes" in level(["AMD EPYC"], [EPYC])
    assert "not the same bytes" in level(["H100"], [[*EPYC, "gpu: NVIDIA H100"]])
    assert "2 kinds of machines" in level(["a", "b"], [EPYC, EPYC])
    assert "not known" in level([], [])


def test_the_page_alone_names_commit_machine_and_lineage(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {seeds: {cmd: x}, solver: {cmd: x}, report: {cmd: x}}\n")
    (tmp_path / "params.yaml").write_text("{}\n")
    (tmp_path / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n"
        "  seeds:\n    cmd: x\n    outs:\n    - {path: seeds.parquet, hash: md5, md5: 0123456789abcdef, size: 2500}\n"
        "  solver:\n    cmd: x\n    deps:\n    - {path: seeds.parquet, hash: md5, md5: 0123456789abcdef, size: 2500}\n"
        "    outs:\n    - {path: solver.json, hash: md5, md5: fff, size: 1}\n"
        "    - {path: solver, hash: md5, md5: fedcba9876543210.dir, size: 3000000}\n"
    )
    stages = {"seeds": {"given": "x", "environment": "aa"}}
    write_json(tmp_path / "reports/environment.json", {"environments": {"aa": EPYC}, "stages": stages})
    markdown, page = folder.run()
    assert "Machine: <code>AMD EPYC, cores 2, python 3.11.7</code>" in page
    assert '<code>solver</code></th><td class="l"><code>seeds</code></td><td class="l"><code>solver</code>' in page
    assert "<code>fedcba9876</code>" in page
    assert "3.0 MB" in page
    assert "AMD EPYC" not in markdown
    assert "## Lineage" not in markdown


def test_a_line_that_a_longer_way_shows_is_left_out() -> None:
    above = {"a": [], "b": ["a"], "c": ["a", "b"], "d": ["a", "c"], "e": ["a"]}
    assert direct(above) == {"a": [], "b": ["a"], "c": ["b"], "d": ["c"], "e": ["a"]}


def test_without_a_lock_the_lineage_says_so(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_lineage(tmp_path) is None
    page = folder.run()[1]
    assert "the stages were not run by DVC" in page
    assert "The machine is not recorded." in page


@pytest.mark.parametrize(("size", "words"), [(None, "–"), (12, "12 B"), (2500, "2.5 kB"), (3_000_000_000, "3.0 GB")])
def test_sizes_have_the_unit_that_fits(size: int | None, words: str) -> None:
    assert size_in_words(size) == words
