"""Synthetic questions with ground truth for `benchmarks/screen.py`, in the schema of `data/questions`.

    python benchmarks/screen_data.py OUT --rows 200000 --sources FOLDER

Half of the rows come from story templates with other names, objects and numbers. The other half are GSM8K and MATH
training questions in which every number and some words are changed. Planted among them, with the row that each was made
from in OUT/truth.parquet: exact duplicates, light edits, heavy edits, leaked benchmark questions (whole, inside other
text, a run of 13 words), benchmark questions with other numbers, and paraphrases of benchmark questions.
"""

import argparse
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scalequest.io import read_jsonl, write_jsonl
from scalequest.problems.contamination import without_markup
from scalequest.records import QUESTION, ROWS_PER_PART, write_table
from scalequest.text import words

TRUTH = pa.schema([("id", pa.string()), ("kind", pa.string()), ("source", pa.string())])
GENERATORS = ("school", "competition")
# Shares of the rows. The rest is new.
PLANTED = {
    "exact": 0.02, "light": 0.02, "heavy": 0.02, "leak_whole": 0.001, "leak_inside": 0.001, "leak_run": 0.001,
    "template": 0.001, "paraphrase": 0.001, "foreign": 0.005, "short": 0.002,
}  # fmt: skip
NAMES = [
    "Ann",
    "Tom",
    "Maria",
    "Ahmed",
    "Wei",
    "Lucas",
    "Nia",
    "Olga",
    "Peter",
    "Priya",
    "Jose",
    "Mina",
    "Karl",
    "Rosa",
    "Ivan",
    "Leila",
    "Sam",
    "Tara",
    "Hugo",
    "Emma",
    "Noah",
    "Zoe",
    "Omar",
    "Lena",
    "Max",
    "Ida",
    "Paul",
    "Ruth",
    "Carl",
    "Nora",
    "Eric",
    "Dina",
]
THINGS = [
    "apples",
    "pears",
    "books",
    "pens",
    "marbles",
    "tickets",
    "boxes",
    "shells",
    "cards",
    "coins",
    "stamps",
    "cookies",
    "bricks",
    "plants",
    "chairs",
    "bottles",
    "cups",
    "shirts",
    "candles",
    "ribbons",
    "tiles",
    "lamps",
    "kites",
    "balls",
]
PLACES = ["market", "library", "garden", "school", "museum", "harbor", "station", "bakery", "stadium", "farm"]
COLORS = ["red", "blue", "green", "yellow", "white", "black", "brown", "silver"]
TEMPLATES = (
    "{n} has {a} {c} {t} and buys {b} more at the {p}. Then {n} gives {d} of the {t} to {m}. How many {t} does {n} have now?",
    "A {p} sells {t} for {a} dollars each and {u} for {b} dollars each. {n} buys {d} {t} and {e} {u}. How much does {n} pay in total?",
    "{n} walks {a} miles to the {p} every day for {b} days, and {m} walks {d} miles less in all. How many miles does {m} walk?",
    "There are {a} rows of {c} {t} in the {p}, and each row has {b} {t}. If {d} {t} are broken, how many {t} are whole?",
    "{n} and {m} share {a} {t} so that {n} gets {b} more than {m}. How many {c} {t} does each of them put into the {p}?",
    "A truck carries {a} boxes of {t} to the {p}. Each box holds {b} {c} {t} and weighs {d} pounds. What is the weight of {e} boxes?",
    "In the {p}, {a} percent of the {b} {t} are {c}. {n} paints {d} more of them {c}. What percent of the {t} are {c} now?",
    "{n} reads {a} pages on Monday and {b} pages on each of the next {d} days. {m} reads twice as many. How many pages does {m} read?",
    "If {a} workers build {b} {c} {t} in {d} hours at the {p}, how many {t} do {e} workers build in the same time?",
    "{n} saves {a} dollars per week. After {b} weeks {n} buys {c} {t} for {d} dollars at the {p}. How much money is left?",
    "A rectangle in the {p} is {a} feet long and {b} feet wide. {n} puts {c} {t} every {d} feet around it. How many {t} are needed?",
    "The sum of the ages of {n} and {m} is {a}. In {b} years {n} will be {d} years older than {m} was when they met at the {p}. How old is {m}?",
)
SPANISH = "{n} compra {a} manzanas en el mercado y come {b} de ellas por la tarde. ¿Cuántas manzanas le quedan a {n}?"
# Paraphrase of a benchmark question: other words for the same, and the clauses around the first
# comma or `if` exchanged.
SYNONYMS = {
    "how many": "what number of", "find": "determine", "compute": "calculate", "what is": "determine", "total": "sum",
    "each": "every", "buys": "purchases", "bought": "purchased", "gives": "hands", "gave": "handed", "altogether": "in total",
    "then": "afterwards", "much": "money", "has": "owns", "had": "owned", "needs": "requires", "begins": "starts",
    "children": "kids", "price": "cost", "costs": "is priced at", "makes": "produces", "week": "seven days", "big": "large",
    "evaluate": "work out", "let": "suppose", "simplify": "reduce", "value": "result", "equation": "relation", "every": "each",
    "there are": "we have", "so": "thus", "also": "in addition", "more": "additional", "took": "grabbed", "left": "remaining",
}  # fmt: skip
_NUMBER = re.compile(r"\d+")
_WORD = re.compile(r"[A-Za-z]{3,}")


def other_numbers(text: str, rng: random.Random) -> str:
    """The text with every number replaced by another one of as many digits."""

    def other(match: re.Match[str]) -> str:
        digits = len(match[0])
        low, high = 10 ** (digits - 1), 10**digits - 1
        return str(rng.randint(min(low, 1) if digits == 1 else low, high))

    return _NUMBER.sub(other, text)


def other_words(text: str, share: float, vocabulary: list[str], rng: random.Random) -> str:
    """The text with a share of its longer words replaced."""
    return _WORD.sub(lambda match: rng.choice(vocabulary) if rng.random() < share else match[0], text)


def paraphrase(text: str, rng: random.Random) -> str:
    """The same question in other words, with its first two sentences exchanged where it has three."""
    found = text
    for word, other in SYNONYMS.items():
        found = re.sub(rf"\b{word}\b", other, found, flags=re.IGNORECASE)
    sentences = re.split(r"(?<=[.?!]) +", found)
    if len(sentences) > 2:
        sentences[0], sentences[1] = sentences[1], sentences[0]
    elif ", " in found and rng.random() < 0.5:
        first, _, rest = found.partition(", ")
        sentences = [f"{rest.rstrip('.?')}, {first}?"]
    return " ".join(sentences)


def with_two_numbers_exchanged(text: str, rng: random.Random) -> str:
    """Another question of the same words and numbers; empty where the text has no two different numbers."""
    found = list(_NUMBER.finditer(text))
    pairs = [(a, b) for at, a in enumerate(found) for b in found[at + 1 :] if a[0] != b[0]]
    if not pairs:
        return ""
    a, b = rng.choice(pairs)
    return text[: a.start()] + b[0] + text[a.end() : b.start()] + a[0] + text[b.end() :]


def story(rng: random.Random) -> str:
    """A question from a template."""
    numbers = {key: rng.randint(2, 400) for key in "abde"}
    n, m = rng.sample(NAMES, 2)
    t, u = rng.sample(THINGS, 2)
    return rng.choice(TEMPLATES).format(n=n, m=m, t=t, u=u, c=rng.choice(COLORS), p=rng.choice(PLACES), **numbers)


def light_edit(text: str, rng: random.Random) -> str:
    """One word more, at the end or the start."""
    return f"{rng.choice(('Well,', 'Now,', 'Today,'))} {text}" if rng.random() < 0.5 else f"{text} Explain."


def exact_edit(text: str, rng: random.Random) -> str:
    """The same question in another case, spacing or final punctuation, or with an invisible character."""
    way = rng.randrange(4)
    return (text, text.upper(), re.sub(" ", "  ", text), text[:1] + "\u200b" + text[1:])[way]


def rows(n: int, train: list[str], tests: list[dict[str, str]], seed: int) -> Iterator[tuple[str, str, str]]:
    """Yield question, kind and what it was made from: the number of an earlier row, or a benchmark item's id."""
    rng = random.Random(seed)
    vocabulary = sorted({word for text in train for word in _WORD.findall(text) if word.islower()})
    kinds, shares = ["new", *PLANTED], [1 - sum(PLANTED.values()), *PLANTED.values()]
    long = [
        item
        for item in tests
        if len(re.findall(r"\w+", item["question"])) >= 20 and len(_NUMBER.findall(item["question"])) >= 2
    ]
    recent: list[tuple[int, str]] = []  # rows to copy; a fixed number of them, from the whole of what was written
    for at, kind in enumerate(rng.choices(kinds, shares, k=n)):
        source = ""
        if kind in ("exact", "light", "heavy") and not recent:
            kind = "new"
        if kind == "new":
            text = (
                story(rng)
                if rng.random() < 0.5
                else other_words(other_numbers(rng.choice(train), rng), 0.15, vocabulary, rng)
            )
            if len(text) > 60:
                place = len(recent) if len(recent) < 20_000 else rng.randrange(20_000)
                recent[place : place + 1] = [(at, text)]
        elif kind in ("exact", "light", "heavy"):
            origin, text = rng.choice(recent)
            source = str(origin)
            edit = {"exact": exact_edit, "light": light_edit}
            text = (
                edit[kind](text, rng) if kind in edit else other_words(other_numbers(text, rng), 0.35, vocabulary, rng)
            )
        elif kind == "foreign":
            text = SPANISH.format(n=rng.choice(NAMES), a=rng.randint(5, 9999), b=rng.randint(2, 999))
        elif kind == "short":
            text = f"Add {rng.randint(1, 99999)}"
        else:
            item = rng.choice(tests if kind == "leak_whole" else long)
            source, question = item["id"], item["question"]
            if kind == "leak_whole":
                # A command in capitals is no LaTeX.
                text = question if rng.random() < 0.5 or "\\" in question else question.upper()
            elif kind == "leak_inside":
                text = f"{rng.choice(NAMES)} reads this aloud. {question} Think about number {rng.randint(1, 99999)}."
            elif kind == "leak_run":
                tokens = words(without_markup(question))
                if len(tokens) <= 13:
                    tokens = words(question)
                start = rng.randrange(len(tokens) - 13)
                text = f"{rng.choice(NAMES)} starts: {' '.join(tokens[start : start + 13])} and {rng.randint(1, 99999)} more, how many?"
            elif kind == "template":
                text = other_numbers(question, rng)
            else:
                text = paraphrase(question, rng)
        yield text, kind, source


def row_id(at: int, n: int) -> str:
    """Id of row ``at``: the first half is one generator's, the second the other's; shards of 10,000."""
    half = (n + 1) // 2
    generator, row = divmod(at, half)
    return f"{GENERATORS[generator]}/{row // 10_000}/{row % 10_000}"


def write(out: Path, n: int, sources: Path, seed: int = 17) -> None:
    """Write OUT/questions/GENERATOR, OUT/benchmarks and OUT/truth.parquet, streaming."""
    train = [row["question"] for name in ("gsm8k", "math") for row in read_jsonl(sources / name / "train.jsonl")]
    tests = []
    for name in ("gsm8k", "math500"):
        items = [
            {"id": f"{name}/{row['id']}", "question": row["question"]}
            for row in read_jsonl(sources / name / "test.jsonl")
        ]
        write_jsonl(out / "benchmarks" / f"{name}.jsonl", items)
        tests += items
    part: list[dict[str, Any]] = []
    numbers = dict.fromkeys(GENERATORS, 0)

    def flush() -> None:
        if part:
            name = part[0]["generator"]
            write_table(
                out / "questions" / name / f"part-{numbers[name]:05d}.parquet",
                pa.Table.from_pylist(part, schema=QUESTION),
            )
            numbers[name] += 1
            part.clear()

    with pq.ParquetWriter(out / "truth.parquet", TRUTH) as truth:
        facts: list[dict[str, str]] = []
        for at, (text, kind, source) in enumerate(rows(n, train, tests, seed)):
            name = row_id(at, n)
            generator = name.split("/")[0]
            if len(part) == ROWS_PER_PART or (part and part[0]["generator"] != generator):
                flush()
            part.append(
                {
                    "id": name,
                    "generator": generator,
                    "question": text,
                    "completion": text,
                    "finish_reason": "stop",
                    "n_tokens": 1,
                    "seed": 1,
                }
            )
            if kind != "new":
                facts.append(
                    {"id": name, "kind": kind, "source": row_id(int(source), n) if source.isdigit() else source}
                )
        flush()
        truth.write_table(pa.Table.from_pylist(facts, schema=TRUTH))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument(
        "--sources", type=Path, required=True, help="folder with JSONL: gsm8k/{train,test}, math/train, math500/test"
    )
    args = parser.parse_args()
    write(args.out, args.rows, args.sources)
