"""FSDP2 to its end: two processes that hold half of the weights each, and an engine that loads what they wrote."""

import json
from pathlib import Path

import pytest

from scalequest.params import Params
from scalequest.runtime.stage import StageRun
from scalequest.training.job import train
from scalequest.training.sft import SFT
from tests.fakes import ROOT, changed
from tests.training.test_job import QUESTIONS, settings
from tests.warm import Warm

pytestmark = pytest.mark.slow

SCRIPT = """
import json, sys
from pathlib import Path
from scalequest.sampling.engine import Engine
from scalequest.params import Sampling
from scalequest.run.profile import load_profile
model = Path(sys.argv[1])
runtime = load_profile().runtime.model_copy(update={"cpu_kv_cache_gib": 1})
engine = Engine(model, load_profile().engine.model_copy(update={"max_num_seqs": 8, "max_model_len": 256}), runtime,
                row_seeds=True)
prompts = engine.chat.conversations([[question] for question in json.loads(sys.argv[2])])
complete = engine.complete_rows(Sampling(temperature=0.0, top_p=1.0, max_tokens=12, shard_size=8))
print("RESULT" + json.dumps({"prompts": prompts, "texts": [c.text for c in complete(prompts, list(range(len(prompts))))]}))
"""


@pytest.mark.usefixtures("forked")
def test_a_sharded_training_is_whole_and_loads_in_vllm(model: Path, laptop: Params, warm: Warm, tmp_path: Path) -> None:
    """The losses of one process up to rounding, every tensor with its shape, and the tokens that transformers decodes."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    from scalequest.models.weights import load_chat
    from stages.qft import question_example

    chat = load_chat(model)
    rows = [question_example(chat, question) for question in QUESTIONS]
    sharded = changed(laptop, runtime={"accelerate": str(ROOT / "profiles" / "accelerate" / "fsdp-2-cpu.yaml")})
    one = train(StageRun(laptop), SFT(), model, tmp_path / "one", rows, settings(epochs=3))
    two = train(StageRun(sharded), SFT(), model, tmp_path / "two", rows, settings(epochs=3))
    assert two.metrics["processes"] == 2
    losses = [[step["loss"] for step in found.curves] for found in (one, two)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    assert all(weights[0][key].shape == weights[1][key].shape for key in weights[0])
    assert two.metrics["reloaded"]["loss"] == pytest.approx(one.metrics["reloaded"]["loss"], abs=1e-2)

    result = warm.run("-c", SCRIPT, str(tmp_path / "two"), json.dumps(QUESTIONS[:4]), cwd=ROOT)
    assert "RESULT" in result.stdout, result.stderr[-4000:]
    found = json.loads(result.stdout.split("RESULT")[1].splitlines()[0])
    net = AutoModelForCausalLM.from_pretrained(tmp_path / "two", dtype=torch.float32)
    expected = []
    for ids in found["prompts"]:
        tokens = net.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :]
        expected.append(chat.tokenizer.decode(tokens, skip_special_tokens=True))
    assert any(expected)
    assert found["texts"] == expected
