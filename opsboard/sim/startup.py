"""What vLLM says while it starts, phase by phase, and when: a script that two processes play, each its own part."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from opsboard.sim.options import Setup

API, CORE = "APIServer", "EngineCore"
_WEIGHTS_GIB = 13.5
_KV_BYTES_A_TOKEN = 131072  # 32 layers, 8 KV heads of 128, 2 bytes each for keys and values
_SHARDS = 4
_GRAPHS = 11


class Line(msgspec.Struct, frozen=True):
    """``role`` says ``text`` when the share ``at`` of a start has passed. Without ``source`` it is a progress bar."""

    at: float
    role: str
    text: str
    source: str = ""


def script(setup: Setup, url: str) -> Iterator[Line]:
    """Yield the lines of a start, in order."""
    yield from _api_begin(setup)
    yield from _core(setup)
    yield from _api_end(setup, url)


def _api_begin(setup: Setup) -> Iterator[Line]:
    profile, options = setup.profile, setup.options
    if profile.version < (0, 18, 0):
        yield Line(0.0, API, f"vLLM API server version {profile.release}", "api_server.py:1043")
    else:
        logo = (
            "",
            "       █     █     █▄   ▄█",
            f" ▄▄ ▄█ █     █     █ ▀▄▀ █  version {profile.release}",
            f"  █▄█▀ █     █     █     █  model   {options.model}",
            "   ▀▀  ▀▀▀▀▀ ▀▀▀▀▀ ▀     ▀",
            "",
        )
        yield Line(0.0, API, "\n".join(logo), "api_utils.py:347")
    arguments = {
        "port": options.port,
        "model": options.model,
        "max_model_len": options.max_model_len,
        "max_num_seqs": options.max_num_seqs,
    }
    yield Line(0.0, API, f"non-default args: {arguments}", "api_utils.py:286")
    yield Line(0.04, API, "Resolved architecture: LlamaForCausalLM", "model.py:733")
    yield Line(0.04, API, f"Using max model len {options.max_model_len}", "model.py:2152")


def _core(setup: Setup) -> Iterator[Line]:
    options, version = setup.options, setup.profile.version
    kind = "an LLM engine" if version < (0, 7, 0) else "a V1 LLM engine"
    config = f"model='{options.model}', tokenizer='{options.model}', max_seq_len={options.max_model_len}, seed=0"
    yield Line(0.10, CORE, f"Initializing {kind} (v{setup.profile.release}) with config: {config}", "core.py:133")
    ranks = "DP rank 0, PP rank 0, TP rank 0, EP rank 0"
    yield Line(0.14, CORE, f"rank 0 in world size 1 is assigned as {ranks}", "parallel_state.py:2350")
    yield Line(0.17, CORE, f"Starting to load model {options.model}...", "gpu_model_runner.py:68")
    for shard in range(_SHARDS + 1):
        share = 100 * shard // _SHARDS
        bar = f"Loading safetensors checkpoint shards: {share:3}% Completed | {shard}/{_SHARDS} "
        yield Line(0.20 + 0.26 * shard / _SHARDS, CORE, bar)
    seconds = options.startup_seconds
    yield Line(0.47, CORE, f"Loading weights took {0.27 * seconds:.2f} seconds", "default_loader.py:501")
    unit = "GiB and" if version < (0, 12, 0) else "GiB memory and"
    took = f"Model loading took {_WEIGHTS_GIB} {unit} {0.31 * seconds:.6f} seconds"
    yield Line(0.48, CORE, took, "gpu_model_runner.py:4222")
    if version >= (0, 7, 0):
        yield from _compile(setup)
    yield from _cache(setup)
    if version >= (0, 7, 0):
        yield from _graphs(setup)
    unit = "seconds" if version < (0, 14, 0) else "s"
    took = f"init engine (profile, create kv cache, warmup model) took {0.47 * seconds:.2f} {unit}"
    yield Line(0.96, CORE, took, "core.py:402")


def _compile(setup: Setup) -> Iterator[Line]:
    seconds, version = setup.options.startup_seconds, setup.profile.version
    cache = "Using cache directory: ~/.cache/vllm/torch_compile_cache/5f2c1d for vLLM's torch.compile"
    yield Line(0.52, CORE, cache, "backends.py:430")
    yield Line(0.57, CORE, f"Dynamo bytecode transform time: {0.05 * seconds:.2f} s", "backends.py:487")
    shapes = "dynamic shape" if version < (0, 14, 0) else "compile range (1, 2048)"
    yield Line(0.66, CORE, f"Compiling a graph for {shapes} takes {0.09 * seconds:.2f} s", "backends.py:193")
    verb = "takes" if version < (0, 30, 0) else "took"
    yield Line(0.68, CORE, f"torch.compile {verb} {0.14 * seconds:.2f} s in total", "monitor.py:34")


def _cache(setup: Setup) -> Iterator[Line]:
    shape, version = setup.shape, setup.profile.version
    tokens = shape.blocks * shape.block_size
    if version < (0, 7, 0):
        yield Line(0.75, CORE, f"# GPU blocks: {shape.blocks}, # CPU blocks: 2048", "gpu_executor.py:122")
        return
    gib = tokens * _KV_BYTES_A_TOKEN / 2**30
    yield Line(0.74, CORE, f"Available KV cache memory: {gib:.2f} GiB", "gpu_worker.py:260")
    size = f"GPU KV cache size: {tokens:,} tokens"
    most = f"Maximum concurrency for {shape.max_model_len:,} tokens per request: {tokens / shape.max_model_len:.2f}x"
    if version < (0, 30, 0):
        yield Line(0.75, CORE, size, "kv_cache_utils.py:1307")
        yield Line(0.75, CORE, most, "kv_cache_utils.py:1312")
    else:
        yield Line(0.75, CORE, f"{size}, {most}", "kv_cache_utils.py:2327")


def _graphs(setup: Setup) -> Iterator[Line]:
    for graph in range(_GRAPHS + 1):
        share = graph / _GRAPHS
        bar = "█" * (10 * graph // _GRAPHS)
        text = (
            f"Capturing CUDA graphs (mixed prefill-decode, PIECEWISE): {100 * share:3.0f}%|{bar:10}| {graph}/{_GRAPHS} "
        )
        yield Line(0.78 + 0.16 * share, CORE, text)
    seconds = setup.options.startup_seconds
    yield Line(
        0.95, CORE, f"Graph capturing finished in {0.17 * seconds:.0f} secs, took 0.21 GiB", "gpu_model_runner.py:5012"
    )


def _api_end(setup: Setup, url: str) -> Iterator[Line]:
    version = setup.profile.version
    if version >= (0, 10, 0):
        yield Line(1.0, API, "Supported tasks: ['generate']", "entry.py:136")
    name = "vLLM server" if version >= (0, 18, 0) else "vLLM API server"
    if setup.options.dev_mode:
        warning = "SECURITY WARNING: Development endpoints are enabled! This should NOT be used in production!"
        yield Line(1.0, API, warning, "__init__.py:45")
    yield Line(1.0, API, f"Starting {name} on {url}", "entry.py:140")
    yield Line(1.0, API, "Available routes are:", "launcher.py:186")
    for route, methods in {**ROUTES, **(DEV_ROUTES if setup.options.dev_mode else {})}.items():
        yield Line(1.0, API, f"Route: {route}, Methods: {', '.join(methods)}", "launcher.py:195")


ROUTES = {
    "/load": ("GET",),
    "/version": ("GET",),
    "/health": ("GET",),
    "/metrics": ("GET",),
    "/tokenize": ("POST",),
    "/v1/models": ("GET",),
    "/ping": ("GET", "POST"),
    "/v1/chat/completions": ("POST",),
    "/v1/completions": ("POST",),
}
"""What a simulated engine serves, beside ``/sim/faults``."""
DEV_ROUTES = {
    "/sleep": ("POST",),
    "/wake_up": ("POST",),
    "/is_sleeping": ("GET",),
    "/pause": ("POST",),
    "/resume": ("POST",),
    "/is_paused": ("GET",),
    "/reset_prefix_cache": ("POST",),
}
"""What it serves besides with VLLM_SERVER_DEV_MODE=1."""

FATAL = (
    "EngineCore failed to start.\n"
    "Traceback (most recent call last):\n"
    '  File "vllm/v1/engine/core.py", line 691, in run_engine_core\n'
    "    engine_core = EngineCoreProc(*args, **kwargs)\n"
    "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing "
    "the engine."
)
"""What ``fail_start`` makes EngineCore say before it exits."""
