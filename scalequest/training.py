"""Training, on TRL and PEFT: what every training stage shares.

Examples come as token ids with labels, so that what is learned is decided here and not by a template's mask. Before
each run a preflight decodes two rows as the trainer's own collator hands them to the model, shows what is learned between
⟦ and ⟧, and stops the stage if it is not what the stage meant.
"""

import json
import logging
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.models import local_path
from scalequest.params import Runtime, Training
from scalequest.prompts import ChatFormat, solve_prompt
from scalequest.stage import StageRun, rounded

log = logging.getLogger("scalequest")

IGNORED = -100
CHECKPOINTS_A_RUN = 5


@dataclass(frozen=True)
class Example:
    """A sequence of which the end is learned: L prompt tokens that are masked, then the tokens of the target."""

    prompt: list[int]
    target: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)


@dataclass(frozen=True)
class Pair:
    """A preference pair over one prompt; both targets end with their end token."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


@dataclass(frozen=True)
class ScoredText:
    """A sequence and the number that the scalar head should give it."""

    ids: list[int]
    label: float

    def __len__(self) -> int:
        return len(self.ids)


def quiet_libraries() -> None:
    """No progress bars: a stage's log holds what matters, and a bar is no use in a file."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()


def load_tokenizer(model: Path) -> Any:
    """The model's tokenizer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(local_path(model))
    if tokenizer.pad_token is None:  # Llama 3 and Mistral have none; what is padded is masked, so any token serves
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def load_chat(model: Path) -> ChatFormat:
    """The model's chat format."""
    return ChatFormat.of(load_tokenizer(model))


def solved_example(chat: ChatFormat, question: str, response: str) -> Example:
    """Masked: the question and the asking for a boxed answer. Learned: the response and its end."""
    return Example(chat.user_turn(solve_prompt(question)), chat.response(response))


def hold_out(ids: Sequence[str], frac: float, seed: int) -> tuple[list[str], list[str]]:
    """Split ids into those to train on and those held out, by a hash of seed and id: more data moves no id across."""

    def place(name: str) -> float:
        return int.from_bytes(sha256(f"{seed}/{name}".encode()).digest()[:8], "big") / 2**64

    return [i for i in ids if place(i) >= frac], [i for i in ids if place(i) < frac]


def fitting(examples: Sequence[Any], max_length: int, what: str) -> list[Any]:
    """Examples of at most ``max_length`` tokens; a longer one is dropped, because a cut one would teach not to end.

    Raises:
        UserError: nothing is left.
    """
    kept = [example for example in examples if len(example) <= max_length]
    if len(kept) < len(examples):
        log.info("%d of %d %s are longer than max_length %d tokens and left out", len(examples) - len(kept), len(examples), what, max_length)  # fmt: skip
    if not kept:
        raise UserError(
            f"no {what} to train on: {len(examples)} came in, {len(examples)} are longer than max_length {max_length} "
            f"tokens; raise max_length, or look at the stage before"
            if examples
            else f"no {what} to train on: 0 came in; look at the stage before (dvc metrics show)"
        )
    return kept


def train_causal(
    model: Path, out: Path, examples: Sequence[Example], params: Training, dtype: str, run: StageRun, seed: int
) -> dict[str, Any]:
    """Fine-tune a causal model on the targets of ``examples``, and write it (adapters merged) to ``out``."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    kept = fitting(examples, params.max_length, "examples")
    rows = [{"input_ids": e.prompt + e.target, "labels": [IGNORED] * len(e.prompt) + e.target} for e in kept]
    with _working_folder(run) as folder:
        trainer = SFTTrainer(
            model=_load_causal(model, params, dtype, seed),
            args=SFTConfig(
                **_arguments(params, dtype, run.params.runtime, folder, len(kept), seed), max_length=None, packing=False
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(model),
            peft_config=_lora(params),
        )
        _preflight_causal(trainer, kept, model)
        return _fit(trainer, folder, out, run, len(examples), kept, dtype)


def train_pairs(
    model: Path, out: Path, pairs: Sequence[Pair], params: Training, beta: float, dtype: str, run: StageRun, seed: int
) -> dict[str, Any]:
    """DPO from ``model`` with itself as the reference, both in ``dtype``, and write it to ``out`` (paper 2.3)."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class TokenDPOTrainer(DPOTrainer):
        """Takes token ids: TRL would tokenize text again, and add a BOS that the template already holds."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    kept = fitting(pairs, params.max_length, "preference pairs")
    rows = [{"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected} for p in kept]
    with _working_folder(run) as folder:
        trainer = TokenDPOTrainer(
            model=_load_causal(model, params, dtype, seed),
            args=DPOConfig(
                **_arguments(params, dtype, run.params.runtime, folder, len(kept), seed),
                beta=beta,
                loss_type=["sigmoid"],
                max_length=None,
                # The reference's log-probabilities, once, from the same weights in the same precision.
                precompute_ref_log_probs=params.method == "full",
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(model),
            peft_config=_lora(params),
        )
        _preflight_pairs(trainer, kept, model)
        return _fit(trainer, folder, out, run, len(pairs), kept, dtype)


def train_reward(
    model: Path,
    out: Path,
    pairs: Sequence[Pair],
    params: Training,
    dtype: str,
    run: StageRun,
    seed: int,
    probe: Sequence[list[int]],
) -> tuple[dict[str, Any], list[float]]:
    """Bradley-Terry reward model: a scalar head that puts each chosen sequence above its rejected one.

    Returns:
        Training metrics, and the final model's raw scores of the ``probe`` sequences, in order.
    """
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    kept = fitting(pairs, params.max_length, "preference pairs")
    rows = [{"chosen_ids": p.prompt + p.chosen, "rejected_ids": p.prompt + p.rejected} for p in kept]
    tokenizer = load_tokenizer(model)
    with _working_folder(run) as folder:
        trainer = RewardTrainer(
            model=_load_scorer(model, params, dtype, tokenizer, seed),
            args=RewardConfig(
                **_arguments(params, dtype, run.params.runtime, folder, len(kept), seed), max_length=None
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=_lora(params, scalar_head=True),
        )
        chosen, rejected = [row["chosen_ids"] for row in rows], [row["rejected_ids"] for row in rows]
        # The collator puts the chosen halves of a batch first.
        _preflight_scored(trainer, chosen[:2] + rejected[:2] + chosen[2:] + rejected[2:], [], tokenizer)
        metrics = _fit(trainer, folder, out, run, len(pairs), kept, dtype)
        return metrics, _probe(trainer.model, probe)


def train_regression(
    model: Path,
    out: Path,
    texts: Sequence[ScoredText],
    params: Training,
    dtype: str,
    run: StageRun,
    seed: int,
    probe: Sequence[list[int]],
) -> tuple[dict[str, Any], list[float]]:
    """Scalar head trained with mean squared error on each text's label (paper: the difficulty scorer).

    Returns:
        Training metrics, and the final model's scores of the ``probe`` sequences, in order.
    """
    from datasets import Dataset
    from peft import get_peft_model
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    kept = fitting(texts, params.max_length, "labelled questions")
    tokenizer = load_tokenizer(model)
    rows = [{"input_ids": t.ids, "labels": t.label} for t in kept]
    scorer = _load_scorer(model, params, dtype, tokenizer, seed)
    scorer.config.problem_type = "regression"
    lora = _lora(params, scalar_head=True)
    with _working_folder(run) as folder:
        trainer = Trainer(
            model=get_peft_model(scorer, lora) if lora else scorer,
            args=TrainingArguments(**_arguments(params, dtype, run.params.runtime, folder, len(kept), seed)),
            train_dataset=Dataset.from_list(rows),
            data_collator=DataCollatorWithPadding(tokenizer),
            processing_class=tokenizer,
        )
        _preflight_scored(trainer, [t.ids for t in kept], [t.label for t in kept], tokenizer)
        metrics = _fit(trainer, folder, out, run, len(texts), kept, dtype)
        return metrics, _probe(trainer.model, probe)


# ------------------------------------------------------------------------------------------------------------ settings


def _arguments(params: Training, dtype: str, runtime: Runtime, folder: Path, n: int, seed: int) -> dict[str, Any]:
    """Trainer settings; every default of TRL that depends on the machine is set here."""
    import torch

    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    cuda = torch.cuda.is_available()
    if torch.cuda.device_count() > 1:
        raise UserError(
            f"training sees {torch.cuda.device_count()} GPUs in one process, where trainers split a batch in ways that change the "
            "result; choose one: CUDA_VISIBLE_DEVICES=0"
        )
    steps = math.ceil(n / params.batch_size) * params.epochs
    return {
        "output_dir": str(folder),
        "num_train_epochs": params.epochs,
        "learning_rate": params.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": math.ceil(steps * params.warmup_frac),
        "weight_decay": params.weight_decay,
        "per_device_train_batch_size": params.per_device_batch_size,
        "gradient_accumulation_steps": params.batch_size // params.per_device_batch_size,
        "use_cpu": not cuda,
        "bf16": dtype == "bfloat16",
        "gradient_checkpointing": cuda,
        "seed": seed,
        "data_seed": seed,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": max(1, math.ceil(steps / CHECKPOINTS_A_RUN)),
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
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


def _weights_dtype(params: Training, dtype: str) -> Any:
    """Precision that weights are held in while they are trained.

    Full fine-tuning steps the weights themselves, and a step of 1e-5 on a bfloat16 weight is rounded away: those are held in
    float32 and computed with in ``dtype``. LoRA steps adapters that PEFT holds in float32 anyway.
    """
    import torch

    return torch.float32 if params.method == "full" else getattr(torch, dtype)


def _load_causal(model: Path, params: Training, dtype: str, seed: int) -> Any:
    from transformers import AutoModelForCausalLM, set_seed

    set_seed(seed)
    return AutoModelForCausalLM.from_pretrained(local_path(model), dtype=_weights_dtype(params, dtype), use_cache=False)


def _load_scorer(model: Path, params: Training, dtype: str, tokenizer: Any, seed: int) -> Any:
    from transformers import AutoModelForSequenceClassification, set_seed

    set_seed(seed)  # the head is drawn at random
    scorer = AutoModelForSequenceClassification.from_pretrained(
        local_path(model), num_labels=1, dtype=_weights_dtype(params, dtype)
    )
    scorer.config.use_cache = False
    scorer.config.pad_token_id = tokenizer.pad_token_id
    return scorer


class _working_folder:  # noqa: N801  reads as a function in `with`
    """Folder for checkpoints: the stage's journal, which survives a kill, or a temporary one outside DVC."""

    def __init__(self, run: StageRun) -> None:
        self.journal = run.journal
        self.temporary = None if self.journal.folder else tempfile.TemporaryDirectory()

    def __enter__(self) -> Path:
        quiet_libraries()
        return self.journal.folder or Path(self.temporary.name)  # type: ignore[union-attr]

    def __exit__(self, *error: object) -> None:
        if self.temporary:
            self.temporary.cleanup()


# ----------------------------------------------------------------------------------------------------------- preflight


def show_mask(ids: Sequence[int], learned: Sequence[bool], tokenizer: Any) -> str:
    """The decoded row with what is learned between ⟦ and ⟧; L ids and L flags."""
    text, open_ = [], False
    start = 0
    for position in range(len(ids) + 1):
        if position == len(ids) or learned[position] != open_:
            text.append(tokenizer.decode(list(ids[start:position])))
            if position < len(ids) or open_:
                text.append("⟧" if open_ else "⟦")
            open_, start = not open_, position
    return "".join(text)


def _preflight_causal(trainer: Any, kept: Sequence[Example], model: Path) -> None:
    tokenizer = load_tokenizer(model)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(min(2, len(kept)))])
    for row, example in enumerate(kept[:2]):
        ids, labels = batch["input_ids"][row].tolist(), batch["labels"][row].tolist()
        n = len(example)
        log.info("preflight: %s", show_mask(ids[:n], [label != IGNORED for label in labels[:n]], tokenizer))
        learned = [label for label in labels if label != IGNORED]
        if learned != example.target or ids[:n] != example.prompt + example.target:
            raise UserError(
                f"preflight: the trainer would learn {tokenizer.decode(learned)!r}, the stage meant "
                f"{tokenizer.decode(example.target)!r}: the installed TRL masks or truncates otherwise than the lock's; "
                "reinstall from requirements/, then rerun"
            )


def _preflight_pairs(trainer: Any, kept: Sequence[Pair], model: Path) -> None:
    tokenizer = load_tokenizer(model)
    pairs = kept[:2]
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(pairs))])
    # The collator puts the chosen halves first, then the rejected ones.
    targets = [p.chosen for p in pairs] + [p.rejected for p in pairs]
    prompts = [p.prompt for p in pairs] * 2
    for row, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
        ids, mask = batch["input_ids"][row].tolist(), batch["completion_mask"][row].tolist()
        seen = batch["attention_mask"][row].tolist()
        n = len(prompt) + len(target)
        log.info("preflight %s: %s", "chosen" if row < len(pairs) else "rejected", show_mask(ids[:n], [bool(m) for m in mask[:n]], tokenizer))  # fmt: skip
        if [i for i, m in zip(ids, mask, strict=True) if m] != target or sum(seen) != n:
            raise UserError(
                f"preflight: DPO would compare {tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m])!r} with "
                f"{sum(seen)} tokens visible, the stage meant {tokenizer.decode(target)!r} with {n}: the installed TRL "
                "differs from the lock's; reinstall from requirements/, then rerun"
            )


def _preflight_scored(trainer: Any, texts: Sequence[list[int]], labels: Sequence[float], tokenizer: Any) -> None:
    """Check the first rows as the collator hands them over: ``texts`` in the batch's order, ``labels`` where there are any."""
    rows = [trainer.train_dataset[i] for i in range(min(2, len(trainer.train_dataset)))]
    batch = trainer.data_collator(rows)
    for ids, row, seen in zip(texts, batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=False):
        log.info(
            "preflight, the score is read at the end: %s", show_mask(ids, [False] * (len(ids) - 1) + [True], tokenizer)
        )
        if [i for i, m in zip(row, seen, strict=True) if m] != ids:
            raise UserError(
                f"preflight: the trainer would score {tokenizer.decode(row)!r}, the stage meant {tokenizer.decode(ids)!r}: the "
                "installed TRL differs from the lock's; reinstall from requirements/, then rerun"
            )
    if labels and batch["labels"].tolist() != [torch_float(label) for label in labels[: len(rows)]]:
        raise UserError(
            f"preflight: the trainer would learn {batch['labels'].tolist()}, the stage meant {labels[: len(rows)]}"
        )
    if bad := [ids for ids in texts if ids[-1] == tokenizer.pad_token_id]:
        raise UserError(
            f"preflight: {len(bad)} sequences end in the padding token, where transformers and vLLM read the scalar head at "
            "different places; give the tokenizer a padding token of its own"
        )


def torch_float(value: float) -> float:
    """A number as float32 holds it."""
    import torch

    return torch.tensor(value, dtype=torch.float32).item()


# ------------------------------------------------------------------------------------------------------------- running


def _last_checkpoint(folder: Path) -> str | None:
    """Newest complete checkpoint: trainer_state.json is the last file that transformers writes into one."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]), reverse=True)
    for checkpoint in found:
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())
        except (OSError, json.JSONDecodeError):
            shutil.rmtree(checkpoint)
        else:
            return str(checkpoint)
    return None


def _fit(
    trainer: Any, folder: Path, out: Path, run: StageRun, n_in: int, kept: Sequence[Any], dtype: str
) -> dict[str, Any]:
    import torch
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    checkpoint = _last_checkpoint(folder)
    if checkpoint:
        log.info("resuming from %s", checkpoint)
    trainer.train(resume_from_checkpoint=checkpoint)
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    run.curves = history
    last = history[-1]["loss"]
    if not math.isfinite(last):
        raise UserError(
            f"training diverged: the loss is {last} after {trainer.state.global_step} steps, expected a finite number; "
            "lower the stage's learning_rate"
        )
    model = trainer.model
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    save_model(model.to(getattr(torch, dtype)), trainer.processing_class, out)
    metrics = {
        "examples": len(kept),
        "dropped_too_long": n_in - len(kept),
        "steps": trainer.state.global_step,
        "first_loss": rounded(history[0]["loss"]),
        "last_loss": rounded(last),
        "mean_loss": rounded(sum(entry["loss"] for entry in history) / len(history)),
        "tokens": sum(map(len, kept)),
    }
    if isinstance(kept[0], Example):
        metrics["learned_tokens"] = sum(len(example.target) for example in kept)
    if "rewards/accuracies" in history[-1]:
        accuracies = [entry["rewards/accuracies"] for entry in history]
        metrics["reward_accuracy"] = rounded(sum(accuracies[-5:]) / len(accuracies[-5:]))
    return metrics


def _probe(model: Any, rows: Sequence[list[int]]) -> list[float]:
    """Raw scores, one sequence at a time: no padding, so the head is read at the last token."""
    import torch

    model.eval()
    with torch.no_grad():
        return [model(input_ids=torch.tensor([ids], device=model.device)).logits[0, 0].item() for ids in rows]


def save_model(model: Any, tokenizer: Any, out: Path) -> None:
    """Write weights, configuration and tokenizer, complete or not at all."""
    temporary = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    for file in temporary.iterdir():
        file.chmod(0o644)  # safetensors writes 0600
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
