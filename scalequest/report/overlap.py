"""How much the generators' questions repeat each other, and how different they are."""

from scalequest.report.blocks import Block, Section, Table, Text
from scalequest.report.results import percent
from scalequest.report.run import Run

NOTE = """
A duplicate is counted at the generator that wrote it, under the generator of the question that is kept: the first one in the
order of the mix. So the last generator of the mix shows what all others wrote before it."""


def overlap(run: Run) -> Section:
    """Show duplicates within and between generators, the Vendi score of each, and questions that are a benchmark's template."""
    found = run.metrics["screen"]
    if "overlap" not in found:
        return Section("Overlap and diversity", [Text("Stage `screen` of this run did not measure them.")])
    mix = list(run.params.mix)
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
    templates, paraphrases = found["template_matches"], found["paraphrases"]
    blocks: list[Block] = [
        Text(NOTE.strip()),
        Table("Duplicates within and between generators", head, rows, "lr" + "r" * (len(head) - 2)),
        Text(
            "The Vendi score is the effective number of different questions in a sample of equal size per generator, by shared "
            "words and pairs of words. The same question in other words counts as a different one."
        ),
        Text(
            f"{templates['kept']:,} kept questions are one of {templates['items']:,} benchmark items with other numbers "
            f"(`screen.template_match`), and {paraphrases['kept']:,} may say what one of {paraphrases['items']:,} items says "
            "(`screen.paraphrase_cosine`). They are reported and not dropped."
        ),
    ]
    return Section("Overlap and diversity", blocks)
