"""Training on a tiny real model: what is learned, full and LoRA, and the same bytes after a kill."""

import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from scalequest.errors import UserError
from scalequest.io import read_json
from scalequest.params import Params, SupervisedTraining
from scalequest.runtime.stage import StageRun
from scalequest.training import job, order
from scalequest.training.divergence import StopsAtNonFinite
from scalequest.training.dpo import DPO
from scalequest.training.examples import Example, Pair, ScoredText
from scalequest.training.job import Kind, train
from scalequest.training.order import SortedSteps
from scalequest.training.regression import Regression
from scalequest.training.reward import Reward
from scalequest.training.rounding import round_model
from scalequest.training.sft import SFT
from tests.fakes import changed
from tests.warm import Warm

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def settings(method: str = "full", **changes: object) -> SupervisedTraining:
    values = {
        "method": method, "epochs": 1, "learning_rate": 2e-3, "warmup_frac": 0.0, "batch_size": 4, "per_device_batch_size": 2,
        "max_length": 256, "weight_decay": 0.0, "lora_r": 4, "lora_alpha": 8, "optimizer": "adamw", "packing": False,
    }  # fmt: skip
    return SupervisedTraining(**(values | changes))


QUESTIONS = ["What is 3 + 4?", "What is 12 - 5?", "How many legs do 2 dogs have?", "What is 6 * 7?"] * 4


def test_learned_tokens_are_question_and_end(
    model: Path, laptop: Params, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """QFT learns the question and its end token; the template is masked, and nothing follows the end (PAPER.md 10.18)."""
    from scalequest.models.weights import load_chat
    from stages.qft import question_example

    chat = load_chat(model)
    examples = [question_example(chat, q) for q in QUESTIONS]
    # 7 tokens at most besides the words; the last learned token is the template's end of the user turn.
    assert examples[0].target[-1] == chat.question_end == chat.tokenizer.convert_tokens_to_ids("<|im_end|>")
    with caplog.at_level("INFO", logger="scalequest"):
        metrics = train(StageRun(laptop), SFT(), model, tmp_path / "out", examples, settings(epochs=4)).metrics
    shown = [r.getMessage() for r in caplog.records if r.getMessage().startswith("preflight")]
    assert shown[0] == "preflight: <|im_start|>user\n⟦What is 3 + 4?<|im_end|>⟧"
    assert len(shown) == 2
    assert metrics["learned_tokens"] == sum(len(e.target) for e in examples)
    assert metrics["last_loss"] < metrics["first_loss"]


def test_a_wrong_mask_stops_the_stage(
    model: Path, laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a new TRL ignored the labels that it is given: everything would be learned, template included."""
    from trl.trainer import sft_trainer

    from scalequest.models.weights import load_chat
    from stages.qft import question_example

    original = sft_trainer.DataCollatorForLanguageModeling.torch_call

    def forgetful(self, examples):
        return original(self, [{"input_ids": e["input_ids"], "labels": e["input_ids"]} for e in examples])

    monkeypatch.setattr(sft_trainer.DataCollatorForLanguageModeling, "torch_call", forgetful)
    chat = load_chat(model)
    with pytest.raises(UserError, match="preflight: the trainer would learn"):
        train(
            StageRun(laptop), SFT(), model, tmp_path / "out", [question_example(chat, q) for q in QUESTIONS], settings()
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_both_methods_write_whole_models_that_answer_as_trained(
    method: str, model: Path, laptop: Params, tmp_path: Path
) -> None:
    """LoRA comes out merged: no adapter files, and the same questions more likely than before."""
    import torch
    from transformers import AutoModelForCausalLM

    from scalequest.models.weights import load_chat
    from stages.qft import question_example

    chat = load_chat(model)
    examples = [question_example(chat, q) for q in QUESTIONS]
    train(StageRun(laptop), SFT(), model, tmp_path / "out", examples, settings(method, epochs=12))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        p.name for p in model.iterdir()
    )  # the same files as the model that came in
    assert read_json(tmp_path / "out" / "config.json")["use_cache"], "whoever loads it would generate slowly"

    def loss(folder: Path) -> float:
        net = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        ids = torch.tensor([examples[0].prompt + examples[0].target])
        return net(input_ids=ids, labels=ids).loss.item()

    assert loss(tmp_path / "out") < loss(model) - 0.1


def pairs(model: Path) -> list:
    from scalequest.models.weights import load_chat
    from stages.qpo import question_pair

    chat = load_chat(model)
    return [question_pair(chat, {"id": "", "rewrite": q + " Explain.", "question": q}) for q in QUESTIONS]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_dpo_prefers_the_rewrite(method: str, model: Path, laptop: Params, tmp_path: Path) -> None:

    metrics = train(
        StageRun(laptop), DPO(0.1), model, tmp_path / "out", pairs(model), settings(method, epochs=4)
    ).metrics
    # Before the first step policy and reference are equal: the loss is ln 2, whatever the pairs (so they share a precision).
    assert metrics["first_loss"] == pytest.approx(0.693147, abs=1e-4)
    assert metrics["last_loss"] < 0.6
    assert metrics["reloaded"]["accuracy"] == 1.0
    assert metrics["reloaded"]["pairs_from"] == "training"
    assert metrics["reloaded"]["margin"] == pytest.approx(metrics["reloaded"]["margin_trained"], abs=1e-5)


def test_dpo_hides_nothing_from_attention(model: Path) -> None:
    """The paper's collator masks every end token inside a sequence out of attention (PAPER.md 10.9)."""
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    some = pairs(model)[:2]
    rows = [{"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected} for p in some]
    batch = DataCollatorForPreference(pad_token_id=0)(rows)
    lengths = [
        len(p.prompt) + len(t)
        for targets in ([p.chosen for p in some], [p.rejected for p in some])
        for p, t in zip(some, targets, strict=True)
    ]
    assert batch["attention_mask"].sum(dim=1).tolist() == lengths
    end = some[0].chosen[-1]
    assert ((batch["input_ids"] == end) <= (batch["attention_mask"] == 1)).all()


def test_reference_has_the_policy_precision(model: Path, laptop: Params, tmp_path: Path) -> None:
    """The paper's code loads the policy in float16 and the reference in bfloat16 (PAPER.md 10.10): at step 0 their
    log-probabilities would differ. Here the first loss is ln 2 to float32's precision, in bfloat16 too."""

    run = StageRun(changed(laptop, engine={"dtype": "bfloat16"}))
    metrics = train(run, DPO(0.1), model, tmp_path / "out", pairs(model), settings()).metrics
    assert metrics["first_loss"] == pytest.approx(0.693147, abs=2e-3)


def test_small_steps_move_weights_in_bfloat16(model: Path, laptop: Params, tmp_path: Path) -> None:
    """A step of 1e-5 on a bfloat16 weight of 0.01 is rounded away (its neighbours are 6e-5 apart):
    trained weights are float32.
    """
    import torch
    from safetensors.torch import load_file

    from scalequest.models.weights import load_chat
    from stages.qft import question_example

    chat = load_chat(model)
    examples = [question_example(chat, q) for q in QUESTIONS]
    # 40 steps of AdamW at 1e-5 move a weight by up to 4e-4, if they add up.
    run = StageRun(changed(laptop, engine={"dtype": "bfloat16"}))
    train(run, SFT(), model, tmp_path / "out", examples, settings(learning_rate=1e-5, epochs=10))
    before, after = load_file(model / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    assert after[name].dtype == torch.bfloat16
    moved = (before[name].to(torch.bfloat16) != after[name]).float().mean().item()
    assert moved > 0.3


def test_reward_model_ranks_right_above_wrong(model: Path, laptop: Params, tmp_path: Path) -> None:
    from scalequest.models.weights import load_chat

    chat = load_chat(model)
    made = [Pair(chat.user_turn(q), chat.encode("It is \\boxed{7}"), chat.encode("No idea")) for q in QUESTIONS]
    probe = [ids for p in made[:2] for ids in (p.prompt + p.chosen, p.prompt + p.rejected)]
    for method in ("full", "lora"):
        scores = train(
            StageRun(laptop), Reward(), model, tmp_path / method, made, settings(method, epochs=4), probe=probe
        ).scores
        assert scores[0] > scores[1]
        assert scores[2] > scores[3]


def test_regression_learns_its_labels(model: Path, laptop: Params, tmp_path: Path) -> None:
    from scalequest.models.weights import load_chat

    chat = load_chat(model)
    texts = [ScoredText(chat.user_turn(q), float("legs" in q)) for q in QUESTIONS]
    for method in ("full", "lora"):
        scores = train(
            StageRun(laptop), Regression(), model, tmp_path / method, texts, settings(method, epochs=12),
            probe=[text.ids for text in texts[:4]],
        ).scores  # fmt: skip
        assert scores[2] > max(scores[0], scores[1], scores[3])


def test_texts_that_end_in_padding_are_refused(model: Path, laptop: Params, tmp_path: Path) -> None:
    """transformers reads the head before trailing padding tokens, vLLM at the last token: the scores would differ."""
    from scalequest.models.weights import load_tokenizer

    pad = load_tokenizer(model).pad_token_id
    texts = [ScoredText([5, 6, pad], 1.0)] * 4
    with pytest.raises(UserError, match="end in the padding token"):
        train(StageRun(laptop), Regression(), model, tmp_path / "out", texts, settings())


def test_long_examples_are_dropped_and_counted_and_none_left_is_an_error(
    model: Path, laptop: Params, tmp_path: Path
) -> None:
    from scalequest.models.weights import load_chat
    from stages.qft import question_example

    chat = load_chat(model)
    examples = [question_example(chat, q) for q in [*QUESTIONS, "What is 1 + 1? " * 60]]
    metrics = train(StageRun(laptop), SFT(), model, tmp_path / "out", examples, settings()).metrics
    assert metrics["dropped_too_long"] == 1
    with pytest.raises(UserError, match="longer than max_length 16 tokens"):
        train(StageRun(laptop), SFT(), model, tmp_path / "no", [examples[-1]], settings(max_length=16))


def uneven(kind: Kind) -> list[Example] | list[Pair]:
    """Eight rows of 4 to 60 tokens of the tiny model's vocabulary."""
    texts = [list(range(10, 14 + 8 * n)) for n in range(8)]
    if isinstance(kind, SFT):
        return [Example(ids[:3], ids[3:]) for ids in texts]
    return [Pair(ids[:3], ids[3:], ids[3:][::-1]) for ids in texts]


@pytest.mark.parametrize("kind", [SFT(), DPO(0.1)], ids=["sft", "dpo"])
def test_rows_sorted_within_a_step_give_the_losses_of_unsorted_ones(
    kind: Kind, model: Path, laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, widths = uneven(kind), []
    step = StopsAtNonFinite.training_step

    def seen(trainer: Any, model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
        widths.append(inputs["input_ids"].shape[1])
        return step(trainer, model, inputs, *rest)

    monkeypatch.setattr(StopsAtNonFinite, "training_step", seen)
    by_length = train(StageRun(laptop), kind, model, tmp_path / "sorted", rows, settings(epochs=2))
    # The passes are those of the order: two rows each, as wide as the longer one.
    lengths = [len(rows[place]) for place in SortedSteps([len(row) for row in rows], 4, StageRun(laptop).seed())]
    assert widths[: len(rows) // 2] == [max(lengths[at : at + 2]) for at in range(0, len(rows), 2)]
    # Rows of one length keep the order of the shuffle.
    for module in (job, order):
        monkeypatch.setattr(module, "SortedSteps", lambda lengths, *rest: SortedSteps([1] * len(lengths), *rest))
    as_drawn = train(StageRun(laptop), kind, model, tmp_path / "drawn", rows, settings(epochs=2))
    for name in ("loss", "grad_norm"):
        found, expected = ([entry[name] for entry in trained.curves] for trained in (by_length, as_drawn))
        assert found == pytest.approx(expected, rel=1e-3)
    assert by_length.metrics["padding_frac"] < as_drawn.metrics["padding_frac"]


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(("name", "method"), [("sft", "full"), ("dpo", "lora")])
def test_two_processes_train_what_one_does(name: str, method: str, model: Path, laptop: Params, tmp_path: Path) -> None:
    """Under `accelerate launch` (gloo): the same batches, so the same losses and weights up to rounding."""
    from safetensors.torch import load_file

    from scalequest.models.weights import load_chat
    from stages.qft import question_example

    chat = load_chat(model)
    examples = [question_example(chat, q) for q in QUESTIONS]
    two = changed(laptop, runtime={"accelerate": str(ROOT / "profiles" / "accelerate" / "two-processes.yaml")})
    kind, rows = (SFT(), examples) if name == "sft" else (DPO(0.1), pairs(model))
    alone = train(StageRun(laptop), kind, model, tmp_path / "1", rows, settings(method)).metrics
    with socket.socket() as taken:
        with suppress(OSError):  # somebody has it: as good
            # accelerate's default port, as another training has it that starts at the same time: bound, not yet listening.
            taken.bind(("", 29_500))
        shared = train(StageRun(two), kind, model, tmp_path / "2", rows, settings(method)).metrics
    assert (alone.pop("processes"), shared.pop("processes")) == (1, 2)
    for metrics in (alone, shared):
        metrics |= {f"reloaded.{key}": value for key, value in metrics.pop("reloaded").items()}
    assert shared.pop("reloaded.pairs_from", "") == alone.pop("reloaded.pairs_from", "")
    assert shared == pytest.approx(alone, abs=1e-4)
    weights = [load_file(tmp_path / n / "model.safetensors") for n in ("1", "2")]
    assert max((weights[0][key] - weights[1][key]).abs().max().item() for key in weights[0]) < 1e-4


@pytest.mark.usefixtures("forked")
def test_processes_that_cannot_share_the_batch_are_refused(model: Path, laptop: Params, tmp_path: Path) -> None:
    """What a process refuses is told by the stage, in its words."""

    two = changed(laptop, runtime={"accelerate": str(ROOT / "profiles" / "accelerate" / "two-processes.yaml")})
    with pytest.raises(
        UserError, match="batch_size 2 cannot be shared by 2 processes that take per_device_batch_size 2"
    ):
        train(StageRun(two), DPO(0.1), model, tmp_path / "out", pairs(model), settings(batch_size=2))
    assert not (tmp_path / "out").exists()


def on_the_grid(model: Path, folder: Path) -> Path:
    """The model with its weights rounded to bfloat16, as a generator that QFT wrote is."""
    import torch
    from transformers import AutoModelForCausalLM

    from scalequest.models.weights import load_tokenizer, save_model

    save_model(AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16), load_tokenizer(model), folder)
    return folder


@pytest.mark.parametrize("method", ["full", "lora"])
def test_small_dpo_steps_outlive_the_save_in_bfloat16(
    method: str, model: Path, laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps below half of bfloat16's spacing: nearly all gone when rounded to nearest, all there in what is saved."""
    import torch
    from safetensors.torch import load_file

    from scalequest.training import measured

    base = on_the_grid(model, tmp_path / "base")
    seen = {}

    def spy(net, dtype, seed):
        seen.update({name: weight.detach().clone() for name, weight in net.named_parameters()})
        return round_model(net, dtype, seed)

    monkeypatch.setattr(measured, "round_model", spy)
    run = StageRun(changed(laptop, engine={"dtype": "bfloat16"}))
    few = settings(method, learning_rate=1e-6 if method == "full" else 1e-5, epochs=6)
    train(run, DPO(0.1), base, tmp_path / "out", pairs(model), few)
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    names = [name for name in seen if "mlp" in name]
    assert {weight.dtype for weight in seen.values()} == {torch.float32}
    steps = torch.cat([(seen[name] - before[name].float()).flatten() for name in names]).double()
    nearest = torch.cat([(seen[name].bfloat16() - before[name]).flatten() for name in names]).double()
    saved = torch.cat([(after[name] - before[name]).flatten() for name in names]).double()

    def kept(found: torch.Tensor) -> float:
        """Share of the step that is left: its projection on what was trained."""
        return ((found @ steps) / (steps @ steps)).item()

    assert kept(nearest) < 0.5
    assert kept(saved) == pytest.approx(1.0, abs=0.25)


def separable_pairs(model: Path, n: int) -> list[Pair]:
    """A question about legs is preferred to a bare sum; other numbers in each pair."""
    from scalequest.models.weights import load_chat
    from stages.qpo import question_pair

    chat, made = load_chat(model), []
    for i in range(n):
        a, b = (7 * i + 3) % 90 + 2, (11 * i + 5) % 80 + 2
        rewrite = f"How many legs do {a} dogs and {b} cats have?"
        made.append(question_pair(chat, {"id": str(i), "rewrite": rewrite, "question": f"What is {a} + {b}?"}))
    return made


@pytest.mark.parametrize(("method", "rate", "least"), [("full", 2e-6, 0.2), ("lora", 1e-4, 1.5)])
def test_a_held_out_margin_outlives_the_save_in_bfloat16(
    method: str, rate: float, least: float, model: Path, laptop: Params, tmp_path: Path
) -> None:
    """Measured on 16 held-out pairs at beta 1: full 0.41 trained and 1.11 saved (the rounding of all weights of so small a
    model moves it by about 0.7), LoRA 3.07 and 3.09. In the run of 135M half of it had to be there, and an eighth was."""
    base, made = on_the_grid(model, tmp_path / "base"), separable_pairs(model, 80)
    run = StageRun(changed(laptop, engine={"dtype": "bfloat16"}))
    often = settings(method, learning_rate=rate, epochs=3, per_device_batch_size=4)
    trained = train(run, DPO(1.0), base, tmp_path / "out", made[:64], often, held_out=made[64:])
    found = trained.metrics["reloaded"]
    assert (found["pairs"], found["pairs_from"], found["accuracy_trained"]) == (16, "held out", 1.0)
    assert found["margin_trained"] > least
    assert found["margin"] >= found["margin_trained"] / 2
    assert trained.flags == {"lost_in_saving": False, "few_held_out": False, "no_preference": False}


def test_a_save_in_bfloat16_repeats_its_bytes(model: Path, laptop: Params, tmp_path: Path) -> None:
    run = StageRun(changed(laptop, engine={"dtype": "bfloat16"}))
    for name in ("first", "second"):
        train(run, DPO(0.1), model, tmp_path / name, pairs(model), settings())
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second"))
    assert first == second


def test_pairs_that_are_held_out_are_what_the_saved_model_is_measured_on(
    model: Path, laptop: Params, tmp_path: Path
) -> None:
    made = pairs(model)
    swapped = [Pair(p.prompt, p.rejected, p.chosen) for p in made[:8]]
    trained = train(StageRun(laptop), DPO(0.1), model, tmp_path / "out", made, settings(epochs=4), held_out=swapped)
    found = trained.metrics["reloaded"]
    assert (found["pairs"], found["pairs_from"], found["accuracy"]) == (8, "held out", 0.0)
    assert found["margin"] < 0
    assert trained.flags == {"lost_in_saving": False, "few_held_out": False, "no_preference": True}


def test_the_loss_that_sft_reports_is_the_saved_models(model: Path, laptop: Params, tmp_path: Path) -> None:
    from scalequest.models.weights import load_chat
    from stages.qft import question_example

    chat = load_chat(model)
    examples = [question_example(chat, q) for q in QUESTIONS]
    whole = settings(epochs=8, batch_size=16, per_device_batch_size=16)
    trained = train(StageRun(laptop), SFT(), model, tmp_path / "out", examples, whole)
    found = trained.metrics["reloaded"]
    assert found["rows"] == 16
    # One batch holds all rows: what TRL logs for the first step is the loss before it.
    assert found["loss_base"] == pytest.approx(trained.metrics["first_loss"], abs=1e-4)
    assert found["loss"] == pytest.approx(found["loss_trained"], abs=1e-5)
    assert found["loss"] < found["loss_base"] - 0.1
    assert trained.flags == {"lost_in_saving": False}


REPEATED = """
import os, sys
from pathlib import Path
import torch
from scalequest.run.profile import load_profile
from scalequest.runtime.stage import StageRun
from scalequest.training.job import train
from scalequest.training.sft import SFT
from scalequest.models.weights import load_chat
from stages.qft import question_example
from tests.fakes import changed
from tests.training.test_job import QUESTIONS, settings
model, out = map(Path, sys.argv[1:])
params = changed(load_profile(), runtime={"deterministic": True}, engine={"dtype": "bfloat16"})
examples = [question_example(load_chat(model), q) for q in QUESTIONS]
train(StageRun(params), SFT(), model, out, examples, settings(batch_size=8, per_device_batch_size=8, epochs=4))
assert torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
"""


@pytest.mark.gpu
def test_deterministic_training_repeats_its_bytes(model: Path, tmp_path: Path, warm: Warm) -> None:
    """On a CPU the bytes repeat anyway, and what this shows is that the setting reaches torch; on a
    GPU they repeat by it alone.
    """
    weights = []
    for name in ("first", "second"):
        made = warm.run("-c", REPEATED, str(model), str(tmp_path / name), cwd=ROOT)
        assert made.returncode == 0, made.stderr
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != (model / "model.safetensors").read_bytes()


def test_training_leaves_out_cudnns_attention(
    model: Path, laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its backward pass gave NaN for padded rows on an H100 (benchmarks/divergence-h100.json). Any machine shows the switch."""
    import torch

    from scalequest.models.weights import load_chat
    from stages.qft import question_example

    seen: list[bool] = []
    original = SFT.trainer

    def look(self, *arguments):
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())
        return original(self, *arguments)

    monkeypatch.setattr(SFT, "trainer", look)
    torch.backends.cuda.enable_cudnn_sdp(True)
    examples = [question_example(load_chat(model), q) for q in QUESTIONS[:4]]
    train(StageRun(laptop), SFT(), model, tmp_path / "out", examples, settings())
    assert seen == [False]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_walks_that_are_spared_change_no_byte(
    method: str, model: Path, laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = [Example([1, 2, 3], [4 + n % 50, 5, 6], str(n)) for n in range(16)]
    for name in ("spared", "walked"):
        if name == "walked":
            monkeypatch.setattr(job, "spare_walks", lambda trainer: None)
        made = job.Job(SFT(), model, tmp_path / name, examples, settings(method), "float32", 17, laptop.runtime)
        trainer = job.ready_trainer(made, tmp_path)
        trainer.train()
        assert (trainer.state.total_flos == 0) is (name == "spared")
        assert all(module.training for module in trainer.model.modules())
        assert all(weight.grad is None for weight in trainer.model.parameters())
        whole = job.whole_model(trainer, made, tmp_path)
        assert not {"train", "zero_grad"} & set(vars(whole))
        whole.save_pretrained(made.out)
    spared, walked = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("spared", "walked"))
    assert spared == walked
