"""A made-up run of 6,000 questions, with hostile texts among them."""

import random
from pathlib import Path
from typing import Any

from scalequest.io import read_json, write_json
from scalequest.params import Params
from scalequest.records import INSTRUCTION, LEDGER, SAMPLE, write_rows
from tests.report.finished import Folder

N = 6_000
KINDS = ("kept", "kept", "kept", "kept", "unsolvable", "too_easy", "language", "near_duplicate")
NAMES = ["Anna", "Ben", "Chen", "Dora", "Emil", "Fatima", "Gus", "Hana", "Ivan", "Jo"]
THINGS = ["apples", "marbles", "pencils", "stamps", "coins", "books", "eggs", "cards"]
# What a model may write, by the id of the question that has it.
HOSTILE = {
    "sums/0/0": "<script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">",
    "sums/0/1": "</style></script><!-- <svg onload=alert(1)>",
    "sums/0/2": "x" * 10_000,
    "sums/0/3": "\u202eHow many \u05e9\u05dc\u05d5\u05dd are \u0645\u0631\u062d\u0628\u0627?",
    "sums/0/4": r"Broken: $\frac{1}{$ and \boxed{ and $$ \left( x $$ and $\href{javascript:alert(1)}{x}$ and $\fcolorbox{red}{blue}{y}$",
    "sums/0/5": r"It costs $5 and $6. Find $\frac{x^2}{3}$ if \(y = 2\) and \[ \sum_{i=1}^n i = 55 \].",
    "sums/0/6": "\U0001f600 \u0000\u0007 a\u0301\u0301\u0301\u0301 \u200b\u200d",
}


def text(random_: random.Random) -> str:
    """A question of the usual kind and length."""
    who, what = random_.choice(NAMES), random_.choice(THINGS)
    a, b = random_.randrange(2, 99), random_.randrange(2, 99)
    more = " ".join(
        random_.choice(NAMES) + " gives " + str(random_.randrange(99)) + " away."
        for _ in range(random_.randrange(1, 9))
    )
    return f"{who} has {a} {what} and buys {b} more. {more} How many {what} does {who} have now? Write $x = {a} + {b}$ first."


class BigFolder(Folder):
    """``Folder`` with ``N`` questions, three answers each, and a thousand test items."""

    def __init__(self, root: Path, params: Params) -> None:
        super().__init__(root, params)
        random_ = random.Random(1)
        ledger: list[dict[str, Any]] = []
        for n in range(N):
            generator = "sums" if n < N // 2 else "stories"
            name, outcome = f"{generator}/0/{n % (N // 2)}", KINDS[n % len(KINDS)]
            ledger.append(
                {"id": name, "generator": generator, "question": HOSTILE.get(name) or text(random_), "outcome": outcome,
                 "matched": "sums/0/8" if outcome == "near_duplicate" else "", "evidence": "", "verdict": "solvable",
                 "difficulty": random_.betavariate(4, 3), "min_difficulty": 0.2}
            )  # fmt: skip
        data = [
            {"id": row["id"], "generator": row["generator"], "question": row["question"], "final_answer": "42",
             "response": f"{text(random_)} So it is $\\frac{{84}}{{2}}$.\n\\boxed{{42}}", "reward": random_.gauss(0, 2),
             "agreement": random_.randrange(1, 4) / 3, "n_candidates": 3}
            for row in ledger
            if row["outcome"] == "kept"
        ]  # fmt: skip
        write_rows(self.args.ledger, ledger, LEDGER)
        write_rows(self.args.data, data, INSTRUCTION)
        self.write_upstream(ledger, data)
        for name in ("sums", "stories"):
            path = self.args.metrics / f"generate/{name}.json"
            write_json(path, read_json(path) | {"questions": N // 2})
        for model, skill in (("base", 0.2), ("solver", 0.5), ("student", 0.45)):
            items = [
                {"task": "embedded_sums", "split": "test", "shots": 0, "id": f"item/{n}", "question": text(random.Random(n)),
                 "answer": "42", "completion": f"{model} writes {text(random_)}", "finish_reason": "stop",
                 "strict": float(random_.random() < skill), "flexible": 1.0, "unparsed": 0.0, "timeout": 0.0}
                for n in range(300)
            ]  # fmt: skip
            write_rows(self.args.samples / f"{model}.parquet", items, SAMPLE)
