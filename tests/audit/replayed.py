"""A run of the real stages on an engine that answers by seed alone: made in a second, and to be forged."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import yaml

from scalequest import records
from scalequest.audit.replay import Compared, Plan, Replay
from scalequest.audit.rerun import Spec, rerun
from scalequest.audit.tables import Store
from scalequest.io import read_json, write_json
from scalequest.params import read_yaml
from scalequest.records import PROBLEM, read_rows, write_rows
from scalequest.sampling.completion import Completion
from tests.audit.pipeline import Pipeline
from tests.fakes import LAPTOP, chatml_tokenizer

M = "reports/metrics"
# Stage: (command, what it reads, parameters, what it writes); the real command lines.
STAGES: dict[str, tuple[str, list[str], list[str], list[str]]] = {
    "fetch_model@all": ("--out models/base", [], [], ["models/base/m"]),
    "by_hand": ("--out data/seeds.parquet", [], [], ["data/seeds.parquet", "data/benchmarks"]),
    "generate@sums": (f"--generator sums --model models/base/m --out data/questions/sums --metrics {M}/generate/sums.json", ["models/base/m"], ["seed", "engine", "generate", "generators.sums.n_questions"], ["data/questions/sums", f"{M}/generate/sums.json"]),
    "screen": (f"--questions data/questions --benchmarks data/benchmarks --seeds data/seeds.parquet --out data/screened --metrics {M}/screen.json", ["data/questions", "data/benchmarks", "data/seeds.parquet"], ["benchmarks", "mix", "own.questions", "screen"], ["data/screened", f"{M}/screen.json"]),
    "judge": (f"--model models/base/m --screened data/screened --seeds data/seeds.parquet --out data/judged --metrics {M}/judge.json", ["data/screened", "data/seeds.parquet", "models/base/m"], ["seed", "domain", "engine", "models.judge", "judge"], ["data/judged", f"{M}/judge.json"]),
    "difficulty": (f"--model models/base/m --screened data/screened --out data/difficulty --metrics {M}/difficulty.json", ["data/screened", "models/base/m"], ["engine", "difficulty"], ["data/difficulty", f"{M}/difficulty.json"]),
    "filter": (f"--screened data/screened --judged data/judged --difficulty data/difficulty --out data/filtered.parquet --ledger data/ledger.parquet --metrics {M}/filter.json", ["data/difficulty", "data/judged", "data/screened"], ["seed", "mix", "own.questions", "filter"], ["data/filtered.parquet", "data/ledger.parquet", f"{M}/filter.json"]),
    "respond": (f"--model models/base/m --questions data/filtered.parquet --out data/responses --metrics {M}/respond.json", ["data/filtered.parquet", "models/base/m"], ["seed", "domain", "engine", "models.solver", "respond"], ["data/responses", f"{M}/respond.json"]),
    "reward": (f"--model models/base/m --questions data/filtered.parquet --responses data/responses --out data/rewards --metrics {M}/reward.json", ["data/filtered.parquet", "data/responses", "models/base/m"], ["domain", "engine", "respond.form", "reward_model.method", "reward"], ["data/rewards", f"{M}/reward.json"]),
}  # fmt: skip
RESULT = {
    "generate@sums": "data/questions/sums", "screen": "data/screened", "judge": "data/judged", "difficulty": "data/difficulty",
    "filter": "data/filtered.parquet", "respond": "data/responses", "reward": "data/rewards",
}  # fmt: skip
SCHEMAS = {
    "data/questions/sums": records.QUESTION, "data/screened": records.SCREENED, "data/judged": records.JUDGED,
    "data/difficulty": records.SCORE, "data/filtered.parquet": records.FILTERED, "data/ledger.parquet": records.LEDGER,
    "data/responses": records.RESPONSE, "data/rewards": records.REWARD,
}  # fmt: skip


class SeededEngine:
    """An engine and a scorer whose answers follow from seed and prompt, as a model's do."""

    def __init__(self, model: Path, engine: Any, runtime: Any, row_seeds: bool = False) -> None:
        from scalequest.models.chat import ChatFormat

        self.chat, self.end = ChatFormat.of(chatml_tokenizer()), []

    def complete(self, sampling: Any, stops: Sequence[int] = ()) -> Any:
        def complete(prompts: Sequence[list[int]], seed: int) -> list[Completion]:
            draw = Random(seed)
            things = ("apples", "stamps", "eggs", "boats", "coins")
            texts = [
                f"Tom has {draw.randint(2, 9999)} {draw.choice(things)} and buys {draw.randint(2, 9999)} more. "
                "How many does he have now?"
                for _ in prompts
            ]  # fmt: skip
            return [Completion(text, "stop", len(text) // 4) for text in texts]

        return complete

    def complete_rows(self, sampling: Any) -> Any:
        def complete(prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Completion]:
            short = sampling.max_tokens <= 8  # the judge's
            texts = [("Yes" if Random(s).random() < 0.8 else "No") if short else f"The answer is {Random(s).randint(2, 99)}." for s in seeds]  # fmt: skip
            return [Completion(text, "stop", 5) for text in texts]

        return complete

    def score(self, sequences: Sequence[list[int]]) -> list[float]:
        return [sum(ids) % 997 / 997 for ids in sequences]


def here(specs: Sequence[Spec], root: Path) -> None:
    """Run specs in this process, where the engine is ours."""
    for spec in specs:
        write_json(Path(spec.result), asdict(rerun(spec)))


class Recorded(Pipeline):
    """The repository of such a run."""

    stages, result = STAGES, RESULT
    process = staticmethod(here)

    @classmethod
    def make(cls, root: Path) -> "Recorded":
        made = cls.__new__(cls)
        made.root = root
        root.mkdir(parents=True)
        made.git("init", "-q", "-b", "main")
        params = read_yaml(LAPTOP)
        params["mix"] = ["sums"]
        params["generators"] = {"sums": {**params["generators"]["sums"], "n_questions": 24}}
        params["models"].pop("stories")
        params["benchmarks"].pop("embedded_stories")
        params["evaluate"]["tasks"] = ["embedded_sums"]
        params["generate"]["shard_size"] = params["judge"]["shard_size"] = params["difficulty"]["shard_size"] = 8
        params["judge"]["n_calibration"] = 2
        params["screen"]["language"] = "ascii"  # no model of languages to load
        params["respond"] |= {"n_samples": 2, "shard_size": 4}
        params["reward"]["shard_size"] = 8
        params["filter"] |= {"drop_easiest_frac": {"sums": 0.2}, "shares": {"sums": 1.0}, "n_questions": 12}
        made.params = params
        cls.settle(made, params)
        made.write("params.yaml", yaml.safe_dump(json.loads(json.dumps(params)), sort_keys=False))
        made.write("dvc.yaml", yaml.safe_dump({"stages": {name.split("@")[0]: {"matrix": {"g": [name.split("@")[1]]}} if "@" in name else {} for name in cls.stages}}))  # fmt: skip
        made.write(
            "data/benchmarks/embedded_sums.jsonl", '{"id": "b/0", "question": "What is 8 + 8?", "answer": "16"}\n'
        )
        seeds = [{"id": f"s/{n}", "source": "s", "stratum": "", "question": f"Ann sees {n + 3} birds and {n + 20} ducks. How many is that?", "solution": "", "answer": str(2 * n + 23)} for n in range(8)]  # fmt: skip
        write_rows(root / "data" / "seeds.parquet", seeds, PROBLEM)
        for name in cls.result:
            made.redo(name)
        made.relock()
        made.git("add", "dvc.lock", "dvc.yaml", "params.yaml")
        made.git("-c", "user.email=t@example.com", "-c", "user.name=t", "commit", "-q", "-m", "run")
        return made

    def settle(self, params: dict[str, Any]) -> None:
        """Settings of this kind of run, and its model."""
        self.write("models/base/m/config.json", "{}")

    def command(self, name: str) -> list[str]:
        return f"python -m stages.{name.split('@')[0]} {self.stages[name][0]}".split()

    def redo(self, name: str) -> None:
        """Run a stage whole, in place: what a run does, and what a forger does with the stages after his edit."""
        self._again(name, drawn=list(range(1000)))

    def recount(self, name: str) -> None:
        """Write a stage's output and its numbers again from the completions that are recorded now: a thorough forger's work."""
        recorded = [str(path) for path in sorted((self.root / self.result[name]).rglob("*.parquet"))]
        self._again(name, recorded=recorded)

    def _again(self, name: str, **more: Any) -> None:
        shutil.rmtree(self.root / ".work", ignore_errors=True)  # rows that are finished would be taken as they are
        result = self.root / ".work" / "result.json"
        result.parent.mkdir()
        spec = Spec(name, self.command(name), str(self.root), self.stages[name][2], dict.fromkeys(self.stages[name][1], "0"), result=str(result), **more)  # fmt: skip
        self.process([spec], self.root)
        assert not read_json(result)["refused"], read_json(result)

    def rows(self, path: str) -> list[dict[str, Any]]:
        return read_rows(self.root / path, SCHEMAS[path])

    def put(self, path: str, rows: list[dict[str, Any]]) -> None:
        for file in (self.root / path).rglob("*.parquet") if not path.endswith(".parquet") else [self.root / path]:
            file.unlink(missing_ok=True)
        write_rows(self.root / path, rows, SCHEMAS[path])

    def count(self, path: str, **values: Any) -> None:
        file = self.root / path
        write_json(file, json.loads(file.read_text()) | values)

    def relock(self) -> None:
        """Lock, cache and hashes for what is there now."""
        entries = {}
        for name, (_, deps, params, outs) in self.stages.items():
            entries[name] = {
                "cmd": " ".join(self.command(name)),
                "deps": [self._entry(path) for path in deps],
                "params": {"params.yaml": {key: self._param(key) for key in params}},
                "outs": [self._entry(path) for path in outs],
            }
            for path in outs:
                self._cache(path)
        self.write(
            "dvc.lock", yaml.safe_dump({"schema": "2.0", "stages": json.loads(json.dumps(entries))}, sort_keys=False)
        )

    def replay(self, folder: Path, amount: str = "1", seed: int = 0) -> tuple[Replay, Plan]:
        job = Replay(self.repository, self.tables().lock, Store(self.repository), folder, run=self.process)
        return job, job.plan(amount, seed)

    def differing(self, folder: Path, *units: str) -> list[Compared]:
        """What a replay of exactly these units finds."""
        job, plan = self.replay(folder)
        plan.drawn = [unit for unit in plan.units if str(unit) in units]
        assert len(plan.drawn) == len(units), [str(unit) for unit in plan.units]
        return [found for found in job.compare(plan) if found.differs]
