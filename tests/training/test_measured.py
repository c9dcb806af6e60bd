"""What is measured of a model that was trained and saved: once where saving changed nothing, else both (a tiny real model)."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from scalequest.params import Params
from scalequest.runtime.stage import StageRun
from scalequest.training import measured
from scalequest.training.divergence import DivergenceError
from scalequest.training.examples import Example, Pair
from scalequest.training.job import Job, train
from scalequest.training.measured import same_weights, trained_and_saved
from scalequest.training.reward import Reward
from scalequest.training.scalar_head import ScalarKind
from scalequest.training.sft import SFT
from tests.training.test_job import settings

pytestmark = pytest.mark.slow

EXAMPLES = [Example([1, 2, 3], [4 + n, 5, 6], str(n)) for n in range(5)]
KINDS = {"sft": SFT(), "reward": Reward()}
TESTS: dict[str, list[Any]] = {"sft": EXAMPLES, "reward": [row.prompt + row.target for row in EXAMPLES]}
COMPARED = [0, 3]


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    """A kind that ends in a vocabulary, and one that ends in a scalar head."""
    return str(request.param)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many models that were loaded or measured have numbers, as each call of ``Kind.measure`` begins."""
    seen: list[int] = []
    models: list[Any] = []
    load = measured.load

    def loaded(*given: Any) -> Any:
        models.append(load(*given))
        return models[-1]

    monkeypatch.setattr(measured, "load", loaded)
    for base in (SFT, ScalarKind):

        def counted(self: Any, model: Any, tests: Any, measure: Any = base.measure) -> Any:
            others = [other for other in models if other is not model]
            seen.append(1 + sum(any(not weight.is_meta for weight in other.parameters()) for other in others))
            return measure(self, model, tests)

        monkeypatch.setattr(base, "measure", counted)
    return seen


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tests each call of ``Kind.measure`` had."""
    seen: list[int] = []
    for base in (SFT, ScalarKind):

        def spied(self: Any, model: Any, tests: Any, measure: Any = base.measure) -> Any:
            seen.append(len(tests))
            return measure(self, model, tests)

        monkeypatch.setattr(base, "measure", spied)
    return seen


def job_of(kind: str, model: Path, out: Path, laptop: Params, dtype: str = "float32") -> Job:
    return Job(KINDS[kind], model, out, [], settings(), dtype, 17, laptop.runtime, TESTS[kind], held_out=True)


def trained_model(job: Job, seed: int = 1) -> Any:
    """The job's model as a training might leave it: each weight moved a little."""
    import torch

    net = job.kind.load(job.model, torch.float32, job.seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    return net


def tokenizer(model: Path) -> Any:
    from scalequest.models.weights import load_tokenizer

    return load_tokenizer(model)


def numbers(job: Job, net: Any, places: list[int] | None = None) -> list[float]:
    tests = job.tests if places is None else [job.tests[place] for place in places]
    return job.kind.measure(net.eval(), tests)


def test_a_model_that_is_saved_as_it_is_is_measured_once(
    kind: str, model: Path, laptop: Params, tmp_path: Path, calls: list[int]
) -> None:
    job = job_of(kind, model, tmp_path / "out", laptop)
    net = trained_model(job)
    expected = numbers(job, net)
    assert len(set(expected)) == len(EXAMPLES)
    calls.clear()
    trained, saved = trained_and_saved(job, net, tokenizer(model), COMPARED)
    assert calls == [len(EXAMPLES)]
    # Bit for bit what measuring both would give.
    assert saved == expected
    assert trained == [expected[place] for place in COMPARED]


def test_a_saved_model_that_differs_in_one_number_is_measured_besides(
    kind: str,
    model: Path,
    laptop: Params,
    tmp_path: Path,
    calls: list[int],
    held: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from safetensors.torch import load_file, save_file

    save = measured.save_model

    def spoilt(net: Any, tokens: Any, out: Path) -> None:
        save(net, tokens, out)
        weights = load_file(out / "model.safetensors")
        weights["model.layers.1.mlp.down_proj.weight"][3, 5] += 1.0
        save_file(weights, out / "model.safetensors", metadata={"format": "pt"})

    monkeypatch.setattr(measured, "save_model", spoilt)
    job = job_of(kind, model, tmp_path / "out", laptop)
    net = trained_model(job)
    expected = numbers(job, net, COMPARED)
    calls.clear()
    held.clear()
    trained, saved = trained_and_saved(job, net, tokenizer(model), COMPARED)
    assert calls == [len(EXAMPLES), len(COMPARED)]
    # The trained one waits on the CPU while the saved one is measured; then a GPU would hold both.
    assert held == [1, 1]
    assert trained == expected
    assert all(saved[place] != value for place, value in zip(COMPARED, expected, strict=True))


def test_in_bfloat16_the_trained_and_the_rounded_weights_are_measured(
    kind: str, model: Path, laptop: Params, tmp_path: Path, calls: list[int]
) -> None:
    import torch

    job = job_of(kind, model, tmp_path / "out", laptop, "bfloat16")
    net = trained_model(job)
    expected = numbers(job, net, COMPARED)
    calls.clear()
    trained, saved = trained_and_saved(job, net, tokenizer(model), COMPARED)
    assert calls == [len(COMPARED), len(EXAMPLES)]
    assert trained == expected
    assert saved == numbers(job, job.kind.load(job.out, torch.bfloat16, job.seed))
    assert trained != [saved[place] for place in COMPARED]
    assert all(weight.is_meta for weight in net.parameters()), "a GPU would hold two models"


@pytest.mark.parametrize(
    ("dtype", "saved_is_sound", "named"),
    [("float32", False, "the saved model"), ("float32", True, "the trained model"), ("bfloat16", False, "the trained model")],
)  # fmt: skip
def test_a_model_of_finite_weights_that_gives_nan_is_not_left_behind(
    dtype: str, saved_is_sound: bool, named: str, kind: str, model: Path, laptop: Params, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import torch

    job = job_of(kind, model, tmp_path / "out", laptop, dtype)
    net = trained_model(job)
    with torch.no_grad():
        net.model.norm.weight.fill_(3e38)  # its products with hidden states overflow
    if saved_is_sound:
        monkeypatch.setattr(measured, "save_model", lambda net, tokens, out: shutil.copytree(model, out))
    tests = len(COMPARED) if named == "the trained model" else len(EXAMPLES)
    with pytest.raises(DivergenceError, match=rf"training diverged: {named} gives nan on {tests} of {tests} rows"):
        trained_and_saved(job, net, tokenizer(model), COMPARED)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_saving_loses_in_float32_is_flagged(
    method: str,
    kind: str,
    model: Path,
    laptop: Params,
    tmp_path: Path,
    calls: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A whole training, once saved as it should be, and once with the model that came in saved in its place."""
    rows: list[Any] = EXAMPLES[:4]
    if kind == "reward":
        rows = [Pair(row.prompt, row.target, row.target[::-1], row.id) for row in rows]
    flags = []
    for name in ("kept", "lost"):
        if name == "lost":
            monkeypatch.setattr(measured, "save_model", lambda net, tokens, out: shutil.copytree(model, out))
        calls.clear()
        trained = train(
            StageRun(laptop), KINDS[kind], model, tmp_path / name, rows, settings(method, epochs=4),
            probe=TESTS["reward"] if kind == "reward" else (),
        )  # fmt: skip
        flags.append(trained.flags["lost_in_saving"])
        # Of the model before, and of the saved one; of the trained one only where it is another.
        assert len(calls) == {"kept": 2, "lost": 3}[name]
    assert flags == [False, True]


def test_weights_are_the_same_under_the_same_names_in_the_same_precision_only() -> None:
    import torch
    from torch.nn import Linear

    def linear(bias: bool = True) -> Linear:
        net = Linear(2, 3, bias=bias)
        with torch.no_grad():
            net.weight.copy_(torch.arange(6.0).reshape(3, 2))
            if bias:
                net.bias.fill_(1.0)
        return net

    moved = linear()
    with torch.no_grad():
        moved.bias[2] += 2**-20
    assert same_weights(linear(), linear())
    assert not same_weights(linear(), moved)
    assert not same_weights(linear(), linear(bias=False))
    assert not same_weights(linear(bias=False), linear())
    assert not same_weights(linear(), linear().to(torch.bfloat16)), "here every number is one of bfloat16 too"
