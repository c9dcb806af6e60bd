"""Find out why a fine-tuning diverges: stop at the first non-finite gradient and bisect it.

    python -m benchmarks.divergence --model MODEL_OR_GGUF --questions FILE.jsonl --out divergence.json

Trains as `qft` does with method full (TRL's SFTTrainer, loss on the question, padded batches,
float32 weights under bfloat16 autocast, SDPA) and checks every gradient. At the first one that is
not finite, before the optimizer could spread it, the same weights and the same batch are run again:
under every attention backend, and row by row, with and without padding. What stays finite and what
does not names the cause. The step's rows are printed.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

IGNORED = -100


def load(path: Path) -> tuple[Any, Any]:
    """Model in float32 and tokenizer, from a folder or a GGUF file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if path.suffix != ".gguf":
        kwargs: dict[str, Any] = {}
        folder = path
    else:
        kwargs, folder = {"gguf_file": path.name}, path.parent
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa", trust_remote_code=False, **kwargs
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # dequantized by now; trainers refuse to tune a quantized model
        for name in ("hf_quantizer", "is_quantized", "quantization_method"):
            if hasattr(model, name):
                delattr(model, name)
    return model, AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **kwargs)


def examples(file: Path, tokenizer: Any, n: int, max_length: int) -> list[dict[str, list[int]]]:
    """Token ids and labels of the file's questions, template masked."""
    from scalequest.models.chat import ChatFormat

    chat = ChatFormat.of(tokenizer)
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        prompt, target = chat.question_prefix, chat.question(row.get("problem") or row["question"])
        if len(prompt) + len(target) <= max_length:
            rows.append({"input_ids": prompt + target, "labels": [IGNORED] * len(prompt) + target})
    return rows[:n]


def gradient_norms(model: Any) -> dict[str, float]:
    """Norm of each parameter's gradient; not a number where an entry is not."""
    import torch

    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    norms = torch.stack([norm.float() for norm in torch._foreach_norm([g for _, g in named])]).tolist()
    return dict(zip([name for name, _ in named], norms, strict=True))


def total(norms: dict[str, float]) -> float:
    """Norm of all gradients together."""
    return (
        math.sqrt(sum(norm * norm for norm in norms.values())) if all(map(math.isfinite, norms.values())) else math.nan
    )


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Let SDPA use one backend only; ``default`` leaves the choice to torch."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with nullcontext() if name == "default" else sdpa_kernel([getattr(SDPBackend, name)]):
        yield


def once(model: Any, batch: dict[str, Any], kernel: str) -> dict[str, Any]:
    """One forward and backward pass: loss, gradient norm, and the parameters whose gradient is not finite."""
    import torch

    model.zero_grad(set_to_none=True)
    autocast = torch.autocast("cuda" if batch["input_ids"].is_cuda else "cpu", torch.bfloat16)
    try:
        with backend(kernel):
            with autocast:
                loss = model(**batch, use_cache=False).loss
            loss.backward()
    except RuntimeError as error:
        return {"error": str(error).splitlines()[0]}
    norms = gradient_norms(model)
    broken = [name for name, norm in norms.items() if not math.isfinite(norm)]
    return {
        "loss": float(loss),
        "grad_norm": total(norms),
        "not_finite": len(broken),
        # Backward passes from the last layer to the first: the last of these in the model's order broke first.
        "first_broken": broken[-1] if broken else None,
    }


def bisect(model: Any, batch: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """What of the batch, the backend and the precision breaks the gradient."""
    batch = {key: value for key, value in batch.items() if key in ("input_ids", "attention_mask", "labels")}
    model.train()
    results: dict[str, Any] = {"whole batch": {}}
    for kernel in ("default", "MATH", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "FLASH_ATTENTION"):
        results["whole batch"][kernel] = once(model, batch, kernel)
    results["whole batch"]["default, again"] = once(model, batch, "default")
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")
        results["whole batch"]["eager"] = once(model, batch, "default")
        model.set_attn_implementation("sdpa")
    rows = []
    for number in range(len(batch["input_ids"])):
        one = {key: value[number : number + 1] for key, value in batch.items()}
        length = int(one["attention_mask"].sum())
        bare = {key: value[:, :length] for key, value in one.items()}
        rows.append(
            {
                "length": length,
                "padded to": one["input_ids"].shape[1],
                "padded": once(model, one, "default"),
                "bare": once(model, bare, "default"),
                "padded, MATH": once(model, one, "MATH"),
                "text": tokenizer.decode(bare["input_ids"][0]),
            }
        )
    results["rows"] = rows
    return results


def main() -> None:
    """Train until a gradient breaks or the rows end, then write what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--kernel", default="default", help="the only SDPA backend that training may use")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--seconds", type=float, default=300.0, help="stop training after this time")
    parser.add_argument(
        "--bisect-at", type=int, help="bisect at this step although its gradient is finite (a rehearsal)"
    )
    args = parser.parse_args()

    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    began = time.monotonic()
    model, tokenizer = load(args.model)
    rows = examples(args.questions, tokenizer, args.rows, args.max_length)
    steps = math.ceil(len(rows) / args.batch_size)
    result: dict[str, Any] = {"arguments": {k: str(v) for k, v in vars(args).items()}, "rows": len(rows), "steps": []}

    class Checked(SFTTrainer):
        """Looks at every gradient before the optimizer does."""

        def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
            given = {key: value.clone() for key, value in inputs.items() if hasattr(value, "clone")}
            loss = super().training_step(model, inputs, *rest)
            norms = gradient_norms(model)
            step = len(result["steps"])
            result["steps"].append(
                {"loss": float(loss), "grad_norm": total(norms), "tokens": int(given["input_ids"].numel())}
            )
            if step % 20 == 0:
                print(step, f"{time.monotonic() - began:.0f} s", result["steps"][-1], flush=True)
            broken = not (math.isfinite(result["steps"][-1]["grad_norm"]) and math.isfinite(float(loss)))
            if broken or step == args.bisect_at:
                result["broken_step"] = step if broken else None
                result["as_trained"] = {
                    "not_finite": sum(not math.isfinite(norm) for norm in norms.values()),
                    "of": len(norms),
                    "weights_not_finite": sum(not bool(torch.isfinite(p).all()) for p in model.parameters()),
                }
                result["bisect"] = bisect(model, {k: v.to(model.device) for k, v in given.items()}, tokenizer)
                self.control.should_training_stop = True
            if time.monotonic() - began > args.seconds:
                self.control.should_training_stop = True
            return loss

    trainer = Checked(
        model=model,
        args=SFTConfig(
            output_dir=str(args.out.parent / "divergence-trainer"), num_train_epochs=1, learning_rate=args.learning_rate,
            lr_scheduler_type="cosine", warmup_steps=math.ceil(0.03 * steps), weight_decay=0.0,
            per_device_train_batch_size=args.batch_size, gradient_accumulation_steps=1, use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available(), gradient_checkpointing=args.gradient_checkpointing, seed=args.seed, data_seed=args.seed, logging_steps=1,
            save_strategy="no", report_to="none", disable_tqdm=True, logging_nan_inf_filter=False, max_length=None, packing=False,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )  # fmt: skip
    with backend(args.kernel):
        trainer.train()
    norms = [step["grad_norm"] for step in result["steps"]]
    result["largest_grad_norm"] = max([norm for norm in norms if math.isfinite(norm)], default=None)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(norms)} steps, broken at {result.get('broken_step')}, largest norm {result['largest_grad_norm']}")


if __name__ == "__main__":
    main()
