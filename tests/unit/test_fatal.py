"""What a line of a log asks for. The lines are those of real failures, shortened; their sources stand beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors.fatal import CAUSE, fatal
from collectors.phases import PhaseTracker, verdict
from opsboard.core.model import FatalVerdict

FAILED = Path(__file__).parents[1] / "fixtures" / "logs" / "failed"
V0_9 = "ERROR 06-30 13:53:19 [core.py:515] "
V0_32 = "(EngineCore pid=90) ERROR 08-20 12:00:53 [core.py:1510] "

PARK = [
    # vllm-project/vllm#20305 and the wording of 0.32 (v1/core/kv_cache_utils.py)
    f"{V0_9}ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when",
    # vllm-project/vllm#2418
    "ValueError: The model's max seq len (4096) is larger than the maximum number of tokens that can be stored in KV",
    # 0.32, v1/core/kv_cache_utils.py
    f"{V0_32}ValueError: To serve at least one request with the model's max seq len (131072), (16.00 GiB KV cache",
    # more of 0.32, recorded
    "api_server.py: error: unrecognized arguments: --no-such-flag",
    "  Input should be less than or equal to 1 [type=less_than_equal, input_value=1.5, input_type=float]",
    "  Value error, User-specified max_model_len (9999999) is greater than the derived max_model_len (max_position_emb",
    "importlib.metadata.PackageNotFoundError: No package metadata was found for vllm",
    "vllm serve: error: argument --max-model-len: invalid human_readable_int_or_auto value: 'many'",
    # the words of clap, of llama.cpp (common/arg.cpp) and of click
    "error: unexpected argument '--no-such-flag' found",
    "error: invalid value 'many' for '--port <PORT>': invalid digit found in string",
    "error: the following required arguments were not provided:",
    "error: invalid argument: --no-such-flag",
    "Error: No such option '--no-such-flag'.",
    "Error: Invalid value for '--port': 'many' is not a valid integer.",
    # vllm-project/vllm#13510
    "(APIServer pid=48263) ValueError: Invalid repository ID or local directory specified: '/models/nope'.",
    # vllm-project/vllm#22043
    "  Value error, Invalid repository ID or local directory specified: 'org/recruitment-docs'.",
    "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
    # vllm-project/vllm#12867
    (
        "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': "
        "'/app/bge_m3'. Use `repo_type` argument if needed."
    ),
    # transformers/utils/hub.py
    "OSError: org/nope is not a local folder and is not a valid model identifier listed on 'https://huggingface.co/'",
    "huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: Root=1-66f4b037;05694)",
    "OSError: You are trying to access a gated repo.",
    "Cannot access gated repo for url https://huggingface.co/meta-llama/Llama-2-7b/resolve/main/config.json.",
    "ModuleNotFoundError: No module named 'vllm'",
    "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory",
    # 0.32, config/parallel.py and model_executor/models/registry.py
    "  Value error, World size (4) is larger than the number of available GPUs (2) in this node.",
    f"{V0_32}ValueError: Model architectures ['FooForCausalLM'] are not supported for now. Supported architectures:",
    f"{V0_32}ValueError: Total number of attention heads (40) must be divisible by tensor parallel size (3).",
    "PermissionError: [Errno 13] Permission denied: '/models/llama/config.json'",
]
WAIT = [
    # vllm-project/vllm#20305, pytorch/pytorch#175666
    f"{V0_9}ValueError: Free memory on device (31.44/47.38 GiB) on startup is less than desired GPU memory utilization",
    f"{V0_32}ValueError: Free memory on device cuda:0 (19.77/22.05 GiB) on startup is less than desired GPU memory",
    # 0.32, v1/worker/cpu_worker.py
    (
        f"{V0_32}ValueError: Available memory on node 0 (20.96/23.54 GiB) on startup is less than desired CPU memory "
        "utilization (0.92, 14.4 GiB)."
    ),
    # vllm-project/vllm#7514 and #11617
    "OSError: [Errno 98] Address already in use",
    "ERROR:    [Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use",
    (
        "RuntimeError: The server socket has failed to listen on any local network address. useIpv6: 0, code: -98, "
        "name: EADDRINUSE, message: address already in use"
    ),
    "OSError: [Errno 28] No space left on device: '/models/cache/torch_compile_cache/3054e70459/rank_0_0'",
]
RETRY = [
    f"{V0_32}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of",
    "RuntimeError: CUDA error: an illegal memory access was encountered",
    "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered",
    # vllm-project/vllm#21661
    "ERROR 11-04 18:02:56 [v1/executor/multiproc_executor.py:597] RuntimeError: NCCL error: unhandled cuda error",
    "[rank0]:[E1104 18:02:56 ProcessGroupNCCL.cpp:632] [Rank 0] Watchdog caught collective operation timeout: WorkNCCL",
    # 0.32, v1/engine/exceptions.py
    "(APIServer pid=14258) ERROR 11-21 12:19:13 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: Engine",
    "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cache",
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}",
]
NOTHING = [
    "(APIServer pid=1) INFO 08-20 12:00:00 [utils.py:299] vLLM server version 0.32.0, serving model Qwen/Qwen3-8B",
    # warnings of engines that went on and served, and what strangers can make a log say
    "(APIServer pid=14) WARNING 11-21 12:17:36 [system_utils.py:255] Found ulimit of 20000 and failed to automatically",
    "WARNING 10-10 10:22:58 _custom_ops.py:18] Failed to import from vllm._C with ImportError('libcuda.so.1: cannot",
    "    raise LocalEntryNotFoundError(",
    f"{V0_32}    raise _format(GatedRepoError, message, response) from e",
    "WARNING 10-10 10:22:58 [parallel.py:746] Address already in use. Retrying with a new port.",
    "\x1b[0;36m(EngineCore pid=90)\x1b[0;0m INFO 08-20 12:00:53 [gpu_worker.py:1013] Free memory on device (70/79 GiB)",
    "INFO 08-20 [logger.py:43] Received request cmpl-1: prompt: 'ImportError: CUDA out of memory', params: x",
    'INFO:     127.0.0.1:41330 - "GET /health HTTP/1.1" 503 Service Unavailable: error: argument',
]


@pytest.mark.parametrize("line", PARK)
def test_what_a_person_must_change(line: str) -> None:
    assert verdict(line) is FatalVerdict.PARK


@pytest.mark.parametrize("line", WAIT)
def test_what_is_in_the_way(line: str) -> None:
    assert verdict(line) is FatalVerdict.WAIT


@pytest.mark.parametrize("line", RETRY)
def test_what_may_have_been_chance(line: str) -> None:
    assert verdict(line) is FatalVerdict.RETRY


@pytest.mark.parametrize("line", NOTHING)
def test_what_is_no_failure(line: str) -> None:
    assert verdict(line) is None
    assert verdict(f"“{line}”") is None


@pytest.mark.parametrize("line", [*PARK, *WAIT, *RETRY])
def test_a_quotation_with_its_hint_asks_for_the_same(line: str) -> None:
    found = fatal(line)
    assert found is not None
    assert verdict(f"“{found.reason}” ({found.hint})") is found.verdict


@pytest.mark.parametrize("log", sorted(FAILED.glob("*.log")), ids=lambda path: path.stem)
def test_recorded_starts_that_failed(log: Path) -> None:
    tracker = PhaseTracker()
    for line in log.read_text().splitlines():
        tracker.feed(line)

    assert tracker.verdict == log.stem.rpartition(".")[2]
    assert tracker.reason is not None
    assert tracker.hint is not None
    found = fatal(tracker.reason)
    assert found is not None
    assert found.weight == CAUSE


def test_the_line_is_quoted_without_who_and_when_and_safely() -> None:
    found = fatal(f"\x1b[31m{V0_32}\x1b[0mCUDA out of memory \x1b]0;owned\x07" + "x" * 1000)

    assert found is not None
    assert found.reason.startswith("CUDA out of memory x")
    assert len(found.reason) == 300
    assert found.hint is not None
