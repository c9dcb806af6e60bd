"""What each stage made and threw away: the funnel, warnings, training runs, preference data."""

from collections.abc import Iterator
from typing import Any

from scalequest.outcomes import KEPT, NEXT_STEPS, OUTCOMES, REWRITE_OUTCOMES, SELECT_OUTCOMES, WARNINGS, Outcome
from scalequest.params.training import with_own
from scalequest.report.blocks import Block, Funnel, Section, Table, Text
from scalequest.report.identity import COST_PAGE
from scalequest.report.results import DASH, p_in_words, percent
from scalequest.report.run import Run

# An outcome that only other code knows.
UNEXPLAINED = Outcome("")

PAIRS_NOTE = """
Each usable question (ended, not empty, no exact duplicate) is rewritten for one aim, drawn by a coin; a pair is chosen =
rewrite, rejected = original. Pairs and the rejects of each reason sum to the usable questions, and so do the aims."""


FEEDBACK_NOTE = """
Each usable question (ended, not empty, no exact duplicate) was answered by the solver (`preferences.source: solver`). In a pair,
chosen is a question whose pass rate is in the band of `preferences.solver`, and rejected is one below it (for solvability) or
above it (for difficulty). Pairs and the reasons for none sum to the usable questions, and so do the aims."""


def funnel_line(run: Run) -> str:
    """Say the funnel in a sentence."""
    select, tune = run.metrics["reward_select"], run.student_metrics
    return (
        f"Of {run.ledger.num_rows:,} generated questions the filters kept {run.kept:,}, {select['kept']:,} of them got a response "
        f"that gives an answer, and the student was trained on {tune['examples']:,}."
    )


def link_of(run: Run, name: str) -> str:
    """The place in the page that shows the questions of an outcome; empty for steps after the filters."""
    return f"questions?outcome={name}" if any(run.outcomes.get(name, ())) else ""


def funnel_table(run: Run) -> Table:
    """Make a row per outcome, with its count for each generator."""
    generated = list(run.asked.values())
    rows = []
    for name, counts in {"generated": generated, **run.outcomes}.items():
        numbers = [f"{n:,} ({percent(n / of)} %)" for n, of in zip(counts, generated, strict=True)]
        share = percent(sum(counts) / run.ledger.num_rows)
        outcome = OUTCOMES.get(name, UNEXPLAINED)
        rows.append([f"`{name}`", f"{sum(counts):,}", share, outcome.paper, *numbers, outcome.meaning])
    # The columns that carry the meaning come first: a telephone shows no more.
    head = ["outcome", "all", "of generated, %", "paper, % of its 2M", *run.asked, "meaning"]
    links = [link_of(run, name) for name in ("generated", *run.outcomes)]
    title = "Every generated question, by the first filter that took it"
    return Table(title, head, rows, "l" + "r" * (len(head) - 2) + "l", links=links)


def after_filters_table(respond: dict[str, Any], select: dict[str, Any], tune: dict[str, Any]) -> Table:
    """Make a row for each of the responses, the selection and the training, from their metrics."""
    responses = f"{respond['cut_at_max_tokens']:,} cut at `respond.max_tokens`; {respond['mean_distinct']:.2f} distinct ones per question"
    selection = (
        f"{select['dropped']['no_answer']:,} questions without a response that gives an answer, "
        f"{rewards_in_words(select)}; on average {percent(select['mean_agreement'])} % of a "
        "question's responses give the chosen answer"
    )
    for name, n in demanded(select).items():
        selection += f"; {n:,} questions dropped as `{name}`: {SELECT_OUTCOMES[name]}"
    if "rows" in select:
        selection += f"; {select['kept']:,} questions have {select['rows']:,} answers (`reward_select.keep`)"
    too_long = tune["dropped_too_long"]
    rows = [
        ["`respond`", f"{respond['questions']:,} questions", f"{respond['responses']:,} responses", responses],
        ["`reward_select`", f"{select['questions']:,} questions", f"{pairs_of(select):,} pairs", selection],
        [
            "`instruct_tune`",
            f"{tune['examples'] + too_long:,} pairs",
            f"{tune['examples']:,} examples",
            f"{too_long:,} longer than `instruct_tune.max_length`",
        ],
    ]
    return Table("After the filters", ["stage", "in", "out", "remarks"], rows, "lrrl")


def rewards_in_words(select: dict[str, Any]) -> str:
    """What rewards did in ``reward_select``, from its metrics; a run that read none has no mean."""
    if "mean_reward" not in select:
        return "chosen without rewards (`reward_select.waits_for`)"
    mean = select["mean_reward"]
    return (
        f"{select['dropped']['low_reward']:,} below `reward_select.min_reward`; mean reward {mean['kept']:.3f} "
        f"of the chosen, {mean['all']:.3f} of all"
    )


def pairs_of(select: dict[str, Any]) -> int:
    """Training pairs, from the metrics of ``reward_select``: one per kept question, unless it counts rows apart."""
    return int(select.get("rows", select["kept"]))


def demanded(select: dict[str, Any]) -> dict[str, int]:
    """Questions dropped by each demand that a run chose beyond the paper's rules, which are in every run's metrics."""
    paper = ("no_answer", "crashed", "low_reward")
    return {name: n for name, n in select["dropped"].items() if name in SELECT_OUTCOMES and name not in paper}


def funnel_steps(run: Run) -> list[tuple[str, int, int]]:
    """List the steps that took some questions: name, questions left, questions taken."""
    left = run.ledger.num_rows
    steps = [("generated", left, 0)]
    for name, counts in run.outcomes.items():
        if name != KEPT and (taken := sum(counts)):
            left -= taken
            steps.append((name, left, taken))
    return steps + after_filters_steps(run.metrics["reward_select"], run.student_metrics, run.params.instruct_tune.data)


def after_filters_steps(select: dict[str, Any], tune: dict[str, Any], data: str) -> list[tuple[str, int, int]]:
    """List the steps after the filters as ``funnel_steps`` does.

    Args:
        select: metrics of ``reward_select``.
        tune: metrics of ``instruct_tune``.
        data: ``instruct_tune.data``; other data than the pipeline's end the funnel before the training.
    """
    demands = demanded(select)
    left = select["kept"] + sum(demands.values())
    steps = [("no usable response", left, select["questions"] - left)]
    for name, taken in demands.items():
        if taken:
            left -= taken
            steps.append((name, left, taken))
    # A funnel of questions ends where a question has several pairs; the table after it counts those.
    if data == "instruct" and "rows" not in select:
        not_drawn = select["kept"] - tune["examples"] - tune["dropped_too_long"]
        if not_drawn:
            steps.append(("not drawn", select["kept"] - not_drawn, not_drawn))
        steps.append(("too long to train on", tune["examples"], tune["dropped_too_long"]))
    return steps


def funnel(run: Run) -> Section:
    """Show what every filter took, and what became of the rest."""
    steps = funnel_steps(run)
    asked = f"The questions were asked by the `{run.params.generate.from_}` models (`generate.from`)."
    blocks: list[Block] = [
        Text(f"{funnel_line(run)} {asked}"),
        Funnel("Questions left after each step that took some", steps, [link_of(run, name) for name, _, _ in steps]),
        funnel_table(run),
        Text(
            "A name opens the questions of that outcome in the data browser; `passed` there shows those that a filter let through."
        ),
        Text("The paper's rates are shares of its 2M questions; its other filters and thresholds are not this run's."),
        after_filters_table(run.metrics["respond"], run.metrics["reward_select"], run.student_metrics),
    ]
    if (data := run.params.instruct_tune.data) != "instruct":
        control = f"A control: the students were trained on `{data}` (`instruct_tune.data`), not on the questions of this funnel."
        blocks.append(Text(control, alert=True))
    return Section("The funnel", blocks)


def raised(run: Run) -> list[tuple[str, str]]:
    """List stage and name of every warning that is up, in the pipeline's order."""
    return [
        (stage, flag) for stage, values in run.metrics.items() for flag, up in values.get("warnings", {}).items() if up
    ]


def warnings(run: Run) -> Section:
    """Show every warning that is up: what it means and what to do next."""
    rows = [
        [f"`{stage}`", f"`{flag}`", WARNINGS.get(flag, ""), NEXT_STEPS.get(flag, "")] for stage, flag in raised(run)
    ]
    nothing = Text("None: every check that a stage makes of its own numbers passed.")
    head = ["stage", "warning", "meaning", "what to do next"]
    table = Table("Numbers of this run that may not mean what they seem to mean", head, rows, "llll")
    return Section("Warnings", [table if rows else nothing])


# Parts of the metrics in which a stage measures its own work: stage, key, what is measured.
MEASURED = (
    ("judge", "calibration", "acceptance of sound and of broken problems"),
    ("difficulty_model", "held_out", "the scorer on held-out seeds"),
    ("reward_model", "held_out", "the reward model on held-out seeds"),
    ("reward_model", "best_of_n", "the best of n answers by reward, against a random one and the majority"),
    ("preference_check", "quality", "chosen against rejected questions of the preference pairs (paper, Figure 4)"),
    ("qpo", "reloaded", "the preference before and after saving, on the model that the next stage loads"),
    ("reward_select", "programs", "responses by what their program came to (`respond.form: program`)"),
    ("reward_select", "checkable", "training answers to plain arithmetic, computed again"),
    ("reward_select", "arithmetic", "arithmetic written in the training answers, computed again"),
    ("reward_select", "agrees_with_none", "training answers that agree with no other answer to their question"),
)


def flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the numbers of nested metrics with their dotted names, rounded for a reader."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            words = f"{value:.3f}" if isinstance(value, float) else DASH if value is None else str(value)
            yield f"{prefix}{key}", words


def measured(run: Run) -> Section:
    """Show what the stages measured of their own work."""
    rows = []
    for base, key, what in MEASURED:
        for stage, metrics in run.metrics.items():
            found = metrics.get(key)
            if stage.split("@")[0] == base and isinstance(found, dict) and found:
                numbers = "; ".join(f"{name.replace('_', ' ')} {value}" for name, value in flatten(found))
                rows.append([f"`{stage}`", what, numbers])
    table = Table("What each stage measured of its own work", ["stage", "measured", "numbers"], rows, "lll")
    blocks: list[Block] = [table if rows else Text("No stage of this run has measured itself.")]
    return Section("Quality of each step", [*blocks, *by_difficulty(run.metrics.get("reward_model", {}))])


# In words, the bands of stage reward_model.
BANDS = {
    "none_right": "none",
    "few_right": "up to a third",
    "half_right": "up to two thirds",
    "most_right": "more, not all",
    "all_right": "all",
}


def by_difficulty(metrics: dict[str, Any]) -> Iterator[Table]:
    """Yield how often each rule chooses a right answer to held-out seeds, by how many of their answers are right."""
    if found := metrics.get("by_difficulty"):
        rules = {"reward": "by reward, % ± s.e.", "majority": "by majority", "random": "at random"}

        def cell(choices: dict[str, float] | None) -> str:  # there are none where no choice is better than another
            return percent(choices["right_frac"], choices["standard_error"]) if choices else DASH

        rows = [
            [words, str(found[band]["problems"]), *(cell(found[band].get(rule)) for rule in rules)]
            for band, words in BANDS.items()
            if band in found
        ]
        title = "Right choices among the answers to held-out seeds, by how many of them are right"
        yield Table(title, ["answers right", "seeds", *rules.values()], rows, "lrrrr")


def plus_minus(error: float | None, scale: float = 1.0, digits: int | None = None) -> str:
    """A standard error behind its number; empty where there is none."""
    return "" if error is None else f" ± {scale * error:.{digits or (1 if scale > 1 else 2)}f}"


def check_in_words(metrics: dict[str, Any]) -> str:
    """Say what a training run knows of itself beyond its loss."""
    held = metrics.get("held_out", {})
    if "spearman" in held:
        return (
            f"rank correlation {held['spearman']:.2f}{plus_minus(held.get('spearman_standard_error'))} on {held['problems']:,} "
            f"held-out seeds; squared error {held['mse']:.3f}, "
            f"{held['mse_of_the_mean']:.3f} for always saying the mean"
        )
    if "accuracy" in held:
        if held["accuracy"] is None:
            return "no held-out seed has a right and a wrong sample"
        return (
            f"right sample above a wrong one of the same seed in {percent(held['accuracy'])}"
            f"{plus_minus(held.get('accuracy_standard_error'), 100)} % of {held['pairs']:,} held-out pairs"
        )
    if "margin" in (saved := metrics.get("reloaded", {})):
        return (
            f"mean margin of chosen over rejected {saved['margin_trained']:.4f} before saving, {saved['margin']:.4f} as saved; "
            f"chosen preferred in {percent(saved['accuracy'])} % of {saved['pairs']:,} pairs ({saved['pairs_from']})"
        )
    if "loss" in saved:
        return (
            f"saved model: loss {saved['loss']:.3f} on {saved['rows']:,} rows, {saved['loss_base']:.3f} before training"
        )
    return ""


# Why the page has no times, and which command has them.
NO_TIMES = (
    "Tokens are those of all passes over the rows, without padding. A training of a model with N parameters takes about 6 · N "
    "operations per token. Tokens per second and the share of the card's peak are not here, because a second run must write the "
    f"same page. They are in `{COST_PAGE}`, which `make repro` or `scalequest cost --page` writes where the stages ran."
)


def amounts(metrics: dict[str, Any], epochs: int) -> list[str]:
    """Steps, tokens and tokens per step of a training run; tokens are those of all passes, where the stage counts them."""
    tokens = metrics.get("tokens", 0) * epochs
    per_step = f"{tokens / metrics['steps']:,.0f}" if tokens and metrics["steps"] else DASH
    return [f"{metrics['steps']:,}", f"{tokens:,}" if tokens else DASH, per_step]


def passes(params: Any, name: str) -> int:
    """Passes of a stage's training, ``qft@sums``, over its rows."""
    stage, _, instance = name.partition("@")
    section, generator = getattr(params, stage), params.generators.get(instance)
    return int((with_own(section, getattr(generator, stage)) if generator else section).epochs)


def training(run: Run) -> Section:
    """Show a row per training run."""
    names = [f"{stage}@{generator}" for stage in ("qft", "qpo") for generator in run.params.mix]
    students = [f"instruct_tune@{student}" for student in run.params.instruct_tune.seeds]
    rows = []
    rewarding = ["reward_model"] if run.rewarded else []
    for name in ["solver", *names, "difficulty_model", *rewarding, *students]:
        metrics = run.metrics[name]
        cells = [*[DASH] * 7, "not trained: the model is taken as it was fetched"]
        if "steps" in metrics:
            losses = [f"{metrics[key]:.3f}" for key in ("first_loss", "last_loss")]
            counts = [f"{metrics[key]:,}" for key in ("examples", "dropped_too_long")]
            worked = amounts(metrics, passes(run.params, name))
            cells = [*losses, *worked, *counts, check_in_words(metrics)]
        rows.append([f"`{name}`", *cells])
    head = ["stage", "first loss", "last loss", "steps", "tokens", "per step", "examples", "too long", "check"]
    title = "Examples of `qpo` and `reward_model` are pairs; the losses are those of the first and the last step"
    return Section("Training runs", [Table(title, head, rows, "lrrrrrrrl"), Text(NO_TIMES, link=COST_PAGE)])


def pair_quality(run: Run) -> Table | None:
    """Make a row per aim and measure: both sides of the pairs that `preference_check` measured; None without any."""
    rows = []
    for name, what, scale in (
        ("solvability", "called solvable by the judge, %", 100),
        ("difficulty", "difficulty by the scorer", 1),
    ):
        found = run.metrics.get(f"preference_check@{name}", {}).get("quality", {}).get("by_direction", {})
        for aim in sorted(found, reverse=True):
            digits = 1 if scale > 1 else 3
            sides = [
                f"{scale * found[aim][side]['mean']:.{digits}f}"
                + plus_minus(found[aim][side]["standard_error"], scale, digits)
                for side in ("rejected", "chosen")
            ]
            gain = f"{scale * found[aim]['difference']:+.{digits}f}".replace("-", "−")
            gain += plus_minus(found[aim]["difference_standard_error"], scale, digits)
            rows.append([aim, what, f"{found[aim]['pairs']:,}", *sides, gain, p_in_words(found[aim]["p_value"])])
    head = [
        "aim of the rewrite",
        "measured",
        "pairs",
        "original ± s.e.",
        "rewrite ± s.e.",
        "rewrite minus original",
        "paired test",
    ]
    title = "Original and rewrite of the same pairs, by what they were rewritten for (paper, Figure 4)"
    return Table(title, head, rows, "llrrrrl") if rows else None


def preferences(run: Run) -> Section:
    """Show how many rewrites made a pair, and why the others did not."""
    found = {generator: run.metrics[f"preferences@{generator}"] for generator in run.params.mix}
    rejected = {reason for metrics in found.values() for reason in metrics["rejected"]}
    reasons = [reason for reason in REWRITE_OUTCOMES if reason in rejected]
    aims = sorted({aim for metrics in found.values() for aim in metrics["direction"]}, reverse=True)
    rows = []
    for generator, metrics in found.items():
        counts = [metrics[key] for key in ("questions", "usable", "pairs")]
        counts += [metrics["rejected"].get(reason, 0) for reason in reasons]
        counts += [metrics["direction"].get(aim, 0) for aim in aims]
        rows.append([generator, *(f"{count:,}" for count in counts)])
    head = ["generator", "sampled", "usable", "pairs"]
    head += [*(f"`{reason}`" for reason in reasons), *(f"for {aim}" for aim in aims)]
    table = Table("Rewrites by generator, rejects by reason", head, rows, "l" + "r" * (len(head) - 1))
    meanings = Table(
        "Why a rewrite makes no pair", ["reason", "meaning"], [[f"`{r}`", REWRITE_OUTCOMES[r]] for r in reasons], "ll"
    )
    measured_pairs = pair_quality(run)
    blocks: list[Block] = [
        Text(FEEDBACK_NOTE if run.params.preferences.source == "solver" else PAIRS_NOTE),
        table,
        *([meanings] if reasons else []),
        *([measured_pairs] if measured_pairs else []),
    ]
    return Section("Preference data", blocks)
