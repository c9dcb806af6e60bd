"""Loading vLLM: its environment, its settings on this hardware, its compiled graphs, its random generators."""

import fcntl
import logging
import os
import random
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

from scalequest.errors import UserError
from scalequest.models.folder import file_sha256, local_path, remote_code
from scalequest.params import Engine as EngineParams
from scalequest.params import Runtime
from scalequest.sampling.quick_start import lazy_kv_cache, leave_uncompiled, without_collections

log = logging.getLogger("scalequest")

# Lock files of the links that this process gave to vLLM (see shared_name); open, and so locked,
# until it ends.
_HELD: list[TextIO] = []
MOST_BESIDE = 64  # names for engines of one shape side by side on one machine
# Tokens per block of the KV cache on a CPU, the fewest that its attention takes. Prompts share whole blocks only, and with
# vLLM's 128 a judge's examples of 220 tokens share 128, a question of 80 that is answered n times none.
CPU_BLOCK_SIZE = 32


def seed_everything(seed: int) -> None:
    """Set every generator that an engine may draw from: Python's, NumPy's (vLLM on GPU), torch's (vLLM on CPU)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def prepare_environment(engine: EngineParams, runtime: Runtime) -> None:
    """Set what vLLM reads from the environment; must run before vLLM is imported."""
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        VLLM_CPU_KVCACHE_SPACE=str(runtime.cpu_kv_cache_gib),
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        VLLM_LOGGING_LEVEL=os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        VLLM_NO_USAGE_STATS="1",
        VLLM_WORKER_MULTIPROC_METHOD="spawn",  # processes of an engine on several GPUs; CUDA does not outlive a fork
        VLLM_BATCH_INVARIANT=str(int(engine.repeatability == "batch_invariant")),
    )
    if runtime.engine_cache:
        os.environ["VLLM_CACHE_ROOT"] = str(Path(runtime.engine_cache).absolute())
    if runtime.threads:
        os.environ["OMP_NUM_THREADS"] = str(runtime.threads)


def worker_environment(runtime: Runtime) -> dict[str, str]:
    """What another process must set before it starts an engine, to give this process's results.

    The number of threads: with another one floats are summed in another order. Ray would set an
    actor's share of the CPUs.
    """
    threads = runtime.threads or int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    return {"OMP_NUM_THREADS": str(threads)}


def gpu_rounding(runtime: Runtime, gpus: int = 1) -> dict[str, Any]:
    """Settings by which an engine on a GPU rounds a row otherwise even in the same batch.

    Compiled and uncompiled kernels, steps padded to other sizes, and another number of GPUs per engine sum in another order.
    Memory and the KV cache change the batch alone (docs/repeatability.md).
    """
    return {"engine_start": runtime.engine_start, "gpus_per_engine": gpus}


def graph_sizes(max_num_seqs: int) -> list[int]:
    """Tokens per step to record CUDA graphs for: up to the largest batch that decodes, and then up to twice that.

    A step without a graph is launched kernel by kernel. With the host's other work that takes longer than a GPU needs for a
    step of a 7B model. Sequences end and begin in most steps of a full batch, and such a step also reads their prompts.
    VLLM's own list ends at 512, or 1,024 on Blackwell, and has 51 or 83 entries, each of which costs time at the start. A
    step is padded to the next size.
    """
    sizes = [1, 2, 4, 8, 16, *range(32, 256, 32), *range(256, 512, 64), *range(512, max_num_seqs, 128)]
    decoding = [size for size in sizes if size < max_num_seqs]
    parts = max(8, -(-max_num_seqs // 128))
    reading = [max_num_seqs + max_num_seqs * part // parts for part in range(1, parts + 1)]
    return sorted({*decoding, max_num_seqs, *reading})


def whole_graphs() -> bool:
    """Whether vLLM's first choice of attention on this GPU can be recorded whole in steps that read prompts.

    FlashAttention 3 can, on Hopper. Versions 2 (before it) and 4 and FlashInfer (Blackwell) can only where sequences decode.
    To ask for whole graphs all the same is worse than not to: vLLM finds out after it has compiled the model for them, and
    then has none for such steps.
    """
    import torch

    return not torch.version.hip and torch.cuda.get_device_capability()[0] == 9


def check_hardware(engine: EngineParams) -> None:
    """Refuse what this machine cannot compute.

    Raises:
        UserError: 8 bits or batch-invariant kernels are asked for, and there is no NVIDIA GPU of the
            generation that has them.
    """
    import torch

    asked = [(setting, (8, 9)) for setting in engine.fp8]
    if engine.repeatability == "batch_invariant":
        asked.append(("engine.repeatability: batch_invariant", (8, 0)))
    for setting, least in asked:
        found = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
        if found is None or found < least or torch.version.hip:
            has = "no NVIDIA GPU" if found is None or torch.version.hip else torch.cuda.get_device_name()
            raise UserError(
                f"{setting}: this machine has {has}. Expected an NVIDIA GPU of compute capability {least[0]}.{least[1]} or "
                "higher. Run on such a GPU, or set quantization to null, kv_cache_dtype to auto and repeatability to seeded"
            )


def hardware_settings(engine: EngineParams, runtime: Runtime, scores: bool = False) -> dict[str, Any]:
    """VLLM's settings that depend on what the machine has: memory and graphs on a GPU, no compilation on a CPU.

    Args:
        engine: decides the largest batch.
        runtime: decides memory, and how much is prepared before the first token.
        scores: whether the engine reads sequences and writes none.
    """
    import torch

    if not torch.cuda.is_available():
        # Eager: torch.compile gains 20% and costs 70 s per start, more than a laptop stage takes.
        return {"enforce_eager": True} | ({} if scores else {"block_size": CPU_BLOCK_SIZE})
    settings: dict[str, Any] = {
        # VLLM refuses to start where less is free, and fills it.
        "gpu_memory_utilization": runtime.gpu_memory_utilization * runtime.gpu_part,
    }
    graphs: dict[str, Any] = {"cudagraph_capture_sizes": graph_sizes(engine.max_num_seqs)}
    if whole_graphs():
        graphs["cudagraph_mode"] = "FULL"
    if runtime.engine_start == "full":
        # Reading sequences to score them fills steps of thousands of tokens, which no graph is for.
        settings["compilation_config"] = {"cudagraph_mode": "NONE"} if scores else graphs
    elif runtime.engine_start == "quick" and scores:
        settings["enforce_eager"] = True
    elif runtime.engine_start == "quick":  # vLLM's graphs in pieces, around attention, need a compiled model
        if not whole_graphs():  # steps that read prompts get no graph then, so larger sizes are useless
            sizes = [size for size in graphs["cudagraph_capture_sizes"] if size <= engine.max_num_seqs]
            graphs = {"cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": sizes}
        settings["compilation_config"] = {"mode": 0, **graphs}
        settings["enable_flashinfer_autotune"] = False
    if runtime.gpu_kv_cache_gib:
        settings["kv_cache_memory_bytes"] = int(runtime.gpu_kv_cache_gib * 2**30)
    return settings


def split_settings(gpus: int) -> dict[str, Any]:
    """VLLM's settings for an engine on several GPUs, each with a part of every layer; none without a GPU."""
    import torch

    if gpus == 1 or not torch.cuda.is_available():
        return {}
    return {"tensor_parallel_size": gpus, "distributed_executor_backend": "mp"}


def row_seed_settings() -> dict[str, Any]:
    """VLLM's settings under which every request may have a seed of its own.

    A prompt that is read in pieces draws a token after each piece, which vLLM takes back by setting
    the request's generator to an earlier offset. On a CPU the engine dies of it ("CPU Generator
    does not use offset"), so there prompts are read whole.
    """
    import torch

    return {} if torch.cuda.is_available() else {"enable_chunked_prefill": False}


def shared_name(model: Path, links: Path) -> Path:
    """A link to ``model`` whose name is made of the model's configuration, and so is that of every model of its shape.

    VLLM keys its compiled graphs by the model's path among others, so it compiles every model
    again, although the models of one run have one shape. By this name the second model finds the
    graphs of the first. A name belongs to one process at a time; another process beside it takes
    the next number. Where no links or locks can be made, the model keeps its own path.
    """
    shape = file_sha256(model / "config.json")[:16]
    try:
        links.mkdir(parents=True, exist_ok=True)
        for number in range(MOST_BESIDE):
            link = links / f"{shape}-{number}"
            # Not emptied, and no link followed: the cache may be shared with other users.
            lock = os.fdopen(os.open(link.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            _HELD.append(lock)
            link.unlink(missing_ok=True)
            link.symlink_to(model.resolve())
            return link
    except OSError as error:
        log.warning("%s: %s; the engine compiles its graphs again", links, error)
    return model


def loadable(model: Path) -> Path:
    """What to give vLLM as the model's path: a name that models of one shape share, where that saves compiling.

    A model whose repository brings code keeps its own path: Python imports that code under a name
    made of the path.
    """
    import torch

    if remote_code(model) or not torch.cuda.is_available():  # nothing is compiled on a CPU, see hardware_settings
        return local_path(model)
    from vllm import envs

    return shared_name(local_path(model), Path(envs.VLLM_CACHE_ROOT, "scalequest"))


def unlike_asked(settings: dict[str, Any], found: Any) -> str | None:
    """The kind of CUDA graphs that vLLM took instead of the whole ones it was asked for; None where it took these.

    Some models need another attention than the GPU's first choice (``whole_graphs``).

    Args:
        settings: what vLLM was given.
        found: its compilation config, after the start. Engines on several GPUs keep what they took to themselves.
    """
    asked = settings.get("compilation_config", {}).get("cudagraph_mode")
    took = getattr(found.cudagraph_mode, "name", None)
    return took if asked == "FULL" and took != asked else None


def load_engine(model: Path, engine: EngineParams, runtime: Runtime, **kwargs: Any) -> Any:
    """Start vLLM on a model, with the settings of this hardware; ``kwargs`` go to ``vllm.LLM``.

    Raises:
        UserError: this machine, or vLLM on it, cannot do what ``engine`` asks for.
    """
    import torch

    begin = time.monotonic()
    prepare_environment(engine, runtime)
    check_hardware(engine)
    path = loadable(model)
    trusted = remote_code(model)
    settings = hardware_settings(engine, runtime, kwargs.get("runner") == "pooling")
    settings |= split_settings(runtime.gpus_per_engine(model))
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        leave_uncompiled()
    with without_collections():
        from vllm import LLM

    imported = time.monotonic()
    if on_cpu:
        from scalequest.sampling.fast_top_p import install_fast_top_p

        install_fast_top_p()
    try:
        with lazy_kv_cache() if on_cpu else nullcontext():
            llm = LLM(
                str(path),
                dtype=engine.dtype,
                quantization=engine.quantization,
                kv_cache_dtype=engine.kv_cache_dtype,
                max_num_seqs=engine.max_num_seqs,
                max_model_len=engine.max_model_len,
                seed=0,
                disable_log_stats=True,
                use_tqdm_on_load=False,
                trust_remote_code=trusted,
                **settings,
                **kwargs,
            )
    except (AssertionError, NotImplementedError, ValueError) as error:
        if "CUDAGraphMode." in str(error):
            raise UserError(
                f"{model}: runtime.engine_start: {runtime.engine_start}: {error}. Expected attention that can be recorded in "
                "whole CUDA graphs. Set runtime.engine_start to vllm"
            ) from error
        if not engine.fp8:
            raise
        raise UserError(
            f"{model}: {', '.join(engine.fp8)}: vLLM cannot: {error}. Expected a model, a GPU and a version of vLLM that can. "
            "Set engine.quantization to null and engine.kv_cache_dtype to auto"
        ) from error
    except RuntimeError as error:  # CUDA's errors are, and so is too little memory
        if engine.repeatability != "batch_invariant" or "out of memory" in str(error):
            raise
        cause = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"{model}: engine.repeatability: batch_invariant: the engine did not start: {cause}. Expected a model that "
            "vLLM's batch-invariant kernels can compute. Set engine.repeatability to seeded, or try another version of vLLM"
        ) from error
    ready = time.monotonic()
    log.info("engine ready after %.0f s, %.0f s of them for importing vLLM", ready - begin, imported - begin)
    if graphs := unlike_asked(settings, llm.llm_engine.vllm_config.compilation_config):
        log.warning(
            "%s: vLLM cannot record this model's attention in whole CUDA graphs and took the kind %s. Steps that read prompts "
            "have none now. Set runtime.engine_start to vllm", model, graphs,
        )  # fmt: skip
    # Left to vLLM, which has it on for every model that can: a judge's examples, and the question of
    # n answers, are then read once per shard.
    if kwargs.get("runner") != "pooling" and not llm.llm_engine.vllm_config.cache_config.enable_prefix_caching:
        log.warning(
            "%s: vLLM reads every prompt whole: this kind of model, or its settings, share no beginnings", model
        )
    return llm
