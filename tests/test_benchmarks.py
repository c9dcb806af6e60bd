"""What benchmarks compute from measurements."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))  # its scripts import each other

import engines
import lengths
import step

from scalequest.run.profile import load_profile


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("void cutlass::device_kernel<flash::enable_sm90<flash::FlashAttnFwdSm90<", "attention"),
        ("void flash::flash_fwd_splitkv_kernel<cutlass::bfloat16_t>", "attention"),
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NTT", "matrix products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "matrix products"),
        ("_gumbel_sample_kernel", "choose tokens"),
        ("void flashinfer::sampling::TopPSamplingFromProbKernel", "choose tokens"),
        ("at::native::radixSortKVInPlace", "choose tokens"),
        ("Memcpy DtoH (Device -> Pinned)", "copies"),
        ("triton_red_fused__to_copy_add_mean_mul_pow_rsqrt_0", "other kernels"),
        ("triton_red_fused__to_copy_abs_clamp_cutlass_scaled_mm_div_silu_2", "other kernels"),  # to 8 bits
        ("void cutlass::device_kernel<vllm::cutlass_3x_gemm_sm90_fp8<", "matrix products"),
    ],
)
def test_a_kernel_is_of_one_kind(kernel: str, kind: str):
    assert step.kind_of(kernel) == kind


def event(name: str, begin: float, end: float, device: str = "CUDA", annotation: bool = False) -> Any:
    return SimpleNamespace(
        name=name, time_range=SimpleNamespace(start=begin, end=end), device_type=SimpleNamespace(name=device),
        is_user_annotation=annotation,
    )  # fmt: skip


def test_a_gpu_is_busy_while_any_kernel_runs():
    events = [
        event("nvjet", 0, 400),
        event("flash_fwd", 300, 500),  # on another stream
        event("nvjet", 900, 1000),
        event("a range around them", 0, 1000, annotation=True),
        event("aten::mm", 0, 1000, device="CPU"),
    ]
    found = step.kernels(events, steps=2)
    assert found["busy"] == 0.6
    assert found["gpu_ms_per_step"] == {"matrix products": 0.25, "attention": 0.1}
    assert found["kernels_per_step"] == 1.5
    assert step.kernels(events[-1:], steps=2) == {}


def test_a_part_leaves_out_the_parts_that_it_calls(monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    monkeypatch.setattr(step.time, "perf_counter", lambda: now)

    class Parts:
        def outer(self) -> None:
            nonlocal now
            now += 1
            self.inner()
            now += 2

        def inner(self) -> None:
            nonlocal now
            now += 4
            raise KeyError

    clock, parts = step.Clock(), Parts()
    assert clock.wrap(parts, "inner", "in")
    assert clock.wrap(parts, "outer", "out")
    assert not clock.wrap(parts, "missing", "none")
    with pytest.raises(KeyError):
        parts.outer()
    assert clock.seconds == {"out": 1, "in": 4}
    parts.inner = lambda: None  # type: ignore[method-assign]
    parts.outer()
    assert clock.seconds == {"out": 4, "in": 4}


def result(begin: float, end: float, tokens_per_s: float) -> dict[str, Any]:
    return {"kind": "response", "tokens_per_s": tokens_per_s, "ms_per_step": 20.0, "steps": 5, "window": [begin, end]}


def test_engines_beside_each_other_are_one_rate():
    assert lengths.together([result(0, 4, 100.0)]) == {
        "kind": "response", "tokens_per_s": 100.0, "ms_per_step": 20.0, "steps": 5,
    }  # fmt: skip
    both = lengths.together([result(0, 4, 100.0), result(1, 5, 80.0)])
    assert (both["tokens_per_s"], both["engines"], both["overlap"]) == (180.0, 2, 0.75)
    assert lengths.together([result(0, 4, 100.0), result(9, 13, 80.0)])["overlap"] == 0.0


@pytest.mark.parametrize(
    ("how", "start", "most", "mode"),
    [
        ("v2", "full", 2048, "FULL"),
        ("fp8-v2-pieces", "full", 2048, None),
        ("v2-decode", "full", 1024, None),
        ("quick-decode", "quick", 1024, "FULL_DECODE_ONLY"),
    ],
)
def test_variants_record_other_graphs(
    monkeypatch: pytest.MonkeyPatch, how: str, start: str, most: int, mode: str | None
):
    import torch

    import scalequest.sampling.vllm as starting

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(starting, "hardware_settings", starting.hardware_settings)
    params = load_profile("gpu-135m")
    sizes = starting.graph_sizes(params.engine.max_num_seqs)
    engines.choose_graphs(how)
    runtime = params.runtime.model_copy(update={"engine_start": start})
    graphs = starting.hardware_settings(params.engine, runtime)["compilation_config"]
    assert graphs["cudagraph_capture_sizes"] == [size for size in sizes if size <= most]
    assert graphs.get("cudagraph_mode") == mode


def test_rates_are_lines_of_gpus_yaml():
    of = {"way": "ours", "tokens_per_s": 2.0}
    results = [
        of | {"variant": "shape:v1", "kind": "response", "tokens_per_s": 1.0},
        of | {"variant": "shape:v2-decode", "kind": "response", "tokens_per_s": 8.0},
        *(of | {"variant": "shape:v2", "kind": "response", "tokens_per_s": rate} for rate in (9.0, 2.0, 1.0)),
        of | {"variant": "shape:fp8-v2", "kind": "question", "tokens_per_s": 3.0},
        of | {"variant": "real:quick", "kind": "judgement"},
    ]
    assert lengths.gpus_yaml(results).split("\n") == [
        "    generated_tokens_per_s:", "      response: [[7.6, 2.0]]",
        "    generated_tokens_per_s_fp8:", "      question: [[7.6, 3.0]]",
    ]  # fmt: skip


class Fake:
    """An engine that is due for its first measurement, and measures as often as it is asked."""

    ended = False

    def __init__(self, results: list[dict[str, Any]]) -> None:
        self._results, self.asked = iter(results), 0

    def go(self) -> None:
        self.asked += 1

    def results(self, _limit: float, *last: str) -> Any:
        for result in self._results:
            yield dict(result)
            if not result.keys().isdisjoint(last):
                return


def test_variants_measure_in_turn():
    rate = {"kind": "response", "window": [0, 1], "tokens_per_s": 1.0}
    due = {"due": "response ours"}
    engine, noted = Fake([due, rate, due, {"error_response_ours": "no"}, due, rate, {"done": True}]), []
    for expected, most in ((1, 1), (2, 1), (3, math.inf)):
        lengths.measured([engine], 1.0, noted.append, most)  # type: ignore[list-item]
        assert len([found for found in noted if "due" not in found and "done" not in found]) == expected
    assert [sorted(found) for found in noted[:2]] == [["kind", "tokens_per_s"], ["error_response_ours"]]
    assert engine.asked == 4


@pytest.mark.parametrize(("how", "value"), [("fp8-v2-pieces", "1"), ("v1", "0"), ("full", None)])
def test_a_variant_names_its_runner(how: str, value: str | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("VLLM_USE_V2_MODEL_RUNNER", raising=False)
    monkeypatch.setattr(engines.os, "environ", dict(engines.os.environ))
    engines.choose_runner(how)
    assert engines.os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == value
