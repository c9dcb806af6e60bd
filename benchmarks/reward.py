"""Sequences scored a second: the reward stage, the bare pooling runner over all rows at once, and transformers one at a time.

    python benchmarks/reward.py models/reward [--rows 512] [--rounds 3] [--slow-rows 64]
        [--file F.jsonl] [--shape qwen2-math-7b-reward] [--params gpu-135m]

The model needs a scalar head (stage reward_model makes one; ``--head`` puts a random one on any
model). Sequences are the questions of ``--file``, else of the embedded seeds, with their solutions.
The ways in turn in one process; the last, the paper's way, on its first ``--slow-rows`` rows. The
stage encodes its texts, the others have theirs encoded before. Also prints the largest difference
between the scores of the stage and of transformers (without the latter: of bare). Prints JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from shapes import add_shape, chosen_model

import scalequest.sampling.score as scoring
from scalequest.params import JsonlSource, Params, ReasoningGymSource
from scalequest.problems.sources import load_problems
from scalequest.run.profile import load_profile
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.stage import StageRun
from scalequest.sampling.scorer import Scorer


def with_random_head(model: Path, out: Path) -> Path:
    """The model as a sequence classifier whose head is drawn with seed 0."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from scalequest.models.folder import local_path
    from scalequest.models.weights import load_tokenizer, save_model

    torch.manual_seed(0)
    tokenizer = load_tokenizer(model)
    scorer = AutoModelForSequenceClassification.from_pretrained(
        local_path(model), num_labels=1, trust_remote_code=False
    )
    scorer.config.pad_token_id = tokenizer.pad_token_id
    save_model(scorer, tokenizer, out)
    return out


def one_at_a_time(model: Path, params: Params) -> Callable[[list[list[int]]], list[float]]:
    """The paper's loop: one sequence a forward pass in transformers."""
    import torch
    from transformers import AutoModelForSequenceClassification

    scorer = AutoModelForSequenceClassification.from_pretrained(
        model, dtype=getattr(torch, params.engine.dtype), trust_remote_code=False
    ).eval()
    scorer.to("cuda" if torch.cuda.is_available() else "cpu")

    def score(rows: list[list[int]]) -> list[float]:
        with torch.no_grad():
            return [scorer(torch.tensor([ids], device=scorer.device)).logits[0, 0].item() for ids in rows]

    return score


def main() -> None:
    """Measure in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    add_shape(parser)
    parser.add_argument("--file", help="JSONL with question and solution instead of the embedded seeds")
    parser.add_argument("--head", action="store_true", help="put a random scalar head on the model first")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--slow-rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--params", default="params.yaml", help="a profile or a parameter file")
    args = parser.parse_args()
    if args.shape and (args.head or args.slow_rows):
        parser.error("--shape has no weights that transformers could load: give --slow-rows 0, and no --head")
    params = load_profile(args.params)
    params = params.model_copy(update={"runtime": params.runtime.model_copy(update={"workers": 1})})
    scratch = tempfile.TemporaryDirectory()
    model, loading = chosen_model(args, Path(scratch.name))
    if args.head:
        model = with_random_head(args.model, Path(scratch.name, "model"))
    scorer = Scorer(model, params.engine, params.runtime, **loading)
    from vllm import PoolingParams

    source: ReasoningGymSource | JsonlSource
    if args.file:
        source = JsonlSource(
            kind="jsonl", path=args.file, n=args.rows, sha256=sha256(Path(args.file).read_bytes()).hexdigest()
        )
    else:
        source = ReasoningGymSource(
            kind="reasoning_gym", dataset="gsm_symbolic", n=args.rows, seed=9_000_000, templates="all", config={}
        )
    problems = load_problems("problems" if args.file else "gsm_symbolic", source, 0, need_solution=True)
    texts = list(dict.fromkeys((p["question"], p["solution"]) for p in problems))  # the stage scores equal ones once
    rows = [ids + scorer.end for ids in scorer.chat.solutions(texts)]
    tokens = sum(map(len, rows)) / len(rows)

    def bare() -> list[float]:
        inputs, raw = [{"prompt_token_ids": ids} for ids in rows], PoolingParams(use_activation=False)
        if scorer._by_token:
            outputs = scorer._llm.encode(inputs, pooling_task="token_classify", pooling_params=raw, use_tqdm=False)
            return [float(output.outputs.data[-1].item()) for output in outputs]
        outputs = scorer._llm.classify(inputs, pooling_params=raw, use_tqdm=False)
        return [float(output.outputs.probs[0]) for output in outputs]

    scoring.Scorer = lambda *_: scorer  # type: ignore[misc,assignment]

    def stage() -> list[float]:
        size = params.reward.shard_size
        with tempfile.TemporaryDirectory() as folder:
            run = StageRun(params, StageFacts("reward", Path(folder), deps={str(model): "benchmark"}))
            return scoring.score(run, model, texts, sequences=lambda pair: pair, form="solutions", shard_size=size)

    ways: dict[str, tuple[Callable[[], list[float]], int]] = {"bare": (bare, len(rows)), "stage": (stage, len(rows))}
    bare()  # warm up
    if few := rows[: args.slow_rows]:
        slow = one_at_a_time(model, params)
        ways["transformers_one_at_a_time"] = (lambda: slow(few), len(few))
        slow(few[:4])
    rates: dict[str, list[float]] = {name: [] for name in ways}
    scores = {}
    for _ in range(args.rounds):
        for name, (run, n) in ways.items():
            start = time.perf_counter()
            scores[name] = run()
            rates[name].append(round(n / (time.perf_counter() - start), 1))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    # The reference is shorter, or absent.
    reference = scores.get("transformers_one_at_a_time", scores["bare"])
    difference = max(abs(a - b) for a, b in zip(scores["stage"], reference, strict=False))
    print(
        json.dumps(
            {
                "model": args.shape or str(args.model), "rows": len(rows), "mean_tokens": round(tokens, 1), "sequences_per_s": rates,
                "ratio_to_bare": {name: round(value / medians["bare"], 3) for name, value in medians.items()},
                "largest_difference": difference,
            },
            indent=2,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
