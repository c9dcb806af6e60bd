"""Write the training sets of ``experiments/programs.yaml``, and the questions of ``filters_programs.yaml``.

    python benchmarks/program_sets.py [--questions sources/all.jsonl] [--seed-questions]
    python benchmarks/program_sets.py --ledger data/ledger.parquet

A training set is a JSONL file in ``sources/programs/`` with the hash that the experiment pins. The experiment draws as
many rows of each as it compares (``instruct_tune.n_examples``). Answers are programs of a 1.5B teacher. Most sets are
parts of the rows that two of four agreeing programs left (``reports/results/gpu-1.5b/programs/instruct.parquet``). The
others:

- ``human``: such rows for questions of GSM8K and MATH (``programs-human``).
- ``random``: one answer to each of some of all questions, whichever returns a number. It needs the questions' texts
  (``--questions``; reports/results/gpu-1.5b/README.md says how to write them), and runs 7,168 programs in the sandbox.
- ``texts``: for a student of 1.5B, the teacher's answers in text to 4,096 of the questions, where the answer is also what
  two or more of its four programs return, and no written step is wrong.
- ``seed_questions`` (``--seed-questions``): what the teacher was asked for ``human``, 4,096 questions of GSM8K and MATH.

With ``--ledger`` it writes nothing but the questions of ``filters_programs.yaml``, as Parquet files in
``reports/results/gpu-1.5b/filtered/questions/``.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scalequest.answers.arithmetic import check_arithmetic
from scalequest.answers.check import final_answer, same_answers
from scalequest.answers.program import read_programs
from scalequest.answers.sandbox import consent
from scalequest.outcomes import KEPT, UNSOLVABLE
from scalequest.problems.draw import draw, hash_place

SEED = 17
RESULTS = Path("reports/results/gpu-1.5b/programs")
HUMAN = Path("reports/results/gpu-1.5b/programs-human")
TEXTS = Path("reports/results/gpu-1.5b/student-1.5b")
FILTERS = Path("reports/results/gpu-1.5b/filtered/questions")
OUT = Path("sources/programs")
# Rows of each generator in `half`, and questions asked for `random`, of which nine in ten give a row.
HALF, ASKED = 2_048, 7_168
SEED_QUESTIONS = {"gsm8k": 3_072, "math": 1_024}
# Questions of each generator in each set that the filters make; the judge rejected 1,269 of school.
FILTER_QUESTIONS = {"school": 1_200, "contest": 2_400}

Row = dict[str, Any]


def write(name: str, rows: Iterable[Row], keys: Sequence[str] = ("id", "question", "response")) -> None:
    """Write one set, and print its size and hash."""
    lines = [json.dumps({key: row[key] for key in keys}, ensure_ascii=False) + "\n" for row in rows]
    OUT.mkdir(parents=True, exist_ok=True)
    content = "".join(lines).encode()
    (OUT / f"{name}.jsonl").write_bytes(content)
    print(f"{name}: {len(lines):,} rows, sha256 {sha256(content).hexdigest()}")


def firsts(rows: Iterable[Row]) -> list[Row]:
    """The first row of each question: its chosen answer."""
    found: dict[str, Row] = {}
    for row in rows:
        found.setdefault(row["id"], row)
    return list(found.values())


def drawn(rows: Sequence[Row], n: int, purpose: str) -> list[Row]:
    """``n`` rows by a hash of their ids."""
    return [rows[at] for at in draw([row["id"] for row in rows], n, SEED, purpose=purpose)]


def kept_sets() -> None:
    """The sets that are parts of the kept rows."""
    origin = {row["id"]: row["origin"] for row in pq.read_table(RESULTS / "origin.parquet").to_pylist()}
    rows = pq.read_table(RESULTS / "instruct.parquet").to_pylist()
    of = {name: [row for row in rows if origin[row["id"]].startswith(f"{name}/")] for name in ("school", "contest")}
    write("all", rows)
    for name, part in of.items():
        write(name, part)
    write("half", [row for name, part in of.items() for row in drawn(part, HALF, f"half {name}")])
    write("agreed", firsts(rows))
    write("three", firsts(row for row in rows if row["agreement"] >= 0.75))
    write("human", pq.read_table(HUMAN / "instruct.parquet").to_pylist())


def confirmed_texts() -> None:
    """Answers in text that the programs confirm."""
    origin = {row["id"]: row["origin"] for row in pq.read_table(RESULTS / "origin.parquet").to_pylist()}
    confirmed = {origin[row["id"]]: row for row in pq.read_table(RESULTS / "instruct.parquet").to_pylist()}
    asked = {row["id"]: row["origin"] for row in pq.read_table(TEXTS / "origin.parquet").to_pylist()}
    rows, pairs = [], []
    for row in pq.read_table(TEXTS / "responses.parquet").to_pylist():
        of_programs = confirmed.get(asked[row["question_id"]])
        answer = final_answer("maths", row["response"]) if row["finish_reason"] == "stop" else None
        if of_programs and answer is not None and not check_arithmetic(row["response"]).wrong:
            pairs.append((of_programs["final_answer"], answer))
            rows.append({"id": row["question_id"], "question": of_programs["question"], "response": row["response"]})
    write("texts", (row for row, same in zip(rows, same_answers("maths", pairs), strict=True) if same))


def random_set(questions: Path) -> None:
    """One answer to each of ``ASKED`` questions, drawn before anything is known of it; those without a number drop out."""
    lines = questions.read_text(encoding="utf-8").splitlines()
    texts = {row["id"]: row["question"] for row in map(json.loads, lines)}
    origin = pq.read_table(RESULTS / "origin.parquet").to_pylist()
    answers: dict[str, list[Row]] = {}
    for row in pq.read_table(RESULTS / "responses.parquet").to_pylist():
        answers.setdefault(row["question_id"], []).append(row)
    picked = []
    for row in drawn(origin, ASKED, "random"):
        four = answers[row["id"]]
        one = four[int(hash_place(SEED, row["id"], "random answer") * len(four))]
        if one["finish_reason"] == "stop":
            picked.append({"id": row["id"], "question": texts[row["origin"]], "response": one["response"]})
    readings = read_programs([row["response"] for row in picked])
    write("random", [row for row, reading in zip(picked, readings, strict=True) if reading.stated is not None])


def seed_questions() -> None:
    """Questions of people, for the teacher to answer."""
    rows = []
    for name, n in SEED_QUESTIONS.items():
        lines = Path(f"sources/{name}/train.jsonl").read_text(encoding="utf-8").splitlines()
        texts = [row.get("question") or row["problem"] for row in map(json.loads, lines)]
        found = [{"id": f"{name}/{at}", "question": text} for at, text in enumerate(texts)]
        rows += drawn(found, n, "seed questions")
    write("seed_questions", rows, ("id", "question"))


def filter_questions(ledger: Path) -> None:
    """Questions of a run by what its filters made of them, as many of each generator in each set.

    The easiest are those that the difficulty filter dropped, the hardest as many from the other end of what it passed. A
    question can be in ``passed`` and in ``hardest``.
    """
    rows = pq.read_table(ledger, columns=["id", "generator", "question", "outcome", "difficulty"]).to_pylist()
    sets: dict[str, list[Row]] = {}
    for generator, n in FILTER_QUESTIONS.items():
        own = [row for row in rows if row["generator"] == generator]
        passed = [row for row in own if row["outcome"] in (KEPT, "over_share")]
        easiest = [row for row in own if row["outcome"] == "too_easy"]
        hardest = sorted(passed, key=lambda row: (row["difficulty"], row["id"]))[-len(easiest) :]
        rejected = [row for row in own if row["outcome"] == UNSOLVABLE]
        for name, part in {"passed": passed, "rejected": rejected, "easiest": easiest, "hardest": hardest}.items():
            sets.setdefault(name, []).extend(drawn(part, n, f"filters {name}"))
    for name, part in sets.items():
        file = FILTERS / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist(part).select(["id", "question"]), file, compression="zstd")
        print(f"{file}: {len(part):,} rows, sha256 {sha256(file.read_bytes()).hexdigest()}")


def main() -> None:
    """Write the sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=Path, help="JSONL with the texts of all questions; makes the set random")
    parser.add_argument("--seed-questions", action="store_true", help="make seed_questions, from the files in sources/")
    parser.add_argument(
        "--ledger", type=Path, help="a run's ledger.parquet; writes the questions of filters_programs.yaml"
    )
    args = parser.parse_args()
    if args.ledger:
        filter_questions(args.ledger)
        return
    kept_sets()
    confirmed_texts()
    if args.seed_questions:
        seed_questions()
    if args.questions:
        consent("namespaces")
        random_set(args.questions)


if __name__ == "__main__":
    main()
