"""One training on TRL and PEFT: what the four kinds (``sft``, ``dpo``, ``reward``, ``regression``) share.

``train`` makes a ``Job`` of a stage's rows. The job runs in this process, or in the processes that ``accelerate launch``
starts when ``runtime.accelerate`` names a configuration (scalequest.training.launch). The stage around it, with its lock,
metrics and tracking, stays one process. Checkpoints are in the stage's journal. A killed run resumes from the last complete one.
"""

import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.models.folder import local_path
from scalequest.models.weights import quiet_libraries, save_model
from scalequest.params import Runtime, Training
from scalequest.training.examples import fitting
from scalequest.training.launch import launch, n_processes

if TYPE_CHECKING:
    from scalequest.runtime.stage import StageRun

log = logging.getLogger("scalequest")

CHECKPOINTS_PER_RUN = 5


class Kind(Protocol):
    """What is trained: SFT, DPO, a reward model or a regression.

    Attributes:
        noun: what its rows are called in messages.
        scalar_head: whether the model ends in one number instead of a vocabulary.
    """

    noun: ClassVar[str]
    scalar_head: ClassVar[bool]

    def trainer(self, job: "Job", folder: Path) -> Any:
        """The trainer with model and data, after its first batch was compared with the rows."""

    def load(self, path: Path, dtype: Any, seed: int) -> Any:
        """The model of a folder in ``dtype``; a missing scalar head is drawn from ``seed``."""

    def facts(self, rows: Sequence[Any]) -> dict[str, int]:
        """Numbers about the rows that only this kind has, for the metrics."""


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
        probe: sequences that the final model scores, where it has a scalar head.
    """

    kind: Kind
    model: Path
    out: Path
    rows: Sequence[Any]
    params: Training
    dtype: str
    seed: int
    runtime: Runtime
    probe: Sequence[list[int]] = ()


@dataclass(frozen=True)
class Trained:
    """What a job leaves behind besides the model.

    Attributes:
        metrics: for the stage's metrics file.
        curves: one entry per step.
        scores: raw scores of the probe, in order.
        flags: warnings of scalequest.outcomes, raised or not.
    """

    metrics: dict[str, Any]
    curves: list[dict[str, float]]
    scores: list[float] = field(default_factory=list)
    flags: dict[str, bool] = field(default_factory=dict)


def train(
    run: "StageRun",
    kind: Kind,
    base: Path,
    out: Path,
    rows: Sequence[Any],
    params: Training,
    probe: Sequence[list[int]] = (),
    seed: int | None = None,
) -> Trained:
    """Train ``base`` on ``rows`` and write it to ``out``, adapters merged, in ``engine.dtype``.

    Args:
        run: the stage's run: its seed, journal, precision and devices.
        kind: ``SFT()``, ``DPO(beta)``, ``Reward()`` or ``Regression()``.
        base: folder or lock of the model to start from.
        out: folder to write.
        rows: Examples, Pairs or ScoredTexts, whatever ``kind`` learns from; too long ones are dropped and counted.
        params: the stage's section.
        probe: sequences to score with the final model (Reward and Regression).
        seed: of the training, where it is a parameter; None = ``run.seed()``.

    Raises:
        UserError: no row is short enough, the batch cannot be shared by the processes, the trainer's batch is not what the
            stage meant, or the training diverged.
    """
    kept = fitting(rows, params.max_length, kind.noun)
    seed = run.seed() if seed is None else seed
    job = Job(kind, base, out, kept, params, run.params.engine.dtype, seed, run.params.runtime, probe)
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
    from transformers import PrinterCallback

    quiet_libraries()
    if job.runtime.threads:
        torch.set_num_threads(job.runtime.threads)
    if job.runtime.deterministic:
        repeat_bytes()
    leave_out_cudnn_attention()
    trainer = job.kind.trainer(job, folder)
    trainer.remove_callback(PrinterCallback)
    trained = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None).metrics
    if not checkpoint:  # after a resumption the trainer divides all rows by the time since
        log.info("trained for %.0f s, %.1f rows/s", trained["train_runtime"], trained["train_samples_per_second"])
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    last = history[-1]["loss"]
    if not math.isfinite(last):
        raise UserError(
            f"training diverged: the loss is {last} after {trainer.state.global_step} steps, expected a finite number; "
            "lower the stage's learning_rate"
        )
    model = whole_model(trainer, job, folder)
    if not trainer.is_world_process_zero():
        return Trained({}, [])
    model.config.use_cache = True  # off in training only; left off, whoever loads the model generates slowly
    save_model(model.to(getattr(torch, job.dtype)), trainer.processing_class, job.out)
    metrics = {
        "examples": len(job.rows),
        "steps": trainer.state.global_step,
        "first_loss": rounded(history[0]["loss"]),
        "last_loss": rounded(last),
        "mean_loss": rounded(sum(entry["loss"] for entry in history) / len(history)),
        "tokens": sum(map(len, job.rows)),
        "processes": trainer.args.world_size,
    } | job.kind.facts(job.rows)
    if job.runtime.deterministic:
        metrics["deterministic"] = True
    if "rewards/accuracies" in history[-1]:
        accuracies = [entry["rewards/accuracies"] for entry in history]
        metrics["reward_accuracy"] = rounded(sum(accuracies[-5:]) / len(accuracies[-5:]))
    return Trained(metrics, history, scores(model, job.probe))


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


def leave_out_cudnn_attention() -> None:
    """Keep scaled dot-product attention from using cuDNN's kernels in this process.

    Their backward pass gives NaN for some padded rows, at finite loss: full fine-tuning of Qwen2.5-Coder-1.5B on MATH's
    questions broke at step 10 on an H100 (torch 2.11, cuDNN 9.19). The same rows without padding, and the same batch under
    torch's other backends, are finite, and these trained all 313 steps (benchmarks/divergence.py). On a Hopper card torch
    prefers cuDNN where a batch has a padding mask.
    """
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)


def arguments(job: Job, folder: Path) -> dict[str, Any]:
    """Trainer settings; every default of TRL that depends on the machine is set here."""
    import torch

    params = job.params
    cuda = torch.cuda.is_available()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if torch.cuda.device_count() > 1 and processes == 1:
        raise UserError(
            f"training sees {torch.cuda.device_count()} GPUs in one process, where trainers split a batch in ways that change the "
            "result; choose one (CUDA_VISIBLE_DEVICES=0), or name an accelerate configuration in runtime.accelerate"
        )
    at_once = global_micro_batch(params, processes)
    steps = math.ceil(len(job.rows) / params.batch_size) * params.epochs
    return {
        "output_dir": str(folder),
        "num_train_epochs": params.epochs,
        "learning_rate": params.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": math.ceil(steps * params.warmup_frac),
        "weight_decay": params.weight_decay,
        "per_device_train_batch_size": params.per_device_batch_size,
        "gradient_accumulation_steps": params.batch_size // at_once,
        "use_cpu": not cuda,
        "bf16": job.dtype == "bfloat16",
        "gradient_checkpointing": cuda and job.runtime.gradient_checkpointing,
        "seed": job.seed,
        "data_seed": job.seed,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": max(1, math.ceil(steps / CHECKPOINTS_PER_RUN)),
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
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


def weights_dtype(job: Job) -> Any:
    """Precision that weights are held in while they are trained.

    Full fine-tuning steps the weights themselves, and a step of 1e-5 on a bfloat16 weight is rounded away: those are held in
    float32 and computed with in ``dtype``. LoRA steps adapters that PEFT holds in float32 anyway.
    """
    import torch

    return torch.float32 if job.params.method == "full" else getattr(torch, job.dtype)


def load_causal(path: Path, dtype: Any, seed: int) -> Any:
    """The causal model of a folder in ``dtype``, with torch, NumPy and Python seeded."""
    from transformers import AutoModelForCausalLM, set_seed

    set_seed(seed)
    return AutoModelForCausalLM.from_pretrained(local_path(path), dtype=dtype, use_cache=False)


# -------------------------------------------------------------------------------------------------------------- ending


def last_checkpoint(folder: Path) -> Path | None:
    """Newest complete checkpoint: trainer_state.json is the last file that transformers writes into one."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]), reverse=True)
    for checkpoint in found:
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())
        except (OSError, json.JSONDecodeError):
            shutil.rmtree(checkpoint)
        else:
            return checkpoint
    return None


def whole_model(trainer: Any, job: Job, folder: Path) -> Any:
    """The trained model with its adapters merged; gathered first where each process holds a part of the weights only."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        trainer.save_model(str(folder / "gathered"))
        if not trainer.is_world_process_zero():
            return None
        from peft import PeftModel

        if job.params.method == "lora":
            model = PeftModel.from_pretrained(
                job.kind.load(job.model, weights_dtype(job), job.seed), folder / "gathered"
            )
        else:
            model = type(model).from_pretrained(folder / "gathered", dtype=weights_dtype(job))
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def scores(model: Any, rows: Sequence[list[int]]) -> list[float]:
    """Raw scores, one sequence at a time: no padding, so the head is read at the last token."""
    import torch

    if not rows:
        return []
    model.eval()
    if torch.cuda.is_available():  # a model gathered from several processes is in the CPU's memory
        model.cuda()
    with torch.no_grad():
        return [model(input_ids=torch.tensor([ids], device=model.device)).logits[0, 0].item() for ids in rows]
