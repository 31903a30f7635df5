"""From an engine's description to the target that is read: its scraper, its processes, their roles."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

from collectors.base import Dialect
from collectors.engine_scrape import EngineScraper
from collectors.process import RoleOf
from collectors.procfs import argv, stat
from opsboard.core.aside import Aside
from opsboard.core.clock import Clock
from opsboard.core.errors import FetchError
from opsboard.core.model import EngineReading, LifeView
from opsboard.core.registry import dialects
from opsboard.daemon.collecting import EngineTarget
from opsboard.daemon.engine_track import EngineTrack
from opsboard.daemon.members import Members
from opsboard.daemon.observed import Listening, Owner
from opsboard.daemon.pipeline import EngineSpec
from opsboard.httpc.fetch import Fetcher
from opsboard.supervise.supervisor import Supervisor

HEALTH_PATH = "/health"
LOOKS = 4
"""Looks into bundles at once: each that hangs on a sick disk keeps a thread."""
WITHIN_S = 2.0


def engine_targets(
    specs: Iterable[EngineSpec],
    fetcher: Fetcher,
    supervisor: Supervisor | None,
    clock: Clock,
    kind_of: Callable[[str], str | None] = lambda _name: None,
) -> list[EngineTarget]:
    """Return what is read of each engine that has an address.

    ``kind_of(name)`` is what its page was recognised as before: its processes have roles from the first look on.
    """
    listening, looking = Listening(_is_engine, clock), Aside("processes", LOOKS)
    found = []
    for spec in specs:
        if not spec.url:
            continue
        life: Callable[[], LifeView | None] = _no_life
        pids = _owner_pid(spec.url, listening)
        if spec.supervised and supervisor is not None:
            life, pids = _life(spec.name, supervisor), _supervised_pids(spec.name, supervisor, looking)
        scraper = _scraper(spec, spec.url, fetcher, life)
        found.append(
            EngineTarget(
                spec.name, scraper, pids=pids, role_of=_role_of(scraper, partial(kind_of, spec.name)), life=life
            )
        )
    return found


def _scraper(spec: EngineSpec, url: str, fetcher: Fetcher, life: Callable[[], LifeView | None]) -> LifeScraper:
    return LifeScraper(lambda place: EngineScraper(spec.name, place, spec.kind, fetcher), url, life)


class LifeScraper:
    """Reads an engine's page where its present life listens; the configuration may name another place by now."""

    def __init__(self, make: Callable[[str], EngineScraper], url: str, life: Callable[[], LifeView | None]) -> None:
        """``make(url)`` makes what reads there; ``url`` is where to read while no life tells."""
        self._make = make
        self._configured = self._url = url
        self._life = life
        self._scraper = make(url)

    @property
    def kind(self) -> str | None:
        """The kind that is configured or was recognised; None while nobody knows."""
        return self._scraper.kind

    async def scrape(self, *, keep_page: bool = False) -> EngineReading:
        """Return what the page says; never raises for foreign reasons."""
        life = self._life()
        url = (life.url if life is not None else None) or self._configured
        if url != self._url:
            self._url, self._scraper = url, self._make(url)
        return await self._scraper.scrape(keep_page=keep_page)


def _supervised_pids(name: str, supervisor: Supervisor, looking: Aside) -> Callable[[], Awaitable[int | Sequence[int]]]:
    members = Members(partial(supervisor.processes, name))

    async def pids() -> Sequence[int]:
        try:
            return await looking.do(partial(members.pids, supervisor.life(name)), WITHIN_S)
        except TimeoutError:
            raise TimeoutError(f"its bundle was not read within {WITHIN_S:g} s") from None

    return pids


def _owner_pid(url: str, listening: Listening) -> Callable[[], Awaitable[int | Sequence[int]]]:
    owner = Owner(url, listening)

    async def pids() -> int | Sequence[int]:
        pid = await owner.pid()
        return () if pid is None else pid

    return pids


def _life(name: str, supervisor: Supervisor) -> Callable[[], LifeView | None]:
    return lambda: supervisor.life(name)


def _no_life() -> None:
    return None


def _role_of(scraper: LifeScraper, before: Callable[[], str | None]) -> RoleOf:
    """Return roles by the engine's kind, which may be known only after its first page, or was known ``before``."""

    def role(name: str, arguments: Sequence[str]) -> str | None:
        dialect: Dialect | None = dialects().found.get(scraper.kind or before() or "")
        return None if dialect is None else dialect.process_role(name, arguments)

    return role


def _is_engine(pid: int) -> bool:
    try:
        line = stat(pid)
    except OSError:
        return False
    known: Iterable[Dialect] = dialects().found.values()
    return line is not None and any(dialect.process_role(line.comm, argv(pid)) for dialect in known)


def ready_probe(fetcher: Fetcher, engines: Callable[[], Iterable[EngineTrack]]) -> Callable[[str], Awaitable[bool]]:
    """Return what asks a starting engine whether it serves: its health page answers 2xx."""

    async def probe(url: str) -> bool:
        kind = next((track.known_kind for track in engines() if track.url == url), None)
        dialect: Dialect | None = dialects().found.get(kind or "")
        try:
            await fetcher.get(url.rstrip("/") + (dialect.health_path if dialect else HEALTH_PATH))
        except FetchError:
            return False
        return True

    return probe
