"""What a command says of the GPU memory that must be free before it starts."""

from __future__ import annotations

import pytest

from opsboard.supervise.gpu_need import gpu_need

SERVE = ("vllm", "serve", "m")
GIB = 1 << 30


@pytest.mark.parametrize(
    ("flags", "share", "gpus"),
    [
        (("--gpu-memory-utilization", "0.5"), 0.5, 1),
        (("--gpu-memory-utilization=0.5",), 0.5, 1),
        (("--gpu_memory_utilization=0.5",), 0.5, 1),
        (("--gpu-memory-utilization", "0.5", "--gpu-memory-utilization=0.7"), 0.7, 1),
        (("-tp", "4", "--distributed-executor-backend", "mp"), 0.9, 4),
        (("-tp=2", "--pipeline-parallel-size", "2", "-dp", "2"), 0.9, 8),
        (("--config", "serve.yaml", "--gpu-memory-utilization", "1"), 1.0, 1),
    ],
)
def test_the_share_of_each_gpu(flags: tuple[str, ...], share: float, gpus: int) -> None:
    need = gpu_need((*SERVE, *flags))

    assert need is not None
    assert (need.share, need.gpus) == (share, gpus)
    assert need.of(80 * GIB) == pytest.approx(share * 80 * GIB, abs=1)
    assert f"--gpu-memory-utilization {share:g}" in need.says


@pytest.mark.parametrize(
    ("text", "size"),
    [("1000", 1000), ("25.6g", 25_600_000_000), ("25G", 25 * GIB), ("512M", 512 << 20), ("1t", 10**12)],
)
def test_a_kv_cache_of_so_many_bytes_replaces_the_share(text: str, size: int) -> None:
    need = gpu_need((*SERVE, "--gpu-memory-utilization", "0.5", f"--kv-cache-memory-bytes={text}"))

    assert need is not None
    assert (need.share, need.of(1)) == (None, size)
    assert need.says == f"--kv-cache-memory-bytes {text}"


@pytest.mark.parametrize(
    ("version", "share"),
    [(None, 0.9), ("0.19.1", 0.9), ("0.20.0", 0.92), ("0.33.0rc1", 0.92), ("1.0", 0.92), ("x", 0.9)],
)
def test_the_default_is_that_of_the_version(version: str | None, share: float) -> None:
    need = gpu_need(("/opt/vllm/bin/vllm", "serve", "m"), version)

    assert need is not None
    assert need.share == share


@pytest.mark.parametrize(
    "command",
    [
        ("python3", "-m", "vllm.entrypoints.openai.api_server", "--model", "m"),
        ("numactl", "--cpunodebind=0", "vllm", "serve", "m"),
        ("docker", "run", "vllm/vllm-openai", "--gpu-memory-utilization", "0.9"),
    ],
)
def test_other_ways_to_start_a_vllm(command: tuple[str, ...]) -> None:
    need = gpu_need(command)

    assert need is not None
    assert need.share == 0.9


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("llama-server", "-m", "x.gguf"),
        ("python3", "-m", "sglang.launch_server", "--served-model-name", "vllm"),
        ("sh", "-c", "vllm serve m"),
        (*SERVE, "--config", "serve.yaml"),
        (*SERVE, "--gpu-memory-utilization", "lots"),
        (*SERVE, "--gpu-memory-utilization", "0"),
        (*SERVE, "--gpu-memory-utilization"),
        (*SERVE, "--kv-cache-memory-bytes", "25 GB"),
        (*SERVE, "-tp", "all"),
        (*SERVE, "-tp", "8", "--nnodes", "2"),
        (*SERVE, "-dp", "8", "--data-parallel-rank", "3"),
        (*SERVE, "-tp", "16", "--distributed-executor-backend", "ray"),
    ],
)
def test_what_cannot_be_told_is_unknown(command: tuple[str, ...]) -> None:
    assert gpu_need(command) is None
