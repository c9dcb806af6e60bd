"""The engine: vLLM in this process, fed with token ids, seeded once a shard.

Requests carry no seed of their own: on a GPU per-request seeds cost up to 7% of the throughput. Instead the generators that vLLM
draws from are set before a shard's single ``generate`` call, and a self-test at start proves on the target at hand that
this decides the tokens. Needs the engine in this process (``VLLM_ENABLE_V1_MULTIPROCESSING=0``), one a process.
"""

import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.models.chat import ChatFormat
from scalequest.params import Engine as EngineParams
from scalequest.params import Runtime, Sampling
from scalequest.sampling.completion import Complete, Completion
from scalequest.sampling.vllm import load_engine, seed_everything

log = logging.getLogger("scalequest")


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
        self._llm = load_engine(model, engine, runtime, **settings)
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
