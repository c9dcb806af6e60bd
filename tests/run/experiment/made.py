"""A small experiment and its cells as DVC leaves them: records, samples and tables, made in milliseconds."""

import json
import subprocess
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Any

import yaml

from scalequest.audit.lock import parse_lock
from scalequest.audit.repository import Repository
from scalequest.records import JUDGED, SAMPLE, SCORE, write_rows
from scalequest.run.experiment.grid import Grid, read_grid
from scalequest.run.experiment.keeping import stand
from scalequest.run.experiment.results import CellResult, judge
from scalequest.runtime.environment import ENVIRONMENT_FILE, Recorded

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
# Claims on the questions, too.
OF_QUESTIONS = """
  - {says: more are solvable, paper: '-', better: reward, than: random, metric: solvable, matters: 5}
  - {says: they are harder, paper: '-', better: reward, than: random, metric: difficulty, matters: 5}
"""

# The laptop's values, read once.
KNOWN: dict[str, dict[str, Any]] = {}


def grid_of(folder: Path, text: str = GRID) -> Grid:
    path = folder / "experiments" / "best.yaml"
    path.write_text(text)
    return read_grid(path, folder, KNOWN)


DVC_YAML = """
stages:
  upstream:
    cmd: echo upstream >> $DVC_ROOT/ran; cp code.txt up.txt
    deps: [code.txt]
    params: [seed]
    outs: [up.txt]
  judge:
    cmd: echo --out judged.parquet
    deps: [up.txt]
    outs: [judged.parquet]
  difficulty:
    cmd: echo --out difficulty.parquet
    deps: [up.txt]
    outs: [difficulty.parquet]
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
MACHINE = ["torch==1.0", "cpu: test"]


def samples(path: Path, right: set[int], n: int = 200) -> None:
    row = {"task": "embedded_sums", "shots": 0, "question": "?", "answer": "1", "completion": "1", "finish_reason": "stop", "unparsed": 0.0, "timeout": 0.0}  # fmt: skip
    rows = [
        row | {"split": "test", "id": f"s/{i}", "strict": float(i in right), "flexible": float(i in right)} for i in range(n)
    ]  # fmt: skip
    rows += [row | {"split": "dev", "id": f"d/{i}", "strict": 1.0, "flexible": 1.0} for i in range(9)]
    write_rows(path, rows, SAMPLE)


def given(folder: Path) -> None:
    """What the cells' last stages make."""
    folder.mkdir()
    # 30 items that only `reward` gets right, 10 that only `random` does: 10 points, error sqrt(41 - 400 / 202) / 202 = 3.1.
    samples(folder / "reward.parquet", set(range(50)))
    samples(folder / "random.parquet", {*range(20), *range(50, 60)})
    for name, solvable, step in (("reward", 90, 7), ("random", 60, 6)):
        verdicts = [{"id": f"q/{i}", "verdict": "solvable" if i < solvable else "no_verdict", "completion": "", "finish_reason": "stop"} for i in range(100)]  # fmt: skip
        write_rows(folder / f"{name}-judged.parquet", verdicts, JUDGED)
        # Neither in order, nor of few digits.
        scores = [{"id": f"q/{i}", "score": (i * step % 100) / 130 + 1e-5 * i} for i in range(100)]
        write_rows(folder / f"{name}-difficulty.parquet", scores, SCORE)


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def put(folder: Path, content: bytes) -> str:
    """Put bytes into DVC's cache, and return their hash."""
    value = md5(content).hexdigest()
    file = folder / ".dvc" / "cache" / "files" / "md5" / value[:2] / value[2:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return value


Edit = Callable[[dict[str, Any]], None]


def write_run(root: Path, tables: Path, grid: Grid, name: str, rows: int = 2, code: str = "code", edit: Edit = lambda _: None, machine: list[str] = MACHINE) -> None:  # fmt: skip
    """What a run of a cell leaves in a folder: parameters, records, metrics and the machine's facts, and tables in the cache."""
    values = json.loads(json.dumps(grid.cells[name].values))
    edit(values)
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    metrics = json.dumps({"examples": rows})
    (root / "tuned.json").write_text(metrics)

    def entry(path: str, content: bytes) -> dict[str, str]:
        return {"path": path, "hash": "md5", "md5": put(root, content)}

    def read(**params: Any) -> dict[str, Any]:
        return {"params.yaml": {key.replace("__", "."): value for key, value in params.items()}}

    def table(path: str, file: str) -> dict[str, str]:
        return entry(path, (tables / file).read_bytes())

    up, model = entry("up.txt", b"up"), entry("models/student", name.encode())
    tuned, judged = entry("tuned.json", metrics.encode()), table("judged.parquet", f"{name}-judged.parquet")
    lock = {
        "upstream": {"cmd": "up", "deps": [entry("code.txt", code.encode())], "params": read(seed=values["seed"]), "outs": [up]},
        "judge": {"cmd": "judge --out judged.parquet", "deps": [up], "params": read(models__judge=values["models"]["judge"]), "outs": [judged]},
        "difficulty": {"cmd": "difficulty --out difficulty.parquet", "deps": [up], "outs": [table("difficulty.parquet", f"{name}-difficulty.parquet")]},
        "instruct_tune@student": {"cmd": "tune --metrics tuned.json", "deps": [up], "params": read(reward_select=values["reward_select"]), "outs": [model, tuned]},
        "evaluate_student@student": {"cmd": "eval --samples student.parquet", "deps": [model], "params": read(models__student=values["models"]["student"]), "outs": [table("student.parquet", f"{name}.parquet")]},
    }  # fmt: skip
    whole = json.loads(json.dumps({"schema": "2.0", "stages": lock}))  # without YAML's aliases
    (root / "dvc.lock").write_text(yaml.safe_dump(whole, sort_keys=False))
    recorded = Recorded({}, {})
    for stage in parse_lock((root / "dvc.lock").read_bytes(), "dvc.lock").values():
        recorded = recorded.with_run(stage.name, stage.given, machine)
    (root / ENVIRONMENT_FILE).parent.mkdir(exist_ok=True)
    (root / ENVIRONMENT_FILE).write_text(json.dumps(recorded.as_json()))


def ran(repository: Repository, grid: Grid, name: str, **how: Any) -> str:
    """What `dvc exp run` leaves of a cell: an experiment's commit, and the working folder as it was."""
    root = repository.root
    head = git(root, "rev-parse", "HEAD")
    write_run(root, root / "given", grid, name, **how)
    git(root, "add", "-f", "params.yaml", "dvc.lock", "tuned.json", ENVIRONMENT_FILE)
    git(root, "commit", "-qm", name)
    commit = git(root, "rev-parse", "HEAD")
    git(root, "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{grid.experiment(name)}", commit)
    git(root, "reset", "-q", "--hard", head)
    return commit


def plain(repository: Repository, grid: Grid, name: str, folder: Path, **how: Any) -> Path:
    """What a run of a cell leaves in a plain folder, with its tables where the stages wrote them and no cache."""
    folder.mkdir()
    write_run(folder, repository.root / "given", grid, name, **how)
    for path, suffix in (("student", ""), ("judged", "-judged"), ("difficulty", "-difficulty")):
        (folder / f"{path}.parquet").write_bytes((repository.root / "given" / f"{name}{suffix}.parquet").read_bytes())
    subprocess.run(["rm", "-r", str(folder / ".dvc")], check=True)
    return folder


def states(root: Path, grid: Grid) -> list[str]:
    return [stand(Repository(root), grid, cell).state for cell in grid.cells.values()]


def results(root: Path, grid: Grid) -> dict[str, CellResult]:
    fresh = Repository(root)
    found = {cell.name: stand(fresh, grid, cell).result(fresh, grid) for cell in grid.cells.values()}
    return {name: result for name, result in found.items() if result}


def judged(root: Path, grid: Grid) -> list[str]:
    return [str(entry.verdict) for entry in judge(grid, results(root, grid))]
