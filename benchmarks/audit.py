"""Time and peak memory of each answer of the audit on 1,000,000 kept questions and 5,000,000 responses.

    python benchmarks/audit.py [--kept 1000000] [--experiments 100] [--rounds 3] [--folder DIR]

A copy of this repository gets made-up tables in its own schemas and part sizes, in DVC's cache
under their real hashes, a lock that names them, and a hundred experiments. Needs about 6 GB of disk
while it runs. Every command is a process of its own; the times hold its start, the memory is the
kernel's peak of that process.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from scalequest import records
from scalequest.audit.chain import folder_hash
from scalequest.audit.tables import hash_file
from scalequest.records import ROWS_PER_PART, write_table

ROOT = Path(__file__).parents[1]
SAMPLES, SHARD, REJECTED = 5, 16_384, 0.2
MIX: list[str] = yaml.load((ROOT / "params.yaml").read_text(), yaml.CSafeLoader)["mix"]  # as many questions of each
SENTENCES, WORDS = 5_000, 3_000
# The peak is read by the process itself: what the kernel tells a parent would hold the parent's own
# size before the exec.
COMMAND = r"""
import atexit, re, sys, time
sys.path.insert(0, {root!r})
def peak():
    with open("/proc/self/status") as file:
        print(time.process_time(), re.search(r"VmHWM:\s+(\d+)", file.read())[1], file=sys.stderr)
atexit.register(peak)
from scalequest.cli import main
main()
"""
NEEDLE = "the ferry to Ithaca carries 4711 olives"


class Writer:
    """Made-up text, and tables of it under their hashes in a DVC cache."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.draw = np.random.default_rng(0)
        letters = random.Random(0)
        self.words = ["".join(letters.choices("etaoinshrdlucmfw", k=letters.randint(2, 9))) for _ in range(WORDS)]
        self.hashes: dict[str, tuple[str, int, int | None]] = {}  # path to hash, bytes, files

    def texts(self, n: int, sentences: int) -> pa.Array:
        """N texts of so many sentences of about 70 characters each; the sentences are new in every part."""
        words = self.draw.choice(self.words, (SENTENCES, 11))
        numbers = self.draw.integers(0, 10_000, SENTENCES)
        pool = pa.array([f"{' '.join(line)} is {number}." for line, number in zip(words, numbers, strict=True)])
        picks = [pool.take(pa.array(self.draw.integers(0, SENTENCES, n))) for _ in range(sentences)]
        return pc.binary_join_element_wise(*picks, " ")

    def put(self, path: str, parts: Iterator[pa.Table]) -> None:
        """Write parts (or one file, where the path has a suffix) and put them into the cache."""
        target = self.root / path
        if target.suffix:
            write_table(target, pa.concat_tables(parts))
            self.hashes[path] = (self._cache(target), target.stat().st_size, None)
            return
        for number, part in enumerate(parts):
            write_table(target / f"part-{number:05d}.parquet", part)
        self.put_folder(path)

    def put_folder(self, path: str) -> None:
        """Put the files of a folder and their list into the cache."""
        files = sorted((self.root / path).iterdir())
        found = {file.name: self._cache(file) for file in files}
        entries = [{"md5": found[name], "relpath": name} for name in sorted(found)]
        value = folder_hash(found)
        self._object(value).write_text(json.dumps(entries, sort_keys=True))
        self.hashes[path] = (value, sum(file.stat().st_size for file in files), len(files))

    def _cache(self, file: Path) -> str:
        value = hash_file(file)
        if not self._object(value).exists():
            self._object(value).hardlink_to(file)
        return value

    def _object(self, value: str) -> Path:
        path = self.root / ".dvc" / "cache" / "files" / "md5" / value[:2] / value[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def column(value: Any, n: int) -> pa.Array:
    """A column of one value."""
    return pa.array([value] * n)


def rows(schema: pa.Schema, **columns: Any) -> pa.Table:
    """A table of a record type; what is not given is empty text or zero, as its type asks."""
    n = len(next(iter(columns.values())))
    blank = {pa.string(): "", pa.float32(): 0.0}
    return pa.table(
        [pc.cast(columns.get(f.name, column(blank.get(f.type, 0), n)), f.type) for f in schema], schema=schema
    )


def make_tables(writer: Writer, kept: int) -> dict[str, int]:
    """Write every table that the audit reads; returns the counts that the metrics files name."""
    generated = int(kept / (1 - REJECTED))
    each = {name: len(range(place, generated, len(MIX))) for place, name in enumerate(MIX)}
    questions: list[pa.Table] = []
    for generator, n in each.items():
        parts = []
        for start in range(0, n, ROWS_PER_PART):
            size = min(ROWS_PER_PART, n - start)
            ids = pa.array([f"{generator}/{i // SHARD}/{i % SHARD}" for i in range(start, start + size)])
            text = writer.texts(size, 3)
            if start == 0:
                text = pa.concat_arrays([pa.array([f"How many days when {NEEDLE}?"]), text.slice(1)])
            parts.append(rows(records.QUESTION, id=ids, generator=column(generator, size), question=text, completion=text, finish_reason=column("stop", size)))  # fmt: skip
        writer.put(f"data/questions/{generator}", iter(parts))
        questions += parts
    everything = pa.concat_tables(questions).combine_chunks()
    chosen = np.arange(generated) % round(1 / REJECTED) != 1  # the first of each generator is kept, every fifth is not
    outcome = pa.array(np.where(chosen, "kept", "too_easy"))
    score = pa.array(writer.draw.random(generated, dtype=np.float32))
    ids, generators, text = (everything[name].combine_chunks() for name in ("id", "generator", "question"))

    def cut(table: pa.Table) -> Iterator[pa.Table]:
        return (table.slice(start, ROWS_PER_PART) for start in range(0, table.num_rows, ROWS_PER_PART))

    writer.put(
        "data/screened",
        cut(rows(records.SCREENED, id=ids, generator=generators, question=text, verdict=column("kept", generated))),
    )
    writer.put(
        "data/judged",
        cut(rows(records.JUDGED, id=ids, verdict=column("solvable", generated), completion=writer.texts(generated, 1))),
    )
    writer.put("data/difficulty", cut(rows(records.SCORE, id=ids, score=score)))
    writer.put(
        "data/ledger.parquet",
        iter(
            [
                rows(
                    records.LEDGER,
                    id=ids,
                    generator=generators,
                    question=text,
                    outcome=outcome,
                    verdict=column("solvable", generated),
                    difficulty=score,
                )
            ]
        ),
    )
    mask = pa.array(chosen)
    ids, generators, text, score = (array.filter(mask) for array in (ids, generators, text, score))
    n = len(ids)
    writer.put(
        "data/filtered.parquet",
        iter([rows(records.FILTERED, id=ids, generator=generators, question=text, difficulty=score)]),
    )
    best: list[pa.Array] = []
    rewards: list[pa.Table] = []

    def responses() -> Iterator[pa.Table]:
        for start in range(0, n, ROWS_PER_PART // SAMPLES):
            part = ids.slice(start, ROWS_PER_PART // SAMPLES)
            owner = part.take(pa.array(np.repeat(np.arange(len(part)), SAMPLES)))
            sample = pa.array(np.tile(np.arange(SAMPLES, dtype=np.int32), len(part)))
            names = pc.binary_join_element_wise(owner, pc.cast(sample, pa.string()), "#")
            answer = writer.texts(len(owner), 7)
            reward = pa.array((sample.to_numpy() == 2).astype(np.float32))
            best.append(answer.filter(pc.equal(sample, 2)))
            rewards.append(rows(records.REWARD, id=names, question_id=owner, sample=sample, reward=reward))
            yield rows(records.RESPONSE, id=names, question_id=owner, sample=sample, response=answer, finish_reason=column("stop", len(owner)))  # fmt: skip

    writer.put("data/responses", responses())
    writer.put("data/rewards", iter(rewards))
    instruct = rows(records.INSTRUCTION, id=ids, generator=generators, question=text, response=pa.concat_arrays(best), reward=column(1.0, n), n_candidates=column(SAMPLES, n))  # fmt: skip
    writer.put("data/instruct.parquet", iter([instruct]))
    make_small_tables(writer)
    return {"generated": generated, "kept": n} | each


def make_small_tables(writer: Writer) -> None:
    """The tables whose size does not grow with the questions."""
    n = 100
    names = pa.array([f"x/0/{i}" for i in range(n)])

    def small(schema: pa.Schema) -> Iterator[pa.Table]:
        return iter([rows(schema, **{f.name: writer.texts(n, 2) if f.type == pa.string() else column(0, n) for f in schema} | ({"id": names} if "id" in schema.names else {}))])  # fmt: skip

    writer.put("data/seeds.parquet", small(records.PROBLEM))
    writer.put("data/attempts", small(records.ATTEMPT))
    for generator in MIX:
        writer.put(f"data/qpo_questions/{generator}", small(records.QUESTION))
        writer.put(f"data/preferences/{generator}.parquet", small(records.PREFERENCE))
    for model in ("base", "solver", "student"):
        writer.put(f"data/samples/{model}.parquet", small(records.SAMPLE))
    folder = writer.root / "data" / "benchmarks"
    folder.mkdir(parents=True)
    (folder / "sums.jsonl").write_text('{"id": "sums/0", "question": "What is 1 + 1?", "answer": "2"}\n')
    writer.put_folder("data/benchmarks")


def write_lock(root: Path, hashes: dict[str, tuple[str, int, int | None]], counts: dict[str, int]) -> None:
    """Write this repository's lock with the made-up hashes in it, and metrics files that say the made-up counts."""
    kept, generated = counts["kept"], counts["generated"]
    values = {
        "seeds": {"problems": 100}, **{f"generate/{name}": {"questions": counts[name]} for name in MIX},
        "screen": {"questions": generated, "kept": generated}, "judge": {"questions": generated, "solvable": generated},
        "difficulty": {"questions": generated}, "filter": {"generated": generated, "kept": kept},
        "respond": {"responses": SAMPLES * kept}, "reward": {"responses": SAMPLES * kept}, "reward_select": {"questions": kept, "kept": kept},
    }  # fmt: skip
    for name, metrics in values.items():
        path = f"reports/metrics/{name}.json"
        (root / path).write_text(json.dumps(metrics))
        hashes[path] = (md5((root / path).read_bytes()).hexdigest(), (root / path).stat().st_size, None)
    inside = {f"{g}/{f.name}": hash_file(f) for g in MIX for f in (root / "data/questions" / g).iterdir()}
    hashes["data/questions"] = (folder_hash(inside), 0, len(inside))
    lock = yaml.load((ROOT / "dvc.lock").read_text(), yaml.CSafeLoader)
    outs = {entry["path"] for stage in lock["stages"].values() for entry in stage["outs"]}
    assert not (missing := hashes.keys() - outs - {"data/questions"}), f"no stage of the lock writes {sorted(missing)}"
    for stage in lock["stages"].values():
        for entry in stage.get("deps", []) + stage["outs"]:
            if entry["path"] in hashes:
                entry["md5"], entry["size"], nfiles = hashes[entry["path"]]
                if nfiles:
                    entry["nfiles"] = nfiles
        if "respond" in stage.get("params", {}).get("params.yaml", {}):
            stage["params"]["params.yaml"]["respond"]["n_samples"] = SAMPLES
    (root / "dvc.lock").write_text(yaml.dump(lock, Dumper=yaml.CSafeDumper, sort_keys=False))


def add_experiments(root: Path, n: int) -> None:
    """N experiments that differ in a parameter and in all that a student's training writes, as refs and never checked out."""
    text = (root / "dvc.lock").read_text()
    base = git(root, "rev-parse", "HEAD")
    lock = yaml.load(text, yaml.CSafeLoader)
    # By what it writes: the stage's name depends on the cells of its matrix.
    makers = (
        stage for stage in lock["stages"].values() if any(entry["path"] == "models/student" for entry in stage["outs"])
    )
    tuned = next(makers)
    for number in range(n):
        tuned["params"]["params.yaml"]["instruct_tune"]["epochs"] = number + 10
        value = md5(str(number).encode()).hexdigest() + ".dir"
        for stage in lock["stages"].values():
            for entry in stage.get("deps", []) + stage["outs"]:
                if entry["path"] == "models/student":
                    entry["md5"] = value
        (root / "dvc.lock").write_text(yaml.dump(lock, Dumper=yaml.CSafeDumper, sort_keys=False))
        git(root, "add", "dvc.lock")
        commit = git(root, "commit-tree", git(root, "write-tree"), "-p", base, "-m", f"experiment {number}")
        git(root, "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/epochs-{number}", commit)
    (root / "dvc.lock").write_text(text)
    git(root, "add", "dvc.lock")


def git(root: Path, *arguments: str) -> str:
    """Output of a Git command."""
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def make_repository(root: Path, kept: int, experiments: int) -> dict[str, int]:
    """The whole scratch repository."""
    for name in git(ROOT, "ls-files").splitlines():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    writer = Writer(root)
    counts = make_tables(writer, kept)
    write_lock(root, writer.hashes, counts)
    git(root, "init", "-q", "-b", "main")
    for key, value in (("user.email", "benchmark@example.com"), ("user.name", "benchmark")):
        git(root, "config", key, value)
    git(root, "add", "-A")
    git(root, "commit", "-qm", "made up")
    add_experiments(root, experiments)
    return counts


def measure(root: Path, arguments: list[str]) -> tuple[float, float, float]:
    """Seconds, CPU seconds of all threads, and peak GiB of one command in a process of its own."""
    command = [sys.executable, "-c", COMMAND.format(root=str(ROOT)), *arguments]
    start = time.perf_counter()
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    elapsed = time.perf_counter() - start
    assert result.returncode == 0, (
        f"{arguments} ended with {result.returncode}: {(result.stdout + result.stderr)[-2000:]}"
    )
    cpu, peak = result.stderr.split()[-2:]
    return elapsed, float(cpu), int(peak) / 2**20


def main() -> None:
    """Make the repository, ask every question a few times, print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kept", type=int, default=1_000_000)
    parser.add_argument("--experiments", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--make", action="store_true", help="make the repository in --folder and measure nothing")
    parser.add_argument("--folder", type=Path, help="keep the repository there, and take it if it is there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = args.folder or Path(folder) / "repository"
        if not root.exists():
            start = time.perf_counter()
            root.mkdir(parents=True)
            counts = make_repository(root, args.kept, args.experiments)
            size = sum(file.stat().st_size for file in (root / "data").rglob("*") if file.is_file())
            print(f"{counts}, {size / 1e9:.1f} GB of Parquet, made in {time.perf_counter() - start:.0f} s", flush=True)
        if args.make:
            return
        middle = f"sums/{args.kept // 4 // SHARD}"
        questions = {
            "the chain": ["audit", "models/student"],
            "the chain of an experiment": ["audit", "models/student", "--rev", "epochs-3"],
            "what differs": ["audit", "diff", "main", "epochs-3", "models/student"],
            "a row that was kept": ["audit", "--row", f"{middle}/100"],
            "a row that was rejected": ["audit", "--row", "sums/0/1"],
            "models made from a file": ["audit", "--data", "data/instruct.parquet"],
            "a text that occurs once": ["audit", "--contains", NEEDLE],
            "a text that occurs nowhere": ["audit", "--contains", "no such text anywhere"],
            "a text in either case": ["audit", "--contains", NEEDLE.upper(), "--ignore-case"],
            "verify counts": ["verify", "counts"],
            "verify rows": ["verify", "rows"],
        }
        for name, arguments in questions.items():
            runs = [measure(root, arguments) for _ in range(args.rounds)]
            seconds, cpu = (statistics.median(run[column] for run in runs) for column in (0, 1))
            memory = max(run[2] for run in runs)
            print(f"| {name} | `scalequest {' '.join(arguments)}` | {seconds:.2f} s | {cpu:.2f} s | {memory:.2f} GiB |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
