"""The engine on a tiny real model, in one process of its own: what vLLM keeps stays out of the test process."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from scalequest.sampling.vllm import graph_sizes, shared_name
from tests.warm import Warm

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]

SCRIPT = """
import json, sys
from pathlib import Path
from scalequest.sampling.engine import Engine
from scalequest.errors import UserError
from scalequest.params import Sampling
from scalequest.run.profile import load_profile
from scalequest.sampling.questions import question_rows
model = Path(sys.argv[1])
runtime = load_profile().runtime.model_copy(update={"cpu_kv_cache_gib": 1})
engine = Engine(model, load_profile().engine.model_copy(update={"max_num_seqs": 32, "max_model_len": 256}), runtime)
sampling = Sampling(temperature=1.0, top_p=0.9, max_tokens=24, shard_size=32)
complete = engine.complete(sampling)
prompts = [engine.chat.question_prefix] * 32
texts = lambda seed: [c.text for c in complete(prompts, seed)]
first, second = texts(1), texts(2)
again = texts(1)
result = {"repeats": first == again, "seeds_differ": first != second, "distinct": len(set(first))}
short = engine.complete(Sampling(temperature=1.0, top_p=0.9, max_tokens=4, shard_size=32))
result["reasons"] = sorted({c.finish_reason for c in short(prompts, 3)})
result["cut_tokens"] = [c.n_tokens for c in short(prompts, 3) if c.finish_reason == "length"]
rows = question_rows("sums", 4, 7, 5, engine.chat.question_prefix, complete)
result["ids"] = [row["id"] for row in rows]
bos = engine.chat.tokenizer.bos_token_id
seen = engine._llm.generate([{"prompt_token_ids": engine.chat.question_prefix}], use_tqdm=False)[0].prompt_token_ids
result["bos"] = list(seen).count(bos), list(seen) == engine.chat.question_prefix
texts, turns = ["What is 2 + 3?", "", " Zwei, \u00e9", "x" * 99], [["a", "b", "c"], ["q"]]
result["batches"] = [
    engine.chat.user_turns(texts) == [engine.chat.user_turn(text) for text in texts],
    engine.chat.conversations(turns) == [engine.chat.conversation(t) for t in turns],
]
try:
    complete([[5] * 240], 1)
except UserError as error:
    result["too_long"] = str(error)
mixed = complete([*prompts[:2], [5] * 240, *prompts[:2]], 1)
result["mixed"] = [(c.finish_reason == "too_long", c.text == "", c.n_tokens == 0) for c in mixed]
# The fast nucleus against vLLM's own, on logits flat enough that some rows need the fallback.
import torch
from vllm.v1.sample.ops import topk_topp_sampler as sampler
torch.manual_seed(0)
logits = torch.randn(64, 5000) * torch.linspace(0.1, 6, 64).unsqueeze(1)
p = torch.linspace(0.05, 0.999, 64)
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p_pytorch
exact = apply_top_k_top_p_pytorch(logits.clone(), None, p)
fast = sampler.apply_top_k_top_p(logits.clone(), None, p)
result["fast_installed"] = getattr(sampler.apply_top_k_top_p, "is_fast", False)
result["same_nucleus"] = bool(torch.equal(exact.isinf(), fast.isinf()))
# scalequest tune: rates in the middle of calls that are ended, which leave nothing behind.
from scalequest.run.tune import limited_to, scheduler_of, steady_pace, sweep
running = []
core = type(engine._llm.llm_engine.engine_core)
original = core.get_output
def watch(self):
    outputs = original(self)
    running.append(len(scheduler_of(engine._llm).running))
    return outputs
core.get_output = watch
params = load_profile()
result["sweep"] = list(sweep(engine._llm, params, [2, 8], new_tokens=8, prompt_tokens=40, seconds=0.2))
result["most_running"] = max(running)
core.get_output = original
result["unfinished"] = engine._llm.llm_engine.has_unfinished_requests(), len(scheduler_of(engine._llm).waiting)
result["as_before"] = [c.text for c in complete(prompts, 1)] == first
# What a GPU's engine would be given, to this vLLM.
from vllm.config import CompilationConfig
from scalequest.sampling import vllm as loading
torch.cuda.is_available = lambda: True
torch.cuda.get_device_capability = lambda: (9, 0)
result["graphs"] = {}
for name, start, scores in (("full", "full", False), ("quick", "quick", False), ("scores", "full", True)):
    given = loading.hardware_settings(load_profile().engine, runtime.model_copy(update={"engine_start": start}), scores)
    made = CompilationConfig(**given["compilation_config"])
    result["graphs"][name] = [made.mode, made.cudagraph_mode.name, (made.cudagraph_capture_sizes or [None])[-1]]
print("RESULT" + json.dumps(result))
"""

SCORER = """
import json, sys
from pathlib import Path
from scalequest.sampling.scorer import Scorer
from scalequest.run.profile import load_profile
model = Path(sys.argv[1])
runtime = load_profile().runtime.model_copy(update={"cpu_kv_cache_gib": 1})
scorer = Scorer(model, load_profile().engine.model_copy(update={"max_num_seqs": 32, "max_model_len": 256}), runtime)
rows = [scorer.chat.solution(q, r) for q, r in (("What is 1 + 1?", "2"), ("What is 1 + 1?", "It is three, I think."), ("Why?", ""))]
scores = scorer.score(rows)
import torch
from transformers import AutoModelForSequenceClassification
net = AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32)
with torch.no_grad():
    expected = [net(input_ids=torch.tensor([ids])).logits[0, 0].item() for ids in rows]
print("RESULT" + json.dumps({"scores": scores, "expected": expected}))
"""


def run(warm: Warm, script: str, model: Path) -> dict:
    result = warm.run("-c", script, str(model), cwd=ROOT)
    lines = [line for line in result.stdout.splitlines() if line.startswith("RESULT")]
    assert lines, result.stderr[-4000:]
    return json.loads(lines[0].removeprefix("RESULT"))


@pytest.fixture(scope="module")
def seen(model: Path, warm: Warm) -> dict:
    return run(warm, SCRIPT, model)


def test_shard_seed_decides_the_tokens(seen: dict) -> None:
    """Requests carry no seed: the one set before the call decides, whatever the engine did before (PAPER.md 10.21)."""
    assert seen["repeats"]
    assert seen["seeds_differ"]
    assert seen["distinct"] == 32  # equal prompts of one shard are different draws


def test_no_double_bos(seen: dict) -> None:
    """Token ids go in as they are: the template's one BOS, and none of the engine's (PAPER.md 10.7)."""
    assert seen["bos"] == [1, True]


def test_a_batch_of_prompts_is_encoded_as_one_by_one(seen: dict) -> None:
    assert seen["batches"] == [True, True]


def test_length_cut_is_marked(seen: dict) -> None:
    """No question ends within four tokens: rows cut at max_tokens say so and have exactly that many tokens (PAPER.md 10.5)."""
    assert "length" in seen["reasons"]
    assert set(seen["cut_tokens"]) == {4}


def test_ids_are_generator_shard_row(seen: dict) -> None:
    assert seen["ids"] == ["sums/7/0", "sums/7/1", "sums/7/2", "sums/7/3"]


def test_a_prompt_longer_than_the_context_is_named(seen: dict) -> None:
    # 256 of context less 24 to generate leave 232.
    # 240 tokens of prompt and 24 to come make more than 256. Where nothing fits the settings are wrong, and that is told.
    assert "1 of 1 prompts of the shard are too long: 240 tokens at most, the context takes 232" in seen["too_long"]
    # One among others is a row of its own kind; the others are answered.
    assert [too_long for too_long, _, _ in seen["mixed"]] == [False, False, True, False, False]
    assert seen["mixed"][2] == [True, True, True]


def test_a_sweep_limits_the_batch_and_leaves_nothing_behind(seen: dict) -> None:
    assert [row["max_num_seqs"] for row in seen["sweep"]] == [2, 8]
    for row in seen["sweep"]:
        assert row["tokens_per_s"] > 0
        assert 0 < row["decoded_at_once"] <= row["max_num_seqs"]
    assert seen["most_running"] == 8  # of 32 that the engine was started for
    assert seen["unfinished"] == [False, 0]
    assert seen["as_before"]


def test_vllm_takes_what_a_gpu_would_be_given(seen: dict) -> None:
    """Full: compiled by vLLM's own rules. Quick: mode 0 compiles nothing. Graphs hold steps that read prompts."""
    assert seen["graphs"] == {"full": [None, "FULL", 128], "quick": [0, "FULL", 128], "scores": [None, "NONE", None]}


def test_fast_top_p_masks_exactly_what_vllm_masks(seen: dict) -> None:
    assert seen["fast_installed"]
    assert seen["same_nucleus"]


def test_scores_are_transformers_raw_logits(model: Path, tmp_path: Path, warm: Warm) -> None:
    """The pooling runner without activation equals transformers' head at the last token, an empty response included."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(1)
    AutoModelForSequenceClassification.from_pretrained(model, num_labels=1).save_pretrained(tmp_path / "scorer")
    for file in model.iterdir():
        if not (tmp_path / "scorer" / file.name).exists():
            (tmp_path / "scorer" / file.name).write_bytes(file.read_bytes())
    result = run(warm, SCORER, tmp_path / "scorer")
    assert result["scores"] == pytest.approx(result["expected"], abs=1e-4)
    assert len(set(result["scores"])) == 3


@pytest.mark.parametrize("largest", [1, 2, 64, 100, 256, 257, 512, 1000, 1024, 2048])
def test_graphs_are_recorded_up_to_twice_the_largest_batch(largest: int) -> None:
    sizes = graph_sizes(largest)
    assert sizes[0] == 1
    assert largest in sizes, "a full batch that only decodes is not padded"
    assert sizes[-1] == 2 * largest
    assert all(a < b <= 2 * a and b - a <= 128 for a, b in pairwise(sizes)), "a step would be padded too far"


def test_models_of_one_shape_have_one_name_in_turn(tmp_path: Path) -> None:
    """A name is one process's while it runs, free when it ends, leads to its model, and no other shape has it."""
    script = "import sys; from pathlib import Path; from scalequest.sampling.vllm import shared_name; a, b = map(Path, sys.argv[1:]); print(shared_name(a, b), flush=True); sys.stdin.read()"  # fmt: skip
    links, models = tmp_path / "links", [tmp_path / "first", tmp_path / "second"]
    for model in models:
        model.mkdir()
        (model / "config.json").write_text('{"model_type": "llama"}')
    with subprocess.Popen(
        [sys.executable, "-c", script, str(models[0]), str(links)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as first:  # fmt: skip
        assert first.stdout
        name = Path(first.stdout.readline().decode().strip())
        assert name.parent == links
        assert name.resolve() == models[0]
        beside = subprocess.run(
            [sys.executable, "-c", script, str(models[1]), str(links)], input=b"", capture_output=True, check=True, cwd=ROOT
        )  # fmt: skip
        other = Path(beside.stdout.decode().strip())
        assert other != name
        assert (name.resolve(), other.resolve()) == tuple(models)
        first.kill()
    assert shared_name(models[1], links) == name
    assert name.resolve() == models[1]
    (models[0] / "config.json").write_text('{"model_type": "qwen2"}')
    assert shared_name(models[0], links).name[:16] != name.name[:16], "no other shape's graphs"
    (tmp_path / "file").write_text("")
    assert shared_name(models[0], tmp_path / "file") == models[0], "no links can be made there"
