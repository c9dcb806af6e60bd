"""A model with a scalar head, in vLLM's pooling runner: rewards and difficulty scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.io import read_json
from scalequest.models.chat import ChatFormat
from scalequest.models.folder import local_path
from scalequest.params import Engine as EngineParams
from scalequest.params import Runtime
from scalequest.sampling.vllm import load_engine

# Reward models whose head scores every token in vLLM; the last token's score is the sequence's. The
# others ("...ForSequenceClassification") are scored at the last token alone.
TOKEN_SCORERS = frozenset({"InternLM2ForRewardModel", "Qwen2ForRewardModel"})


class Scorer:
    """A model with a scalar head, in vLLM's pooling runner; ``settings`` are passed to vLLM.

    It keeps ``engine.dtype``, whatever generating models compute in: scores are compared with each other.

    Attributes:
        chat: the model's chat format, in token ids.
        end: what is put after a sequence for the score to be read there: InternLM2-Reward's own
            token, for other models nothing.
    """

    def __init__(self, model: Path, engine: EngineParams, runtime: Runtime, **settings: Any) -> None:
        config = read_json(local_path(model) / "config.json")
        self._by_token = check_scalar_head(model, config) in TOKEN_SCORERS
        self.end = [int(config["reward_token_id"])] if "reward_token_id" in config else []
        self._max_model_len = engine.max_model_len
        self._llm = load_engine(model, engine.as_saved, runtime, runner="pooling", **settings)
        self.chat = ChatFormat.of(self._llm.get_tokenizer())

    def score(self, prompts: Sequence[list[int]]) -> list[float]:
        """Raw logits of N token sequences, in order.

        Raises:
            UserError: a sequence is longer than the context (its end, where the score is read,
                would be cut off), or a score is not finite.
        """
        from vllm import PoolingParams

        for number, prompt in enumerate(prompts):
            if len(prompt) > self._max_model_len:
                raise UserError(
                    f"sequence {number} of the shard has {len(prompt)} tokens, the scorer takes {self._max_model_len} "
                    f"(engine.max_model_len); raise it; the sequence begins {self.chat.decode(prompt[:40])!r}"
                )

        inputs, raw = [{"prompt_token_ids": p} for p in prompts], PoolingParams(use_activation=False)
        if self._by_token:
            tokens = self._llm.encode(inputs, pooling_task="token_classify", pooling_params=raw, use_tqdm=False)
            scores = [float(output.outputs.data[-1].item()) for output in tokens]
        else:
            outputs = self._llm.classify(inputs, pooling_params=raw, use_tqdm=False)
            scores = [float(output.outputs.probs[0]) for output in outputs]
        check_finite(scores)
        return scores


def check_scalar_head(model: Path, config: dict[str, Any]) -> str:
    """The model's architecture, if it gives one number for a sequence.

    Raises:
        UserError: it has no head, scores steps, or has several labels.
    """
    architecture = str((config.get("architectures") or ["none"])[0])
    if architecture not in TOKEN_SCORERS and not architecture.endswith("ForSequenceClassification"):
        raise UserError(
            f"{model}: {architecture} gives no single score for a sequence; expected one of {sorted(TOKEN_SCORERS)} or "
            "...ForSequenceClassification. A plain model becomes a reward model by training: set reward_model.method to full or lora"
        )
    labels = len(config.get("id2label") or {}) or config.get(
        "num_labels", 2
    )  # transformers' default is 2, and is not written
    if architecture.endswith("ForSequenceClassification") and labels != 1:
        raise UserError(f"{model}: {architecture} has {labels} labels, expected 1: a reward is one number")
    return architecture


def check_finite(scores: Sequence[float]) -> None:
    """Refuse NaN and infinite scores, which would win or lose every comparison in silence."""
    for number, score in enumerate(scores):
        if score != score or abs(score) == float("inf"):
            raise UserError(
                f"score {number} of the shard is {score}, expected a finite number: the scoring model is broken "
                "(diverged training, or a half precision that overflows); look at its training loss in MLflow, lower its "
                "learning_rate, or set engine.dtype to float32"
            )
