"""Experiments: files that are checked, cells that are DVC experiments, differences with their errors, and verdicts."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest
import yaml

from scalequest import cli
from scalequest.audit.lock import parse_yaml as parse_fast
from scalequest.audit.repository import Repository
from scalequest.errors import UserError
from scalequest.outcomes import DOES_NOT_HOLD, FINISHED, HOLDS, MISSING_CELL, NOT_RUN, OUTDATED, UNDECIDED
from scalequest.records import JUDGED, SAMPLE, write_rows
from scalequest.run.experiment import cells, command
from scalequest.run.experiment.grid import Grid, read_all, read_grid
from scalequest.run.experiment.results import CellResult, judge
from scalequest.run.experiment.verdict import Measured, decide, needed, paired, paired_error, unpaired
from scalequest.run.profile import load_profile
from tests.fakes import LAPTOP

ROOT = Path(__file__).parents[2]

# ---------------------------------------------------------------------------------------------------------- verdicts


def items(right: set[int], n: int) -> dict[str, float]:
    return {f"item/{i}": float(i in right) for i in range(n)}


def one(right: set[int], n: int) -> dict[str, dict[str, float]]:
    return {"student": items(right, n)}


def test_a_paired_difference_and_its_error():
    # 100 items: 20 both right, 16 only the first, 4 only the second. d = 12 of 100. With one difference to each side
    # added (Agresti and Min): variance (16 + 4 + 1 - 12² / 102) / 102² = 0.001883, error 4.339 points.
    m = paired(one(set(range(36)), 100), one({*range(20), *range(36, 40)}, 100))
    assert (m.value, m.n, m.higher, m.lower) == (pytest.approx(12), 100, 16, 4)
    assert 100 * paired_error([1] * 16 + [-1] * 4 + [0] * 80) == pytest.approx(4.339, abs=1e-3)
    # The plain error of the mean is sqrt((20 - 1.44) / 99) / 10 = 4.330: the larger one counts.
    assert m.error == pytest.approx(4.339, abs=1e-3)
    assert m.p_value == pytest.approx(0.0118, abs=1e-4), "exact McNemar: 16 of 20"


@pytest.mark.parametrize(
    ("value", "error", "matters", "direction", "outcome"),
    [
        (12.0, 4.3, 5.0, "above", HOLDS),
        (8.5, 4.3, 5.0, "above", UNDECIDED),
        (-12.0, 4.3, 5.0, "above", DOES_NOT_HOLD),
        (0.1, 0.4, 1.0, "above", DOES_NOT_HOLD),
        (0.1, 0.6, 1.0, "above", UNDECIDED),
        (0.9, 0.4, 1.0, "above", HOLDS),
        (0.1, 0.4, 1.0, "not_below", HOLDS),
        (-0.9, 0.4, 1.0, "not_below", DOES_NOT_HOLD),
        (-0.9, 0.6, 1.0, "not_below", UNDECIDED),
        (0.0, math.nan, 1.0, "above", UNDECIDED),
    ],
)
def test_a_verdict(value: float, error: float, matters: float, direction: str, outcome: str):
    assert decide(Measured(value, error, 0.0, 100), matters, direction).outcome == outcome


def test_no_differing_item_is_no_proof_of_equality():
    m = paired(one(set(), 30), one(set(), 30))
    assert m.value == 0
    assert m.error == pytest.approx(100 / 32), "sqrt(0 + 1) / 32"
    # 30 · (4 · 3.125 / 2)² = 1171.9
    assert str(decide(m, 2.0)) == "undecided: needs 1,172 items, has 30"
    assert decide(paired(one(set(), 2000), one(set(), 2000)), 2.0).outcome == DOES_NOT_HOLD


def test_four_items_are_too_few_to_hold():
    assert decide(paired(one(set(range(4)), 400), one(set(), 400)), 0.9).outcome != HOLDS
    assert decide(paired(one(set(range(8)), 400), one(set(), 400)), 0.9).outcome == HOLDS


@pytest.mark.parametrize(("won", "lost"), [(12, 8), (10, 10), (8, 12), (14, 6)])
def test_the_number_of_items_it_asks_for_settles_the_claim(won: int, lost: int):
    def grid(times: int) -> Measured:
        right, left = set(), set()
        for at in range(times):
            right |= {100 * at + i for i in range(won)}
            left |= {100 * at + 50 + i for i in range(lost)}
        return paired(one(right, 100 * times), one(left, 100 * times))

    found = decide(grid(1), 2.0)
    assert found.outcome == UNDECIDED
    n = int(found.needs.split()[1].replace(",", ""))
    assert decide(grid(math.ceil(n / 100)), 2.0).outcome in (HOLDS, DOES_NOT_HOLD)


def test_training_seeds_add_to_the_error():
    base = {f"student_{s}": items(set(range(100)), 400) for s in range(3)}
    same = {f"student_{s}": items(set(range(140)), 400) for s in range(3)}
    apart = {f"student_{s}": items(set(range(100 + 40 * s)), 400) for s in range(3)}
    equal, spread = paired(same, base), paired(apart, base)
    assert (equal.value, spread.value) == (pytest.approx(10), pytest.approx(10))
    assert (equal.n, equal.seeds) == (400, 3), "three answers to an item are not three items"
    assert equal.seed_error == 0
    assert equal.item_error == pytest.approx(paired(one(set(range(140)), 400), one(set(range(100)), 400)).item_error)
    # Differences of 0, 10 and 20 points: standard deviation 10, error of the mean 10 / sqrt(3) = 5.77, less the part
    # that is the items' (0.3² · 400 · 3 observations: 0.87).
    assert spread.seed_error == pytest.approx(math.sqrt(5.7735**2 - 0.866**2), abs=0.01)
    assert decide(equal, 2.0).outcome == HOLDS
    assert decide(spread, 2.0).outcome == UNDECIDED
    # 3 · 2 · (4 · 5.708 / 2)² = 782
    assert "training seeds, has 3" in needed(spread, 2.0)
    assert int(needed(spread, 2.0).split()[1]) == pytest.approx(782, abs=2)


def test_students_of_one_side_are_left_out():
    m = paired({"student": items({0}, 9), "student_2": items({1}, 9)}, {"student": items(set(), 9)})
    assert (m.seeds, m.n, m.higher) == (1, 9, 1)


def test_shares_of_other_questions_are_not_paired():
    # 0.75 and 0.5 of 400: errors sqrt(0.1875 / 400) = 2.165 and sqrt(0.25 / 400) = 2.5 points, together 3.31.
    m = unpaired([1.0] * 300 + [0.0] * 100, [1.0] * 200 + [0.0] * 200)
    assert (m.value, m.n, m.p_value) == (pytest.approx(25), 400, None)
    assert m.error == pytest.approx(3.31, abs=0.02)
    assert decide(m, 5.0).outcome == HOLDS
    assert unpaired([0.0] * 50, [0.0] * 50).error > 3, "0 of 50 has an error, too"
    with pytest.raises(ValueError, match="Expected at least 1"):
        unpaired([], [1.0])


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


def test_every_cell_has_an_estimate_and_lines_are_short(grids: dict[str, Grid]):
    for grid in grids.values():
        for cell in grid.cells.values():
            assert command.estimate(cell), f"{grid.name}: {cell.name}"
        text = (ROOT / "experiments" / f"{grid.name}.yaml").read_text()
        assert [line for line in text.splitlines() if len(line) > 120] == []


GRID = """
question: Which?
paper: Fig. 5
cells:
  reward: {set: {reward_select: {by: reward}}}
  random: {set: {reward_select: {by: random}}}
  marked: {mark: not run, set: {reward_select: {by: first}}}
why: it is too large
claims:
  - {says: it helps, paper: 86 to 88, better: reward, than: random, metric: flexible, task: embedded_sums, matters: 5}
  - {says: it does not hurt, paper: '-', better: random, than: marked, metric: strict, task: embedded_sums, matters: 5}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "params.yaml").write_text(LAPTOP.read_text())
    (tmp_path / "experiments" / "best.yaml").write_text(GRID)
    return tmp_path


# The laptop's values, read once.
KNOWN: dict[str, dict[str, Any]] = {}


def grid_of(folder: Path, text: str = GRID) -> Grid:
    path = folder / "experiments" / "best.yaml"
    path.write_text(text)
    return read_grid(path, folder, KNOWN)


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
        ("embedded_sums", "gsm8k", "claims.0.task: no task 'gsm8k'. Expected one of: embedded_sums, embedded_stories"),
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

DVC_YAML = """
stages:
  upstream:
    cmd: echo upstream >> $DVC_ROOT/ran; cp code.txt up.txt
    deps: [code.txt]
    params: [seed]
    outs: [up.txt]
  instruct_tune:
    foreach: ${instruct_tune.seeds}
    do:
      cmd: echo tune >> $DVC_ROOT/ran; mkdir -p models; cp up.txt models/${key};
        echo '{"examples":2}' > tuned.json; echo --metrics tuned.json
      deps: [up.txt]
      params: [reward_select]
      outs: ["models/${key}"]
      metrics: [tuned.json: {cache: false}]
  evaluate_student:
    foreach: ${instruct_tune.seeds}
    do:
      cmd: echo evaluate >> $DVC_ROOT/ran; test ! -e $DVC_ROOT/wait-${reward_select.by} || sleep 60;
        cp given/${reward_select.by}.parquet ${key}.parquet; echo --samples ${key}.parquet
      deps: ["models/${key}"]
      outs: ["${key}.parquet"]
"""


def samples(path: Path, right: set[int], n: int = 200) -> None:
    row = {"task": "embedded_sums", "shots": 0, "question": "?", "answer": "1", "completion": "1", "finish_reason": "stop", "unparsed": 0.0, "timeout": 0.0}  # fmt: skip
    rows = [
        row | {"split": "test", "id": f"s/{i}", "strict": float(i in right), "flexible": float(i in right)} for i in range(n)
    ]  # fmt: skip
    rows += [row | {"split": "dev", "id": f"d/{i}", "strict": 1.0, "flexible": 1.0} for i in range(9)]
    write_rows(path, rows, SAMPLE)


@pytest.fixture
def repository(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository with the pipeline above, committed, before any cell ran."""
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "code.txt").write_text("code")
    (folder / ".gitignore").write_text("/models/\n/up.txt\n/*.parquet\n/ran\n/wait-*\n/.work/\n/cache/\n")
    (folder / "given").mkdir()
    # 30 items that only `reward` gets right, 10 that only `random` does: 10 points, error sqrt(41 - 400 / 202) / 202 = 3.1.
    samples(folder / "given" / "reward.parquet", set(range(50)))
    samples(folder / "given" / "random.parquet", {*range(20), *range(50, 60)})
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.email", "test@example.com")
    git(folder, "config", "user.name", "test")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "pipeline")
    monkeypatch.chdir(folder)
    return Repository(folder)


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def put(folder: Path, content: bytes) -> str:
    """Put bytes into DVC's cache, and return their hash."""
    value = md5(content).hexdigest()
    file = folder / ".dvc" / "cache" / "files" / "md5" / value[:2] / value[2:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return value


def ran(repository: Repository, grid: Grid, name: str, rows: int = 2, code: str = "code", edit: Callable[[dict[str, Any]], None] = lambda _: None) -> str:  # fmt: skip
    """What `dvc exp run` leaves of a cell: an experiment's commit with parameters, lock and metrics, and cached samples."""
    root = repository.root
    head = git(root, "rev-parse", "HEAD")
    values = json.loads(json.dumps(grid.cells[name].values))
    edit(values)
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    metrics = json.dumps({"examples": rows})
    (root / "tuned.json").write_text(metrics)

    def entry(path: str, content: bytes) -> dict[str, str]:
        return {"path": path, "hash": "md5", "md5": put(root, content)}

    up, model = entry("up.txt", b"up"), entry("models/student", name.encode())
    data = (root / "given" / f"{name}.parquet").read_bytes()
    lock = {
        "upstream": {"cmd": "up", "deps": [entry("code.txt", code.encode())], "outs": [up]},
        "instruct_tune@student": {"cmd": "tune --metrics tuned.json", "deps": [up], "outs": [model, entry("tuned.json", metrics.encode())]},
        "evaluate_student@student": {"cmd": "eval --samples student.parquet", "deps": [model], "outs": [entry("student.parquet", data)]},
    }  # fmt: skip
    whole = json.loads(json.dumps({"schema": "2.0", "stages": lock}))  # without YAML's aliases
    (root / "dvc.lock").write_text(yaml.safe_dump(whole, sort_keys=False))
    git(root, "add", "-f", "params.yaml", "dvc.lock", "tuned.json")
    git(root, "commit", "-qm", name)
    commit = git(root, "rev-parse", "HEAD")
    git(root, "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{grid.experiment(name)}", commit)
    git(root, "reset", "-q", "--hard", head)
    return commit


def judged(repository: Repository, grid: Grid) -> list[str]:
    fresh = Repository(repository.root)
    locks = {cell.name: cells.finished(fresh, grid, cell) for cell in grid.cells.values()}
    results = {name: CellResult(fresh, lock) for name, lock in locks.items() if lock}
    return [str(entry.verdict) for entry in judge(grid, results)]


def test_finished_cells_give_the_verdict(repository: Repository, folder: Path, capsys: pytest.CaptureFixture[str]):
    grid = grid_of(folder)
    ran(repository, grid, "reward")
    assert judged(repository, grid) == ["not run: random", "not run: random, marked"]
    ran(repository, grid, "random")
    assert judged(repository, grid)[0] == HOLDS
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
    assert judged(repository, grid)[0] == verdict


def test_the_state_of_cells(repository: Repository, folder: Path, capsys: pytest.CaptureFixture[str]):
    grid = grid_of(folder)
    ran(repository, grid, "reward")

    def states() -> list[str]:
        return [cells.state(Repository(folder), grid, cell) for cell in grid.cells.values()]

    assert states() == [FINISHED, MISSING_CELL, NOT_RUN]
    assert cli.run(["experiment"]) == 0
    assert "best        1 finished, 1 missing, 1 not run  Which?" in capsys.readouterr().out
    (folder / "code.txt").write_text("edited")
    assert states() == [OUTDATED, MISSING_CELL, NOT_RUN]
    (folder / "code.txt").write_text("code")
    git(folder, "commit", "-q", "--allow-empty", "-m", "later")
    assert states()[0] == FINISHED, "a commit that changes no code outdates nothing"


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


def test_the_share_of_solvable_questions(repository: Repository, folder: Path):
    grid = grid_of(folder)
    ran(repository, grid, "reward")
    lock = cells.finished(Repository(folder), grid, grid.cells["reward"])
    assert lock
    write_rows(folder / "j.parquet", [{"id": f"q/{i}", "verdict": "solvable" if i < 3 else "no_verdict", "completion": "", "finish_reason": "stop"} for i in range(4)], JUDGED)  # fmt: skip
    value = put(folder, (folder / "j.parquet").read_bytes())
    from scalequest.audit.lock import Artifact, Stage

    lock.stages["judge"] = Stage("judge", "judge --out data/judged", (), {}, (Artifact("data/judged", value),))
    assert CellResult(Repository(folder), lock).values("solvable") == [1.0, 1.0, 1.0, 0.0]


def test_an_unknown_name_is_answered_with_the_nearest(repository: Repository):
    with pytest.raises(UserError, match="Did you mean 'best'"):
        cli.run(["experiment", "bets"])
    with pytest.raises(UserError, match=r"--cell nope: no such cell\. Expected one of: reward, random, marked"):
        cli.run(["experiment", "best", "--cell", "nope"])


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
    assert [cells.state(Repository(folder), grid, cell) for cell in grid.cells.values()] == [
        FINISHED,
        MISSING_CELL,
        NOT_RUN,
    ]
    (folder / "wait-random").unlink()
    assert cli.run(["experiment", "best"]) == 0
    out = capsys.readouterr().out
    assert "1 of 3 cells are finished" in out
    assert "not run: marked (it is too large); --all runs them" in out
    assert log.read_text().split() == ["upstream", "tune", "evaluate", "tune", "evaluate", "evaluate"]
    assert "| +10.0 ± 3.1 | 30 / 10 |" in (folder / "reports" / "experiments" / "best.md").read_text()
    assert git(folder, "status", "--porcelain", "params.yaml", "dvc.lock") == "", "the working folder is as it was"
    assert [cells.state(Repository(folder), grid, cell) for cell in grid.cells.values()] == [
        FINISHED,
        FINISHED,
        NOT_RUN,
    ]
