"""How much the generators' questions repeat each other, and how different they are."""

import argparse
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from scalequest.outcomes import KEPT
from scalequest.problems.diversity import SAMPLE, diversity, places
from scalequest.records import PROBLEM
from scalequest.report.blocks import Block, Section, Table, Text
from scalequest.report.results import percent
from scalequest.report.run import Run
from scalequest.report.tables import column_of, question_texts

NOTE = """
A duplicate is counted at the generator that wrote it, under the generator of the question that is kept: the first one in the
order of the mix. So the last generator of the mix shows what all others wrote before it."""


def overlap(run: Run) -> Section:
    """Show duplicates within and between generators, the Vendi score of each, and questions that are a benchmark's template."""
    found = run.metrics["screen"]
    if "overlap" not in found:
        return Section("Overlap and diversity", [Text("Stage `screen` of this run did not measure them.")])
    mix = list(run.asked)
    # Semantic duplicates are looked for on request.
    kinds = [
        kind
        for kind, counts in found["overlap"].items()
        if kind != "semantic" or any(n for own in counts.values() for n in own.values())
    ]
    rows = []
    for name in mix:
        asked = sum(found["by_generator"].get(name, {}).values())
        cells = [
            f"{n:,} ({percent(n / max(1, asked))} %)"
            for kind in kinds
            for n in (found["overlap"][kind][name][other] for other in mix)
        ]
        measured = found["diversity"][name]
        rows.append([f"`{name}`", f"{asked:,}", *cells, f"{measured['vendi']:.1f} of {measured['n']:,}"])
    head = [
        "questions of",
        "generated",
        *(f"{kind}, of `{name}`" for kind in kinds for name in mix),
        "Vendi score",
    ]
    blocks: list[Block] = [
        Text(NOTE.strip()),
        Table("Duplicates within and between generators", head, rows, "lr" + "r" * (len(head) - 2)),
        Text(
            "The Vendi score is the effective number of different questions in a sample of equal size per generator, by shared "
            "words and pairs of words."
        ),
        Text(" ".join(like_items(found["template_matches"], found["paraphrases"]))),
    ]
    return Section("Overlap and diversity", blocks)


def like_items(templates: dict[str, int] | None, paraphrases: dict[str, int] | None) -> Iterator[str]:
    """Say how many kept questions are like a benchmark item, and what was not looked for."""
    if templates:
        yield (
            f"{templates['kept']:,} kept questions are one of {templates['items']:,} benchmark items with other numbers "
            "(`screen.template_match`)."
        )
    else:
        yield "Benchmark items with other numbers were not looked for (`screen.template_match`)."
    if paraphrases:
        yield (
            f"{paraphrases['kept']:,} kept questions may say what one of {paraphrases['items']:,} benchmark items says "
            "(`screen.paraphrase_cosine`)."
        )
    else:
        yield "Benchmark items in other words were not looked for (`screen.paraphrase_cosine`)."
    if templates or paraphrases:
        yield "Such questions are reported and not dropped."


DIVERSITY_NOTE = """
Vendi score: the effective number of different questions in a sample of equal size. By words, two questions are alike if
they share words and pairs of words. By meaning, they are alike if static word vectors are, so other words for the same
count little. Questions after QFT are those that the preference pairs are made of."""
# Outcomes of questions that are no text in the language asked for.
NOT_READ = ("cut", "empty", "unreadable", "language")


def diversity_blocks(run: Run, args: argparse.Namespace) -> list[Block]:
    """Make a table with a row per set of questions: seeds, and each generator's after QFT, as generated, and kept."""
    sets: dict[str, Sequence[str]] = {"seeds": column_of(args.seeds, PROBLEM, "question")}
    for name in run.asked:
        sets[f"`{name}`, after QFT"] = question_texts(args.qpo_questions, name)
        sets[f"`{name}`, generated"] = _asked(run, name, without=NOT_READ)
        sets[f"`{name}`, kept"] = _asked(run, name, only=KEPT)
    found = diversity({name: texts for name, texts in sets.items() if texts})
    rows = [
        [name, f"{own['n']:,}", f"{own['vendi']:.1f}", f"{own['vendi_of_meaning']:.1f}"] for name, own in found.items()
    ]
    head = ["questions", "compared", "Vendi score by words", "by meaning"]
    return [
        Text(DIVERSITY_NOTE.strip()),
        Table("Diversity of the seeds and of what was made from them", head, rows, "lrrr"),
    ]


def _asked(run: Run, generator: str, only: str = "", without: Collection[str] = ()) -> list[str]:
    """Questions of a generator with one outcome, or without some; SAMPLE of them at most, at equal distances."""
    asked = run.questions
    wanted = asked.ended_as(only) if only else ~asked.ended_as(*without)
    own = np.flatnonzero(asked.of(generator) & wanted)
    return [row["question"] for row in run.ledger.take(own[places(len(own), min(SAMPLE, len(own)))].tolist())]
