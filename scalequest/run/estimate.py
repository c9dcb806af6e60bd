"""Estimate tokens, GPU hours, disk and cost of a run before it is made.

    scalequest estimate [--profile paper-math] [--gpu h100] [--quantization fp8] [--usd-per-hour 3] [--from-run METRICS]

Rows go through the stages with the shares that stay in the paper, or in the metrics of a finished run. Tokens follow from
the rows, and hours from measured rates (scalequest/run/gpus.yaml names the source of each). With the paper's number of
pairs, the paper's Table 4 is printed beside the estimate. docs/estimate.md says how far to trust it.
"""

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalequest.domains import GIVEN
from scalequest.errors import UserError
from scalequest.params import FileSource, HubSource, InstructTune, Own, Params, read_yaml, with_own
from scalequest.run.evaluation_work import COMPARED, Measured, evaluation, item_counts
from scalequest.run.gpus import TABLE
from scalequest.run.profile import load_profile
from scalequest.run.rates import hours, rows_in_8_bits
from scalequest.run.work import BYTES_PER_TOKEN, Assumptions, FinishedRun, Work, asked, model_billions

# GSM8K's and MATH's training sets, where the parameters do not give the number of a file's rows and it is not counted.
SEEDS = 14_969


def workload(
    params: Params,
    assumed: Assumptions,
    sizes: dict[str, float],
    with_solutions: int,
    own: "OwnRows",
    pairs_in_file: int | None = None,
) -> list[Work]:
    """Return the work of each stage, in the pipeline's order. It computes, and reads no file.

    Args:
        params: the run.
        assumed: tokens and shares.
        sizes: parameters of models whose names do not say.
        with_solutions: how many seed problems there are.
        own: how many rows of a user's there are.
        pairs_in_file: how many pairs the file of ``instruct_tune.data`` has (``pairs_of``); None where it names none.

    Raises:
        UserError: the name of a model does not say its size.
    """
    token, keep = assumed.tokens, assumed.keeps
    rewarded = params.reward_select.waits_for == "rewards"
    models = {role: source for role, source in params.models.items() if rewarded or role != "reward"}
    size = {role: model_billions(source, sizes) for role, source in models.items()}
    n_mix, template, question = len(params.mix), token["template"], token["question"]
    # A solver that was trained on the seeds' solutions answers at their length.
    response = min(token["response" if params.solver.method == "none" else "solution"], params.respond.max_tokens)
    answered = question + template + response
    result: list[Work] = []

    def add(
        stage: str,
        rows: float,
        billions: float | None,
        api_usd: float = 0.0,
        length: str | None = None,
        packed: bool = False,
        **amounts: float,
    ) -> None:
        counts = {name: round(value) for name, value in amounts.items()}
        fp8 = params.engine.quantization == "fp8" and "generated" in counts
        result.append(
            Work(stage, round(rows), billions, api_usd=api_usd, length=length, fp8=fp8, packed=packed, **counts)
        )

    def ask(
        role: str, stage: str, rows: float, read: float, generated: float, length: str | None = None, **more: Any
    ) -> None:
        fp8 = params.engine.quantization == "fp8"
        result.append(asked(params, sizes, role, stage, rows, read, generated, length=length, fp8=fp8, **more))

    def weights(billions: float | None) -> float:
        return (billions or 0) * 2e9  # bfloat16

    locals_ = {source: size[role] for role, source in models.items() if not source.startswith("api:")}
    add("fetch_model", len(models), None, written=sum(map(weights, locals_.values())))
    if params.solver.method != "none":
        samples = with_solutions * params.solver.epochs
        add("solver", with_solutions, size["solver"], trainings=1, samples=samples, written=weights(size["solver"]),
            packed=params.solver.packing, trained=samples * (question + template + token["solution"]))  # fmt: skip
    pairs = {g: own.preferences.get(g, params.qpo_questions.n_questions * keep["pairs"]) for g in params.mix}
    if params.mix:
        # The generators share the work, so one mean model is used for all.
        generator = sum(size[name] or 0.0 for name in params.mix) / n_mix
        mixed = [params.generators[g] for g in params.mix]
        seeds = sum(sum(each.seed_mix.values()) for each in mixed)
        tuned = sum(sum(each.seed_mix.values()) * with_own(params.qft, each.qft).epochs for each in mixed)
        add("qft", seeds, generator, trainings=n_mix, samples=tuned, written=n_mix * weights(generator),
            packed=all(with_own(params.qft, each.qft).packing for each in mixed), trained=tuned * (question + template))  # fmt: skip
        sampled = params.qpo_questions.n_questions * n_mix
        add("qpo_questions", sampled, generator, generated=sampled * question, length="question", engines=n_mix,
            written=sampled * question * BYTES_PER_TOKEN)  # fmt: skip
        # Given pairs take the place of a generator's rewrites.
        n_rewritten = n_mix - len(own.preferences)
        paired = params.qpo_questions.n_questions * n_rewritten
        if not n_rewritten:
            add("preferences", 0, None)
        elif params.preferences.source == "solver":
            n = params.preferences.solver.n_samples
            solved = paired * n * min(token["response"], params.preferences.max_tokens)
            # An engine reads a question once for all its samples; an endpoint is paid for each.
            times = n if size["solver"] is None else 1
            ask("solver", "preferences", paired, paired * times * (question + template), solved, "response",
                engines=n_rewritten)  # fmt: skip
        else:
            around = token["judge_examples"] if size["optimizer"] is None else template
            length = "question" if params.preferences.style == "few_shot" else "response"
            rewrite = paired * token[f"rewrite_{params.preferences.style}"]
            ask("optimizer", "preferences", paired, paired * (question + around), rewrite, length, engines=n_rewritten)
        passes = sum(n * with_own(params.qpo, params.generators[g].qpo).epochs for g, n in pairs.items())
        # Two sequences per pair; the reference model reads both once (a third of a training pass).
        add("qpo", sum(pairs.values()), generator, trainings=n_mix, samples=2 * passes,
            trained=2 * passes * (question + template) * 4 / 3, written=n_mix * weights(generator))  # fmt: skip
        written = sum(each.n_questions for each in mixed)
        add("generate", written, generator, generated=written * question, length="question", engines=n_mix,
            written=written * question * BYTES_PER_TOKEN)  # fmt: skip
    generated = sum(params.generators[g].n_questions for g in params.mix) + sum(own.questions.values())
    add("screen", generated, None)
    screened = generated * keep["screen"]
    shown = token["judge_examples"] if params.judge.style == "few_shot" else template
    # Both sides of some pairs, by the judge and by the difficulty scorer. The scorer's tokens are counted as if its model
    # had the judge's size, because a row of the table has one.
    checked = 2 * sum(min(params.preference_check.n_pairs, n) for n in pairs.values())
    both = checked * (question + shown), checked * token[f"verdict_{params.judge.style}"]
    if not params.mix:
        add("preference_check", 0, None)
    elif size["judge"] is None:
        ask("judge", "preference_check", checked / 2, *both)
        scored = checked * (question + template)
        add("preference_check", checked / 2, size["difficulty"], read=scored, engines=1, sequences=checked)
    else:
        scorer = (size["difficulty"] or 0.0) / size["judge"]
        add("preference_check", checked / 2, size["judge"], generated=both[1], engines=2,
            read=both[0] + checked * (question + template) * scorer, sequences=2 * checked)  # fmt: skip
    # A verdict of two tokens is hardly more than reading.
    judged = "judgement" if params.judge.style == "reasoned" else None
    ask("judge", "judge", screened, screened * (question + shown), screened * token[f"verdict_{params.judge.style}"], judged,
        sequences=screened, engines=1)  # fmt: skip
    labelled = min(params.difficulty_labels.n_seeds, with_solutions)
    tries = labelled * params.difficulty_labels.n_samples
    ask("solver", "difficulty_labels", labelled, tries * (question + template), tries * response, "response", engines=1)
    passes = labelled * params.difficulty_model.epochs
    add(
        "difficulty_model",
        labelled,
        size["difficulty"],
        trainings=1,
        samples=passes,
        trained=passes * (question + template),
        written=weights(size["difficulty"]),
    )
    add(
        "difficulty", screened, size["difficulty"], read=screened * (question + template), sequences=screened, engines=1
    )
    kept = kept_questions(
        params, keep["screen"] * (keep["judge"] if params.filter.require_solvable else 1), own.questions
    )
    if own.filtered is not None:
        kept = own.filtered
    answers = kept * params.respond.n_samples
    prompts = kept if size["solver"] is not None else answers
    ask("solver", "respond", kept, prompts * (question + template), answers * response, "response", engines=1,
        written=answers * response * BYTES_PER_TOKEN)  # fmt: skip
    if rewarded and params.reward_model.method != "none":
        compared = 2 * labelled * params.reward_model.pairs_per_question * params.reward_model.epochs
        add(
            "reward_model",
            labelled,
            size["reward"],
            trainings=1,
            samples=compared,
            trained=compared * answered,
            written=weights(size["reward"]),
        )
    if rewarded:
        add("reward", answers, size["reward"], read=answers * answered, sequences=answers, engines=1)
    examples, students, pair = kept * keep["reward_select"], len(params.instruct_tune.seeds), answered
    if params.instruct_tune.data == "seeds":
        examples, pair = with_solutions, question + template + token["solution"]
    elif pairs_in_file is not None:  # as long as the pipeline's: a file is counted, not read
        examples = pairs_in_file
    if params.instruct_tune.n_examples is not None:
        examples = min(examples, params.instruct_tune.n_examples)
    taught = students * examples * params.instruct_tune.epochs
    add(
        "instruct_tune",
        examples,
        size["student"],
        trainings=students,
        samples=taught,
        packed=params.instruct_tune.packing,
        trained=taught * pair,
        written=students * weights(size["student"]),
    )
    return result


def seed_problems(params: Params, unknown: int = SEEDS) -> int:
    """Number of seed problems; ``unknown`` if a source does not give it."""
    counts = [source.n for source in params.seeds.values()]
    return unknown if None in counts else sum(n for n in counts if n is not None)


def pairs_of(tune: InstructTune, unknown: int | None = None) -> int | None:
    """Number of pairs of the file that students are trained on; None where it is no file, but the pipeline's or the seeds.

    Args:
        tune: the section.
        unknown: the number of a file that cannot be counted here; None makes that an error.

    Raises:
        UserError: ``unknown`` is None, and the file is not here, is not the pinned one, or has a row of an unknown form.
    """
    if tune.data in ("instruct", "seeds"):
        return None
    if tune.n_examples is not None:  # a file with fewer is refused
        return tune.n_examples
    from scalequest.problems.pinned import pinned_pairs
    from scalequest.training.external import rows_of

    try:
        return sum(1 for _ in rows_of(pinned_pairs(tune.data, tune.data_sha256)))
    except UserError:
        if unknown is None:
            raise
        return unknown


@dataclass(frozen=True)
class OwnRows:
    """Numbers of a user's own rows.

    Attributes:
        questions: by name, those that enter at ``screen``.
        filtered: those that ``respond`` answers in place of the filtered ones; None where it answers these.
        preferences: pairs by generator, in place of its rewrites.
        assumed: keys of the files whose number is not known here, and was assumed.
    """

    questions: Mapping[str, int] = field(default_factory=dict)
    filtered: int | None = None
    preferences: Mapping[str, int] = field(default_factory=dict)
    assumed: tuple[str, ...] = ()

    @classmethod
    def of(cls, own: Own, answered: str, unknown: int | None = None) -> "OwnRows":
        """Count the rows. A file is read where ``n`` does not give the number.

        Args:
            own: the files.
            answered: what ``respond.questions`` names.
            unknown: the number of a file that cannot be counted here; None makes that an error.

        Raises:
            UserError: ``unknown`` is None, and a file is not here, is damaged, or is one of the hub without ``n``.
        """
        assumed: list[str] = []

        def rows(key: str, source: FileSource) -> int:
            try:
                return rows_of(key, source)
            except UserError:
                if unknown is None:
                    raise
                assumed.append(key)
                return unknown

        name = answered.removeprefix("own/")
        used = own.filtered.get(name) if answered.startswith("own/") else None
        questions = {name: rows(f"own.questions.{name}", source) for name, source in own.questions.items()}
        preferences = {name: rows(f"own.preferences.{name}", source) for name, source in own.preferences.items()}
        filtered = rows(f"own.filtered.{name}", used) if used else None
        return cls(questions, filtered, preferences, tuple(assumed))


def rows_of(key: str, source: FileSource) -> int:
    """Number of rows that a source gives: ``n``, or all of its file that have the columns of ``where``.

    Raises:
        UserError: a local file is not here or is damaged, or it is on the hub, from which an estimate fetches nothing.
    """
    if source.n is not None:
        return source.n
    from scalequest.problems.own import own_rows

    if isinstance(source, HubSource):
        raise UserError(
            f"estimate: {key}.n: null, and the file is on the hub. Expected a number of rows. Set n, or use a local file."
        )
    return len(own_rows(key, source))


def kept_questions(params: Params, keep_frac: float, own: Mapping[str, int]) -> int:
    """Number of questions that pass the filter: the most that keeps the shares, up to ``filter.n_questions``.

    Args:
        params: the run.
        keep_frac: share of the questions that pass the stages before.
        own: number of a user's own questions by name.
    """
    counts = {name: params.generators[name].n_questions for name in params.mix} | dict(own)
    total = sum(params.filter.shares[name] for name in counts)
    most = float(params.filter.n_questions)
    for name, n in counts.items():
        left = n * keep_frac * (1 - params.filter.drop_easiest_frac[name])
        most = min(most, left / (params.filter.shares[name] / total))
    return int(most)


def of_run(run: FinishedRun, assumed: Assumptions, mix: list[str]) -> Assumptions:
    """Tokens and shares of a finished run, from its metrics.

    A run whose ``generate.from`` is not ``qpo`` may have no preference pairs: their share is then the
    assumed one, and a note says so.

    Args:
        run: the run.
        assumed: what the run does not say.
        mix: the run's generators.

    Raises:
        UserError: the metrics of a stage, or one of its numbers, are missing.
    """

    def metrics(name: str, *keys: str) -> dict[str, Any]:
        found = run.metrics(name)
        if found is None:
            raise UserError(
                f"estimate: {run.path}: no metrics of the stage `{name}`. Expected those of a finished run with the generators {', '.join(mix) or 'none'}. Leave --from-run out"
            )
        if absent := [key for key in keys if key not in found]:
            raise UserError(
                f"estimate: {run.path}: the metrics of the stage `{name}` have no {', '.join(absent)}. Expected those of a finished run "
                f"of this version. Run the stage again: dvc repro {name.split('/')[0]}; or leave --from-run out"
            )
        return found

    selected, labels = metrics("reward_select", "questions"), metrics("judge", "solvable_frac")
    rows = selected["rows"] if "rows" in selected else metrics("reward_select", "kept")["kept"]
    keeps = {
        "screen": metrics("screen", "kept_frac")["kept_frac"],
        "judge": labels["solvable_frac"],
        "reward_select": rows / selected["questions"],
    }  # fmt: skip
    answer = metrics("respond", "mean_tokens")["mean_tokens"]
    tokens = {"response": answer, "solution": answer}
    if lengths := [metrics(f"generate/{g}", "mean_tokens")["mean_tokens"] for g in mix]:
        tokens["question"] = float(sum(lengths) / len(lengths))
    if run.asked_by(mix) == "qpo":
        made = [metrics(f"preferences/{g}", "pairs", "questions") for g in mix]
    else:
        made = [found for g in mix if (found := run.metrics(f"preferences/{g}"))]
    notes = assumed.notes
    if rewritten := [found for found in made if GIVEN not in found.get("direction", {})]:
        keeps["pairs"] = sum(found["pairs"] for found in rewritten) / sum(found["questions"] for found in rewritten)
    elif mix and not made:
        notes += (
            f"Share of questions that make a preference pair: {assumed.keeps['pairs']:g}, from {assumed.origin}, because "
            f"{run.path} is of a run without QPO.",
        )
    return Assumptions(assumed.tokens | tokens, assumed.keeps | keeps, str(run.path), notes)


def render(
    found: list[Work],
    gpu: dict[str, Any],
    table: dict[str, Any],
    usd_per_hour: float | None,
    origin: str,
    graded: list[Work],
    notes: list[str],
) -> str:
    """The estimate as plain text, one line per stage; below the total the evaluation (``graded``), and the total with it."""

    def line(name: str, rows: str, works: list[Work]) -> str:
        spent = sum(hours(work, gpu, table) for work in works)
        api = sum(work.api_usd for work in works)
        own = any(work.billions is not None or not work.api_usd for work in works)
        # Hours without a price leave the sum open.
        usd = f"{api + spent * (usd_per_hour or 0):,.2f}{'+' if usd_per_hour is None and own else ''}"
        generated, read, trained = (
            sum(getattr(w, key) for w in works) / 1e6 for key in ("generated", "read", "trained")
        )
        return (
            f"{name:<18}{rows:>11}{generated:>13,.1f}{read:>9,.1f}{trained:>11,.1f}{spent:>11,.2f}"
            f"{'-' if usd_per_hour is None and not api else usd:>10}{sum(w.written for w in works) / 1e9:>8,.1f}"
        )

    lines = [
        f"One {gpu['name']}; rows and tokens from {origin}. More GPUs shorten sampling and scoring, but the sum of hours stays.",
        "",
        f"{'stage':<18}{'rows':>11}{'M generated':>13}{'M read':>9}{'M trained':>11}{'GPU-hours':>11}{'USD':>10}{'GB':>8}",
        *(line(work.stage, f"{work.rows:,}", [work]) for work in found),
        line("total", "", found),
        *(line(work.stage, f"{work.rows:,}", [work]) for work in graded),
        line("with evaluation", "", found + graded),
        *([""] if notes else []),
        *notes,
    ]
    if sizes := {work.billions for work in found if work.fp8 and work.billions and not rows_in_8_bits(gpu, work)}:
        models = ", ".join(f"{size:g}B" for size in sorted(sizes))
        lines += [
            "",
            f"engine.quantization: fp8 was not measured on this GPU for {models}; those rates are of bfloat16.",
        ]
    lines += [
        "",
        "GB: bfloat16 weights and uncompressed text. Not included: CPU stages, checking answers, checkpoints. Trainings are",
        "counted at the speed of packed rows, compiled layers and no recomputed activations; without these they are slower.",
    ]
    return "\n".join(lines)


def compare_with_table_4(found: list[Work], gpu: dict[str, Any], table: dict[str, Any]) -> str:
    """The estimate beside the A100 hours of the paper's Table 4, for the stages that the table has."""
    spent = {work.stage: hours(work, gpu, table) for work in found}
    spent["judge and difficulty"] = spent["judge"] + spent["difficulty"]
    lines = [
        "",
        f"Hours of one {gpu['name']} beside the paper's of one A100 40 GB",
        f"{'':<22}{'estimate':>10}{'Table 4':>10}{'ratio':>8}",
    ]
    total = 0.0
    for stage, paper in table["table_4"].items():
        took = spent.get(stage, 0.0)  # a stage that the run does not have
        total += took
        lines.append(f"{stage:<22}{took:>10.1f}{paper:>10.1f}{took / paper:>8.2f}")
    paper = sum(table["table_4"].values())
    lines.append(f"{'total':<22}{total:>10.1f}{paper:>10.1f}{total / paper:>8.2f}")
    if "from_paper" in gpu:
        lines.append(gpu["from_paper"])
    return "\n".join(lines)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest estimate``."""
    parser.add_argument("--profile", default="params.yaml", help="a profile or a parameter file (default: params.yaml)")
    parser.add_argument("--gpu", choices=sorted(read_yaml(TABLE)["gpus"]), default="h100")
    parser.add_argument(
        "--quantization", choices=("fp8",), help="sample in 8 bits (default: the profile's engine.quantization)"
    )
    parser.add_argument("--usd-per-hour", type=float, help="price per GPU hour (default: the table's, if it has one)")
    parser.add_argument(
        "--from-run", type=Path, metavar="METRICS", help="take tokens and shares from a finished run's metrics"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=SEEDS,
        help="number of seed problems, where the parameters do not give it (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Print the estimate of one parameter file."""
    table = read_yaml(TABLE)
    if args.usd_per_hour is not None and not 0 <= args.usd_per_hour < math.inf:
        raise UserError(f"--usd-per-hour {args.usd_per_hour}: expected a price of 0 or more. Correct it.")
    if args.seeds < 1:
        raise UserError(f"--seeds {args.seeds}: expected 1 or more. Correct it.")
    params = load_profile(args.profile)
    if args.quantization:
        engine = params.engine.model_copy(update={"quantization": args.quantization})
        params = params.model_copy(update={"engine": engine})
    assumed = Assumptions(table["tokens"], table["keeps"])
    measured, finished = Measured(), None
    if args.from_run:
        finished = FinishedRun.at(args.from_run)
        assumed, measured = of_run(finished, assumed, params.mix), Measured.of(finished)
    own = OwnRows.of(params.own, params.respond.questions)
    pairs = pairs_of(params.instruct_tune)
    found = workload(params, assumed, table["sizes"], seed_problems(params, args.seeds), own, pairs)
    items, notes = item_counts(params, measured.items, table["benchmark_items"])
    graded = evaluation(params, assumed, table["sizes"], items, measured.cut)
    unknown = [model for model in (*COMPARED, *params.instruct_tune.seeds) if model not in measured.cut]
    if finished and unknown:
        notes.append(
            f"Share of answers that are cut at evaluate.max_tokens: {finished.path} does not know it of {', '.join(unknown)}. "
            "Counted as 0."
        )
    gpu = table["gpus"][args.gpu]
    price = gpu["usd_per_hour"] if args.usd_per_hour is None else args.usd_per_hour
    print(render(found, gpu, table, price, assumed.origin, graded, [*assumed.notes, *notes]))
    if params.filter.n_questions == table["table_4_pairs"]:
        print(compare_with_table_4(found, gpu, table))
    return 0
