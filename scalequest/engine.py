"""The engine: vLLM in this process, fed with token ids, seeded once a shard.

Requests carry no seed of their own: on a GPU per-request seeds cost up to 7% of the throughput. Instead the generators that vLLM
draws from are set before a shard's single ``generate`` call, and a self-test at start proves on the target at hand that
this decides the tokens. Needs the engine in this process (``VLLM_ENABLE_V1_MULTIPROCESSING=0``), one a process.
"""

import fcntl
import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from scalequest.errors import UserError
from scalequest.io import read_json
from scalequest.models import file_sha256, local_path, remote_code
from scalequest.params import Engine as EngineParams
from scalequest.params import Runtime, Sampling
from scalequest.prompts import ChatFormat

log = logging.getLogger("scalequest")

# Lock files of the links that this process gave to vLLM (see shared_name); open, and so locked, until it ends.
_HELD: list[TextIO] = []
MOST_BESIDE = 64  # names for engines of one shape side by side on one machine


@dataclass(frozen=True)
class Completion:
    """What came back for one prompt.

    Attributes:
        text: raw text, special tokens left out.
        finish_reason: ``stop`` (the model ended by itself), ``length`` (cut at ``max_tokens``) or ``too_long`` (the prompt did not
            fit, nothing was generated).
        n_tokens: generated tokens, the end token included.
    """

    text: str
    finish_reason: str
    n_tokens: int


# Maps N prompts (token ids) and a seed to N completions, in order. Stages take this, tests give a fake.
Complete = Callable[[Sequence[list[int]], int], list[Completion]]


def seed_everything(seed: int) -> None:
    """Set every generator that an engine may draw from: Python's, NumPy's (vLLM on GPU), torch's (vLLM on CPU)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def prepare_environment(runtime: Runtime) -> None:
    """Set what vLLM reads from the environment; must run before vLLM is imported."""
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_CPU_KVCACHE_SPACE=str(runtime.cpu_kv_cache_gib),
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        VLLM_LOGGING_LEVEL=os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        VLLM_NO_USAGE_STATS="1",
    )
    if runtime.threads:
        os.environ["OMP_NUM_THREADS"] = str(runtime.threads)


def graph_sizes(max_num_seqs: int) -> list[int]:
    """Batch sizes to record CUDA graphs for, up to the largest batch that decodes.

    VLLM's own list ends at 512, above which it launches a step's kernels one by one, and has 51 entries, each of which costs time
    at the start. A batch is padded to the next size.
    """
    sizes = [1, 2, 4, 8, 16, *range(32, 256, 32), *range(256, 512, 64), *range(512, max_num_seqs, 128)]
    return [*(size for size in sizes if size < max_num_seqs), max_num_seqs]


def hardware_settings(engine: EngineParams, runtime: Runtime) -> dict[str, Any]:
    """VLLM's settings that depend on what the machine has: memory and graphs on a GPU, no compilation on a CPU."""
    import torch

    if not torch.cuda.is_available():
        # Eager: torch.compile gains 20% and costs 70 s a start, more than a laptop stage takes.
        return {"enforce_eager": True}
    settings: dict[str, Any] = {
        "gpu_memory_utilization": runtime.gpu_memory_utilization,
        "compilation_config": {"cudagraph_capture_sizes": graph_sizes(engine.max_num_seqs)},
    }
    if runtime.gpu_kv_cache_gib:
        settings["kv_cache_memory_bytes"] = int(runtime.gpu_kv_cache_gib * 2**30)
    return settings


def shared_name(model: Path, links: Path) -> Path:
    """A link to ``model`` whose name is made of the model's configuration, and so is that of every model of its shape.

    VLLM keys its compiled graphs by the model's path among others, and so compiles every model anew, though those of one run are
    of one shape; by this name the second finds the first one's graphs. While a process uses a name, it is that process's alone: another
    one beside it takes the same with the next number. Where no links or locks can be made, the model keeps its own path.
    """
    shape = file_sha256(model / "config.json")[:16]
    try:
        links.mkdir(parents=True, exist_ok=True)
        for number in range(MOST_BESIDE):
            link = links / f"{shape}-{number}"
            lock = link.with_suffix(".lock").open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            _HELD.append(lock)
            link.unlink(missing_ok=True)
            link.symlink_to(model.resolve())
            return link
    except OSError as error:
        log.warning("%s: %s; the engine compiles its graphs anew", links, error)
    return model


def loadable(model: Path) -> Path:
    """What to give vLLM as the model's path: a name that models of one shape share, where that saves compiling.

    A model whose repository brings code keeps its own path: Python imports that code under a name made of the path.
    """
    import torch

    if remote_code(model) or not torch.cuda.is_available():  # nothing is compiled on a CPU, see hardware_settings
        return local_path(model)
    from vllm import envs

    return shared_name(local_path(model), Path(envs.VLLM_CACHE_ROOT, "scalequest"))


def _load(model: Path, engine: EngineParams, runtime: Runtime, **kwargs: Any) -> Any:
    begin = time.monotonic()
    prepare_environment(runtime)
    path = loadable(model)
    if remote_code(model):
        kwargs |= {"trust_remote_code": True}
    settings = hardware_settings(engine, runtime)
    from vllm import LLM

    if "enforce_eager" in settings:
        from scalequest.sampling import install_fast_top_p

        install_fast_top_p()
    llm = LLM(
        str(path),
        dtype=engine.dtype,
        max_num_seqs=engine.max_num_seqs,
        max_model_len=engine.max_model_len,
        seed=0,
        disable_log_stats=True,
        use_tqdm_on_load=False,
        **settings,
        **kwargs,
    )
    log.info("engine ready after %.0f s", time.monotonic() - begin)
    return llm


def _completion(output: Any) -> Completion:
    first = output.outputs[0]
    return Completion(first.text, first.finish_reason, len(first.token_ids))


class Engine:
    """A generating model; ``settings`` go to vLLM as they are.

    Attributes:
        chat: the model's chat format, in token ids.
    """

    def __init__(self, model: Path, engine: EngineParams, runtime: Runtime, **settings: Any) -> None:
        self._max_model_len = engine.max_model_len
        self._llm = _load(model, engine, runtime, **settings)
        self.chat = ChatFormat.of(self._llm.get_tokenizer())
        self._self_test()

    def complete(self, sampling: Sampling, stops: Sequence[str] = ()) -> Complete:
        """Sampler with these settings; it stops at the model's own end and before any text of ``stops``.

        A prompt that leaves no room for ``max_tokens`` in the context gets the empty completion ``too_long``: one row among
        millions must not end a run. The sampler raises ``UserError`` where no prompt of a shard fits.
        """
        from vllm import SamplingParams

        settings = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            stop_token_ids=self.chat.stop_ids,
            stop=list(stops),
            skip_special_tokens=True,
        )
        room = self._max_model_len - sampling.max_tokens

        def complete(prompts: Sequence[list[int]], seed: int) -> list[Completion]:
            fits = [len(prompt) <= room for prompt in prompts]
            self._tell_too_long(
                [prompt for prompt, fit in zip(prompts, fits, strict=True) if not fit], len(prompts), room
            )
            # A shard must not depend on what ran before it, be it only by rounding: a resumed stage starts with a cold cache.
            self._llm.reset_prefix_cache()
            seed_everything(seed)
            given = [{"prompt_token_ids": prompt} for prompt, fit in zip(prompts, fits, strict=True) if fit]
            outputs = iter(self._llm.generate(given, settings, use_tqdm=False))
            completions = [_completion(next(outputs)) if fit else Completion("", "too_long", 0) for fit in fits]
            assert next(outputs, None) is None
            return completions

        return complete

    def _tell_too_long(self, prompts: Sequence[list[int]], n: int, room: int) -> None:
        if not prompts:
            return
        text = (
            f"{len(prompts)} of {n} prompts of the shard are too long: {max(map(len, prompts))} tokens at most, the context takes "
            f"{room} beside max_tokens (engine.max_model_len {self._max_model_len}); the first begins {self.chat.decode(prompts[0][:40])!r}"
        )
        if len(prompts) == n:
            raise UserError(f"{text}; raise max_model_len or lower max_tokens")
        log.warning("%s; they are marked too_long", text)

    def _self_test(self) -> None:
        """Two calls with one seed must be equal and two with two seeds not, else no shard could be repeated."""
        from vllm import SamplingParams

        # After words at random and at the highest temperature that vLLM takes: a model that knows one question only is no
        # proof of a deaf engine.
        settings = SamplingParams(temperature=2.0, max_tokens=16, ignore_eos=True)
        words = random.Random(0)
        vocabulary = len(self.chat.tokenizer)
        prompts = [{"prompt_token_ids": [words.randrange(vocabulary) for _ in range(8)]} for _ in range(8)]

        def draw(seed: int) -> list[list[int]]:
            seed_everything(seed)
            return [list(o.outputs[0].token_ids) for o in self._llm.generate(prompts, settings, use_tqdm=False)]

        first, second, other = draw(1), draw(1), draw(2)
        if first != second or first == other:
            raise UserError(
                "the engine does not follow the shard's seed on this machine (equal seeds gave "
                f"{'equal' if first == second else 'different'} tokens, different seeds "
                f"{'equal' if first == other else 'different'} ones), so nothing it writes could be repeated. "
                "Seen with vLLM's multiprocessing on: leave VLLM_ENABLE_V1_MULTIPROCESSING=0, and report the vLLM version"
            )


# Reward models whose head scores every token in vLLM; the last token's score is the sequence's. The others ("...ForSequenceClassification")
# are scored at the last token alone.
TOKEN_SCORERS = frozenset({"InternLM2ForRewardModel", "Qwen2ForRewardModel"})


class Scorer:
    """A model with a scalar head, in vLLM's pooling runner; ``settings`` go to vLLM as they are.

    Attributes:
        chat: the model's chat format, in token ids.
        end: what is put after a sequence for the score to be read there: InternLM2-Reward's own token, for other models nothing.
    """

    def __init__(self, model: Path, engine: EngineParams, runtime: Runtime, **settings: Any) -> None:
        config = read_json(local_path(model) / "config.json")
        self._by_token = check_scalar_head(model, config) in TOKEN_SCORERS
        self.end = [int(config["reward_token_id"])] if "reward_token_id" in config else []
        self._max_model_len = engine.max_model_len
        self._llm = _load(model, engine, runtime, runner="pooling", **settings)
        self.chat = ChatFormat.of(self._llm.get_tokenizer())

    def score(self, prompts: Sequence[list[int]]) -> list[float]:
        """Raw logits of N token sequences, in order.

        Raises:
            UserError: a sequence is longer than the context (its end, where the score is read, would be cut off), or a score is
                not finite.
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
