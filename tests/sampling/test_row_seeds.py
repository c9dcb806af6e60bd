"""A row's own seed on a real engine: the same tokens in any company, and prompts that do not fit one step."""

import json
from pathlib import Path
from typing import Any

import pytest

from scalequest.errors import UserError
from scalequest.sampling.engine import Probe, check_company, check_probes
from tests.fakes import ROOT
from tests.warm import Warm

SCRIPT = """
import json, sys
from pathlib import Path
from scalequest.sampling.engine import Engine
from scalequest.params import Sampling
from scalequest.run.profile import load_profile
model = Path(sys.argv[1])
runtime = load_profile().runtime.model_copy(update={"cpu_kv_cache_gib": 1})
# 512 tokens per step: two prompts of 402 do not go in together. Read in pieces they would end the engine on a CPU.
engine = Engine(model, load_profile().engine.model_copy(update={"max_num_seqs": 32, "max_model_len": 512}), runtime, row_seeds=True,
                max_num_batched_tokens=512)
complete = engine.complete_rows(Sampling(temperature=1.5, top_p=0.95, max_tokens=32, shard_size=32))
words = " and ".join(f"{i} + {i}" for i in range(70))
prompts = engine.chat.conversations([[f"What is {i} + {words}?"] for i in range(24)])
def ask(rows):
    return dict(zip(rows, [c.text for c in complete([prompts[i] for i in rows], [7 + i for i in rows])]))
rows = list(range(24))
whole = ask(rows)
parts = {"again": rows, "backwards": rows[::-1], "half": rows[::2], "three": [5, 17, 2], "one": [11]}
same = {name: sum(text == whole[i] for i, text in ask(part).items()) / len(part) for name, part in parts.items()}
other = [c.text for c in complete(prompts, [99 + i for i in rows])]
generate, outputs = engine._llm.generate, []
engine._llm.generate = lambda *given, **settings: outputs.extend(generate(*given, **settings)) or outputs
one = [c.text for c in complete([prompts[0]] * 24, list(range(24)))]
engine._llm.generate = generate
read = sum(len(o.prompt_token_ids) for o in outputs), sum(o.num_cached_tokens for o in outputs)
mixed = complete([prompts[0], [5] * 500, prompts[1]], [7, 0, 8])
print("RESULT" + json.dumps({
    "tokens": len(prompts[0]), "same": same, "other": sum(a == b for a, b in zip(other, whole.values())), "draws": len(set(one)), "read": read,
    "mixed": [c.finish_reason for c in mixed], "kept": [mixed[0].text == whole[0], mixed[2].text == whole[1]],
}))
"""
START = """
import sys
from pathlib import Path
from scalequest.errors import UserError
from scalequest.sampling.engine import Engine
from scalequest.run.profile import load_profile
runtime = load_profile().runtime.model_copy(update={"cpu_kv_cache_gib": 1})
try:
    Engine(Path(sys.argv[1]), load_profile().engine.model_copy(update={"max_num_seqs": 32, "max_model_len": 512}), runtime, sys.argv[2] == "rows")
    print("RESULT started")
except UserError as error:
    print("RESULT", error)
"""


def collapse(weight: Any) -> None:
    """Whatever is read, one of two tokens is certain: the sign of the hidden state's sum says which."""
    weight.zero_()
    weight[5], weight[6] = 1e6, -1e6


def run(warm: Warm, script: str, *arguments: object) -> str:
    result = warm.run("-c", script, *map(str, arguments), cwd=ROOT)
    lines = [line for line in result.stdout.splitlines() if line.startswith("RESULT")]
    assert lines, result.stderr[-4000:]
    return lines[0].removeprefix("RESULT").strip()


@pytest.mark.slow
def test_a_row_has_its_tokens_whatever_its_company(model: Path, warm: Warm) -> None:
    seen = json.loads(run(warm, SCRIPT, model))
    assert 300 < seen["tokens"] < 480
    assert seen["same"] == {"again": 1.0, "backwards": 1.0, "half": 1.0, "three": 1.0, "one": 1.0}
    assert seen["other"] < 3
    assert seen["draws"] > 20, "equal prompts with other seeds are other draws"
    # The first of 24 equal prompts is read; of each other all whole blocks are known, whatever its seed. On a CPU they have
    # 32 tokens (CPU_BLOCK_SIZE); vLLM's own would have 128.
    n, (prompt_tokens, cached_tokens) = seen["tokens"], seen["read"]
    assert prompt_tokens == 24 * n
    assert 23 * (n - 32) <= cached_tokens < 23 * n
    assert [reason == "too_long" for reason in seen["mixed"]] == [False, True, False]
    assert seen["kept"] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", ["rows", "shard"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda weight: weight.fill_(float("nan")), "the model's logits are not finite", id="diverged"),
        pytest.param(collapse, "gives one token all the probability", id="collapsed"),
        pytest.param(lambda weight: weight, "started", id="sound"),
    ],
)
def test_a_broken_model_is_not_blamed_on_the_seeds(
    model: Path, tmp_path: Path, warm: Warm, damage, message: str, seeds: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from scalequest.models.weights import load_tokenizer

    net = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        net.lm_head.weight = torch.nn.Parameter(net.lm_head.weight.clone())
        net.config.tie_word_embeddings = False
        damage(net.lm_head.weight)
    net.save_pretrained(tmp_path / "model")
    load_tokenizer(model).save_pretrained(tmp_path / "model")
    told = run(warm, START, tmp_path / "model", seeds)
    assert message in told
    if message != "started":
        assert str(tmp_path / "model") in told
        assert "seed" not in told


# ------------------------------------------------------------------------------------------------- what the test finds

NAN, SURE, OPEN = float("nan"), 0.0, -1.5


def probe(tokens: list[int], logprob: float = OPEN) -> Probe:
    return Probe([[token] for token in tokens], [[logprob] for _ in tokens])


@pytest.mark.parametrize(
    ("first", "second", "other", "message"),
    [
        pytest.param([1, 2], [1, 2], [3, 4], None, id="sound"),
        pytest.param([1, 2], [1, 3], [3, 4], "equal seeds gave different tokens, different seeds different ones", id="unseeded"),
        pytest.param([1, 2], [1, 2], [1, 2], "equal seeds gave equal tokens, different seeds equal ones", id="deaf"),
    ],
)  # fmt: skip
def test_the_seeds_are_compared(first, second, other, message: str | None) -> None:
    if message is None:
        check_probes(Path("m"), probe(first), probe(second), probe(other))
        return
    with pytest.raises(UserError, match=message):
        check_probes(Path("m"), probe(first), probe(second), probe(other))


@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf")])
def test_logits_that_are_not_finite_come_first(value: float) -> None:
    with pytest.raises(
        UserError, match=r"models/qft/x: the model's logits are not finite \(2 of 6 log-probabilities\)"
    ):
        check_probes(Path("models/qft/x"), probe([1, 2]), probe([1, 2], value), probe([1, 2]))


def test_certainty_is_not_deafness() -> None:
    with pytest.raises(UserError, match="m: the model gives one token all the probability"):
        check_probes(Path("m"), probe([1, 2], SURE), probe([1, 2], SURE), probe([1, 2], SURE))


@pytest.mark.parametrize(("same", "refused"), [(8, False), (5, False), (4, True), (0, True)])
def test_most_rows_must_begin_alike_in_another_order(same: int, refused: bool) -> None:
    first, backwards = probe(list(range(8))), probe([*range(same), *[99] * (8 - same)])
    if not refused:
        check_company(first, backwards)
        return
    with pytest.raises(UserError, match=rf"row's own seed on this machine \({same} of 8 rows"):
        check_company(first, backwards)
