"""Screen all generated questions with what needs no model: cut or empty, language, duplicates, contamination.

    python -m stages.screen --questions data/questions --benchmarks data/benchmarks --out data/screened --metrics M.json

Every row stays, with the first verdict that applies, what it matched and the evidence.
"""

import argparse
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.io import read_jsonl, rounded
from scalequest.outcomes import KEPT, SCREEN_OUTCOMES
from scalequest.params import Screen
from scalequest.problems.contamination import Contamination
from scalequest.records import QUESTION, SCREENED, read_rows, write_rows
from scalequest.runtime.stage import StageRun, run_stage
from scalequest.text import plain, question_key, words

SHINGLE = 3  # words
PERMUTATIONS = 128
# Below so many letters outside formulas a language cannot be told; the question is kept if it is in Latin script.
MIN_LETTERS = 20
# A question is foreign where English is less likely than this among LANGUAGES, and another language at least so likely. Names
# and terms pull short questions elsewhere. Latin is left out, because mathematical English is often taken for it.
MIN_ENGLISH, MIN_FOREIGN = 0.15, 0.4
# fmt: off
LANGUAGES = (
    "ENGLISH", "CHINESE", "JAPANESE", "KOREAN", "RUSSIAN", "ARABIC", "HINDI", "SPANISH", "FRENCH", "GERMAN", "PORTUGUESE",
    "ITALIAN", "DUTCH", "POLISH", "TURKISH", "VIETNAMESE", "INDONESIAN",
)
# fmt: on


# ------------------------------------------------------------------------------------------------------------ language


def language_check(rule: str) -> Callable[[str], str | None]:
    """A function that says why a question is not in the language wanted, or None if it is."""
    if rule == "any":
        return lambda question: None
    if rule == "ascii":
        return lambda question: next((f"U+{ord(c):04X}" for c in question if ord(c) > 127), None)
    from lingua import Language, LanguageDetectorBuilder

    detector = LanguageDetectorBuilder.from_languages(*(getattr(Language, name) for name in LANGUAGES)).build()

    def check(question: str) -> str | None:
        prose = re.sub(r"\$[^$]*\$|\\\[.*?\\\]|\\\(.*?\\\)|\\[a-zA-Z]+|[\d_^{}]+", " ", question, flags=re.DOTALL)
        letters = [c for c in prose if c.isalpha()]
        if len(letters) < MIN_LETTERS:
            others = [c for c in letters if ord(c) > 0x24F and not "\u0370" <= c <= "\u03ff"]  # Greek is mathematics
            return f"U+{ord(others[0]):04X}" if others else None
        values = detector.compute_language_confidence_values(prose)  # the likeliest first
        best = values[0]
        english = next(value.value for value in values if value.language == Language.ENGLISH)
        foreign = english < MIN_ENGLISH and best.value >= MIN_FOREIGN
        return f"{best.language.name.lower()} {best.value:.2f}" if foreign else None

    return check


# ---------------------------------------------------------------------------------------------------------- duplicates


def shingles(question: str) -> set[str]:
    """Word 3-grams; the whole question where it is shorter. Signs count as words: "2 + 3" is not "2 - 3"."""
    tokens = re.findall(r"\w+|[^\w\s]", plain(question).casefold())
    return {" ".join(tokens[i : i + SHINGLE]) for i in range(max(1, len(tokens) - SHINGLE + 1))}


def jaccard(first: set[str], second: set[str]) -> float:
    """Shared share of two sets, in [0, 1]."""
    return len(first & second) / len(first | second)


class NearDuplicates:
    """Finds an earlier question whose shingles overlap by at least ``threshold``: MinHash proposes, Jaccard decides."""

    def __init__(self, threshold: float) -> None:
        from rensa import RMinHash, RMinHashLSH

        self._threshold = threshold
        self._minhash = RMinHash
        # Many narrow bands propose too much rather than too little; every proposal is checked exactly.
        self._lsh = RMinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, num_bands=32)
        self._kept: list[tuple[str, set[str]]] = []

    def match(self, question_id: str, question: str) -> tuple[str, float] | None:
        """The most similar earlier question and its Jaccard similarity; without one, remember this question."""
        own = shingles(question)
        sketch = self._minhash(num_perm=PERMUTATIONS, seed=1)
        sketch.update(sorted(own))
        candidates = [(jaccard(own, self._kept[i][1]), -i) for i in set(self._lsh.query(sketch))]
        similarity, negative = max(candidates, default=(0.0, 0))
        if similarity >= self._threshold:
            return self._kept[-negative][0], similarity
        self._lsh.insert(len(self._kept), sketch)
        self._kept.append((question_id, own))
        return None


# -------------------------------------------------------------------------------------------------------------- screen


def screen(rows: list[dict[str, Any]], benchmark: list[dict[str, str]], params: Screen) -> list[dict[str, Any]]:
    """Give each of N questions its verdict, in order; the first of a group of duplicates is the one kept."""
    foreign = language_check(params.language)
    exact: dict[str, str] = {}
    near = NearDuplicates(params.near_duplicate_jaccard) if params.near_duplicate_jaccard < 1 else None
    contamination = Contamination(benchmark, params.decontaminate_ngram)

    def verdict(row: dict[str, Any]) -> tuple[str, str, str]:
        question = row["question"]
        if row["finish_reason"] != "stop":
            return "cut", "", row["finish_reason"]
        if not question:
            return "empty", "", ""
        if evidence := foreign(question):
            return "language", "", evidence
        # After the language: without spaces, a Chinese question is one word.
        if len(words(question)) < params.min_words:
            return "too_short", "", f"{len(words(question))} words"
        # Before the duplicates, so that a contaminated question does not stand for its clean neighbours.
        if found := contamination.match(question):
            return "contaminated", *found
        if twin := exact.get(question_key(question)):
            return "exact_duplicate", twin, ""
        exact[question_key(question)] = row["id"]
        if near and (match := near.match(row["id"], question)):
            return "near_duplicate", match[0], f"jaccard {match[1]:.3f}"
        return KEPT, "", ""

    screened = []
    for row in rows:
        name, matched, evidence = verdict(row)
        screened.append(
            {"id": row["id"], "generator": row["generator"], "question": row["question"], "verdict": name,
             "matched": matched, "evidence": evidence}
        )  # fmt: skip
    return screened


def read_generated(folder: Path, mix: list[str]) -> list[dict[str, Any]]:
    """The questions of the mix's generators, in the mix's order; DVC leaves the folder of one that left the mix, which is not read.

    Raises:
        UserError: a generator of the mix has no folder.
    """
    found = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if missing := sorted(set(mix) - set(found)):
        raise UserError(
            f"{folder}: no questions of {missing}. Expected a folder for each generator of the mix, found {found}. "
            f"Run the stages that write them: dvc repro {' '.join(f'generate@{name}' for name in missing)}"
        )
    return [row for generator in mix for row in read_rows(folder / generator, QUESTION)]


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Screen the questions of all generators together."""
    rows = read_generated(args.questions, run.params.mix)
    benchmark = [row for path in sorted(args.benchmarks.glob("*.jsonl")) for row in read_jsonl(path)]
    screened = screen(rows, benchmark, run.params.screen)
    counts = Counter(row["verdict"] for row in screened)
    if not counts[KEPT]:
        raise UserError(
            f"screen dropped all {len(rows)} questions: {dict(counts)}; loosen the `screen` parameter that removed them"
        )
    write_rows(args.out, screened, SCREENED)
    by_generator = {
        g: {
            v: n
            for v in (KEPT, *SCREEN_OUTCOMES)
            if (n := sum(r["verdict"] == v and r["generator"] == g for r in screened))
        }
        for g in run.params.mix
    }
    run.metrics(
        args.metrics,
        {
            "questions": len(rows),
            "kept": counts[KEPT],
            "kept_frac": rounded(counts[KEPT] / len(rows)),
            "dropped": {name: counts[name] for name in SCREEN_OUTCOMES},
            "by_generator": by_generator,
        },
    )


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("questions", "benchmarks", "out", "metrics"))
