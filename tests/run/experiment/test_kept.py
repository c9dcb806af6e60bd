"""Kept cells: small files in Git that give what a finished DVC experiment gives, also of a run without Git."""

import json
import re
import shutil
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest
import yaml

from scalequest import cli
from scalequest.audit.lock import REFERENCE, Lock, make_lock, parse_lock, parse_yaml
from scalequest.audit.repository import Repository, Revision
from scalequest.errors import UserError
from scalequest.outcomes import FINISHED, HOLDS, KEPT_CELL, MISSING_CELL, NOT_RUN, OUTDATED
from scalequest.records import SAMPLE, read_rows, write_rows
from scalequest.run.experiment import command, kept
from scalequest.run.experiment.grid import Grid
from scalequest.run.experiment.results import needed
from tests.run.experiment.made import GRID, OF_QUESTIONS, git, grid_of, judged, plain, ran, results, states

ROOT = Path(__file__).parents[3]
PAGE = Path("reports/experiments/best.md")
CELL = Path("reports/experiments/best/reward")


def table() -> str:
    assert cli.run(["experiment", "best", "--table"]) == 0
    return PAGE.read_text()


def keep(*words: str) -> None:
    assert cli.run(["experiment", "best", "--keep", *words]) == 0


def drop_experiments(folder: Path) -> None:
    for ref in git(folder, "for-each-ref", "--format=%(refname)", "refs/exps").split():
        git(folder, "update-ref", "-d", ref)


def forget(folder: Path) -> None:
    """What a clone lacks: the experiments and DVC's cache."""
    drop_experiments(folder)
    shutil.rmtree(folder / ".dvc")


@pytest.fixture
def grid(repository: Repository, folder: Path) -> Grid:
    return grid_of(folder)


# ------------------------------------------------------------------------------------------------ from experiments


@pytest.mark.parametrize("claims", [GRID, GRID + OF_QUESTIONS], ids=["scores", "questions"])
def test_a_clone_writes_the_very_page_of_the_experiments(
    repository: Repository, folder: Path, claims: str, capsys: pytest.CaptureFixture[str]
):
    grid = grid_of(folder, claims)
    git(folder, "commit", "-qam", "claims", "--allow-empty")
    ran(repository, grid, "reward")
    ran(repository, grid, "random", machine=["torch==1.0", "cpu: another"])
    page = table()
    assert "| +10.0 ± 3.1 | 30 / 10 | 200 items, p = 0.0022 | 5 | **holds** (one training seed) |" in page
    assert "- reward and random ran with other packages or on other hardware." in page
    # The commit that brought the code they ran with: an experiment's own is in no other clone.
    assert page.count(f"`{git(folder, 'log', '-1', '--format=%H', '--', 'code.txt')[:7]}`") == 2
    # 90 and 60 of 100 questions.
    assert ("| +30.0 ± " in page) == (claims != GRID)
    keep()
    assert re.search(r"best/reward  \d+ kB\n.*best/random  \d+ kB\n", capsys.readouterr().out)
    assert states(folder, grid) == [FINISHED, FINISHED, NOT_RUN]
    forget(folder)
    PAGE.unlink()
    assert states(folder, grid) == [KEPT_CELL, KEPT_CELL, NOT_RUN]
    assert table() == page
    assert cli.run(["experiment"]) == 0
    assert "best        2 kept, 1 not run  Which?" in capsys.readouterr().out
    files = {file.name: file.stat().st_size for file in CELL.iterdir()}
    scored = {"params.yaml", "dvc.lock", "metrics.json", "scores.parquet", "environment.json"}
    assert set(files) == scored | ({"solvable.parquet", "difficulty.parquet"} if claims != GRID else set())
    assert sum(files.values()) < 25_000
    assert parse_yaml((CELL / "params.yaml").read_bytes(), "") == json.loads(json.dumps(grid.cells["reward"].values))


def test_code_that_changed_since_is_noted_and_the_verdict_stays(repository: Repository, folder: Path, grid: Grid):
    ran(repository, grid, "reward")
    ran(repository, grid, "random")
    keep()
    forget(folder)
    (folder / "code.txt").write_text("edited")
    assert states(folder, grid)[:2] == [KEPT_CELL, KEPT_CELL]
    assert judged(folder, grid)[0] == HOLDS
    assert "- reward, random: the code has changed since (code.txt)." in table()


def test_kept_cells_of_different_code_get_no_verdict(repository: Repository, folder: Path, grid: Grid):
    ran(repository, grid, "reward")
    ran(repository, grid, "random", code="other")
    keep()
    forget(folder)
    assert judged(folder, grid)[0] == "undecided: made with other code (code.txt)"
    page = table()
    assert "| +10.0 ± 3.1 | 30 / 10 |" in page
    assert "- random: the code has changed since (code.txt)." in page
    assert "reward: the code" not in page


def test_code_that_somebody_read_gets_a_verdict_and_a_note(repository: Repository, folder: Path, grid: Grid):
    ran(repository, grid, "reward")
    ran(repository, grid, "random", code="other")
    keep()
    forget(folder)
    one, two = (md5(code).hexdigest() for code in (b"code", b"other"))
    said = "same_code: [{{why: a comment, files: {{{}: [{}, {}]}}}}]\n"
    assert judged(folder, grid_of(folder, GRID + said.format("code.txt", one, two)))[0] == HOLDS
    assert "- cells were made with two versions of some code: a comment." in table()
    for other in (said.format("code.txt", one, one), said.format("else.txt", one, two)):
        assert judged(folder, grid_of(folder, GRID + other))[0] == "undecided: made with other code (code.txt)"


def test_what_counts_of_an_experiment_and_of_kept_files(repository: Repository, folder: Path, grid: Grid):
    ran(repository, grid, "reward")
    keep()
    (folder / "code.txt").write_text("edited")
    git(folder, "commit", "-qam", "other code")
    assert states(folder, grid)[0] == KEPT_CELL, "kept files come before an outdated experiment"
    drop_experiments(folder)
    ran(Repository(folder), grid, "reward", code="edited", rows=3)
    assert states(folder, grid)[0] == FINISHED, "an experiment of this code comes before kept files"
    assert results(folder, grid)["reward"].rows == {"student": 3}
    (folder / "code.txt").write_text("again")
    assert results(folder, grid)["reward"].rows == {"student": 2}
    with pytest.raises(UserError, match=r"no DVC experiment of best to keep \(reward is kept, random is missing"):
        keep()
    keep("--cell", "reward")
    assert results(folder, grid)["reward"].rows == {"student": 3}, "one that is asked for is kept again"
    shutil.rmtree(CELL)
    assert states(folder, grid)[0] == OUTDATED


def test_a_kept_cell_does_not_run_again(
    repository: Repository,
    folder: Path,
    grid: Grid,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    ran(repository, grid, "reward")
    keep()
    forget(folder)
    chosen: list[str] = []
    monkeypatch.setattr(command, "run_missing", lambda grid, cells: chosen.extend(cell.name for cell in cells))
    monkeypatch.setattr(command, "find_blockers", lambda params: [])
    assert cli.run(["experiment", "best", "--all"]) == 0
    assert chosen == ["random", "marked"]
    out = capsys.readouterr().out
    assert "0 of 3 cells are finished" in out
    assert "kept: reward; --cell runs one again" in out


def test_kept_files_of_other_parameters_do_not_count(
    repository: Repository, folder: Path, grid: Grid, capsys: pytest.CaptureFixture[str]
):
    ran(repository, grid, "reward")
    keep()
    forget(folder)
    other = grid_of(folder, GRID.replace("{by: reward}", "{by: reward, min_agreement: 2}"))
    assert states(folder, other)[0] == MISSING_CELL
    assert "**not run**: reward" in table()
    assert (
        "the kept files of reward are of another cell: reward_select.min_agreement is 1 and not 2"
        in capsys.readouterr().out
    )
    # A new parameter of a section that a stage reads is a difference, as it is for DVC.
    other.cells["reward"].values["reward_select"] |= {"min_agreement": 1, "new": 3}
    assert states(folder, other)[0] == MISSING_CELL
    more = grid_of(folder, GRID + OF_QUESTIONS)
    assert states(folder, more)[0] == MISSING_CELL
    assert cli.run(["experiment", "best", "--plan"]) == 0
    assert "the kept files of reward are of another cell: it has no difficulty, judge" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("scores.parquet", None),
        ("scores.parquet", b"PAR1"),
        ("metrics.json", b"{}"),
        ("metrics.json", b"<<<<<<< ours"),
        ("environment.json", None),
    ],
)  # fmt: skip
def test_a_damaged_kept_cell_is_named(
    repository: Repository, grid: Grid, folder: Path, file: str, content: bytes | None
):
    ran(repository, grid, "reward")
    keep()
    forget(folder)
    if content is None:
        (CELL / file).unlink()
    else:
        (CELL / file).write_bytes(content)
    with pytest.raises(
        UserError, match=r"best/reward: this kept cell cannot be read: .*git checkout reports/experiments/best/reward"
    ):
        table()


# ------------------------------------------------------------------------------------------------ from plain folders


@pytest.mark.parametrize("claims", [GRID, GRID + OF_QUESTIONS], ids=["scores", "questions"])
def test_runs_without_git_give_the_page_of_experiments(repository: Repository, folder: Path, tmp_path_factory: pytest.TempPathFactory, claims: str):  # fmt: skip
    grid = grid_of(folder, claims)
    git(folder, "commit", "-qam", "claims", "--allow-empty")
    away = tmp_path_factory.mktemp("away")
    for name in ("reward", "random"):
        ran(repository, grid, name)
    page = table()
    forget(folder)
    for name in ("reward", "random"):
        keep("--cell", name, "--from", str(plain(repository, grid, name, away / name)))
    assert states(folder, grid) == [KEPT_CELL, KEPT_CELL, NOT_RUN]
    assert table() == page
    text = (CELL / "environment.json").read_text()
    assert "cpu: test" in text
    assert "upstream" in text


def test_code_of_no_commit_has_none(repository: Repository, folder: Path, grid: Grid, tmp_path_factory: pytest.TempPathFactory):  # fmt: skip
    first = git(folder, "rev-parse", "HEAD")
    (folder / "code.txt").write_text("newer")
    git(folder, "commit", "-qam", "newer code")
    away = tmp_path_factory.mktemp("away")
    keep("--cell", "reward", "--from", str(plain(repository, grid, "reward", away / "old")))
    assert results(folder, grid)["reward"].commit == first
    keep("--cell", "reward", "--from", str(plain(repository, grid, "reward", away / "own", code="edited")))
    assert results(folder, grid)["reward"].commit is None
    assert "the code has changed since (code.txt)" in table()


HASH, OTHER = "a" * 64, "b" * 64
IN_A_FILE = f"gguf:sources/x.gguf#sha256={HASH}"


def student(source: str) -> Callable[[dict[str, Any]], None]:
    return lambda values: values["models"].update(student=source)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda values: values["models"].update(judge=IN_A_FILE), None),  # no stage of the claims reads the judge
        (lambda values: values["qpo"].update(beta=0.5), None),
        (lambda values: values["runtime"].update(threads=7), None),
        (student(IN_A_FILE), None),  # the cell has the same file on the hub
        (student(IN_A_FILE.replace(HASH, OTHER)), "models.student is 'gguf:.*b' and not 'hf:"),
        (student(f"path:x#sha256={HASH}"), "models.student is 'path:"),
        (lambda values: values.update(seed=5), "seed is 5 and not 42"),
        (lambda values: values["reward_select"].update(by="majority", min_agreement=3, keep="all_agreeing", min_reward=1.5), "and 1 more. Expected"),
        (lambda values: values["reward_select"].pop("keep"), "reward_select.keep is None and not 'best'"),
    ],
    ids=["unread role", "unread", "runtime", "same file", "another file", "folder", "seed", "several", "absent"],
)  # fmt: skip
def test_only_parameters_that_the_stages_read_must_be_the_cells(
    repository: Repository, folder: Path, tmp_path_factory: pytest.TempPathFactory, edit: Callable[[dict[str, Any]], None], message: str | None
):  # fmt: skip
    source = f"hf:a/b@{'c' * 40}#x.gguf#sha256={HASH}"
    base = f'base: {{set: {{seed: 42, models: {{student: "{source}"}}}}}}\ncells:'
    grid = grid_of(folder, GRID.replace("cells:", base))
    there = plain(repository, grid, "reward", tmp_path_factory.mktemp("away") / "run", edit=edit)
    if message is None:
        keep("--cell", "reward", "--from", str(there))
        assert states(folder, grid)[0] == KEPT_CELL
        written = parse_yaml((CELL / "params.yaml").read_bytes(), "")
        assert written == parse_yaml((there / "params.yaml").read_bytes(), ""), "the run's own parameters are kept"
        return
    with pytest.raises(UserError, match=f"not the parameters of cell reward: .*{message}"):
        keep("--cell", "reward", "--from", str(there))
    assert not CELL.exists()


def edit_lock(there: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    lock = yaml.safe_load((there / "dvc.lock").read_text())
    edit(lock["stages"])
    (there / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))


def rescored(there: Path) -> None:
    rows = read_rows(there / "student.parquet", SAMPLE)
    write_rows(there / "student.parquet", [row | {"flexible": 1.0} for row in rows], SAMPLE)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda there: shutil.rmtree(there), "no params.yaml and no dvc.lock"),
        (lambda there: (there / "dvc.lock").unlink(), "no dvc.lock"),
        (lambda there: (there / "student.parquet").unlink(), "student.parquet: not there with the bytes that dvc.lock names"),
        (rescored, "student.parquet: not there with the bytes"),
        (lambda there: (there / "tuned.json").write_text('{"examples": 9}'), "tuned.json: not there with the bytes"),
        (lambda there: edit_lock(there, lambda stages: stages.pop("evaluate_student@student")), "no entry of evaluate_student"),
        (lambda there: edit_lock(there, lambda stages: stages.pop("upstream")), "no entry of upstream"),
        (lambda there: edit_lock(there, lambda stages: stages["upstream"]["outs"][0].update(md5="0" * 32)), "stage instruct_tune@student read another version of up.txt"),
    ],
)  # fmt: skip
def test_a_folder_that_lacks_something_is_refused(
    repository: Repository, folder: Path, grid: Grid, tmp_path_factory: pytest.TempPathFactory, damage: Callable[[Path], object], message: str
):  # fmt: skip
    there = plain(repository, grid, "reward", tmp_path_factory.mktemp("away") / "run")
    damage(there)
    with pytest.raises(UserError, match=f"--from .*{message}"):
        keep("--cell", "reward", "--from", str(there))
    assert not CELL.exists()


def test_a_run_whose_machine_is_unknown_is_kept(
    repository: Repository, folder: Path, grid: Grid, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
):  # fmt: skip
    there = plain(repository, grid, "reward", tmp_path_factory.mktemp("away") / "run")
    shutil.rmtree(there / "reports")
    keep("--cell", "reward", "--from", str(there))
    assert "its packages and hardware are not recorded" in capsys.readouterr().out
    assert results(folder, grid)["reward"].environments == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["best", "--cell", "reward", "--table"], "--cell: runs a cell"),
        (["best", "--keep", "--from", "x"], "--from x: of which cell"),
        (["best", "--cell", "reward", "--from", "x"], "--from x: of which cell"),
        (["--keep"], "of which experiment"),
        (["best", "--keep"], "no DVC experiment of best to keep"),
        (["best", "--keep", "--cell", "nope"], "no such cell"),
    ],
)
def test_options_that_do_not_go_together(repository: Repository, words: list[str], message: str):
    with pytest.raises(UserError, match=message):
        cli.run(["experiment", *words])


# ------------------------------------------------------------------------------------------------ this repository's


def real_lock() -> Lock:
    contents = [(ROOT / name).read_bytes() for name in ("dvc.lock", "dvc.yaml", "params.yaml")]
    return make_lock(Revision("workspace", None), *contents)


def test_the_pipelines_own_lock_is_kept_whole_in_few_bytes():
    lock = needed(real_lock(), ["evaluate_student", "judge", "difficulty"])
    entries = parse_yaml((ROOT / "dvc.lock").read_bytes(), "dvc.lock")["stages"]
    text = kept._lock(entries, list(lock.stages))
    assert len(text) < 120_000
    again = parse_lock(text.encode(), "kept")
    assert list(again) == list(lock.stages)
    for name, stage in lock.stages.items():
        assert again[name].given == stage.given, "what a machine's facts are found by"
        assert (again[name].cmd, again[name].sections) == (stage.cmd, stage.sections)
        assert [(out.path, out.md5) for out in again[name].outs] == [(out.path, out.md5) for out in stage.outs]


def test_a_kept_lock_repeats_values_that_look_like_others():
    params = {
        "a": {"text": ["off", "1e5", "010", "null", "~", "é 😀", "a: b # c", "1_000"], "number": [3e-05, 1e16, 7]}
    }
    md5 = ["1" * 32, f"1e{'2' * 30}"]
    entry = {"cmd": 'x --out "y"', "deps": [{"path": "a, b", "md5": md5[0]}], "params": {"params.yaml": params}}
    text = kept._lock({"s@1": entry | {"outs": [{"path": "o", "md5": md5[1]}]}}, ["s@1"])
    stage = parse_lock(text.encode(), "kept")["s@1"]
    assert stage.params == {"a.text": params["a"]["text"], "a.number": params["a"]["number"]}
    assert [stage.deps[0].path, stage.deps[0].md5, stage.outs[0].md5, stage.cmd] == ["a, b", *md5, entry["cmd"]]


def test_every_parameter_in_a_path_is_recorded_by_the_stage_or_one_that_it_needs():
    """Else two cells could differ in it, and their locks would not."""
    pipeline = parse_yaml((ROOT / "dvc.yaml").read_bytes(), "dvc.yaml")["stages"]
    lock = needed(real_lock(), ["evaluate_student", "judge", "difficulty"])
    seen = set()
    for name, stage in lock.stages.items():
        body = pipeline[stage.base].get("do", pipeline[stage.base])
        for reference in REFERENCE.findall(json.dumps([body["cmd"], body["deps"], body.get("params", [])])):
            if reference.split(".")[0] in ("item", "key"):
                continue
            seen.add(reference)
            recorded = {key for needs in lock.order(name) for key in needs.params}
            assert reference in recorded, f"{name}: {reference}"
    assert {
        "domain",
        "generate.from",
        "respond.questions",
        "reward_select.waits_for",
        "instruct_tune.waits_for",
    } <= seen
