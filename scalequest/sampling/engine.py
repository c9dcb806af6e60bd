"""The engine: vLLM in this process, fed with token ids, its random draws decided by seeds of ours.

Two ways to seed it. Questions are sampled by the shard: requests carry no seed, and the generators
that vLLM draws from are set before a shard's single ``generate`` call (the fastest way: per-request
seeds cost 3 to 7% on a GPU, nothing on a CPU). Rows that follow a filter carry a seed each, so that
a row's answer does not depend on its company. A self-test at start proves on the target at hand
that the seeds decide the tokens. Needs the engine in this process
(``VLLM_ENABLE_V1_MULTIPROCESSING=0``), one per process.
"""

import logging
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.models.chat import ChatFormat
from scalequest.params import Engine as EngineParams
from scalequest.params import Runtime, Sampling
from scalequest.sampling.completion import TOO_LONG, Complete, CompleteRows, Completion
from scalequest.sampling.vllm import load_engine, row_seed_settings, seed_everything

log = logging.getLogger("scalequest")


def _completion(output: Any) -> Completion:
    first = output.outputs[0]
    return Completion(first.text, first.finish_reason, len(first.token_ids))


class Engine:
    """A generating model; ``settings`` are passed to vLLM.

    Attributes:
        chat: the model's chat format, in token ids.
    """

    def __init__(
        self, model: Path, engine: EngineParams, runtime: Runtime, row_seeds: bool = False, **settings: Any
    ) -> None:
        self._model, self._max_model_len, self._row_seeds = model, engine.max_model_len, row_seeds
        if row_seeds:
            settings = row_seed_settings() | settings
        self._llm = load_engine(model, engine, runtime, **settings)
        self.chat = ChatFormat.of(self._llm.get_tokenizer())
        self._self_test()

    def complete(self, sampling: Sampling, stops: Sequence[str] = ()) -> Complete:
        """Sampler by the shard's seed; it stops at the template's end of a turn, and before ``stops``.

        A prompt that leaves no room for ``max_tokens`` in the context gets the empty completion
        ``too_long``: one row among millions must not end a run. The sampler raises ``UserError``
        where no prompt of a shard fits.
        """

        def complete(prompts: Sequence[list[int]], seed: int) -> list[Completion]:
            seed_everything(seed)
            return self._generate(prompts, [None] * len(prompts), sampling, stops)

        return complete

    def complete_rows(self, sampling: Sampling, stops: Sequence[str] = ()) -> CompleteRows:
        """Sampler by a seed per prompt; else as ``complete``."""
        assert self._row_seeds, "start the engine with row_seeds=True"

        def complete(prompts: Sequence[list[int]], seeds: Sequence[int]) -> list[Completion]:
            return self._generate(prompts, seeds, sampling, stops)

        return complete

    def _generate(
        self, prompts: Sequence[list[int]], seeds: Sequence[int | None], sampling: Sampling, stops: Sequence[str]
    ) -> list[Completion]:
        from vllm import SamplingParams

        room = self._max_model_len - sampling.max_tokens
        fits = [len(prompt) <= room for prompt in prompts]
        self._warn_of_too_long([p for p, fit in zip(prompts, fits, strict=True) if not fit], len(prompts), room)
        # What ran before must not matter, not even through rounding: a resumed stage starts with a
        # cold cache.
        self._llm.reset_prefix_cache()
        given, settings = [], []
        for prompt, seed, fit in zip(prompts, seeds, fits, strict=True):
            if fit:
                given.append({"prompt_token_ids": prompt})
                settings.append(
                    SamplingParams(
                        temperature=sampling.temperature,
                        top_p=sampling.top_p,
                        max_tokens=sampling.max_tokens,
                        seed=seed,
                        stop_token_ids=self.chat.stop_ids,
                        stop=[*stops, *self.chat.answer_stops],
                        skip_special_tokens=True,
                    )
                )
        found = self._llm.generate(given, settings, use_tqdm=False) if given else []
        outputs = iter(found)
        completions = [_completion(next(outputs)) if fit else Completion("", TOO_LONG, 0) for fit in fits]
        assert next(outputs, None) is None
        return completions

    def _warn_of_too_long(self, prompts: Sequence[list[int]], n: int, room: int) -> None:
        if not prompts:
            return
        text = (
            f"{len(prompts)} of {n} prompts of the shard are too long: {max(map(len, prompts))} tokens at most, the context takes "
            f"{room} beside max_tokens (engine.max_model_len {self._max_model_len}); the first begins {self.chat.decode(prompts[0][:40])!r}"
        )
        if len(prompts) == n and not self._row_seeds:
            raise UserError(f"{text}; raise max_model_len or lower max_tokens")
        log.warning("%s; they are marked too_long", text)

    def _self_test(self) -> None:
        """Stop where the model is broken or its tokens do not follow the seeds."""
        begin = time.monotonic()
        # After words at random and at the highest temperature that vLLM takes: a model that knows
        # one question only is no proof of a deaf engine.
        words, vocabulary = random.Random(0), len(self.chat.tokenizer)
        lengths = [8] * PROBES + [min(256, self._max_model_len // 2)]
        *prompts, long = [[words.randrange(vocabulary) for _ in range(length)] for length in lengths]
        # A broken model may show it only after a long prompt.
        check_logits(self._model, self._probe([long], [None], 1, 1))
        try:
            self._test_seeds(prompts, SHORT)
        except UserError:  # a few equal tokens may be chance, and many give the better verdict
            self._test_seeds(prompts, LONG)
        log.info("the engine follows its seeds (%.1f s)", time.monotonic() - begin)

    def _test_seeds(self, prompts: Sequence[list[int]], length: int) -> None:
        if not self._row_seeds:
            probes = [self._probe(prompts, [None] * PROBES, shared, length) for shared in (1, 1, 2)]
            check_probes(self._model, *probes)
            return
        # The shared generators differ between the draws that must be equal: only the rows' own
        # seeds may decide.
        seeds = [1 + row for row in range(PROBES)]
        first, second = self._probe(prompts, seeds, 1, length), self._probe(prompts, seeds, 2, length)
        check_probes(self._model, first, second, self._probe(prompts, [100 + seed for seed in seeds], 1, length))
        backwards = self._probe(prompts[::-1], seeds[::-1], 3, length)
        check_company(first, Probe(backwards.tokens[::-1], backwards.logprobs[::-1]))

    def _probe(self, prompts: Sequence[list[int]], seeds: Sequence[int | None], shared: int, length: int) -> "Probe":
        from vllm import SamplingParams

        seed_everything(shared)
        self._llm.reset_prefix_cache()
        settings = [
            SamplingParams(temperature=2.0, max_tokens=length, ignore_eos=True, logprobs=0, seed=s) for s in seeds
        ]
        outputs = self._llm.generate([{"prompt_token_ids": p} for p in prompts], settings, use_tqdm=False)
        rows = [output.outputs[0] for output in outputs]
        logprobs = [
            [step[token].logprob for token, step in zip(row.token_ids, row.logprobs, strict=True)] for row in rows
        ]
        return Probe([list(row.token_ids) for row in rows], logprobs)


# Prompts of the self-test, and the tokens drawn after each: a few, and more where these looked wrong.
PROBES = 8
SHORT, LONG = 4, 16
# A token whose log-probability is above this at temperature 1 leaves nothing to draw, also at
# temperature 2.
CERTAIN = -1e-4


@dataclass(frozen=True)
class Probe:
    """What the self-test's prompts gave: N rows of tokens, and the model's log-probability of each."""

    tokens: list[list[int]]
    logprobs: list[list[float]]


def check_logits(model: Path, *probes: Probe) -> list[float]:
    """Return the log-probabilities of all tokens.

    Raises:
        UserError: one of them is not finite.
    """
    values = [value for probe in probes for row in probe.logprobs for value in row]
    if broken := [value for value in values if not math.isfinite(value)]:
        raise UserError(
            f"{model}: the model's logits are not finite ({len(broken)} of {len(values)} log-probabilities): its training diverged, "
            "or its weights do not fit engine.dtype. Look at its loss and gradient norm (MLflow, the stage's metrics), lower the "
            "learning_rate of the stage that trained it, or set engine.dtype to float32"
        )
    return values


def check_probes(model: Path, first: Probe, second: Probe, other: Probe) -> None:
    """Compare two draws of one seed and one of another.

    Raises:
        UserError: the model is broken, which is looked at first because its tokens prove nothing;
            or the engine does not follow its seeds.
    """
    values = check_logits(model, first, second, other)
    if first.tokens == other.tokens and min(values) > CERTAIN:
        raise UserError(
            f"{model}: the model gives one token all the probability, whatever it reads, so nothing can be drawn from it: its "
            "training collapsed. Lower the learning_rate or the epochs of the stage that trained it"
        )
    if first.tokens != second.tokens or first.tokens == other.tokens:
        raise UserError(
            "the engine does not follow its seeds on this machine (equal seeds gave "
            f"{'equal' if first.tokens == second.tokens else 'different'} tokens, different seeds "
            f"{'equal' if first.tokens == other.tokens else 'different'} ones), so nothing it writes could be repeated. "
            "Seen with vLLM's multiprocessing on: leave VLLM_ENABLE_V1_MULTIPROCESSING=0, and report the vLLM version"
        )


def check_company(first: Probe, backwards: Probe) -> None:
    """Compare the same rows and seeds in two orders: the seed must decide, the place must not.

    The first token alone is compared, and most rows must agree: in another order floats may be rounded differently, and
    a draw at the edge goes the other way.

    Raises:
        UserError: most rows begin with another token.
    """
    same = sum(a[0] == b[0] for a, b in zip(first.tokens, backwards.tokens, strict=True))
    if same <= len(first.tokens) / 2:
        raise UserError(
            f"the engine does not follow a row's own seed on this machine ({same} of {len(first.tokens)} rows began with the same "
            "token in another order), so rows could not be resumed. Report the vLLM version"
        )
