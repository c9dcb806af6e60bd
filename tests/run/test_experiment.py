"""Experiments: files that are checked, cells that are DVC experiments, differences with their errors, and verdicts."""

import json
import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from scalequest import cli
from scalequest.audit.lock import parse_yaml as parse_fast
from scalequest.audit.repository import Repository
from scalequest.errors import UserError
from scalequest.io import only_holder
from scalequest.outcomes import FINISHED, HOLDS, MISSING_CELL, NOT_RUN, OUTDATED
from scalequest.problems import own
from scalequest.run.experiment import cells, command
from scalequest.run.experiment.grid import Grid, read_all
from scalequest.run.experiment.results import _nearly_equal, judge
from scalequest.run.profile import load_profile
from tests.fakes import LAPTOP
from tests.run.experiment.made import GRID, OF_QUESTIONS, git, grid_of, judged, ran, results, states

ROOT = Path(__file__).parents[2]

# ------------------------------------------------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def grids() -> dict[str, Grid]:
    return read_all(ROOT)


def test_the_papers_claims_are_there(grids: dict[str, Grid]):
    wanted = {"ablation", "generator_mix", "data_scaling", "qft_seeds", "qpo_pairs", "best_of_n", "filters"}
    assert wanted <= set(grids)
    mixes = [c.values["filter"]["shares"] for c in grids["generator_mix"].cells.values() if len(c.params.mix) == 2]
    assert len({json.dumps(m) for m in mixes}) == 5
    assert [c.params.instruct_tune.n_examples for c in grids["data_scaling"].cells.values()] == [4096, 16384, 65536]
    assert {c.params.generate.from_ for c in grids["ablation"].cells.values()} == {"base", "qft", "qpo"}


def test_a_cell_without_rewards_trains_no_reward_model(grids: dict[str, Grid]):
    """DVC's own graph: what `dvc repro evaluate_student` needs, and only the cell that compares rewards makes them."""
    grid = grids["ablation"]
    needed = {name: cells.stage_keys(cell.values, ["evaluate_student"], ROOT) for name, cell in grid.cells.items()}
    rewarding = {"fetch_model@reward", "reward_model", "reward"}
    for name in ("raw", "qft", "qpo"):
        assert grid.cells[name].params.reward_select.waits_for == "responses"
        assert rewarding.isdisjoint(needed[name])
    assert set(needed["reward"]) - set(needed["qpo"]) == rewarding
    # All but the choice is shared with the cell that it is compared to.
    differ = {stage for stage, key in needed["qpo"].items() if key != needed["reward"][stage]}
    assert {stage.split("@")[0] for stage in differ} == {"reward_select", "instruct_tune", "evaluate_student"}
    hours = {name: command.stage_hours(cell) for name, cell in grid.cells.items()}
    assert "reward" not in hours["qpo"]
    assert hours["reward"]["reward"] > 0


def test_every_cell_has_an_estimate_and_lines_are_short(grids: dict[str, Grid]):
    for grid in grids.values():
        for cell in grid.cells.values():
            assert command.stage_hours(cell), f"{grid.name}: {cell.name}"
        text = (ROOT / "experiments" / f"{grid.name}.yaml").read_text()
        assert [line for line in text.splitlines() if len(line) > 120] == []


def grid_of_own_questions(folder: Path, book: str) -> Grid:
    """Cells without generators, with the questions of one file."""
    filters = "filter: {shares: {book: 1.0}, drop_easiest_frac: {book: 0.0}}"
    base = f"base: {{set: {{mix: [], own: {{questions: {{book: {book}}}}}, {filters}}}}}\ncells:"
    return grid_of(folder, GRID.replace("cells:", base))


def test_a_cell_without_generators_has_an_estimate(folder: Path):
    book = f"{{kind: jsonl, path: book.jsonl, n: 100, sha256: {'a' * 64}}}"
    cell = grid_of_own_questions(folder, book).cells["reward"]
    assert cell.params.mix == []
    assert {"judge", "respond"} <= set(found := command.stage_hours(cell))
    assert "qft" not in found
    assert command.estimate(cell, dict.fromkeys(found, "key")) == pytest.approx(sum(found.values()))


def test_cells_read_a_file_of_their_own_rows_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    file = folder / "book.jsonl"
    file.write_text('{"question": "1 + 1?"}\n' * 40)
    pinned = f"{{kind: jsonl, path: {file}, n: null, sha256: {sha256(file.read_bytes()).hexdigest()}}}"
    read = Mock(side_effect=own.own_rows)
    monkeypatch.setattr(own, "own_rows", read)
    grid = grid_of_own_questions(folder, pinned)
    assert [command.own_rows(cell).questions for cell in grid.cells.values()] == [{"book": 40}] * 3
    assert all(command.stage_hours(cell) for cell in grid.cells.values())
    assert read.call_count == 1


def test_a_cell_is_an_overlay_of_the_parameters(folder: Path):
    grid = grid_of(folder)
    assert [cell.params.reward_select.by for cell in grid.cells.values()] == ["reward", "random", "first"]
    assert grid.cells["random"].changes == ["reward_select.by: reward -> random"]
    assert [cell.marked for cell in grid.cells.values()] == [False, False, True]
    assert grid.targets == ["evaluate_student"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{by: random}", "{bye: random}", r"best.yaml: cell random over laptop: .*\n.*reward_select.bye: unknown parameter; did you mean 'by'"),
        ("{by: random}", "{by: best}", r"cell random.*\n.*reward_select.by: got 'best'"),
        ("set: {reward_select: {by: random}}", "reward_select: {by: random}", "cells.random.reward_select: unknown key; parameters go under `set`"),
        ("question:", "qestion:", "qestion: unknown key; did you mean 'question'"),
        ("better: reward,", "beter: reward,", "claims.0.beter: unknown key; did you mean 'better'"),
        ("better: reward", "better: rewards", "claims.0.better: no cell 'rewards'. Expected one of: reward, random, marked"),
        ("than: random", "than: reward", "compares 'reward' with itself"),
        ("embedded_sums", "gsm8k", "claims.0.task: no task 'gsm8k'. Expected one of: embedded_sums"),
        ("metric: flexible, task: embedded_sums", "metric: flexible", "claims.0.task: None. Expected a task"),
        ("metric: flexible", "metric: solvable", "claims.0.task: embedded_sums. Expected none"),
        ("{by: random}", "{by: reward}", "cells.random: the same parameters as cells.reward"),
        ("{by: random}}", "{by: random}, seed: 18}", "claims.0: reward and random differ in seed"),
        ("{by: random}}", "{by: random}, evaluate: {limit: 9}}", "claims.0: reward and random differ in evaluate"),
        ("{by: random}}", "{by: random}, instruct_tune: {n_examples: 9}}", "differ in instruct_tune.n_examples"),
        ("{by: random}}", "{by: random}, instruct_tune: {seeds: {student: 2}}}", "differ in instruct_tune.seeds"),
        ("matters: 5", "matters: 0", "claims.0.matters: got 0"),
        ("why: it is too large\n", "", "why: missing"),
        ("paper: Fig. 5\n", "", "paper: missing"),
        ("paper: Fig. 5", "paper: Fig. 5\non: laptopp", "profile 'laptopp': no such profile"),
        ("  random: {", "  Random: {", "cells: 'Random' becomes part of an experiment's name"),
        ("{by: random}}", "{by: random}}, replaces: [seeds]", "cells.random.replaces: the cell sets no mapping 'seeds'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_named(folder: Path, old: str, new: str, message: str):
    assert old in GRID
    with pytest.raises(UserError, match=message):
        grid_of(folder, GRID.replace(old, new, 1))


def test_rows_may_differ_where_they_are_compared(folder: Path):
    text = GRID.replace("{by: random}}", "{by: random}, instruct_tune: {n_examples: 9}}", 1)
    text = text.replace("matters: 5}", "matters: 5, rows: differ}")
    assert grid_of(folder, text).cells["random"].params.instruct_tune.n_examples == 9


# ---------------------------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize("profile", ["gpu-135m", "paper-math"])
def test_dvc_makes_a_profile_of_the_overrides(tmp_path: Path, profile: str):
    from dvc.utils.hydra import apply_overrides

    base, wanted = (load_profile(p, ROOT).model_dump(by_alias=True) for p in ("laptop", profile))
    file = tmp_path / "params.yaml"
    file.write_text(LAPTOP.read_text())
    apply_overrides(file, list(cells.overrides(base, wanted)))
    assert parse_fast(file.read_bytes(), "params.yaml") == wanted


def test_overrides_of_every_kind_of_value(tmp_path: Path):
    from dvc.utils.hydra import apply_overrides

    old = {"a": {"b": 1, "gone": None, "c": {"d": 2}}, "list": [1], "same": "x", "empty": {}, "full": {"k": 1}}
    new = {
        "a": {"b": 1.0, "c": {"d": None}, "new": {"e": {"f": "api:http://h/v1#m", "g": []}}}, "list": ["off", True, 3e-05],
        "same": "x", "empty": {"k": 'say "no", {or} [1]'}, "full": {}, "none": "null",
    }  # fmt: skip
    file = tmp_path / "params.yaml"
    file.write_text(json.dumps(old))
    apply_overrides(file, list(cells.overrides(old, new)))
    assert parse_fast(file.read_bytes(), "params.yaml") == new
    assert list(cells.overrides(new, new)) == []
    with pytest.raises(UserError, match=r"same: .*cannot be an override"):
        list(cells.overrides(old, old | {"same": "${a}"}))


# --------------------------------------------------------------------------------------------- cells that have run


def test_finished_cells_give_the_verdict(repository: Repository, folder: Path, capsys: pytest.CaptureFixture[str]):
    grid = grid_of(folder)
    ran(repository, grid, "reward")
    assert judged(folder, grid) == ["not run: random", "not run: random, marked"]
    ran(repository, grid, "random")
    assert judged(folder, grid)[0] == HOLDS
    with pytest.raises(SystemExit) as done:
        cli.main(["experiment", "best", "--table"])
    assert done.value.code == 0
    page = (folder / "reports" / "experiments" / "best.md").read_text()
    # 50 and 30 of 200 items; 30 and 10 of them differ; the 9 development items count nowhere.
    assert "| +10.0 ± 3.1 | 30 / 10 | 200 items, p = 0.0022 | 5 | **holds** (one training seed) |" in page
    assert "25.0 ± 3.1" in page
    assert "15.0 ± 2.5" in page
    assert "Hours of one H100: marked 0." in page
    assert "Marked as not run: it is too large." in page
    assert "**holds**" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"rows": 3}, "undecided: trained on 2 and 3 rows"),
        ({"code": "other"}, "undecided: made with other code (code.txt)"),
        ({"edit": lambda values: values["qpo"].update(beta=0.5)}, "not run: random"),
        ({"edit": lambda values: values["runtime"].update(threads=7)}, HOLDS),
    ],
    ids=["rows", "code", "params", "runtime"],
)
def test_only_equal_cells_are_compared(repository: Repository, folder: Path, change: dict[str, Any], verdict: str):
    grid = grid_of(folder)
    ran(repository, grid, "reward")
    ran(repository, grid, "random", **change)
    assert judged(folder, grid)[0] == verdict


def test_nearly_as_many_rows_are_noted(repository: Repository, folder: Path):
    grid = grid_of(folder)
    ran(repository, grid, "reward", rows=100)
    ran(repository, grid, "random", rows=99)
    [entry, _] = judge(grid, results(folder, grid))
    assert str(entry.verdict) == HOLDS
    assert entry.notes == ("reward and random were trained on 100 and 99 rows",)
    ran(repository, grid, "random", rows=98)
    assert judged(folder, grid)[0] == "undecided: trained on 100 and 98 rows"


@pytest.mark.parametrize(
    ("one", "two", "alike"),
    [
        ({"s": 100, "t": 99}, {"s": 99, "t": 100}, True),
        ({"s": 100}, {"s": 98}, False),
        ({}, {"s": 100}, False),
        ({"s": 100}, {"t": 100}, False),
    ],
)
def test_rows_are_compared_by_student(one: dict[str, int], two: dict[str, int], alike: bool):
    assert _nearly_equal(one, two) is alike


def test_the_state_of_cells(repository: Repository, folder: Path, capsys: pytest.CaptureFixture[str]):
    grid = grid_of(folder)
    ran(repository, grid, "reward")

    assert states(folder, grid) == [FINISHED, MISSING_CELL, NOT_RUN]
    assert cli.run(["experiment"]) == 0
    assert "best        1 finished, 1 missing, 1 not run  Which?" in capsys.readouterr().out
    (folder / "code.txt").write_text("edited")
    assert states(folder, grid) == [OUTDATED, MISSING_CELL, NOT_RUN]
    (folder / "code.txt").write_text("code")
    git(folder, "commit", "-q", "--allow-empty", "-m", "later")
    assert states(folder, grid)[0] == FINISHED, "a commit that changes no code outdates nothing"


def test_the_plan_names_what_is_shared(repository: Repository, folder: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["experiment", "best", "--plan"]) == 0
    out = capsys.readouterr().out
    # upstream once; tuning and evaluation in each of three cells
    assert "7 stages in place of 9" in out
    [line] = [line for line in out.splitlines() if line.startswith("random")]
    assert "2 of 3" in line
    assert "1 with reward" in line
    assert "instruct_tune, evaluate_student" in line
    keys = [cells.stage_keys(cell.values, ["evaluate_student"], folder) for cell in grid_of(folder).cells.values()]
    assert len({k["upstream"] for k in keys}) == 1
    assert len({k["evaluate_student@student"] for k in keys}) == 3, "its inputs differ, although its parameters do not"


def test_the_plan_and_the_page_say_what_is_assumed_of_a_file_that_is_not_here(repository: Repository, folder: Path):
    hub = f"{{kind: hub, repo: a/b, commit: {'a' * 40}, file: x.jsonl, n: null, sha256: null}}"
    text = command.plan(grid := grid_of_own_questions(folder, hub), dict.fromkeys(grid.cells, MISSING_CELL), folder)
    note = "own.questions.book: its rows cannot be counted here; the estimate takes 14,969. Set n."
    assert note in text
    assert f"- {note}" in command.write_page(grid, repository).read_text().split("## Not run")[1]
    [line] = [line for line in text.splitlines() if line.startswith("reward")]
    hours = float(line.split("3 of 3")[1].split()[0])
    assert hours == pytest.approx(command.estimate(grid.cells["reward"], {"instruct_tune@student": "a", "evaluate_student@student": "b"}), abs=0.01)  # fmt: skip
    assert hours > 0


def test_the_values_of_the_questions(repository: Repository, folder: Path):
    grid = grid_of(folder, GRID + OF_QUESTIONS)
    ran(repository, grid, "reward")
    values = results(folder, grid)["reward"].values
    assert values["solvable"] == [0.0] * 10 + [1.0] * 90
    # 0, 7, 14, ... modulo 100 are each number once; the thirteenth is 0.84 / 1.3 + 0.00012 = 0.6463.
    assert len(values["difficulty"]) == 100
    assert values["difficulty"][84] == 0.646
    assert values["difficulty"] == sorted(values["difficulty"])


def test_an_unknown_name_is_answered_with_the_nearest(repository: Repository):
    with pytest.raises(UserError, match="Did you mean 'best'"):
        cli.run(["experiment", "bets"])
    with pytest.raises(UserError, match=r"--cell nope: no such cell\. Expected one of: reward, random, marked"):
        cli.run(["experiment", "best", "--cell", "nope"])


DVC = """#!{python}
import os, subprocess, sys
ref = "refs/exps/{head}/best-random"
assert subprocess.call(["git", "rev-parse", "-q", "--verify", ref]), "DVC would refuse: there is an experiment of this name"
if os.environ["ENDS"] == "well":
    subprocess.check_call(["git", "update-ref", ref, "HEAD"])
sys.exit(os.environ["ENDS"] != "well")
"""


@pytest.fixture
def ref(repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ref of the cell `random`, whose DVC ends as the variable ENDS says."""
    head = git(folder, "rev-parse", "HEAD")
    program = folder / ".work" / "bin" / "dvc"
    program.parent.mkdir(parents=True)
    program.write_text(DVC.format(python=sys.executable, head=f"{head[:2]}/{head[2:]}"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(command, "find_blockers", lambda _: [])
    return f"refs/exps/{head[:2]}/{head[2:]}/best-random"


def test_a_finished_result_stays_until_there_is_a_new_one(
    ref: str, repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    grid = grid_of(folder)
    old = ran(repository, grid, "random")
    monkeypatch.setenv("ENDS", "badly")
    assert cli.run(["experiment", "best", "--cell", "random"]) == 1
    assert git(folder, "rev-parse", ref) == old
    monkeypatch.setattr(cells, "DVC", ("no-such-dvc",))
    with pytest.raises(FileNotFoundError):
        cli.run(["experiment", "best", "--cell", "random"])
    assert git(folder, "rev-parse", ref) == old


def test_a_new_result_replaces_the_old_one(
    ref: str, repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    ran(repository, grid_of(folder), "random")
    monkeypatch.setenv("ENDS", "well")
    assert cli.run(["experiment", "best", "--cell", "random"]) == 0
    assert git(folder, "rev-parse", ref) == git(folder, "rev-parse", "HEAD")
    assert git(folder, "for-each-ref", "refs/scalequest") == ""


def test_a_result_counts_while_its_cell_runs_again(repository: Repository, folder: Path):
    """And when that run is killed without a word: the next one gives it its name back."""
    grid = grid_of(folder)
    old = ran(repository, grid, "random")
    killed = cells.set_aside(repository, "best-random")
    killed.__enter__()
    assert states(folder, grid)[1] == FINISHED
    assert Repository(folder).revision("best-random").commit == old
    with cells.set_aside(repository, "best-random"):
        assert states(folder, grid)[1] == FINISHED
    assert git(folder, "for-each-ref", "refs/scalequest") == ""
    assert Repository(folder).revision("best-random").commit == old


def test_an_experiment_is_run_once_at_a_time(repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "find_blockers", lambda _: [])
    logs = Path(".work", "parallel", "best")
    message = rf"running here already, as process {os.getpid()}\. Expected one at a time"
    with only_holder(logs / "lock", ""):
        with pytest.raises(UserError, match=f"the experiment best is {message}"):
            cli.run(["experiment", "best"])
        assert cli.run(["experiment", "best", "--plan"]) == 0
    with only_holder(logs / "random.lock", ""), pytest.raises(UserError, match=f"cell random of best is {message}"):
        cli.run(["experiment", "best", "--cell", "random"])


def test_the_logs_of_cells_are_in_a_folder_of_their_experiment(
    repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    class Failing:
        def __init__(self, *_: object, logs: Path, **__: object) -> None:
            logs.mkdir(parents=True, exist_ok=True)
            (logs / "reward.log").write_text("its last line")

        def run(self) -> list[str]:
            return ["reward"]

    monkeypatch.setattr(command, "find_blockers", lambda _: [])
    monkeypatch.setattr(command, "Runner", Failing)
    with pytest.raises(UserError, match="--- reward\nits last line"):
        cli.run(["experiment", "best"])
    assert (folder / ".work" / "parallel" / "best" / "reward.log").exists()


def test_an_experiment_runs_from_the_root_wherever_it_is_called(
    ref: str, repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(folder / "experiments")
    monkeypatch.setenv("ENDS", "well")
    assert cli.run(["experiment", "best", "--cell", "random"]) == 0
    assert Path.cwd() == folder
    monkeypatch.chdir(folder / "experiments")
    with pytest.raises(UserError, match=rf"--from {folder}/experiments/gone"):
        cli.run(["experiment", "best", "--keep", "--cell", "random", "--from", "gone"])


def test_the_page_has_the_hours_of_the_plan(repository: Repository, folder: Path):
    grid = grid_of(folder)
    text = command.plan(grid, dict.fromkeys(grid.cells, MISSING_CELL), folder)
    lines = [line.split() for line in text.splitlines() if line.startswith(("reward ", "random ", "marked "))]
    hours = [f"{words[0]} {words[words.index('of') + 2]}" for words in lines]
    page = command.write_page(grid, repository).read_text()
    assert f"Hours of one H100: {', '.join(hours)};" in page
    assert float(hours[0].split()[1]) < sum(command.stage_hours(grid.cells["reward"]).values()), (
        "no generator is trained for it"
    )


@pytest.mark.slow
def test_a_killed_grid_is_resumed_and_shared_stages_run_once(
    repository: Repository, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    (folder / ".dvc" / ".gitignore").write_text("/cache\n/tmp\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "dvc")
    words = [sys.executable, "-m", "scalequest.cli", "experiment", "best"]
    log = folder / "ran"
    (folder / "wait-random").touch()
    started = subprocess.Popen(words, cwd=folder, start_new_session=True)
    deadline = time.monotonic() + 120
    # The second cell waits in its evaluation.
    while not log.exists() or log.read_text().count("evaluate") < 2:
        assert time.monotonic() < deadline
        assert started.poll() is None
        time.sleep(0.1)
    started.send_signal(signal.SIGTERM)
    assert started.wait(timeout=60) == 128 + signal.SIGTERM
    grid = grid_of(folder)
    assert states(folder, grid) == [FINISHED, MISSING_CELL, NOT_RUN]
    (folder / "wait-random").unlink()
    assert cli.run(["experiment", "best"]) == 0
    out = capsys.readouterr().out
    assert "1 of 3 cells are finished" in out
    assert "not run: marked (it is too large); --all runs them" in out
    assert log.read_text().split() == ["upstream", "tune", "evaluate", "tune", "evaluate", "evaluate"]
    assert "| +10.0 ± 3.1 | 30 / 10 |" in (folder / "reports" / "experiments" / "best.md").read_text()
    assert git(folder, "status", "--porcelain", "params.yaml", "dvc.lock") == "", "the working folder is as it was"
    assert states(folder, grid) == [FINISHED, FINISHED, NOT_RUN]
