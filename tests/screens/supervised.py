"""States of a board for tests: engines that wait, are parked, drain; a restart step by step, and how it came to it."""

from __future__ import annotations

import msgspec

from opsboard.core.model import EngineState, GpuProcess, Step, Transition
from opsboard.core.wire import Engine, EngineDetail, RouteInfo, Status, TargetInfo
from tests.screens.boards import T0, detail, engine, failed, gpu, starting, status

OUT_OF_MEMORY = "exited by itself with code 1: “torch.OutOfMemoryError: CUDA out of memory.”"
DRAINING = engine(
    0,
    state="draining",
    state_since=T0 - 12,
    until=T0 + 48,
    running=7.0,
    waiting=0.0,
    message="restart asked by uid 1000 (ana): new weights",
    drain_timeout_s=60.0,
)
BACKING_OFF = failed(
    1,
    state="backing_off",
    state_since=T0 - 4,
    until=T0 + 7.4,
    message=f"{OUT_OF_MEMORY}; restart 2 of 5 within 60 min",
)
PARKED = failed(
    3,
    state="parked",
    state_since=T0 - 7300,
    exit_code=2,
    message="exited by itself with code 2: “vllm: error: unrecognized arguments: --max-modle-len 32768” (a flag or "
    "value that this version does not take: see `vllm serve --help=all`; an upgrade may have renamed it)",
    hint="nothing more happens by itself: `opsboard engine start mixtral` un-parks it",
)
STOPPING = engine(4, state="stopping", state_since=T0 - 3, generation_tokens_per_s=0.0)
ASLEEP = engine(5, state="asleep", generation_tokens_per_s=0.0, running=0.0, waiting=0.0)

STEPS = (
    Step(name="drain", started=T0 - 61.2, seconds=12.4, outcome="ok", text="7 requests finished"),
    Step(name="end", started=T0 - 48.8, seconds=3.1, outcome="ok", text="TERM to group 4200, all 5 processes gone"),
    Step(name="clear", started=T0 - 45.7, seconds=0.6, outcome="ok", text="71.2 GiB of GPU 0 are free again"),
    Step(name="launch", started=T0 - 45.1, seconds=0.1, outcome="ok", text="pid 4300"),
    Step(name="start", started=T0 - 45.0, text="loading weights"),
)
OVER = (
    Step(name="drain", started=T0 - 61.2, seconds=12.4, outcome="cut", text="3 requests under way"),
    *STEPS[1:4],
    Step(name="start", started=T0 - 45.0, seconds=31.0, outcome="ok", text="ready"),
    Step(
        name="canary",
        started=T0 - 14.0,
        seconds=5.0,
        outcome="differs",
        text="its output differs: “no” instead of “yes”",
    ),
    Step(name="serving", started=T0 - 9.0, seconds=0.0, outcome="skipped", text="not back in its routes"),
)


def _moved(dt: float, state: EngineState, reason: str | None = None, message: str | None = None) -> Transition:
    return Transition(t=T0 - dt, engine="llama-a", state=state, reason=reason, message=message)


TIMELINE = (
    _moved(90_000, EngineState.STARTING, "autostart"),
    _moved(89_900, EngineState.READY),
    _moved(3_700, EngineState.BACKING_OFF, None, f"{OUT_OF_MEMORY}; restart 1 of 5 within 60 min"),
    _moved(3_696, EngineState.STARTING, "automatic restart 1 of 5 within an hour"),
    _moved(3_600, EngineState.READY),
    _moved(61.2, EngineState.DRAINING, "restart asked by uid 1000 (pid 4711): new weights"),
    _moved(48.8, EngineState.STOPPING, "drained within 12 s"),
    _moved(45.1, EngineState.STARTING, "new weights"),
)


def troubled() -> Status:
    """One engine of each state that supervision knows, and a route with one target left."""
    engines = (DRAINING, BACKING_OFF, engine(2, drain_timeout_s=60.0), PARKED, STOPPING, ASLEEP, failed(6), starting(7))
    chat = RouteInfo(
        model="chat",
        targets=tuple(TargetInfo(name=one.name, state=one.state, weight=1.0) for one in engines[1:3]),
        serving=True,
    )
    cards = [gpu(i) for i in range(8)]
    theirs = GpuProcess(pid=4211, memory_bytes=60 << 30, name="python3", user="bob")
    cards[3] = msgspec.structs.replace(cards[3], processes=(theirs,))
    return status(engines, tuple(cards), routes=(chat,), events=())


def restarting() -> Engine:
    """Return an engine in the middle of a restart."""
    return starting(0, message=None, drain_timeout_s=60.0)


def told(one: Engine, steps: tuple[Step, ...] = STEPS) -> EngineDetail:
    """Return its details with a restart and its timeline."""
    return msgspec.structs.replace(detail(one), transaction=steps, transaction_kind="restart", timeline=TIMELINE)
