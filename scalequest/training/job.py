"""Training, on TRL and PEFT: what every training stage shares.

Each ``train_*`` makes a ``Job`` of its rows. A job runs in this process, or in the processes that ``accelerate launch`` starts
when ``runtime.accelerate`` names a configuration (scalequest.training.launch); the stage around it, its lock, metrics and tracking, stays one
process. Checkpoints lie in the stage's journal, and a run that was killed goes on from the last complete one.
"""

import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.models.folder import local_path
from scalequest.models.weights import load_tokenizer, quiet_libraries, save_model
from scalequest.params import Runtime, Training
from scalequest.training.collated import check_causal, check_pairs, check_scored
from scalequest.training.examples import IGNORED, Example, Pair, ScoredText, fitting
from scalequest.training.launch import launch, n_processes, taken_at_once

if TYPE_CHECKING:
    from scalequest.runtime.stage import StageRun

log = logging.getLogger("scalequest")

CHECKPOINTS_A_RUN = 5


@dataclass(frozen=True)
class Job:
    """One training, whole.

    Attributes:
        kind: which trainer.
        model: folder or lock of the model to start from.
        out: folder to write, adapters merged.
        rows: what is learned, all of them short enough.
        params: the stage's section.
        dtype: precision to compute in, and of the model that is written.
        seed: of initial weights, order and dropout.
        runtime: devices and threads.
        beta: DPO's; of no meaning elsewhere.
        probe: sequences that the final model scores, where it has a scalar head.
    """

    kind: Literal["causal", "pairs", "reward", "regression"]
    model: Path
    out: Path
    rows: Sequence[Any]
    params: Training
    dtype: str
    seed: int
    runtime: Runtime
    beta: float = 0.0
    probe: Sequence[list[int]] = ()


@dataclass(frozen=True)
class Trained:
    """What a job leaves behind besides the model: metrics, one entry a step, raw scores of the probe in order."""

    metrics: dict[str, Any]
    curves: list[dict[str, float]]
    scores: list[float] = field(default_factory=list)


def train_causal(
    model: Path, out: Path, examples: Sequence[Example], params: Training, dtype: str, run: "StageRun", seed: int
) -> dict[str, Any]:
    """Fine-tune a causal model on the targets of ``examples``, and write it (adapters merged) to ``out``."""
    kept = fitting(examples, params.max_length, "examples")
    job = Job("causal", model, out, kept, params, dtype, seed, run.params.runtime)
    return _train(job, run, len(examples)).metrics


def train_pairs(
    model: Path, out: Path, pairs: Sequence[Pair], params: Training, beta: float, dtype: str, run: "StageRun", seed: int
) -> dict[str, Any]:
    """DPO from ``model`` with itself as the reference, both in ``dtype``, and write it to ``out`` (paper 2.3)."""
    kept = fitting(pairs, params.max_length, "preference pairs")
    job = Job("pairs", model, out, kept, params, dtype, seed, run.params.runtime, beta=beta)
    return _train(job, run, len(pairs)).metrics


def train_reward(
    model: Path,
    out: Path,
    pairs: Sequence[Pair],
    params: Training,
    dtype: str,
    run: "StageRun",
    seed: int,
    probe: Sequence[list[int]],
) -> tuple[dict[str, Any], list[float]]:
    """Bradley-Terry reward model: a scalar head that puts each chosen sequence above its rejected one.

    Returns:
        Training metrics, and the final model's raw scores of the ``probe`` sequences, in order.
    """
    kept = fitting(pairs, params.max_length, "preference pairs")
    job = Job("reward", model, out, kept, params, dtype, seed, run.params.runtime, probe=probe)
    trained = _train(job, run, len(pairs))
    return trained.metrics, trained.scores


def train_regression(
    model: Path,
    out: Path,
    texts: Sequence[ScoredText],
    params: Training,
    dtype: str,
    run: "StageRun",
    seed: int,
    probe: Sequence[list[int]],
) -> tuple[dict[str, Any], list[float]]:
    """Scalar head trained with mean squared error on each text's label (paper: the difficulty scorer).

    Returns:
        Training metrics, and the final model's scores of the ``probe`` sequences, in order.
    """
    kept = fitting(texts, params.max_length, "labelled questions")
    job = Job("regression", model, out, kept, params, dtype, seed, run.params.runtime, probe=probe)
    trained = _train(job, run, len(texts))
    return trained.metrics, trained.scores


def _train(job: Job, run: "StageRun", n_in: int) -> Trained:
    """Run the job where ``runtime.accelerate`` says, with its checkpoints in the stage's journal or in a temporary folder."""
    processes = n_processes(job.runtime)
    with tempfile.TemporaryDirectory() as temporary:
        # Checkpoints of another number of processes hold other generators' states, and would not be gone on with exactly.
        folder = (run.journal.folder or Path(temporary)) / f"training-{processes}"
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = last_checkpoint(folder)
        if checkpoint:
            log.info("resuming from %s", checkpoint)
        trained = launch(job, folder, checkpoint) if job.runtime.accelerate else run_job(job, folder, checkpoint)
    run.curves = trained.curves
    trained.metrics["dropped_too_long"] = n_in - len(job.rows)
    return trained


def run_job(job: Job, folder: Path, checkpoint: Path | None) -> Trained:
    """Train in this process, alone or as one of several; the first one writes the model and returns what there is to tell.

    Raises:
        UserError: the collator shows the trainer something else than the stage meant, or the training diverged.
    """
    import torch
    from transformers import PrinterCallback

    quiet_libraries()
    if job.runtime.threads:
        torch.set_num_threads(job.runtime.threads)
    if job.runtime.deterministic:
        repeat_bytes()
    trainer = TRAINERS[job.kind](job, folder)
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
    model = _whole_model(trainer, job, folder)
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
    }
    if job.runtime.deterministic:
        metrics["deterministic"] = True
    if job.kind == "causal":
        metrics["learned_tokens"] = sum(len(example.target) for example in job.rows)
    if "rewards/accuracies" in history[-1]:
        accuracies = [entry["rewards/accuracies"] for entry in history]
        metrics["reward_accuracy"] = rounded(sum(accuracies[-5:]) / len(accuracies[-5:]))
    return Trained(metrics, history, _scores(model, job.probe))


# ------------------------------------------------------------------------------------------------------------ trainers


def _causal_trainer(job: Job, folder: Path) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [{"input_ids": e.prompt + e.target, "labels": [IGNORED] * len(e.prompt) + e.target} for e in job.rows]
    trainer = SFTTrainer(
        model=_load_causal(job),
        args=SFTConfig(**_arguments(job, folder), max_length=None, packing=False),
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(job.model),
        peft_config=_lora(job.params),
    )
    check_causal(trainer, job.rows)
    return trainer


def _pairs_trainer(job: Job, folder: Path) -> Any:
    from trl import DPOConfig, DPOTrainer

    class TokenDPOTrainer(DPOTrainer):
        """Takes token ids: TRL would tokenize text again, and add a BOS that the template already holds."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    rows = [{"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected} for p in job.rows]
    args = DPOConfig(
        **_arguments(job, folder),
        beta=job.beta,
        loss_type=["sigmoid"],
        max_length=None,
        # The reference's log-probabilities, once, from the same weights in the same precision.
        precompute_ref_log_probs=job.params.method == "full",
    )
    trainer = TokenDPOTrainer(
        model=_load_causal(job),
        args=args,
        train_dataset=_shared_dataset(rows, args, folder / "pairs"),
        processing_class=load_tokenizer(job.model),
        peft_config=_lora(job.params),
    )
    check_pairs(trainer, job.rows)
    return trainer


def _shared_dataset(rows: list[dict[str, Any]], args: Any, path: Path) -> Any:
    """The rows, in a file where several processes train: TRL's first one writes its reference's log-probabilities beside it, and
    the others read them there.
    """
    from datasets import Dataset, load_from_disk

    if args.world_size == 1:
        return Dataset.from_list(rows)
    with args.main_process_first():
        if args.process_index == 0:
            shutil.rmtree(path, ignore_errors=True)
            Dataset.from_list(rows).save_to_disk(path)
    return load_from_disk(path)


def _reward_trainer(job: Job, folder: Path) -> Any:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    rows = [{"chosen_ids": p.prompt + p.chosen, "rejected_ids": p.prompt + p.rejected} for p in job.rows]
    tokenizer = load_tokenizer(job.model)
    trainer = RewardTrainer(
        model=_load_scorer(job, tokenizer),
        args=RewardConfig(**_arguments(job, folder), max_length=None),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=_lora(job.params, scalar_head=True),
    )
    chosen, rejected = [row["chosen_ids"] for row in rows], [row["rejected_ids"] for row in rows]
    # The collator puts the chosen halves of a batch first.
    check_scored(trainer, chosen[:2] + rejected[:2] + chosen[2:] + rejected[2:], [])
    return trainer


def _regression_trainer(job: Job, folder: Path) -> Any:
    from datasets import Dataset
    from peft import get_peft_model
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    tokenizer = load_tokenizer(job.model)
    scorer = _load_scorer(job, tokenizer)
    scorer.config.problem_type = "regression"
    lora = _lora(job.params, scalar_head=True)
    trainer = Trainer(
        model=get_peft_model(scorer, lora) if lora else scorer,
        args=TrainingArguments(**_arguments(job, folder)),
        train_dataset=Dataset.from_list([{"input_ids": text.ids, "labels": text.label} for text in job.rows]),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
    )
    check_scored(trainer, [text.ids for text in job.rows], [text.label for text in job.rows])
    return trainer


TRAINERS: dict[str, Callable[[Job, Path], Any]] = {
    "causal": _causal_trainer,
    "pairs": _pairs_trainer,
    "reward": _reward_trainer,
    "regression": _regression_trainer,
}


# ------------------------------------------------------------------------------------------------------------ settings


def repeat_bytes() -> None:
    """Let this process use only kernels that repeat their bytes; one that has none such is an error.

    Not torch's mode that only warns: in it, attention's backward pass takes the other kernels all the same.
    """
    import torch

    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True)
    # A guard against faulty kernels, and slow. A property that torch's types do not have.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _arguments(job: Job, folder: Path) -> dict[str, Any]:
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
    at_once = taken_at_once(params, processes)
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
        "save_steps": max(1, math.ceil(steps / CHECKPOINTS_A_RUN)),
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
    }


def _lora(params: Training, scalar_head: bool = False) -> Any:
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


def _weights_dtype(job: Job) -> Any:
    """Precision that weights are held in while they are trained.

    Full fine-tuning steps the weights themselves, and a step of 1e-5 on a bfloat16 weight is rounded away: those are held in
    float32 and computed with in ``dtype``. LoRA steps adapters that PEFT holds in float32 anyway.
    """
    import torch

    return torch.float32 if job.params.method == "full" else getattr(torch, job.dtype)


def _load_causal(job: Job) -> Any:
    from transformers import AutoModelForCausalLM, set_seed

    set_seed(job.seed)
    return AutoModelForCausalLM.from_pretrained(local_path(job.model), dtype=_weights_dtype(job), use_cache=False)


def _load_scorer(job: Job, tokenizer: Any) -> Any:
    from transformers import AutoModelForSequenceClassification, set_seed

    set_seed(job.seed)  # the head is drawn at random
    scorer = AutoModelForSequenceClassification.from_pretrained(
        local_path(job.model), num_labels=1, dtype=_weights_dtype(job)
    )
    scorer.config.use_cache = False
    scorer.config.pad_token_id = tokenizer.pad_token_id
    return scorer


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


def _whole_model(trainer: Any, job: Job, folder: Path) -> Any:
    """The trained model with its adapters merged; gathered from all processes where each holds a part of the weights only."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        trainer.save_model(str(folder / "gathered"))
        if not trainer.is_world_process_zero():
            return None
        from peft import PeftModel

        scalar = job.kind in ("reward", "regression")
        load = _load_scorer if scalar else lambda job, _: _load_causal(job)
        if job.params.method == "lora":
            model = PeftModel.from_pretrained(load(job, trainer.processing_class), folder / "gathered")
        else:
            model = type(model).from_pretrained(folder / "gathered", dtype=_weights_dtype(job))
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def _scores(model: Any, rows: Sequence[list[int]]) -> list[float]:
    """Raw scores, one sequence at a time: no padding, so the head is read at the last token."""
    import torch

    if not rows:
        return []
    model.eval()
    if torch.cuda.is_available():  # a model gathered from several processes lies in the CPU's memory
        model.cuda()
    with torch.no_grad():
        return [model(input_ids=torch.tensor([ids], device=model.device)).logits[0, 0].item() for ids in rows]
