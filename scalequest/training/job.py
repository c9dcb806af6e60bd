"""One training on TRL and PEFT: what the four kinds (``sft``, ``dpo``, ``reward``, ``regression``) share.

``train`` makes a ``Job`` of a stage's rows. The job runs in this process, or in the processes that ``accelerate launch``
starts when ``runtime.accelerate`` names a configuration (scalequest.training.launch). The stage around it, with its lock,
metrics and tracking, stays one process. Checkpoints are in the stage's journal. A killed run resumes from the last complete one.
"""

import logging
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.models.weights import check_finite, quiet_libraries
from scalequest.params import Runtime, Training
from scalequest.training.checkpoints import checkpoints_by_time, last_checkpoint
from scalequest.training.compiled import compile_layers, undo
from scalequest.training.examples import fitting
from scalequest.training.launch import here, launch, n_processes
from scalequest.training.measured import Measured, before, places, sample, trained_and_saved
from scalequest.training.order import SortedSteps, padding_frac

if TYPE_CHECKING:
    from scalequest.runtime.stage import StageRun

log = logging.getLogger("scalequest")

# Metrics of the saved model, and warnings of scalequest.outcomes.
Comparison = tuple[dict[str, Any], dict[str, bool]]

# Columns of a loss curve; a preference training adds MARGIN and ACCURACY.
STEP, LOSS, GRADIENT_NORM, LEARNING_RATE, MARGIN, ACCURACY = (
    "step", "loss", "grad_norm", "learning_rate", "margin", "accuracy"
)  # fmt: skip
CURVE = (STEP, LOSS, GRADIENT_NORM, LEARNING_RATE)

# Methods of a model that are others while it is trained: see ``spare_walks``.
SPARED = ("train", "zero_grad")

# Which rows a saved model was measured on.
HELD_OUT, TRAINING_ROWS = "held out", "training"


class Kind(Protocol):
    """What is trained: SFT, DPO, a reward model or a regression.

    Attributes:
        noun: what its rows are called in messages.
        scalar_head: whether the model ends in one number instead of a vocabulary.
        most_tests: how many rows or probes are compared at most, before the training and after it.
        most_learned: how many at most, where they are rows that were trained on.
    """

    noun: ClassVar[str]
    scalar_head: ClassVar[bool]
    most_tests: ClassVar[int]
    most_learned: ClassVar[int]

    def trainer(self, job: "Job", folder: Path) -> Any:
        """The trainer with model and data, after its first batch was compared with the rows."""

    def load(self, path: Path, dtype: Any, seed: int) -> Any:
        """The model of a folder in ``dtype``; a missing scalar head is drawn from ``seed``."""

    def facts(self, rows: Sequence[Any]) -> dict[str, int]:
        """Numbers about the rows that only this kind has, for the metrics."""

    def measure(self, model: Any, tests: Sequence[Any]) -> list[float]:
        """One number per test."""

    def compare(self, job: "Job", base: Measured, trained: list[float], saved: list[float]) -> Comparison:
        """What the saved model has of the training: metrics and warnings."""


@dataclass(frozen=True)
class Job:
    """One training, whole.

    Attributes:
        kind: which trainer, with its own settings.
        model: folder or lock of the model to start from.
        out: folder to write, adapters merged.
        rows: what is learned, all of them short enough.
        params: the stage's section.
        dtype: precision to compute in, and of the model that is written.
        seed: of initial weights, order and dropout.
        runtime: devices and threads.
        tests: what the model is measured on before and after it is saved: rows like ``rows``, or token sequences to score.
        held_out: whether the tests are no part of the training.
    """

    kind: Kind
    model: Path
    out: Path
    rows: Sequence[Any]
    params: Training
    dtype: str
    seed: int
    runtime: Runtime
    tests: Sequence[Any] = ()
    held_out: bool = False

    @property
    def tests_from(self) -> str:
        """Which rows the tests are, for the metrics."""
        return HELD_OUT if self.held_out else TRAINING_ROWS

    @property
    def weights_dtype(self) -> Any:
        """Precision that weights are held in while they are trained.

        Full fine-tuning steps the weights themselves, and a step of 1e-5 on a bfloat16 weight is rounded away: those are
        held in float32 and computed with in ``dtype``, unless the optimizer rounds its steps stochastically. LoRA steps
        adapters that PEFT holds in float32 anyway.
        """
        import torch

        full = self.params.method == "full" and not self.params.steps_are_rounded
        return torch.float32 if full else getattr(torch, self.dtype)


@dataclass(frozen=True)
class Trained:
    """What a job leaves behind besides the model.

    Attributes:
        metrics: for the stage's metrics file.
        curves: one entry per step.
        scores: scores of the probe by the saved model, in order.
        flags: warnings of scalequest.outcomes, raised or not.
    """

    metrics: dict[str, Any]
    curves: list[dict[str, float]]
    scores: list[float] = field(default_factory=list)
    flags: dict[str, bool] = field(default_factory=dict)

    def steps(self) -> list[dict[str, float]]:
        """The curves for a plot, one entry per step, under the names of CURVE (DPO: MARGIN and ACCURACY too)."""
        names = {LOSS: LOSS, GRADIENT_NORM: GRADIENT_NORM, LEARNING_RATE: LEARNING_RATE}
        names |= {"rewards/margins": MARGIN, "rewards/accuracies": ACCURACY}
        return [
            {STEP: number} | {name: entry[key] for key, name in names.items() if key in entry}
            for number, entry in enumerate(self.curves, start=1)
        ]


def train(
    run: "StageRun",
    kind: Kind,
    base: Path,
    out: Path,
    rows: Sequence[Any],
    params: Training,
    probe: Sequence[list[int]] = (),
    seed: int | None = None,
    held_out: Sequence[Any] = (),
) -> Trained:
    """Train ``base`` on ``rows`` and write it to ``out``, adapters merged, in ``engine.dtype``.

    Args:
        run: the stage's run: its seed, journal, precision and devices.
        kind: ``SFT()``, ``DPO(beta)``, ``Reward()`` or ``Regression()``.
        base: folder or lock of the model to start from.
        out: folder to write.
        rows: Examples, Pairs or ScoredTexts, whatever ``kind`` learns from; too long ones are dropped and counted.
        params: the stage's section.
        probe: sequences to score with the saved model (Reward and Regression).
        seed: of the training, where it is a parameter; None = ``run.seed()``.
        held_out: rows to measure the saved model on (SFT and DPO); a fixed sample of ``rows`` where there are none.

    Raises:
        UserError: no row is short enough, the batch cannot be shared by the processes, the trainer's batch is not what the
            stage meant, or the training diverged.
    """
    kept = fitting(rows, params.max_length, kind.noun)
    seed = run.seed() if seed is None else seed
    unseen = [row for row in held_out if len(row) <= params.max_length]
    most = kind.most_tests if unseen else min(kind.most_tests, kind.most_learned)
    tests = probe if kind.scalar_head else sample(unseen or kept, most, seed)
    job = Job(
        kind, base, out, kept, params, run.params.engine.dtype, seed, run.params.runtime, tests, bool(probe or unseen)
    )
    processes = n_processes(job.runtime)
    with tempfile.TemporaryDirectory() as temporary:
        # Checkpoints of another number of processes hold other generator states and cannot be resumed exactly.
        folder = (run.journal.folder or Path(temporary)) / f"training-{processes}"
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = last_checkpoint(folder)
        if checkpoint:
            log.info("resuming from %s", checkpoint)
        trained = launch(job, folder, checkpoint) if job.runtime.accelerate else run_job(job, folder, checkpoint)
    run.curves = trained.curves
    trained.metrics["dropped_too_long"] = len(rows) - len(job.rows)
    return trained


def run_job(job: Job, folder: Path, checkpoint: Path | None) -> Trained:
    """Train in this process, alone or as one of several; the first one writes the model and returns the metrics.

    Raises:
        UserError: the trainer's batch is not what the stage meant, or the training diverged.
    """
    import torch

    quiet_libraries()
    if job.runtime.threads:
        torch.set_num_threads(job.runtime.threads)
    if job.runtime.deterministic:
        repeat_bytes()
    trainer = ready_trainer(job, folder)
    packs, lengths = getattr(trainer, "packs", None), [len(row) for row in job.rows]
    trained = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None).metrics
    if not checkpoint:  # after a resumption the trainer divides all rows by the time since
        log.info("trained for %.0f s, %.1f rows/s", trained["train_runtime"], trained["train_samples_per_second"])
    if not trainer.is_world_process_zero():
        whole_model(trainer, job, folder)
        return Trained({}, [])
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    metrics = {
        "examples": len(job.rows),
        "steps": trainer.state.global_step,
        "first_loss": rounded(history[0]["loss"]),
        "last_loss": rounded(history[-1]["loss"]),
        "mean_loss": rounded(sum(entry["loss"] for entry in history) / len(history)),
        "largest_grad_norm": rounded(max(entry.get("grad_norm", 0.0) for entry in history)),
        "tokens": sum(lengths),
        "padding_frac": rounded(
            packs.padding_frac(trainer.data_collator.multiple)
            if packs
            else padding_frac(lengths, job.params.batch_size, job.params.per_device_batch_size, job.seed)
        ),
        "processes": trainer.args.world_size,
    } | job.kind.facts(job.rows)
    if job.runtime.deterministic:
        metrics["deterministic"] = True
    model, tokenizer = whole_model(trainer, job, folder), trainer.processing_class
    del trainer  # its optimizer holds twice the weights
    check_finite(model)
    # All of what ``train`` drew; of the probes of a scalar head, which are all scored as saved, a sample.
    compared = places(len(job.tests), job.kind.most_tests, job.seed)
    trained_values, saved_values = trained_and_saved(job, model, tokenizer, compared)
    del model
    base = before(job, [job.tests[place] for place in compared])
    reloaded, flags = job.kind.compare(job, base, trained_values, [saved_values[place] for place in compared])
    if reloaded:
        metrics["reloaded"] = reloaded
    return Trained(metrics, history, saved_values if job.kind.scalar_head else [], flags)


def ready_trainer(job: Job, folder: Path) -> Any:
    """The job's trainer with its order of rows or packs, its compiled layers and its checkpoints in ``folder``."""
    from transformers import PrinterCallback

    leave_out_cudnn_attention()
    trainer = job.kind.trainer(job, folder)
    order = getattr(trainer, "packs", None) or SortedSteps(
        [len(row) for row in job.rows], job.params.batch_size, job.seed
    )
    trainer._get_train_sampler = lambda dataset=None: order  # the method that trainers override to choose an order
    if compiles(job.runtime):
        log.info("%d blocks are compiled", compile_layers(trainer.model))
    spare_walks(trainer)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(checkpoints_by_time(folder, job.runtime.checkpoint_minutes, trainer.steps_per_reading))
    return trainer


def spare_walks(trainer: Any) -> None:
    """Leave out three walks over all modules that transformers' trainer makes in each step.

    A GPU that trains a small model waits for Python. For each pass the trainer sets the training mode that the model is in
    already, and counts the parameters, for a number of operations that nothing here reads. To clear the gradients it looks for
    the parameters, of which the optimizer has a list. ``whole_model`` undoes it.
    """
    model = trainer.model
    walk, walked = model.train, False

    def train(mode: bool = True) -> Any:
        nonlocal walked
        if walked and model.training == mode:
            return model
        walked = True  # before, PEFT's new module is in training mode and the model in it is not
        return walk(mode)

    model.train = train
    trainer.floating_point_ops = lambda inputs: 0
    if here() == 1:  # otherwise the optimizer may have other tensors than the model
        model.zero_grad = lambda set_to_none=True: trainer.optimizer.zero_grad(set_to_none)


# ------------------------------------------------------------------------------------------------------------ settings


def global_micro_batch(params: Training, processes: int) -> int:
    """How many sequences all processes together take in one forward pass.

    Raises:
        UserError: the batch is no multiple of that.
    """
    at_once = params.per_device_batch_size * processes
    if params.batch_size % at_once:
        raise UserError(
            f"batch_size {params.batch_size} cannot be shared by {processes} processes that take per_device_batch_size "
            f"{params.per_device_batch_size} sequences at once; make it a multiple of {at_once}"
        )
    return at_once


def repeat_bytes() -> None:
    """Let this process use only kernels that repeat their bytes; an operation without one is an error.

    Not torch's mode that only warns: in it, attention's backward pass takes the other kernels all the same.
    """
    import torch

    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True)
    # A guard against faulty kernels, and slow. A property that torch's types do not have.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def compiles(runtime: Runtime) -> bool:
    """Whether layers are compiled: on a GPU only, so that the bytes of a CPU do not depend on it."""
    import torch

    return runtime.compile_training and torch.cuda.is_available()


def leave_out_cudnn_attention() -> None:
    """Keep scaled dot-product attention from using cuDNN's kernels in this process.

    Their backward pass gives NaN for some padded rows, at finite loss: full fine-tuning of Qwen2.5-Coder-1.5B on MATH's
    questions broke at step 10 on an H100 (torch 2.11, cuDNN 9.19). The same rows without padding, and the same batch under
    torch's other backends, are finite, and these trained all 313 steps (benchmarks/divergence.py). On a Hopper card torch
    prefers cuDNN where a batch has a padding mask.
    """
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)


def arguments(job: Job, folder: Path, packs: int | None = None) -> dict[str, Any]:
    """Trainer settings; every default of TRL that depends on the machine is set here.

    Args:
        job: whose they are.
        folder: for checkpoints.
        packs: of each process per step, where rows are packed.
    """
    import torch

    params = job.params
    cuda = torch.cuda.is_available()
    if cuda and job.runtime.gpu_part < 1:  # else what is kept for later allocations grows into the neighbours' part
        torch.cuda.set_per_process_memory_fraction(job.runtime.gpu_part)
    processes = here()
    if torch.cuda.device_count() > 1 and processes == 1:
        raise UserError(
            f"training sees {torch.cuda.device_count()} GPUs in one process, where trainers split a batch in ways that change the "
            "result; choose one (CUDA_VISIBLE_DEVICES=0), or name an accelerate configuration in runtime.accelerate"
        )
    passes = packs or params.batch_size // global_micro_batch(params, processes)
    steps = math.ceil(len(job.rows) / params.batch_size) * params.epochs
    return {
        "output_dir": str(folder),
        "num_train_epochs": params.epochs,
        "learning_rate": params.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": math.ceil(steps * params.warmup_frac),
        "weight_decay": params.weight_decay,
        "per_device_train_batch_size": 1 if packs else params.per_device_batch_size,
        "gradient_accumulation_steps": passes,
        "use_cpu": not cuda,
        "bf16": job.dtype == "bfloat16",
        "gradient_checkpointing": cuda and job.runtime.gradient_checkpointing,
        "seed": job.seed,
        "data_seed": job.seed,
        "max_grad_norm": 1.0,
        "logging_strategy": "no",  # scalequest.training.divergence logs each step
        "logging_nan_inf_filter": False,  # it hides a divergence, and reads the loss of each pass
        "save_strategy": "no",  # by time: scalequest.training.checkpoints
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
        "accelerator_config": {"non_blocking": cuda},  # from pinned memory: the host does not wait for a batch's copy
    }


def lora(params: Training, scalar_head: bool = False) -> Any:
    """LoRA on every linear layer, plus the whole scalar head where there is one; None for full fine-tuning."""
    if params.method != "lora":
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=params.lora_r,
        lora_alpha=params.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="SEQ_CLS" if scalar_head else "CAUSAL_LM",
        modules_to_save=["score"] if scalar_head else None,
    )


# -------------------------------------------------------------------------------------------------------------- ending


def whole_model(trainer: Any, job: Job, folder: Path) -> Any:
    """The trained model in float32, adapters merged; gathered first where each process holds a part of the weights only."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    for name in SPARED:
        model.__dict__.pop(name, None)
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        trainer.save_model(str(folder / "gathered"))
        if not trainer.is_world_process_zero():
            return None
        from peft import PeftModel

        if job.params.method == "lora":
            model = PeftModel.from_pretrained(
                job.kind.load(job.model, job.weights_dtype, job.seed), folder / "gathered"
            )
        else:
            model = type(model).from_pretrained(folder / "gathered", dtype=job.weights_dtype, trust_remote_code=False)
    elif getattr(trainer, "packs", None) or compiles(job.runtime):
        undo(model)
    if restore := getattr(trainer, "restore", None):
        restore(model)
    # Merged in float32: in bfloat16 the sum of weight and adapter would be rounded to nearest, so mostly to the weight.
    model = model.float()
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
