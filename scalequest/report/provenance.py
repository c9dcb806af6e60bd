"""Where the run's data come from and how far it repeats: contamination, settings, repeatability."""

import json
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from scalequest.params import Params
from scalequest.report.blocks import Block, Section, Table, Text, code
from scalequest.report.run import Run

# Every section but the one that cannot change a result.
SETTINGS = tuple(name for name in Params.model_fields if name != "runtime")
REPEATABILITY = [
    ("seeds, test sets, screening, filter, selection (no model of a role runs)", "same bytes", "same bytes for the same inputs"),
    ("trained models", "same bytes on a CPU; on a GPU other rounding, as in the next column", "same data and method, other rounding: same distribution of what they write"),
    ("questions, rewrites, verdicts, responses, rewards", "same bytes for the same model", "same distribution"),
    ("scores", "same bytes for the same model", "within the stated error"),
    ("answers of a model behind an API, where one is used", "frozen: kept and hashed, not asked for again", "the same frozen data"),
    ("report.md", "same bytes for the same inputs", "same bytes for the same inputs and packages"),
    ("index.html", "same bytes at the same commit", "other lines where it names commit, machine and packages"),
]  # fmt: skip


def quoted(names: Iterable[str]) -> str:
    """List names as code."""
    return ", ".join(f"`{name}`" for name in names)


def gsm_symbolic_seeds(params: Any) -> list[str]:
    """Name the seed sources whose templates come from GSM8K's test set."""
    return [name for name, source in params.seeds.items() if getattr(source, "dataset", None) == "gsm_symbolic"]


def gsm8k_notice(params: Any) -> list[Block]:
    """Warn wherever a contaminated GSM8K score is shown."""
    tasks = [task for task in params.evaluate.tasks if task.startswith("gsm8k")]
    seeds = gsm_symbolic_seeds(params)
    if not tasks or not seeds:
        return []
    text = (
        f"The score on {quoted(tasks)} must not be quoted as clean: the seeds {quoted(seeds)} are drawn from gsm_symbolic, "
        "whose templates come from GSM8K's test set."
    )
    return [Text(text, alert=True)]


def contamination(run: Run) -> Section:
    """Say what may have leaked from the test sets into training."""
    params, blocks = run.params, gsm8k_notice(run.params)
    if not blocks and (seeds := gsm_symbolic_seeds(params)):
        text = (
            f"The seeds {quoted(seeds)} are drawn from gsm_symbolic, whose templates come from GSM8K's test set. No GSM8K score "
            "is reported here, and this run must not quote a GSM8K score as clean."
        )
        blocks.append(Text(text, alert=True))
    drawn = {getattr(source, "dataset", None) for source in params.seeds.values()} - {None}
    if alike := [t for t in params.evaluate.tasks if getattr(params.benchmarks[t], "dataset", None) in drawn]:
        text = (
            f"The items of {quoted(alike)} come from the same generating programs as seeds do: other items, none of them a seed, but "
            "of the seeds' kind. A score there says nothing about other kinds of problems."
        )
        blocks.append(Text(text))
    if n := params.screen.decontaminate_ngram:
        text = (
            f"Questions that had ended in the language asked for were compared with every benchmark of the run: "
            f"{sum(run.outcomes['contaminated']):,} shared a run of {n} words with one, or a shorter one as a whole, and were dropped. "
            "A paraphrase passes this check, and what the fetched models have read before is not known."
        )
        aside = run.metrics["screen"].get("set_phrases", {})  # not in runs of before
        if n_runs := aside.get("runs_of_items", 0) + aside.get("runs_of_seeds", 0):
            text += (
                f" Not looked for were {n_runs:,} runs of {aside['items']:,} items that several items or many seeds have: "
                "they are set phrases."
            )
        blocks.append(Text(text))
    else:
        text = (
            "Decontamination is off (`screen.decontaminate_ngram`): neither questions nor seeds were compared with the benchmarks. "
            "Only seeds that equal an item were left out."
        )
        blocks.append(Text(text, alert=True))
    blocks += [table for table in (spans_table(run), shared_table(run)) if table]
    return Section("Contamination notice", blocks)


def spans_table(run: Run) -> Table | None:
    """Make a row per benchmark that lost questions to it: how many, and the first span by id; None where there are none."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for row in run.ledger.having("outcome", ["contaminated"]):
        found.setdefault(row["matched"].split("/")[0], []).append((row["id"], row["matched"], row["evidence"]))
    rows = []
    for benchmark, hits in sorted(found.items()):
        name, item, span = min(hits)
        items = len({matched for _, matched, _ in hits})
        rows.append(
            [f"`{benchmark}`", f"{len(hits):,}", f"{items:,}", f"{code(name)} and {code(item)}: {code(span[:200])}"]
        )
    head = ["benchmark", "questions dropped", "its items that they share words with", "the first, and the words"]
    title = "Generated questions that were dropped for words of a benchmark"
    return Table(title, head, rows, "lrrl", links=["questions?outcome=contaminated"] * len(rows)) if rows else None


def shared_table(run: Run) -> Table | None:
    """Make a row per benchmark of what seeds share with it; None where the seeds were not compared."""
    rows = []
    for name, found in (run.metrics["seeds"].get("shared_with_benchmarks") or {}).items():
        examples = found["examples"]  # by item; a list in runs of before
        example = next(iter(examples.values() if isinstance(examples, dict) else examples), None)
        shown = f"{code(example['seed'])} and {code(example['item'])}: {code(example['span'])}" if example else ""
        rows.append(
            [f"`{name}`", f"{found['items']:,}", f"{100 * found['items_frac']:.1f}", f"{found['seeds']:,}", shown]
        )
    head = ["benchmark", "items that share words with a seed", "of its items, %", "such seeds", "the first"]
    title = "Seeds compared with the benchmarks by the rule for generated questions; such seeds are kept"
    return Table(title, head, rows, "lrrrl") if rows else None


def flatten_settings(params: Any) -> list[list[str]]:
    """List every parameter but ``runtime`` as dotted key and value."""
    flat: list[list[str]] = []

    def walk(key: str, value: Any) -> None:
        if isinstance(value, BaseModel):
            value = value.model_dump(by_alias=True)
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                walk(f"{key}.{name}", inner)
        else:
            flat.append([code(key), code(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))])

    for name in SETTINGS:
        walk(name, getattr(params, name))
    return flat


def settings(run: Run) -> Section:
    """Show the parameters of the run."""
    rows = flatten_settings(run.params)
    note = "The whole parameter file but `runtime`, which holds what cannot change a result."
    table = Table(f"All {len(rows)} parameters", ["parameter", "value"], rows, "ll", folded=True)
    return Section("Settings", [Text(note), table])


def repeatability(run: Run) -> Section:
    """Say what comes out the same again, and where."""
    head = ["artifact", "same machine kind and lock file", "another CPU or GPU"]
    note = (
        "report.md does not name the packages and the machine of each stage, because an equal result on another machine is to "
        "have equal bytes. `scalequest audit PATH` prints them."
    )
    return Section("Repeatability", [Table("What a second run gives", head, REPEATABILITY, "lll"), Text(note)])
