import gc
import os
import resource
import types
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.params import Params
from scalequest.sampling import quick_start
from scalequest.sampling import vllm as loading
from scalequest.sampling.quick_start import LEAST, lazy_kv_cache, leave_uncompiled, without_collections


@pytest.fixture
def collector():
    """Python's garbage collector as it was, also after the test."""
    was_on = gc.isenabled()
    gc.enable()
    yield
    gc.unfreeze()
    if not was_on:
        gc.disable()


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("was_on", [True, False])
def test_what_the_block_made_is_collected_no_more(was_on: bool):
    if not was_on:
        gc.disable()
    frozen = gc.get_freeze_count()
    with without_collections():
        assert not gc.isenabled()
        made = [[n] for n in range(10_000)]
    assert gc.isenabled() is was_on
    assert gc.get_freeze_count() >= frozen + len(made)


@pytest.mark.usefixtures("collector")
def test_the_collector_is_on_again_after_an_import_that_failed():
    with pytest.raises(ImportError), without_collections():
        raise ImportError
    assert gc.isenabled()


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "0")
    leave_uncompiled()
    assert os.environ["TORCHDYNAMO_DISABLE"] == "0"


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_kv_cache_is_zero_and_takes_memory_where_it_is_used():
    import torch

    size = 4 * LEAST
    begin = resident()
    with lazy_kv_cache():
        cache = torch.zeros(size, dtype=torch.int8, device=torch.device("cpu"))
    gc.collect()
    assert (cache.shape, cache.dtype, cache.data_ptr() % 4096) == ((size,), torch.int8, 0)
    assert resident() - begin < size / 8
    # Layers are views of it in another type, and are written to.
    layer = cache[size // 2 :].view(torch.float32).view(-1, 1024)
    layer[7] = 1.5
    assert cache.count_nonzero() == 1024 * 2  # 1.5 is 00 00 c0 3f: two bytes of four
    assert torch.equal(layer[7], torch.full((1024,), 1.5))


def test_all_other_tensors_are_torchs_own(monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(quick_start, "LEAST", 1000)
    monkeypatch.setattr(quick_start.mmap, "mmap", None)
    with lazy_kv_cache():
        assert torch.zeros(999, dtype=torch.int8).shape == (999,)
        assert torch.zeros(1000).dtype == torch.float32
        assert torch.zeros((1000,), dtype=torch.int8).shape == (1000,)
        assert torch.zeros(1000, 2, dtype=torch.int8).shape == (1000, 2)
        assert torch.zeros(1000, dtype=torch.int8, requires_grad=False).shape == (1000,)
        assert torch.zeros(1000, dtype=torch.int8, device="meta").is_meta
        with pytest.raises(TypeError):
            torch.zeros(1000, dtype=torch.int8)


def test_torch_is_itself_again_after_an_engine_that_did_not_start():
    import torch

    zeros = torch.zeros
    with pytest.raises(ValueError, match="no model"), lazy_kv_cache():
        raise ValueError("no model")
    assert torch.zeros is zeros


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("on_cpu", [True, False])
def test_an_engine_starts_this_way(
    on_cpu: bool, laptop: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    import sys

    import torch

    from scalequest.sampling import fast_top_p

    seen, zeros = {}, torch.zeros

    class LLM:
        def __init__(self, *_: object, **settings: object) -> None:
            seen["lazy"] = torch.zeros is not zeros
            cache = types.SimpleNamespace(enable_prefix_caching=True)
            graphs = types.SimpleNamespace(cudagraph_mode=types.SimpleNamespace(name="FULL_AND_PIECEWISE"))
            config = types.SimpleNamespace(cache_config=cache, compilation_config=graphs)
            self.llm_engine = types.SimpleNamespace(vllm_config=config)
            if settings["max_model_len"] == 7:
                raise ValueError("CUDAGraphMode.FULL is not supported with X backend (support: NEVER)")

    class Module(types.ModuleType):
        def __getattr__(self, name: str) -> type:
            if name != "LLM":
                raise AttributeError(name)
            seen.update(collects=gc.isenabled(), uncompiled=os.environ.get("TORCHDYNAMO_DISABLE") == "1")
            return LLM

    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.delenv("TORCHDYNAMO_DISABLE", raising=False)
    monkeypatch.setitem(sys.modules, "vllm", Module("vllm"))
    monkeypatch.setattr(fast_top_p, "install_fast_top_p", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: not on_cpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(loading, "loadable", lambda model: model)
    monkeypatch.setattr(loading, "remote_code", lambda model: False)
    loading.load_engine(tmp_path, laptop.engine, laptop.runtime)
    assert seen == {"collects": False, "uncompiled": on_cpu, "lazy": on_cpu}
    assert ("took the kind FULL_AND_PIECEWISE" in caplog.text) is not on_cpu
    with pytest.raises(UserError, match=r"engine_start: full: CUDAGraphMode.* Set runtime\.engine_start to vllm"):
        loading.load_engine(tmp_path, laptop.engine.model_copy(update={"max_model_len": 7}), laptop.runtime)
    assert gc.isenabled()
    assert torch.zeros is zeros
