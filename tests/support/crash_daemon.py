"""The daemon's supervision in a process of its own, to be killed at a chosen step: ``... STATE RUNTIME SETTINGS``.

The supervisor, the store and the look for room are the real ones; GPU memory, requests under way and the golden
question are small stand-ins. Each of them waits as long as the file ``hold`` names its step: so a test can kill
anybody in the middle of any step, and the product needs no hook for it. What the product waits for is shortened.

Reads words from standard input (``start``, ``stop``, ``restart``, ``now``, ``drain``, ``undrain``, ``accuse``,
``renew``); writes ``life STATE PID``, ``wished up|down`` (it is on the disk), ``asked WORD``, ``done WORD`` and
``refused WORD: why``.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import msgspec

from opsboard.core.clock import Now, SystemClock
from opsboard.core.errors import OpsboardError
from opsboard.core.model import (
    CanaryOutcome,
    CanaryReading,
    EngineState,
    Event,
    Finding,
    FindingChange,
    GpuReading,
    LifeView,
    Outcome,
    Restart,
    Transaction,
)
from opsboard.store.store import Store
from opsboard.supervise import errands, keeper, life, machine, moves, supervisor, watching
from opsboard.supervise.budget import Budget
from opsboard.supervise.launch import LaunchSpec
from opsboard.supervise.processes import look
from opsboard.supervise.room import room
from opsboard.supervise.supervisor import Supervisor, Surroundings, Wish
from opsboard.supervise.world import Inflight
from tests.support.herd import Herd, answers, no_phases

AMPLE = Budget(per_engine=10_000, per_gpu=10_000, per_host=10_000, first_s=0.02, cap_s=0.05)
POLL_S = 0.01
MARK = "OPSBOARD_HERD"
"""In the environment of every process that a herd's engines start; its value is the state directory."""
SHORTER = (
    (errands, "LOOK_S", 0.02),
    (life, "LOOK_S", 0.02),
    (life, "PROBE_S", 0.05),
    (life, "WITHOUT_SHIM_S", 0.2),
    (machine, "ROOM_AGAIN_S", 0.2),
    (moves, "ROOM_AGAIN_S", 0.2),
    (watching, "_SETTLE_S", 0.2),
    (keeper, "ADOPT_AGAIN_S", 0.2),
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One engine, how it is supervised, and how patient everybody is. Seconds."""

    name: str
    mode: str
    value: int | float | str = ""
    restart: str = "on-failure"
    drain_timeout_s: float = 20.0
    stop_timeout_s: float = 2.0
    ready_timeout_s: float = 20.0
    autostart: bool = False
    observe_s: float = 0.2
    budget: Budget = AMPLE


class JumpingClock:
    """The machine's clocks, with the wall clock put forward by as many seconds as a file says."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._clock = SystemClock()

    def now(self) -> Now:
        """Return the present instant on both clocks."""
        now = self._clock.now()
        try:
            return Now(wall=now.wall + float(self._file.read_text()), mono=now.mono)
        except FileNotFoundError:
            return now


class Side:
    """One daemon."""

    def __init__(self, herd: Herd, settings: Settings) -> None:
        self._hold = herd.state_dir / "hold"
        self._herd = herd
        self._settings = settings
        self._clock = JumpingClock(herd.state_dir / "clock")
        self._loop = asyncio.get_running_loop()
        self._state = EngineState.STOPPED
        self._store = Store.open(herd.state_dir, self._clock)
        self._spec = herd.spec(
            settings.name,
            settings.mode,
            settings.value,
            restart=settings.restart,
            drain_timeout_s=settings.drain_timeout_s,
            stop_timeout_s=settings.stop_timeout_s,
            ready_timeout_s=settings.ready_timeout_s,
            autostart=settings.autostart,
            env={MARK: str(herd.state_dir)},
        )

    async def run(self) -> None:
        """Supervise until standard input ends."""
        owner = Supervisor(
            self._herd.state_dir,
            self._herd.runtime_dir,
            self._clock,
            [self._spec],
            ready_probe=answers,
            on_life=self._on_life,
            on_event=self._on_event,
            phase_seconds=no_phases,
            on_wish=self._on_wish,
            wishes=await self._store.wishes(),
            around=Surroundings(
                room=self._room,
                cleared=self._cleared,
                golden=self._golden,
                inflight=self._inflight,
                on_restart=self._on_restart,
                on_taken_back=self._on_taken_back,
                on_forgiven=self._on_forgiven,
                on_transaction=self._on_transaction,
            ),
            restarts=await self._store.restarts(0.0),
            unclean=self._store.unclean,
            budget=self._settings.budget,
        )
        await owner.adopt_all()
        say("adopted")
        running: set[asyncio.Task[None]] = set()
        while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
            running.add(self._loop.create_task(self._do(word, self._work(owner, word))))
        await owner.close()
        await self._store.close()

    def _work(self, owner: Supervisor, word: str) -> Awaitable[None]:
        name, reason = self._spec.name, "asked by a test"
        by_word: dict[str, Callable[[], Awaitable[None]]] = {
            "start": partial(owner.start, name, reason),
            "stop": partial(owner.stop, name, reason),
            "restart": partial(owner.restart, name, reason),
            "now": partial(owner.restart, name, reason, now=True),
            "drain": partial(owner.drain, name, reason),
            "undrain": partial(owner.undrain, name, reason),
            "renew": partial(owner.renew, name, reason),
            "accuse": partial(self._accuse, owner),
        }
        return by_word[word]()

    async def _do(self, word: str, work: Awaitable[None]) -> None:
        say("asked", word)
        try:
            await work
        except OpsboardError as error:
            say("refused", f"{word}:", error.message)
        else:
            say("done", word)

    async def _accuse(self, owner: Supervisor) -> None:
        now = self._clock.now().wall
        finding = Finding(detector="stall", engine=self._spec.name, summary="no step ends", since=now, confirmed=True)
        owner.finding(FindingChange(t=now, finding=finding, open=True))

    # --- what supervision tells ---

    def _on_life(self, view: LifeView) -> None:
        self._state = view.state
        self._store.life(view)
        say("life", view.state.value, view.pid)

    def _on_event(self, event: Event) -> None:
        self._store.event(event)

    def _on_wish(self, name: str, wish: Wish) -> None:
        written = self._store.wish(name, wish)
        written.add_done_callback(lambda _: say("wished", wish))

    async def _on_restart(self, restart: Restart) -> None:
        await self._store.restart(restart)

    def _on_taken_back(self, restart: Restart) -> None:
        self._store.take_back(restart)

    def _on_forgiven(self, name: str) -> None:
        self._store.forgive(name)

    def _on_transaction(self, transaction: Transaction) -> None:
        self._store.transaction(transaction)

    # --- what supervision asks ---

    def _held(self, step: str) -> bool:
        try:
            return self._hold.read_text() == step
        except OSError:
            return False

    async def _while_held(self, step: str) -> None:
        while self._held(step):
            await asyncio.sleep(POLL_S)

    async def _room(self, spec: LaunchSpec) -> None:
        if self._state is EngineState.STARTING:  # else it is only being prepared
            await self._while_held("launch")
        await room(spec, _no_gpus, engines=self._herd.state_dir / "engines")

    async def _cleared(self, pids: Collection[int], _gpus: Sequence[str] | None, _deadline_s: float) -> str | None:
        await self._while_held("clear")
        left = [pid for pid in pids if look(pid) is not None]
        return f"pids {left} are still there" if left else None

    async def _golden(self, name: str) -> CanaryReading:
        await self._while_held("canary")
        if await answers(self._spec.url):
            return CanaryReading(engine=name, outcome=CanaryOutcome.OK, seconds=0.0, output="ok", output_sha256="ok")
        return CanaryReading(engine=name, outcome=CanaryOutcome.REFUSED, seconds=0.0, error="connection refused")

    def _inflight(self, _name: str) -> Inflight:
        return Inflight(float(self._held("drain")), self._clock.now().mono)


async def _no_gpus() -> GpuReading:
    return GpuReading(outcome=Outcome.NO_DATA)


def say(*words: object) -> None:
    """Tell the test, from any thread."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def main(state: str, runtime: str, settings: str) -> None:
    """Be a daemon."""
    wanted = msgspec.json.decode(settings, type=Settings)
    for module, name, seconds in (*SHORTER, (supervisor, "OBSERVE_S", wanted.observe_s)):
        if not hasattr(module, name):
            raise AttributeError(f"{module.__name__}.{name} is not there to be shortened")
        setattr(module, name, seconds)
    await Side(Herd(Path(state), Path(runtime)), wanted).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
