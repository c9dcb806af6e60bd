"""Measure the screen on synthetic questions with ground truth, and compare it with other tools.

    python benchmarks/screen_data.py /tmp/screen --rows 200000 --sources FOLDER
    python benchmarks/screen.py run /tmp/screen --language ascii
    python benchmarks/screen.py others /tmp/screen           # after benchmarks/screen_others.py

`run` prints seconds, CPU seconds and peak memory of all processes together, and what was found of what was planted.
With `--alone` it only screens: the growth of the join and the search for what was planted hold more copies of the rows.
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
from typing import Any, Literal

import numpy as np
import psutil
import pyarrow.parquet as pq
from screen_others import read_texts as in_order

from scalequest.io import read_jsonl
from scalequest.params import Screen
from scalequest.problems.contamination import Contamination, set_phrases
from scalequest.problems.duplicates import near_twins
from scalequest.problems.grouping import Screened
from scalequest.problems.shingles import Tokenizer, jaccard, shingle_hashes, shingles
from scalequest.records import SCREENED, read_table, write_stream
from scalequest.statistics import proportion_error
from scalequest.text import plain
from stages import screen

MIX = ("school", "competition")
THRESHOLD = 0.85
Language = Literal["lingua", "ascii", "any"]
BEFORE_BENCHMARKS = ("language", "too_short")


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


def settings(language: Language, paraphrase_cosine: float, semantic_cosine: float) -> Screen:
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
    folder: Path,
    language: Language,
    processes: int,
    paraphrase_cosine: float,
    semantic_cosine: float,
    seeds: Sequence[Path],
    alone: bool,
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
    cpu = time.process_time()
    texts = (row["question"] for path in seeds for row in read_jsonl(path))
    phrases = set_phrases(Contamination(items, params.decontaminate_ngram), items, texts)
    phrases_cpu = time.process_time() - cpu
    for piece, (batch, ids) in zip(work, screen.check_all(work, params, items, processes, phrases), strict=True):
        screened.add(batch, ids, piece.generator)
    marks.append(time.perf_counter())
    growth = {} if alone else grouped_in_steps(screened, work, semantic_cosine)
    marks = [marks[0] + time.perf_counter() - marks[1], time.perf_counter()]  # that was no part of the screen
    cpu = time.process_time()
    grouping = screened.group(params.near_duplicate_jaccard, semantic_cosine)
    growth[sum(piece.rows for piece in work)] = round(time.process_time() - cpu, 1)
    marks.append(time.perf_counter())
    write_stream(folder / "screened", screen.written(work, grouping), SCREENED)
    metrics = screen.counts(work, grouping, MIX, params)
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
        "set_phrases": len(phrases),
        "set_phrases_cpu_s": round(phrases_cpu, 1),
        "load": round(os.getloadavg()[0], 1),
        "kept": metrics["kept"],
        "dropped": {name: n for name, n in metrics["dropped"].items() if n},
    }


def grouped_in_steps(screened: Screened, work: Sequence[screen.Piece], semantic_cosine: float) -> dict[int, float]:
    """CPU seconds of finding the duplicates of the first eighth, quarter and half of the rows: the
    part that could grow faster.
    """
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
    """What was found of what was planted, with standard errors.

    A rule that comes before the benchmarks (language, length) drops some of what was planted from
    them: those rows were not looked at and are counted apart. What is said of a duplicate is what
    was said of the question that it repeats.
    """
    texts = read_texts(folder)
    truth = pq.read_table(folder / "truth.parquet").to_pylist()
    found: dict[str, list[bool]] = {}
    dropped_before: Counter[str] = Counter()
    for row in truth:
        verdict, matched, evidence = verdicts[row["id"]]
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
        elif kind == "foreign":
            found.setdefault(kind, []).append(verdict == "language")
        elif kind.startswith("leak") or kind in ("template", "paraphrase"):
            if verdict in BEFORE_BENCHMARKS:
                dropped_before[kind] += 1
                continue
            while verdict.endswith("duplicate"):
                verdict, matched, evidence = verdicts[matched]
            found.setdefault(kind, []).append(verdict == "contaminated" or kind in evidence)
    result: dict[str, Any] = {}
    for name, hits in sorted(found.items()):
        error = proportion_error(sum(hits), len(hits))
        result[name] = f"{sum(hits)} of {len(hits)}: {sum(hits) / len(hits):.4f} ± {error:.4f}"
    result["dropped by language or length"] = dict(dropped_before)
    near = [(name, row[1]) for name, row in verdicts.items() if row[0] == "near_duplicate"][:sample]
    right = sum(jaccard(shingles(texts[a]), shingles(texts[b])) >= THRESHOLD for a, b in near)
    result["near duplicates that are, by exact Jaccard"] = f"{right} of {len(near)}"
    planted = {row["id"]: row["kind"] for row in truth}
    others = Counter(row[0] for name, row in verdicts.items() if name not in planted)
    result["verdicts of rows that were not planted"] = dict(others)
    return result


def others(folder: Path) -> dict[str, Any]:
    """Near duplicates alone, in this process, and what the tools of `screen_others.py` removed from the same questions."""
    texts = in_order(folder)
    ids = list(texts)
    cpu = time.process_time()
    tokenizer = Tokenizer()
    values, lengths = [], [np.zeros(1, np.int64)]
    for start in range(0, len(ids), 50_000):
        own = [plain(texts[name]).casefold() for name in ids[start : start + 50_000]]
        hashes, offsets = shingle_hashes(tokenizer(own))
        values.append(hashes)
        lengths.append(np.diff(offsets))
    twins = near_twins(np.concatenate(values), np.cumsum(np.concatenate(lengths)), THRESHOLD)
    cpu = time.process_time() - cpu
    close = np.flatnonzero(twins.first >= 0)
    ours = {ids[at] for at in close}
    in_pairs = ours | {ids[at] for at in twins.first[close]}
    planted = [
        (row["id"], row["source"])
        for row in pq.read_table(folder / "truth.parquet").to_pylist()
        if row["kind"] in ("exact", "light", "heavy")
        and jaccard(shingles(texts[row["id"]]), shingles(texts[row["source"]])) >= THRESHOLD
    ]
    removed = {"ours": (ours, {"cpu_s": round(cpu, 1)})}
    for path in sorted((folder / "others").glob("*.json")):
        found = json.loads(path.read_text())
        removed[path.stem] = (set(found.pop("removed")), found)
    return {
        name: facts
        | {
            "removed": len(names),
            # A pipeline may keep another one of a group than the first.
            "recall": round(sum(one in names or source in names for one, source in planted) / len(planted), 4),
            "right": round(len(names & in_pairs) / max(1, len(names)), 4),
        }
        for name, (names, facts) in removed.items()
    }


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "others", "judge"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--language", default="ascii", choices=("ascii", "lingua", "any"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--paraphrase-cosine", type=float, default=1.0, help="1.0: paraphrases are not looked for")
    parser.add_argument(
        "--semantic-cosine", type=float, default=1.0, help="1.0: semantic duplicates are not looked for"
    )
    parser.add_argument("--seeds", type=Path, nargs="*", default=(), help="JSON lines whose set phrases are set aside")
    parser.add_argument("--alone", action="store_true", help="only screen, for the memory of many millions")
    args = parser.parse_args()
    if args.what == "others":
        found = others(args.folder)
    else:
        found = (
            run(
                args.folder,
                args.language,
                args.processes,
                args.paraphrase_cosine,
                args.semantic_cosine,
                args.seeds,
                args.alone,
            )
            if args.what == "run"
            else {}
        )
        if args.what == "judge" or not args.alone:
            rows = read_table(args.folder / "screened", SCREENED, ["id", "verdict", "matched", "evidence"]).to_pydict()
            verdicts = dict(
                zip(rows["id"], zip(rows["verdict"], rows["matched"], rows["evidence"], strict=True), strict=True)
            )
            found["planted"] = judged(args.folder, verdicts)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
