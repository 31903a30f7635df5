"""Restarts by age: in the quiet hours of the engine's own past, refused ones told once."""

from __future__ import annotations

from opsboard.core.clock import ManualClock
from opsboard.core.errors import Conflict, StoreError
from opsboard.core.model import EngineState, LifeView
from opsboard.core.wire import History, HistoryPoint
from opsboard.daemon.planned import Age, Planned
from opsboard.supervise.planning import SLOT_S
from tests.support.in_loop import in_loop

HOUR = 3600.0
NOON = 1_700_006_400.0 - 12_000.0  # a whole slot
DAY = 24 * HOUR


class House:
    """One engine whose nights are quiet, and what becomes of it."""

    def __init__(self, *, age_s: float, state: EngineState = EngineState.READY) -> None:
        self.clock = ManualClock(wall=NOON)
        self.started = NOON - age_s
        self.state = state
        self.refusal: str | None = None
        self.broken = False
        self.runs_s: float | None = None
        self.reads = 0
        self.renewed: list[tuple[float, str]] = []
        self.told: list[str] = []
        self.planned = Planned(
            self.clock,
            ages=lambda: [Age("a", DAY)],
            life=lambda name: LifeView(
                engine=name, state=self.state, since=self.started, supervised=True, started=self.started
            ),
            age_s=lambda pid: self.runs_s,
            past=self,
            renew=self.renew,
            tell=lambda _kind, text, _severity, _subject: self.told.append(text),
        )

    async def history(self, series: str, start: float, end: float, step: float) -> History:
        self.reads += 1
        if self.broken:
            raise StoreError("the disk does not answer")
        times = [start // step * step + n * step for n in range(int((end - start) / step))]
        points = [HistoryPoint(t=t, mean=load, min=load, max=load, count=1) for t in times for load in [traffic(t)]]
        return History(series=series, step=step, points=tuple(points))

    async def renew(self, _name: str, reason: str) -> None:
        if self.refusal is not None:
            raise Conflict(self.refusal)
        self.renewed.append((self.clock.now().wall, reason))
        self.started = self.clock.now().wall

    async def live(self, hours: float) -> None:
        """Look every minute."""
        for _ in range(int(hours * 60)):
            self.clock.advance(60)
            await self.planned.look()


def traffic(t: float) -> float:
    """Tokens a second: little within three hours that lie twelve hours after NOON."""
    return 5.0 if 12 * HOUR <= (t - NOON) % DAY < 15 * HOUR else 400.0


@in_loop
async def test_it_waits_for_the_quiet_hours_before_the_deadline() -> None:
    house = House(age_s=8 * HOUR)
    await house.live(hours=15.9)
    [(at, reason)] = house.renewed
    assert 15 * HOUR - SLOT_S <= at - NOON <= 15 * HOUR
    assert "22.8 h old, max_age is 24 h, the quietest ten minutes (5 tokens/s then)" in reason


@in_loop
async def test_a_young_engine_is_left_alone_even_at_night() -> None:
    house = House(age_s=0.0)
    house.clock.advance(12 * HOUR)
    house.started = house.clock.now().wall - HOUR
    await house.live(hours=3)
    assert (house.renewed, house.reads) == ([], 0)


@in_loop
async def test_a_refused_restart_is_told_once_and_done_when_it_may_be() -> None:
    house = House(age_s=30 * HOUR)
    house.refusal = "a is the last healthy target of route chat"
    await house.live(hours=0.5)
    assert house.renewed == []
    assert [text for text in house.told if "last healthy target" in text] == house.told
    assert len(house.told) == 1
    house.refusal = None
    await house.live(hours=0.1)
    assert len(house.renewed) == 1


@in_loop
async def test_an_engine_that_does_not_serve_is_not_renewed() -> None:
    house = House(age_s=30 * HOUR, state=EngineState.STARTING)
    await house.live(hours=0.2)
    assert house.renewed == []


@in_loop
async def test_without_a_readable_past_it_is_the_last_slot_before_the_deadline() -> None:
    house = House(age_s=20 * HOUR)
    house.broken = True
    await house.live(hours=4.1)
    [(at, reason)] = house.renewed
    assert 4 * HOUR - 2 * SLOT_S <= at - NOON <= 4 * HOUR
    assert "quietest" not in reason


@in_loop
async def test_the_past_is_read_once_a_slot() -> None:
    house = House(age_s=13 * HOUR)
    await house.live(hours=1)
    assert house.reads <= 7


@in_loop
async def test_a_date_that_was_wrong_at_the_start_makes_no_engine_old() -> None:
    house = House(age_s=20_000 * DAY)
    house.runs_s = HOUR
    await house.live(hours=0.1)
    assert (house.renewed, house.told) == ([], [])
    house.runs_s = 2 * DAY
    await house.live(hours=0.1)
    assert "48.0 h old" in house.renewed[0][1]


class Pair:
    """Two old engines."""

    def __init__(self) -> None:
        self.lives = {name: self.life(name, EngineState.READY) for name in "ab"}
        self.renewed: list[str] = []
        self.told: list[str] = []
        self.planned = Planned(
            ManualClock(wall=NOON),
            ages=lambda: [Age(name, DAY) for name in "ab"],
            life=self.lives.__getitem__,
            age_s=lambda _pid: 2 * DAY if len(self.renewed) < 2 else 0.0,
            past=House(age_s=0.0),
            renew=self.renew,
            tell=lambda _kind, text, _severity, _subject: self.told.append(text),
        )

    def life(self, name: str, state: EngineState, until: float | None = None) -> LifeView:
        return LifeView(engine=name, state=state, since=0.0, supervised=True, started=0.0, until=until)

    async def renew(self, name: str, _reason: str) -> None:
        self.renewed.append(name)
        self.lives[name] = self.life(name, EngineState.DRAINING, until=NOON + 60.0)


@in_loop
async def test_one_goes_only_when_the_one_before_serves_again() -> None:
    pair = Pair()
    await pair.planned.look()
    for state in (EngineState.STOPPING, EngineState.STARTING):
        await pair.planned.look()
        assert (pair.renewed, pair.told) == (["a"], [])
        pair.lives["a"] = pair.life("a", state)
    await pair.planned.look()
    assert pair.renewed == ["a"]
    # A person has taken it out of service: nothing comes back by waiting.
    pair.lives["a"] = pair.life("a", EngineState.DRAINING)
    await pair.planned.look()
    assert pair.renewed == ["a", "b"]


@in_loop
async def test_when_one_does_not_come_back_no_other_goes() -> None:
    pair = Pair()
    await pair.planned.look()
    pair.lives["a"] = pair.life("a", EngineState.PARKED)
    for _ in range(2):
        await pair.planned.look()
    assert pair.renewed == ["a"]
    (told,) = pair.told
    assert "a, restarted by age before it, is parked" in told
    pair.lives["a"] = pair.life("a", EngineState.STOPPED)
    await pair.planned.look()
    assert pair.renewed == ["a", "b"]
