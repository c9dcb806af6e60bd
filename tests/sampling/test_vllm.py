import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import scalequest.evaluation
import scalequest.sampling.scorer as scorer
from scalequest.errors import UserError
from scalequest.io import write_json
from scalequest.params import Engine, Params, Runtime
from scalequest.sampling.vllm import check_hardware, hardware_settings, load_engine, prepare_environment, unlike_asked

FP8 = {"dtype": "bfloat16", "quantization": "fp8"}
CACHE = {"dtype": "bfloat16", "kv_cache_dtype": "fp8"}
INVARIANT = {"repeatability": "batch_invariant"}


def engine(laptop: Params, **settings: Any) -> Engine:
    return laptop.engine.model_copy(update=settings)


def runtime(laptop: Params, **settings: Any) -> Runtime:
    return Runtime.model_validate(laptop.runtime.model_dump() | settings)


def put_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] | None) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")


@pytest.mark.parametrize(
    ("settings", "capability", "refused"),
    [
        (FP8, None, "engine.quantization: fp8: this machine has no NVIDIA GPU. Expected .* 8.9 or higher"),
        (CACHE, None, "engine.kv_cache_dtype: fp8: this machine has no NVIDIA GPU"),
        (INVARIANT, None, "engine.repeatability: batch_invariant: this machine has no NVIDIA GPU. Expected .* 8.0"),
        (FP8, (8, 0), "engine.quantization: fp8: this machine has Some GPU"),
        (INVARIANT, (7, 5), "this machine has Some GPU"),
        (FP8 | CACHE | INVARIANT, (9, 0), None),
        (FP8, (8, 9), None),
        (INVARIANT, (8, 0), None),
        ({}, None, None),
    ],
)
def test_what_the_machine_cannot_compute_is_refused(
    settings: dict[str, Any], capability, refused: str | None, laptop: Params, monkeypatch: pytest.MonkeyPatch
):
    put_gpu(monkeypatch, capability)
    if refused is None:
        check_hardware(engine(laptop, **settings))
        return
    with pytest.raises(UserError, match=refused):
        check_hardware(engine(laptop, **settings))


def test_an_engine_of_8_bits_does_not_start_on_a_cpu(laptop: Params, monkeypatch: pytest.MonkeyPatch):
    put_gpu(monkeypatch, None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(UserError, match="or set quantization to null"):
        load_engine(Path("no/model"), engine(laptop, **FP8), laptop.runtime)


def test_quick_starts_compile_nothing(laptop: Params, monkeypatch: pytest.MonkeyPatch):
    full, quick = (runtime(laptop, engine_start=start) for start in ("full", "quick"))
    put_gpu(monkeypatch, None)
    for start in (full, quick):  # a CPU has one way
        assert hardware_settings(laptop.engine, start) == {"enforce_eager": True, "block_size": 32}
        assert hardware_settings(laptop.engine, start, scores=True) == {"enforce_eager": True}
    put_gpu(monkeypatch, (9, 0))
    sizes = [1, 2, 4, 8, 16, 32, 64, 72, 80, 88, 96, 104, 112, 120, 128]  # max_num_seqs is 64
    graphs = {"cudagraph_mode": "FULL", "cudagraph_capture_sizes": sizes}
    memory = {"gpu_memory_utilization": 0.9}
    assert hardware_settings(laptop.engine, full) == memory | {"compilation_config": graphs}
    assert hardware_settings(laptop.engine, full, scores=True) == memory | {
        "compilation_config": {"cudagraph_mode": "NONE"}
    }
    assert hardware_settings(laptop.engine, quick) == memory | {
        "compilation_config": {"mode": 0} | graphs,
        "enable_flashinfer_autotune": False,
    }
    assert hardware_settings(laptop.engine, quick, scores=True) == memory | {"enforce_eager": True}
    for scores in (False, True):
        assert hardware_settings(laptop.engine, runtime(laptop, engine_start="vllm"), scores=scores) == memory


@pytest.mark.parametrize("capability", [(8, 0), (10, 0)])
def test_whole_graphs_are_asked_for_where_attention_takes_them(
    capability: tuple[int, int], laptop: Params, monkeypatch: pytest.MonkeyPatch
):
    put_gpu(monkeypatch, capability)
    full, quick = (
        hardware_settings(laptop.engine, runtime(laptop, engine_start=start))["compilation_config"]
        for start in ("full", "quick")
    )
    assert full.keys() == {"cudagraph_capture_sizes"}
    assert full["cudagraph_capture_sizes"][-1] == 128
    assert (quick["mode"], quick["cudagraph_mode"]) == (0, "FULL_DECODE_ONLY")
    assert quick["cudagraph_capture_sizes"] == [1, 2, 4, 8, 16, 32, 64]  # max_num_seqs is 64: no step decodes more


def test_other_graphs_than_asked_for_are_seen():
    def took(name: str | None) -> SimpleNamespace:
        return SimpleNamespace(cudagraph_mode=name and SimpleNamespace(name=name))

    whole = {"compilation_config": {"cudagraph_mode": "FULL"}}
    assert unlike_asked(whole, took("FULL")) is None
    assert unlike_asked(whole, took("FULL_AND_PIECEWISE")) == "FULL_AND_PIECEWISE"
    assert unlike_asked({"enforce_eager": True}, took("NONE")) is None
    assert unlike_asked({}, took(None)) is None


@pytest.mark.parametrize(
    ("repeatability", "cache", "expected"),
    [("seeded", None, ("0", "as before")), ("batch_invariant", "cache", ("1", str(Path("cache").absolute())))],
)
def test_the_environment_says_what_vllm_reads(
    repeatability: str, cache: str | None, expected: tuple[str, str], laptop: Params, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "environ", {"VLLM_CACHE_ROOT": "as before", "VLLM_BATCH_INVARIANT": "1"})
    prepare_environment(engine(laptop, repeatability=repeatability), runtime(laptop, engine_cache=cache))
    assert (os.environ["VLLM_BATCH_INVARIANT"], os.environ["VLLM_CACHE_ROOT"]) == expected


@pytest.mark.parametrize(
    ("settings", "raised", "error", "says"),
    [
        pytest.param(
            {}, ValueError("CUDAGraphMode.FULL is not supported"), UserError, "Set runtime.engine_start to vllm", id="no_whole_graphs"
        ),
        pytest.param(FP8, NotImplementedError("no kernel"), UserError, "vLLM cannot: no kernel", id="no_8_bits"),
        pytest.param(
            INVARIANT, RuntimeError("CUDA error: an illegal access\nSearch for it"), UserError,
            "batch_invariant: the engine did not start: CUDA error: an illegal access. Expected", id="kernels_that_fail",
        ),
        pytest.param(INVARIANT, RuntimeError("CUDA out of memory"), RuntimeError, "out of memory", id="too_little_memory"),
        pytest.param({}, RuntimeError("CUDA error"), RuntimeError, "CUDA error", id="another_failure"),
    ],
)  # fmt: skip
def test_an_engine_that_does_not_start_names_the_setting(
    settings: dict[str, Any], raised: Exception, error: type[Exception], says: str, laptop: Params,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    class LLM:
        def __init__(self, *_: Any, **__: Any) -> None:
            raise raised

    put_gpu(monkeypatch, (9, 0))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=LLM))
    monkeypatch.setattr("scalequest.sampling.vllm.loadable", Path)
    monkeypatch.setattr("scalequest.sampling.vllm.remote_code", lambda _: False)
    with pytest.raises(error, match=says):
        load_engine(Path("model"), engine(laptop, **settings), laptop.runtime)


class StartedError(Exception):
    """Raised instead of starting an engine; its argument is what the engine was given."""


def test_scores_and_grades_are_those_of_the_saved_model(
    laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def start(_model: Path, given: Engine, *_: Any, **__: Any) -> None:
        raise StartedError(given)

    asked = engine(laptop, **FP8, kv_cache_dtype="fp8")
    write_json(tmp_path / "config.json", {"architectures": ["LlamaForSequenceClassification"], "num_labels": 1})
    monkeypatch.setattr(scorer, "load_engine", start)
    monkeypatch.setattr(scalequest.evaluation, "Engine", start)
    monkeypatch.setattr(scalequest.evaluation, "resolve_tasks", lambda *_: None)
    exam = scalequest.evaluation.Exam(tmp_path, tmp_path, ["sums"], max_tokens=8)
    for begin in (
        lambda: scorer.Scorer(tmp_path, asked, laptop.runtime),
        lambda: scalequest.evaluation.run_exam(tmp_path, exam, asked, laptop.runtime),
    ):
        with pytest.raises(StartedError) as found:
            begin()
        given = found.value.args[0]
        assert given == laptop.engine.model_copy(update={"dtype": "bfloat16"})
