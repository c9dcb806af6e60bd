"""Measure the checking of mathematical answers: how fast, and that nothing hangs it or ends it.

    python benchmarks/answers.py same|wrong|adversarial [--file sources/math/train.jsonl] [--part 0 --parts 1]

same: every answer of MATH against itself in other LaTeX, all in the processes. wrong: against the
answer of another problem. adversarial: 5,000 texts against answers: deep nesting, huge powers, 10
kB of LaTeX, and what else a model could write. --parts measures one part of the pairs. Prints the
comparisons per second, the outcomes and the slowest chunk, and fails unless a plain comparison
works afterwards.
"""

import argparse
import random
import time
from collections import Counter
from pathlib import Path

from scalequest.answers import compare as answers
from scalequest.io import read_jsonl

WORKERS = 2
N = 5_000
CHUNK = 250


def adversarial(number: int, draw: random.Random) -> str:
    """A hostile answer; no two are equal, so none is answered from another."""
    n = draw.randint(2, 9)
    kinds = (
        lambda: "\\frac{1}{" * draw.randint(10, 80) + str(number) + "}" * 80,
        lambda: "(" * draw.randint(10, 400) + str(number) + ")" * 400,
        lambda: "\\sqrt{" * draw.randint(10, 120) + str(number) + "}" * 120,
        lambda: f"{n}^{{{n}^{{{n}^{{{number}}}}}}}",
        lambda: f"{number + 2}^{{{10 ** draw.randint(5, 12)}}}",
        lambda: f"{number + 10_000}!" + "!" * draw.randint(0, 3),
        lambda: "\\frac{x}{y}+" * 800 + str(number),  # 10 kB
        lambda: f"x_{{{number}}}" + "".join(draw.choice("\\{}^_$()[]&%#~") for _ in range(draw.randint(10, 900))),
        lambda: "\\begin{pmatrix}" + "&".join(map(str, range(number % 200))) + "\\end{pmatrix}" * 9,
        lambda: "{" * draw.randint(1, 900) + str(number),
        lambda: f"x^{{{number + 500}}}+1=0",
        lambda: ",".join(map(str, range(number, number + 150))),
        lambda: "\\text{" + "é漢😀\u202e"[number % 4] * draw.randint(1, 300) + "}" + str(number),
    )
    if number % 100 == 99:  # few, because each may take the whole limit of 5 s
        slow = (
            f"\\int_0^{{{number}}} e^{{-x^{{{n}}}}} \\sin(x^{{{n}}}) dx",
            f"\\sum_{{k=1}}^{{{number + 10_000}}} \\frac{{1}}{{k^{{{n}}}}}",
        )
        return slow[number // 100 % 2]
    return kinds[number % len(kinds)]()


def main() -> None:
    """Measure one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("same", "wrong", "adversarial"))
    parser.add_argument("--file", type=Path, default=Path("sources/math/train.jsonl"))
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--parts", type=int, default=1)
    args = parser.parse_args()
    gold = [row["answer"] for row in read_jsonl(args.file) if row["answer"]][:N]
    draw = random.Random(0)
    found = {
        "same": lambda: [f"$ {answer.replace(chr(92) + 'frac', chr(92) + 'dfrac')} $." for answer in gold],
        "wrong": lambda: gold[1:] + gold[:1],
        "adversarial": lambda: [adversarial(number, draw) for number in range(len(gold))],
    }[args.kind]()
    gold, found = gold[args.part :: args.parts], found[args.part :: args.parts]
    if args.kind == "same":
        answers._without_sympy = lambda gold, answer: None  # all go to the processes
    answers.compare(["2\\sqrt{3}"], ["\\sqrt{12}"], WORKERS)  # the processes are there
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    started = time.monotonic()
    for start in range(0, len(gold), CHUNK):
        before = time.monotonic()
        outcomes.update(answers.compare(gold[start : start + CHUNK], found[start : start + CHUNK], WORKERS))
        slowest = max(slowest, time.monotonic() - before)
    elapsed = time.monotonic() - started
    assert sum(outcomes.values()) == len(gold)
    assert answers.compare(["3\\sqrt{3}"], ["\\sqrt{27}"], WORKERS) == [answers.RIGHT], "the pool is broken"
    print(
        f"{args.kind}: {len(gold):,} pairs, {elapsed:.1f} s, {len(gold) / elapsed:.0f} per second, slowest {CHUNK}: {slowest:.1f} s, {dict(outcomes)}"
    )


if __name__ == "__main__":
    main()
