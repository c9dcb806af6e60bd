"""Measure the screen on synthetic questions with ground truth, and compare it with a datasketch pipeline.

    python benchmarks/screen_data.py /tmp/screen --rows 200000 --sources FOLDER
    python benchmarks/screen.py run /tmp/screen --language ascii
    python benchmarks/screen.py compare /tmp/screen          # needs datasketch in the environment

`run` prints seconds, CPU seconds and peak memory of all processes together, and what was found of what was planted.
"""

import argparse
import json
import os
import resource
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq

from scalequest.params import Screen
from scalequest.problems.duplicates import near_twins
from scalequest.problems.grouping import Screened
from scalequest.problems.shingles import jaccard, shingles
from scalequest.records import SCREENED, read_table, write_stream
from scalequest.statistics import proportion_error
from stages import screen

MIX = ("school", "competition")
THRESHOLD = 0.85


class Memory(threading.Thread):
    """Samples the memory of this process and its children: proportional set size, so that shared pages count once."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.cpu: dict[int, float] = {}

    def run(self) -> None:
        """Sample every two seconds; a sample takes some milliseconds of CPU time."""
        me = psutil.Process()
        while True:
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                    times = process.cpu_times()
                    self.cpu[process.pid] = times.user + times.system
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            self.peak = max(self.peak, total)
            time.sleep(2)


def settings(language: str, paraphrase_cosine: float, semantic_cosine: float) -> Screen:
    """The default run's settings but for the language rule, the paraphrases and the semantic duplicates."""
    return Screen(
        language=language,
        min_words=4,
        near_duplicate_jaccard=THRESHOLD,
        decontaminate_ngram=13,
        paraphrase_cosine=paraphrase_cosine,
        semantic_duplicate_cosine=semantic_cosine,
    )


def run(
    folder: Path, language: str, processes: int, paraphrase_cosine: float, semantic_cosine: float
) -> dict[str, Any]:
    """Screen FOLDER/questions into FOLDER/screened; the stage's own steps, timed."""
    memory = Memory()
    memory.start()
    params = settings(language, paraphrase_cosine, semantic_cosine)
    near_twins(
        np.arange(4, dtype=np.uint64), np.arange(5), THRESHOLD
    )  # compiled, where this machine has not done it yet
    marks = [time.perf_counter()]
    items = screen.read_benchmarks(folder / "benchmarks", ())
    work = screen.pieces(folder / "questions", MIX)
    screened = Screened()
    for piece, (batch, ids) in zip(work, screen.check_all(work, params, items, processes), strict=True):
        screened.add(batch, ids, piece.generator)
    marks.append(time.perf_counter())
    growth = grouped_in_steps(screened, work, semantic_cosine)
    marks = [marks[0] + time.perf_counter() - marks[1], time.perf_counter()]  # that was no part of the screen
    cpu = time.process_time()
    grouping = screened.group(params.near_duplicate_jaccard, semantic_cosine)
    growth[sum(piece.rows for piece in work)] = round(time.process_time() - cpu, 1)
    marks.append(time.perf_counter())
    write_stream(folder / "screened", screen.written(work, grouping), SCREENED)
    metrics = screen.counts(work, grouping, MIX)
    marks.append(time.perf_counter())
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = sum(seconds for pid, seconds in memory.cpu.items() if pid != os.getpid())
    return {
        "rows": metrics["questions"],
        "language": language,
        "processes": processes,
        "seconds": round(marks[-1] - marks[0], 1),
        "check_s": round(marks[1] - marks[0], 1),
        "group_cpu_s_by_rows": growth,
        "group_s": round(marks[2] - marks[1], 1),
        "write_s": round(marks[3] - marks[2], 1),
        "cpu_s": round(own.ru_utime + own.ru_stime + children, 1),
        "peak_gib": round(memory.peak / 2**30, 2),
        "load": round(os.getloadavg()[0], 1),
        "kept": metrics["kept"],
        "dropped": {name: n for name, n in metrics["dropped"].items() if n},
    }


def grouped_in_steps(screened: Screened, work: Sequence[screen.Piece], semantic_cosine: float) -> dict[int, float]:
    """CPU seconds of finding the duplicates of the first eighth, quarter and half of the rows: the part that could grow faster."""
    found = {}
    for share in (8, 4, 2) if len(work) >= 8 else ():
        first = screened.first(len(work) // share)
        cpu = time.process_time()
        first.group(THRESHOLD, semantic_cosine)
        found[sum(piece.rows for piece in work[: len(work) // share])] = round(time.process_time() - cpu, 1)
    return found


def read_texts(folder: Path) -> dict[str, str]:
    """Question by id."""
    found: dict[str, str] = {}
    for part in sorted((folder / "questions").rglob("*.parquet")):
        data = pq.read_table(part, columns=["id", "question"])
        found.update(zip(data["id"].to_pylist(), data["question"].to_pylist(), strict=True))
    return found


def judged(folder: Path, verdicts: dict[str, tuple[str, str, str]], sample: int = 20_000) -> dict[str, Any]:
    """What was found of what was planted, with standard errors."""
    texts = read_texts(folder)
    truth = pq.read_table(folder / "truth.parquet").to_pylist()
    found: dict[str, list[bool]] = {}
    for row in truth:
        verdict, _, evidence = verdicts[row["id"]]
        kind, source = row["kind"], row["source"]
        if kind in ("exact", "light", "heavy"):
            if verdicts[source][0] != "kept":
                continue  # the source itself duplicates another question or a benchmark's
            similarity = 1.0 if kind == "exact" else jaccard(shingles(texts[row["id"]]), shingles(texts[source]))
            name = (
                "exact"
                if kind == "exact"
                else f"{kind}, Jaccard {'>=' if similarity >= THRESHOLD else '<'} {THRESHOLD}"
            )
            found.setdefault(name, []).append(verdict != "kept")
        elif kind.startswith("leak"):
            found.setdefault(kind, []).append(verdict != "kept")
        elif kind == "foreign":
            found.setdefault(kind, []).append(verdict == "language")
        elif kind in ("template", "paraphrase"):
            found.setdefault(kind, []).append(verdict == "contaminated" or kind in evidence)
    result: dict[str, Any] = {}
    for name, hits in sorted(found.items()):
        error = proportion_error(sum(hits), len(hits))
        result[name] = f"{sum(hits)} of {len(hits)}: {sum(hits) / len(hits):.4f} ± {error:.4f}"
    near = [(name, row[1]) for name, row in verdicts.items() if row[0] == "near_duplicate"][:sample]
    right = sum(jaccard(shingles(texts[a]), shingles(texts[b])) >= THRESHOLD for a, b in near)
    result["near duplicates that are, by exact Jaccard"] = f"{right} of {len(near)}"
    planted = {row["id"]: row["kind"] for row in truth}
    others = Counter(row[0] for name, row in verdicts.items() if name not in planted)
    result["verdicts of rows that were not planted"] = dict(others)
    return result


def compare(folder: Path) -> dict[str, Any]:
    """The same near-duplicate rule with datasketch: MinHash LSH proposes, exact Jaccard decides, in one process."""
    from datasketch import MinHash, MinHashLSH

    texts = read_texts(folder)
    started, cpu = time.perf_counter(), time.process_time()
    index = MinHashLSH(threshold=THRESHOLD, num_perm=128, params=(16, 8))
    kept: dict[str, set[str]] = {}
    verdicts = {}
    for name, text in texts.items():
        own = shingles(text)
        sketch = MinHash(num_perm=128, seed=1)
        sketch.update_batch([shingle.encode() for shingle in own])
        best = max(((jaccard(own, kept[other]), other) for other in index.query(sketch)), default=(0.0, ""))
        if best[0] >= THRESHOLD:
            verdicts[name] = ("near_duplicate", best[1], "")
        else:
            verdicts[name] = ("kept", "", "")
            kept[name] = own
            index.insert(name, sketch, check_duplication=False)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {
        "rows": len(texts),
        "seconds": round(seconds, 1),
        "cpu_s": round(cpu, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "near_duplicates": sum(row[0] != "kept" for row in verdicts.values()),
        "found": {name: value for name, value in judged(folder, verdicts).items() if "Jaccard" in name},
    }


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "compare", "judge"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--language", default="ascii", choices=("ascii", "lingua", "any"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--paraphrase-cosine", type=float, default=1.0, help="1.0: paraphrases are not looked for")
    parser.add_argument(
        "--semantic-cosine", type=float, default=1.0, help="1.0: semantic duplicates are not looked for"
    )
    args = parser.parse_args()
    if args.what == "compare":
        found = compare(args.folder)
    else:
        found = (
            run(args.folder, args.language, args.processes, args.paraphrase_cosine, args.semantic_cosine)
            if args.what == "run"
            else {}
        )
        rows = read_table(args.folder / "screened", SCREENED, ["id", "verdict", "matched", "evidence"]).to_pydict()
        verdicts = dict(
            zip(rows["id"], zip(rows["verdict"], rows["matched"], rows["evidence"], strict=True), strict=True)
        )
        if found.get("rows", 0) <= 1_000_000:
            found["planted"] = judged(args.folder, verdicts)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
