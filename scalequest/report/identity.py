"""What the report is about: the models by role, and the paper's numbers that ours can be read beside."""

from collections.abc import Mapping, Sequence
from typing import Any

from scalequest.publish.cards import LICENCES, ROLES, UNKNOWN
from scalequest.publish.public import public_source
from scalequest.report.blocks import Block, Section, Table, Text, code
from scalequest.report.results import DASH, percent
from scalequest.report.run import Run

# The paper's models, by role.
PAPER_MODELS = {
    "optimizer": "GPT-4o-mini",
    "judge": "Qwen2-Math-7B-Instruct",
    "solver": "Qwen2-Math-7B-Instruct",
    "difficulty": "DeepSeekMath-7B-Base",
    "reward": "InternLM2-7B-Reward",
    "student": "Mistral-7B, Llama3-8B, DeepSeekMath-7B, Qwen2-Math-7B (base models)",
}
PAPER_GENERATORS = "Qwen2-Math-7B-Instruct, DeepSeekMath-7B-RL"
# Table 1 of the paper: zero-shot, greedy, students of each base model. Benchmarks as `eval/benchmarks.yaml` names them.
PAPER_STUDENTS = ("Mistral-7B", "Llama3-8B", "DeepSeekMath-7B", "Qwen2-Math-7B")
PAPER_SCORES = {
    "gsm8k": (88.5, 87.9, 89.5, 89.7),
    "math": (62.9, 64.4, 66.6, 73.4),
    "college_math": (43.5, 42.8, 47.7, 50.0),
    "olympiadbench": (26.8, 25.3, 29.9, 38.5),
}
# What `scalequest cost --page` writes beside the report, whose own bytes can hold no times.
COST_PAGE = "cost.html"
# Table 4 of the paper: step, samples, A100 GPU-hours.
PAPER_COST = {
    "qft": ("15K × 2", "3.9"),
    "qpo_questions": ("10K × 2", "0.4"),
    "preferences": ("10K × 2", "an API, $6.2"),
    "qpo": ("10K × 2", "6.6"),
    "generate": ("2M", "38.4"),
    "judge": ("2M, with the difficulty scorer", "110.6"),
    "respond": ("1M × 5", "251.0"),
    "reward": ("1M × 5", "112.0"),
}


def licence_of(source: str) -> str:
    """The licence of a model source, where this repository knows it."""
    return LICENCES.get(source.split("==")[0], UNKNOWN)


def models_table(models: Mapping[str, str], mix: Sequence[str]) -> Table:
    """A row per role.

    Args:
        models: role to source.
        mix: names of the generators, whose rows come first.
    """
    rows = []
    for role in sorted(models, key=lambda role: (role not in mix, [*ROLES, role].index(role))):
        source = models[role]
        use = ROLES.get(role, "is tuned to generate questions")
        rows.append(
            [
                f"`{role}`",
                code(public_source(source).partition("#sha256=")[0]),
                licence_of(source),
                use,
                PAPER_MODELS.get(role, PAPER_GENERATORS),
            ]
        )
    return Table("Models by role", ["role", "model", "licence", "what it does", "in the paper"], rows, "lllll")


def identity(run: Run) -> Section:
    """Say which models, seeds and domain this run is about."""
    seeds = ", ".join(f"`{name}`" for name in run.params.seeds)
    used = (ROLES.keys() if run.rewarded else ROLES.keys() - {"reward"}) | set(run.params.mix)
    roles = {role: source for role, source in run.params.models.items() if role in used}
    models = set(roles.values())
    blocks: list[Block] = [
        Text(
            f"A run of the ScaleQuest method in the domain `{run.params.domain}`, with the generators "
            f"{', '.join(f'`{name}`' for name in run.params.mix)}, taught by the seeds {seeds}. Seed of the run: {run.params.seed}."
        ),
        models_table(roles, run.params.mix),
        Text(f"Cost: `{COST_PAGE}`, a page that `scalequest cost --page` writes beside this one.", link=COST_PAGE),
    ]
    if len(models) == 1:
        blocks.append(Text("One and the same model plays every role, so no role can know more than another."))
    if any(licence_of(source) == UNKNOWN for source in models):
        blocks.append(
            Text(f"A licence that is {UNKNOWN} is on the model's own page: read it before you use what came of it.")
        )
    return Section("What this is", blocks)


def paper_scores(run: Run) -> list[Block]:
    """The paper's scores on the tasks of this run that it has, too."""
    rows = []
    for task in run.tasks:
        if task in PAPER_SCORES and (found := run.scores.get("student", {}).get(task)):
            ours = percent(found["flexible"], found["flexible_stderr"])
            rows.append([f"`{task}`", ours, *(f"{score:.1f}" for score in PAPER_SCORES[task])])
    if not rows:
        return [
            Text(
                "None of this run's tasks is among the paper's four benchmarks, so its scores are not shown beside ours."
            )
        ]
    head = ["task", "our student, %", *(f"paper, {name}" for name in PAPER_STUDENTS)]
    note = (
        "Not comparable as a test of the method unless the base model, the number of training rows and the answer checker are the "
        "paper's. The paper states no errors."
    )
    return [Table("The paper's students (Table 1), for orientation", head, rows, "l" + "r" * 5), Text(note)]


def epochs_of(name: str, params: Mapping[str, Any]) -> int:
    """Passes of a stage's training over its rows, by a generator's own value where it has one; 1 for other stages.

    Args:
        name: of the stage with its instance, ``qft@sums`` or ``qft/sums``.
        params: by dotted names.
    """
    stage, _, instance = name.replace("@", "/").partition("/")
    common = params.get(f"{stage}.epochs", 1)
    return int(params.get(f"generators.{instance}.{stage}.epochs", common))


def samples_and_tokens(found: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Samples of a stage, and its tokens where the stage counts them; else 0.

    Args:
        found: metrics of its instances.
    """
    keys = ("responses", "examples", "questions")
    samples = sum(next((m[key] for key in keys if isinstance(m.get(key), int)), 0) for m in found)
    tokens = sum(m.get("tokens", 0) for m in found)
    if not tokens and all("mean_tokens" in m for m in found):
        tokens = round(sum(m["mean_tokens"] * next((m[key] for key in keys if key in m), 0) for m in found))
    return samples, tokens


def _work(run: Run, stage: str) -> tuple[str, str]:
    samples, tokens = samples_and_tokens([m for name, m in run.metrics.items() if name.split("@")[0] == stage])
    return f"{samples:,}", f"{tokens:,}" if tokens else DASH


def work(run: Run) -> Section:
    """Show how much work each step was, beside the paper's."""
    rows = [[f"`{stage}`", *_work(run, stage), *cost] for stage, cost in PAPER_COST.items()]
    rows.append(["`instruct_tune`", *_work(run, "instruct_tune"), "1M", "not stated"])
    head = ["stage", "samples", "tokens", "paper's samples", "paper's GPU-hours (A100)"]
    note = (
        "Tokens are those of training, or those that were written, where the stage counts them. Seconds are no part of the report, "
        "because an equal result must have equal bytes. Time, tokens per second and GPU hours of each stage are in "
        f"`{COST_PAGE}`, which `make repro` or `scalequest cost --page` writes where the stages ran."
    )
    return Section(
        "Work of each step",
        [
            Table("Samples of each step beside the paper's cost (Table 4)", head, rows, "lrrrr"),
            Text(note, link=COST_PAGE),
        ],
    )
