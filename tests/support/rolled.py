"""Cardboard engines whose restart takes ten seconds of virtual time, and one daemon after another that rolls them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from opsboard.core.errors import NotFound
from opsboard.core.model import EngineState, LifeView, Rolling, Severity
from opsboard.supervise.rolling import RollingRestarts
from opsboard.supervise.world import Begins, Wish, nobody
from tests.support.virtual_time import LoopClock, run

READY, FAILED, STOPPED, DRAINING = EngineState.READY, EngineState.FAILED, EngineState.STOPPED, EngineState.DRAINING
TAKES_S = 10.0


class Engines:
    """Engines whose restart takes ten seconds; ``ends`` says as what, where it is not ready."""

    def __init__(self, clock: LoopClock) -> None:
        self.clock = clock
        self.not_before = float("-inf")
        self.lives = {
            name: LifeView(engine=name, state=READY, since=0.0, supervised=True, started=1.0) for name in "abc"
        }
        self.wishes: dict[str, Wish] = {}
        self.ends: dict[str, EngineState] = {}
        self.refusals: dict[str, list[Exception]] = {}
        self.restarted: list[str] = []
        self.ending: dict[str, float] = {}
        self.at_once = 0
        """How many were restarted at once, at most."""
        self.writes_down = True
        """False: a daemon that dies before its engine hears of the restart."""

    def life(self, name: str) -> LifeView:
        if name not in self.lives:
            raise NotFound(f"no engine is called {name!r}")
        return self.lives[name]

    def wish(self, name: str) -> Wish | None:
        return self.wishes.get(name)

    async def restart(self, name: str, _reason: str, *, now: bool = False, begins: Begins = nobody) -> None:
        if self.refusals.get(name):
            raise self.refusals[name].pop(0)
        begins()
        if self.writes_down:
            self.restarted.append(f"{name} now" if now else name)
            self.wishes[name] = "up"
            self.ending[name] = self.clock.now().mono + TAKES_S
            self.at_once = max(self.at_once, len(self.ending))

    async def begun(self, name: str) -> bool:
        life = self.life(name)
        if name in self.ending:
            await asyncio.sleep(max(0.0, self.ending[name] - self.clock.now().mono))
            del self.ending[name]
            if self.wishes.get(name) == "down":
                self.become(name, STOPPED, None)
            elif self.ends.get(name) is DRAINING:  # somebody called it off
                self.become(name, READY, life.started)
            else:
                self.become(name, self.ends.get(name, READY), (life.started or 0.0) + 1.0)
        return self.life(name).state in {READY, DRAINING}

    def become(self, name: str, state: EngineState, started: float | None) -> None:
        self.lives[name] = msgspec.structs.replace(self.lives[name], state=state, started=started, message="why")


class Host:
    """A disk, engines, and one daemon after another."""

    def __init__(self) -> None:
        self.clock = LoopClock()
        self.engines = Engines(self.clock)
        self.disk: Rolling | None = None
        self.told: list[tuple[str, str, str]] = []
        self.rolls = self.daemon()

    def daemon(self) -> RollingRestarts:
        return RollingRestarts(self.clock, self.engines, keep=self.keep, tell=self.tell)

    def keep(self, rolling: Rolling) -> None:
        self.disk = rolling

    def tell(self, kind: str, text: str, _severity: Severity, subject: str) -> None:
        self.told.append((kind, subject, text))

    def texts(self, kind: str, subject: str = "host") -> list[str]:
        return [text for one, about, text in self.told if (one, about) == (kind, subject)]

    async def next_daemon(self) -> RollingRestarts:
        """Begin another one with what is on the disk, and wait until it is done with it."""
        await self.rolls.close()
        self.rolls = self.daemon()
        self.rolls.resume(self.disk)
        async with asyncio.timeout(1000):
            while self.rolls.under_way is not None:
                await asyncio.sleep(1.0)
        return self.rolls

    @property
    def kept(self) -> Rolling:
        assert self.disk is not None
        return self.disk


def on_host(story: Callable[[Host], Awaitable[None]]) -> Host:
    async def go() -> Host:
        host = Host()
        await story(host)
        await host.rolls.close()
        return host

    return run(go())


async def cut_off(host: Host, after_s: float) -> None:
    """Let a daemon restart a, b, c, and end it in the middle."""
    task = asyncio.create_task(host.rolls.run("abc", "weekly", id="r1"))
    await asyncio.sleep(after_s)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
