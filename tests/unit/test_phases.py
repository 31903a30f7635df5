"""Start-up phases and reasons of failure, from log lines of vLLM releases."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors.phases import PHASES, SHARES, PhaseTracker, progress
from opsboard.core.model import FatalVerdict, Phase

# In the wording and order of the releases; the details between them are left out.
V0_8_5 = """
INFO 04-30 09:00:01 [__init__.py:239] Automatically detected platform cuda.
INFO 04-30 09:00:05 [api_server.py:1043] vLLM API server version 0.8.5
INFO 04-30 09:00:12 [config.py:717] This model supports multiple tasks: {'generate'}. Defaulting to 'generate'.
INFO 04-30 09:00:20 [core.py:58] Initializing a V1 LLM engine (v0.8.5) with config: model='Qwen/Qwen3-8B'
INFO 04-30 09:00:21 [parallel_state.py:1004] rank 0 in world size 1 is assigned as DP rank 0, PP rank 0, TP rank 0
INFO 04-30 09:00:22 [gpu_model_runner.py:1329] Starting to load model Qwen/Qwen3-8B...
Loading safetensors checkpoint shards:   0% Completed | 0/5 [00:00<?, ?it/s]
Loading safetensors checkpoint shards:  40% Completed | 2/5 [00:01<00:02,  1.33it/s]
INFO 04-30 09:00:26 [loader.py:458] Loading weights took 3.72 seconds
INFO 04-30 09:00:27 [gpu_model_runner.py:1347] Model loading took 15.2683 GiB and 4.411 seconds
INFO 04-30 09:00:34 [backends.py:420] Using cache directory: /c/vllm for vLLM's torch.compile
INFO 04-30 09:00:34 [backends.py:430] Dynamo bytecode transform time: 7.19 s
INFO 04-30 09:00:50 [monitor.py:33] torch.compile takes 23.10 s in total
INFO 04-30 09:00:51 [kv_cache_utils.py:634] GPU KV cache size: 326,784 tokens
Capturing CUDA graph shapes:  52%|#####     | 35/67 [00:09<00:08,  3.65it/s]
INFO 04-30 09:01:10 [gpu_model_runner.py:1686] Graph capturing finished in 18 secs, took 0.61 GiB
INFO 04-30 09:01:10 [core.py:159] init engine (profile, create kv cache, warmup model) took 43.23 seconds
INFO 04-30 09:01:11 [launcher.py:28] Available routes are:
INFO:     Application startup complete.
"""
V0_32 = """
(APIServer pid=1) INFO 08-20 12:00:00 [utils.py:299] vLLM server version 0.32.0, serving model Qwen/Qwen3-8B
(APIServer pid=1) INFO 08-20 12:00:03 [model.py:555] Resolved architecture: Qwen3ForCausalLM
(EngineCore pid=90) INFO 08-20 12:00:12 [core.py:105] Initializing a V1 LLM engine (v0.32.0) with config: model='Q'
(EngineCore pid=90) INFO 08-20 12:00:14 [parallel_state.py:1400] rank 0 in world size 1 is assigned as DP rank 0
(EngineCore pid=90) INFO 08-20 12:00:15 [gpu_model_runner.py:4777] Starting to load model Qwen/Qwen3-8B...
(EngineCore pid=90) INFO 08-20 12:00:40 [default_loader.py:397] Loading weights took 24.93 seconds
(EngineCore pid=90) INFO 08-20 12:00:41 [gpu_model_runner.py:4879] Model loading took 15.27 GiB memory and 25.6 seconds
(EngineCore pid=90) INFO 08-20 12:00:50 [backends.py:1089] Using cache directory: /c/backbone for vLLM's torch.compile
(EngineCore pid=90) INFO 08-20 12:00:50 [decorators.py:719] Directly load AOT compilation from path /c/aot
(EngineCore pid=90) INFO 08-20 12:00:51 [monitor.py:48] torch.compile took 9.60 s in total
(EngineCore pid=90) INFO 08-20 12:00:53 [gpu_worker.py:436] Available KV cache memory: 53.66 GiB
(EngineCore pid=90) INFO 08-20 12:00:53 [kv_cache_utils.py:1307] GPU KV cache size: 390,736 tokens
Capturing CUDA graphs (mixed prefill-decode, PIECEWISE): 100%|##########| 51/51 [00:04<00:00, 12.0it/s]
(EngineCore pid=90) INFO 08-20 12:01:00 [gpu_model_runner.py:5799] Graph capturing finished in 7 secs, took 0.60 GiB
(EngineCore pid=90) INFO 08-20 12:01:00 [core.py:282] init engine (profile, create kv cache, warmup model) took 18.7 s
(APIServer pid=1) INFO 08-20 12:01:01 [api_server.py:550] Supported tasks: ['generate']
(APIServer pid=1) INFO 08-20 12:01:01 [api_server.py:560] Starting vLLM server on http://0.0.0.0:8000
(APIServer pid=1) INFO:     Started server process [1]
(APIServer pid=1) INFO:     Application startup complete.
"""


def phases_of(log: str) -> list[str]:
    tracker = PhaseTracker()
    seen = [tracker.phase]
    for line in log.strip().splitlines():
        change = tracker.feed(line)
        if change is not None and change.phase != seen[-1]:
            seen.append(change.phase)
    assert tracker.reason is None
    return seen


@pytest.mark.parametrize("log", [V0_8_5, V0_32], ids=["0.8.5", "0.32"])
def test_a_start_goes_through_all_phases_in_order(log: str) -> None:
    assert phases_of(log) == list(PHASES)


def test_a_recorded_start_of_a_real_vllm_on_a_cpu() -> None:
    """It is eager, says no "Model loading took" and profiles nothing."""
    log = (Path(__file__).parents[1] / "fixtures" / "logs" / "vllm-0.32.0-cpu.log").read_text(encoding="utf-8")

    assert phases_of(log) == [name for name in PHASES if name not in {"profile", "compile", "graphs"}]


def test_phases_that_an_engine_does_not_need_are_skipped() -> None:
    eager = [line for line in V0_32.splitlines() if not any(word in line for word in ("ompil", "raph"))]

    assert phases_of("\n".join(eager)) == [name for name in PHASES if name not in {"compile", "graphs"}]


def test_a_start_never_goes_back() -> None:
    tracker = PhaseTracker()
    tracker.feed("(Worker_TP0 pid=2) INFO Model loading took 12.66 GiB memory and 31.6 seconds")

    assert tracker.feed("(Worker_TP1 pid=3) INFO Starting to load model Qwen/Qwen3-8B...") is None
    assert tracker.phase == "profile"


def test_the_progress_bar_inside_a_phase() -> None:
    tracker = PhaseTracker()
    bars = []
    for text in ("  0% Completed | 0/2", " 50% Completed | 1/2", " 10% Completed | 1/9", "100% Completed | 2/2"):
        change = tracker.feed(f"Loading safetensors checkpoint shards: {text} [00:00<00:01,  1.35s/it]")
        bars.append((tracker.inside, change is not None))

    assert bars == [(None, True), (0.5, True), (0.5, False), (1.0, True)]  # a second bar of the drafter starts anew
    tracker.feed("Capturing CUDA graphs (decode, FULL):  25%|##")
    assert (tracker.phase, tracker.inside) == ("graphs", 0.25)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
            "raise --gpu-",
        ),
        (
            "ValueError: Free memory on device cuda:0 (3.1/79.2 GiB) on startup is less than desired GPU",
            "another process",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "the GPU is full"),
        ("EngineCore failed to start.", None),
        ("EngineCore encountered a fatal error.", None),
        ("WorkerProc failed to start.", None),
        ("Worker proc VllmWorker-1 died unexpectedly, shutting down executor.", None),
        ("vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.", None),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", None),
        ("[rank0]: Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1)", None),
        ("OSError: [Errno 98] Address already in use", "another process has the port"),
        ("api_server.py: error: unrecognized arguments: --no-such-flag", "correct the engine's `command`"),
        ("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}", None),
    ],
)
def test_a_line_that_says_why_is_quoted(line: str, hint: str | None) -> None:
    change = PhaseTracker().feed(f"(Worker_TP1 pid=9) ERROR 08-20 12:00:00 [multiproc_executor.py:559] {line}")

    assert change is not None
    assert change.reason == line
    assert (change.hint or "").startswith(hint or "")
    assert (change.hint is None) == (hint is None)


def test_the_first_cause_beats_the_symptoms_before_and_after_it() -> None:
    tracker = PhaseTracker()
    lines = [
        "ERROR EngineCore failed to start.",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "RuntimeError: Engine core initialization failed. See root cause above.",
        "OSError: [Errno 98] Address already in use",
    ]

    assert [tracker.feed(line) is not None for line in lines] == [True, True, False, False]
    assert tracker.reason == lines[1]


def test_an_end_asks_for_what_its_weightiest_line_asks_for() -> None:
    tracker = PhaseTracker()
    assert tracker.verdict is None
    tracker.feed("ERROR EngineCore failed to start.")
    assert tracker.verdict is FatalVerdict.RETRY
    tracker.feed("ImportError: libcudart.so.12: cannot open shared object file: No such file or directory")
    assert tracker.verdict is FatalVerdict.PARK
    change = tracker.feed("ValueError: Free memory on device cuda:0 (3.1/79.2 GiB) on startup is less than desired")
    assert change is not None
    assert change.verdict is tracker.verdict is FatalVerdict.WAIT


def test_an_engine_that_has_served_is_never_parked_by_its_log() -> None:
    """The command was right, and from then on strangers write into the log too."""
    tracker = PhaseTracker()
    tracker.feed("ModuleNotFoundError: No module named 'flash_attn_3'")
    tracker.feed("INFO:     Application startup complete.")
    assert (tracker.reason, tracker.verdict) == (None, None), "it served in spite of it"
    assert tracker.feed("vllm serve: error: unrecognized arguments: --said-a-stranger") is None
    tracker.feed("OSError: [Errno 28] No space left on device")
    assert tracker.verdict is FatalVerdict.RETRY

    known = PhaseTracker(ready=True)
    known.feed("OSError: Invalid repository ID or local directory specified: 'x'.")
    assert known.ready
    assert known.verdict is None


def test_what_people_ask_a_model_is_no_reason() -> None:
    tracker = PhaseTracker()

    assert tracker.feed("INFO Received request cmpl-1: prompt: 'Why do I get CUDA out of memory?', params") is None
    assert tracker.reason is None


def test_a_reason_is_one_safe_line() -> None:
    change = PhaseTracker().feed("\x1b[31m(EngineCore pid=9)  CUDA out of memory \x1b]0;owned\x07" + "x" * 1000 + "\n")

    assert change is not None
    assert change.reason is not None
    assert change.reason.startswith("CUDA out of memory x")
    assert len(change.reason) == 300


# --- how far ---


def begun(*names: str) -> list[Phase]:
    return [Phase(name=name, started=1000.0) for name in names]


def test_every_phase_weighs_what_it_took_last_time() -> None:
    last = {"start": 10.0, "load": 60.0, "graphs": 30.0, "ready": 0.0}

    assert progress(begun("start"), last, now=1000.0) == 0.0
    assert progress(begun("start"), last, now=1005.0) == pytest.approx(0.05)
    assert progress(begun("start", "load"), last, now=1000.0) == pytest.approx(0.10)
    assert progress(begun("start", "load"), last, now=1030.0) == pytest.approx(0.40)
    assert progress(begun("start", "load"), last, now=1000.0, inside=0.75) == pytest.approx(0.55)
    assert progress(begun("start", "load"), last, now=9999.0) == pytest.approx(
        0.10 + 0.95 * 0.6
    )  # slower than last time
    assert progress(begun("start", "load", "compile"), last, now=1003.0) == pytest.approx(0.70)  # new this time
    assert progress(begun("start", "load", "ready"), last, now=1003.0) == 1.0


def test_the_first_start_goes_by_rough_shares() -> None:
    total = sum(SHARES.values())

    assert progress([], {}, now=1000.0) == 0.0
    assert progress(begun("load"), {}, now=1000.0, inside=0.5) == pytest.approx((8 + 4 + 3 + 2 + 20) / total)


def test_progress_never_goes_back_and_ends_at_one() -> None:
    tracker, phases, seen = PhaseTracker(), begun(PHASES[0]), []
    for number, line in enumerate(V0_8_5.splitlines()):
        change = tracker.feed(line)
        now = 1000.0 + number
        if change is not None and change.phase != phases[-1].name:
            phases.append(Phase(name=change.phase, started=now))
        seen.append(progress(phases, {}, now, tracker.inside))

    assert seen == sorted(seen)
    assert seen[-2] < 1.0
    assert seen[-1] == 1.0
