"""The screens that tests hold still. ``python -m tests.screens.golden`` writes them anew: look at what changed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from opsboard.core.routes import last_target
from opsboard.core.series import split_series
from opsboard.core.wire import Incident, Status
from opsboard.tui.detail import EngineView, engine_screen
from opsboard.tui.dialog import Closing, Question, box, overlaid
from opsboard.tui.glyphs import ASCII, UNICODE
from opsboard.tui.history import RECENT, Trails, series_of
from opsboard.tui.incident import IncidentView, incident_screen, shown_pictures
from opsboard.tui.incidents import open_ones
from opsboard.tui.keys import help_lines, hints
from opsboard.tui.logview import LogWindow, found
from opsboard.tui.present import board, framed
from opsboard.tui.screens.board import BoardPage
from opsboard.tui.screens.engine import keys_of
from opsboard.tui.screens.incident import IncidentPage
from opsboard.tui.spans import Line, line_text, width_of
from opsboard.tui.view import Link, Order, Size, View
from tests.screens import boards, supervised, troubles

FOLDER = Path(__file__).parents[1] / "golden" / "screens"
SMALL, MIDDLE, LARGE = Size(80, 24), Size(120, 40), Size(200, 60)
LETTERS = {
    "": " ", "dim": "d", "strong": "b", "ok": "o", "warn": "w", "bad": "X", "info": "i", "head": "h", "select": "s",
    "key": "k", "alarm": "A", "notice": "N", "found": "f", "area": "a",
}  # fmt: skip


def view(status: Status | None, **changes: object) -> View:
    """Return a board's view with a past that fits it."""
    trails = Trails()
    if status is not None:
        for name in series_of([e.name for e in status.engines if e.kv_usage is not None]):
            _, engine, field = split_series(name)
            trails.get(engine, field).fill(boards.history(name, boards.T0 - 900, boards.T0, RECENT.step))
        trails.take(status)
    engines = status.engines if status else ()
    base = View(
        status=status,
        trails=trails,
        glyphs=UNICODE,
        zone=dt.UTC,
        rows=tuple(engine.name for engine in engines),
        cursor=engines[0].name if engines else None,
        events=status.events if status else (),
    )
    return msgspec.structs.replace(base, **changes)


def on_board(status: Status | None, **changes: object) -> Callable[[Size], list[Line]]:
    """Return what draws the board's page."""

    def draw(size: Size) -> list[Line]:
        shown = view(status, **changes)
        known = hints(BoardPage.KEYS, shown.glyphs, readonly=shown.readonly)
        return board(shown, size, [("i", "incident"), *known] if open_ones(status) else known)

    return draw


def on_engine(
    name: str, look: str = "overview", status: Status | None = None, **own: object
) -> Callable[[Size], list[Line]]:
    """Return what draws an engine's page."""

    def draw(size: Size) -> list[Line]:
        whole = status or boards.busy()
        shown = view(whole)
        engine = next(e for e in whole.engines if e.name == name)
        base = EngineView(name=name, look=look, detail=boards.detail(engine), log=boards.LOG)
        page = msgspec.structs.replace(base, **own)
        footer = hints(keys_of(look), shown.glyphs, readonly=False)
        return framed(shown, size, footer, lambda v, room: engine_screen(v, page, room))

    return draw


def asked(size: Size) -> list[Line]:
    """Draw the question before a stop, its name half typed."""
    engine = boards.busy().engines[0]
    question = Question(engine=engine, kind="stop", typed="llam")
    return overlaid(on_board(boards.busy())(size), box(question, 64, UNICODE), size)


def restarted(name: str, *, now: bool = False) -> Callable[[Size], list[Line]]:
    """Return what draws the question before a restart on a board in trouble."""
    status = supervised.troubled()
    engine = next(one for one in status.engines if one.name == name)
    question = Question(engine=engine, kind="restart", now=now, objection=last_target(name, status.routes))
    return lambda size: overlaid(on_board(status, cursor=name)(size), box(question, 64, UNICODE), size)


def helped(size: Size) -> list[Line]:
    """Draw the help of the board."""
    shown = view(boards.busy(), readonly=True)
    return framed(
        shown, size, [("?", "help")], lambda v, room: help_lines(BoardPage.KEYS, v.glyphs, room.width, readonly=True)
    )


def searched(size: Size) -> list[Line]:
    """Draw a log in which something was found."""
    window = found(boards.LOG, LogWindow(search="preempt"), Size(80, 20), -1)
    assert window is not None
    return on_engine("llama-a", "log", window=window)(size)


def on_incident(
    one: Incident, look: str = "overview", status: Status | None = None, **changes: object
) -> Callable[[Size], list[Line]]:
    """Return what draws an incident's page, on a board that all of them are on."""

    def draw(size: Size) -> list[Line]:
        shown = view(status or troubles.board(), **changes)
        series = dict.fromkeys(name for picture in shown_pictures(one, shown) for name in picture.all_series)
        end = one.resolved or boards.T0
        start = min(one.since or end, end - 1800) - 120
        past = tuple(troubles.history(name, start, end, max(1.0, (end - start) / 180)) for name in series)
        page = IncidentView(
            id=one.id,
            look=look,
            detail=troubles.detail(one),
            past=past,
            top=None if look == "timeline" else 0,
            among=tuple(other.id for other in open_ones(shown.status)),
        )
        footer = hints(IncidentPage.KEYS, shown.glyphs, readonly=shown.readonly)
        return framed(shown, size, footer, lambda v, room: incident_screen(v, page, room))

    return draw


def closed(size: Size) -> list[Line]:
    """Draw the question before an incident is resolved."""
    question = Closing(number=7, lasts=True)
    return overlaid(on_incident(troubles.leak())(size), box(question, 64, UNICODE), size)


RESTARTING = boards.status((supervised.restarting(), boards.engine(1)), (boards.gpu(0),), events=())
RESTARTED = boards.status((boards.failed(0), boards.engine(1)), (boards.gpu(0),), events=())
UNJUDGED = boards.status((boards.engine(0, detectors=boards.DETECTORS),), (boards.gpu(0),), events=())
FULL = boards.daemon(recorded=False, message="disk full: /var/lib/opsboard has 0 bytes left", dropped=1204)
TELLING = msgspec.structs.replace(boards.busy(), channels=boards.CHANNELS)
DEAF = msgspec.structs.replace(
    boards.busy(), channels=boards.CHANNELS, incidents=(troubles.deaf(), *boards.busy().incidents)
)
FIRST = boards.status((), (), daemon=boards.daemon(read_only=True), events=())
MANY_TROUBLES = msgspec.structs.replace(
    boards.many(), incidents=tuple(troubles.leak(id=n, subject=f"engine/engine-{n:02d}") for n in range(20, 31))
)
HOSTILE = msgspec.convert(boards.poison(msgspec.to_builtins(troubles.leak(resolved=boards.T0))), Incident)
GONE = Link(connected=False, silent_s=12.0, message="no daemon answers (/run/opsboard/opsboard.sock: nobody listens)")

CASES: Mapping[str, tuple[Callable[[Size], list[Line]], tuple[Size, ...]]] = {
    "busy": (on_board(boards.busy()), (SMALL, MIDDLE, LARGE)),
    "incidents": (on_board(troubles.board()), (SMALL, MIDDLE, LARGE)),
    "incident-one": (on_board(troubles.board(troubles.leak())), (SMALL, Size(40, 8))),
    "incidents-ascii": (on_board(troubles.board(), glyphs=ASCII), (SMALL,)),
    "incidents-many": (on_board(MANY_TROUBLES), (SMALL, Size(60, 12))),
    "incident-leak": (on_incident(troubles.leak()), (SMALL, LARGE, Size(40, 8))),
    "incident-leak-ascii": (on_incident(troubles.leak(), glyphs=ASCII, readonly=True), (SMALL,)),
    "incident-leak-evidence": (on_incident(troubles.leak(), "evidence"), (SMALL,)),
    "incident-leak-timeline": (on_incident(troubles.leak(), "timeline"), (SMALL,)),
    "incident-slow": (on_incident(troubles.slow()), (SMALL, LARGE)),
    "incident-memory": (on_incident(troubles.memory()), (SMALL, LARGE)),
    "incident-hang": (on_incident(troubles.hang()), (SMALL, LARGE)),
    "incident-hostile": (on_incident(HOSTILE, status=troubles.board(HOSTILE)), (SMALL, LARGE)),
    "incident-resolve": (closed, (SMALL,)),
    "engine-incident": (on_engine("llama-b", status=troubles.board()), (SMALL,)),
    "unknown": (on_board(boards.unknown()), (SMALL,)),
    "no-daemon": (on_board(None, link=GONE), (SMALL, MIDDLE)),
    "daemon-gone": (on_board(boards.busy(), link=GONE), (SMALL,)),
    "silent": (on_board(boards.steady(), link=Link(silent_s=25.0)), (SMALL,)),
    "first-run": (on_board(FIRST), (SMALL, MIDDLE)),
    "no-engines": (on_board(boards.status((), ())), (SMALL,)),
    "not-recorded": (on_board(msgspec.structs.replace(boards.busy(), daemon=FULL)), (SMALL,)),
    "not-told": (on_board(TELLING), (SMALL, LARGE)),
    "incident-channel": (on_incident(troubles.deaf(), status=DEAF), (SMALL, LARGE)),
    "paused": (on_board(boards.busy(), paused_s=65.0), (SMALL,)),
    "no-gpu": (on_board(boards.status((boards.engine(0), boards.engine(1)))), (SMALL,)),
    "edges": (on_board(boards.edges()), (SMALL, LARGE)),
    "mig": (on_board(boards.mig()), (SMALL, MIDDLE)),
    "ascii": (on_board(boards.busy(), glyphs=ASCII), (SMALL, MIDDLE)),
    "hostile": (on_board(boards.hostile()), (SMALL, LARGE)),
    "many": (on_board(boards.many(), cursor="engine-20"), (SMALL, MIDDLE, LARGE)),
    "long-names": (on_board(boards.long_names()), (SMALL, MIDDLE, LARGE)),
    "sorted": (on_board(boards.busy(), order=Order(column="kv", reverse=True)), (SMALL,)),
    "nothing-matches": (on_board(boards.busy(), rows=(), cursor=None, filter="nosuch"), (SMALL,)),
    "too-small": (on_board(boards.busy()), (Size(20, 3), Size(39, 20))),
    "smallest": (on_board(boards.busy()), (Size(40, 8), Size(60, 12))),
    "engine": (on_engine("llama-a"), (SMALL, MIDDLE, LARGE)),
    "engine-buckets": (on_engine("llama-a", mode="1m"), (SMALL,)),
    "engine-starting": (on_engine("vision", "anatomy"), (SMALL,)),
    "engine-failed": (on_engine("mixtral", "anatomy"), (SMALL,)),
    "engine-unjudged": (on_engine("llama-a", status=UNJUDGED), (SMALL,)),
    "engine-detectors": (on_engine("llama-a", "anatomy", status=UNJUDGED, top=18), (SMALL, LARGE)),
    "engine-stale": (on_engine("guard"), (SMALL,)),
    "engine-events": (on_engine("mixtral", "events"), (SMALL,)),
    "engine-restarting": (
        on_engine("llama-a", status=RESTARTING, detail=supervised.told(RESTARTING.engines[0])),
        (SMALL, LARGE),
    ),
    "engine-restarted": (
        on_engine("llama-a", status=RESTARTED, detail=supervised.told(RESTARTED.engines[0], supervised.OVER)),
        (SMALL,),
    ),
    "engine-timeline": (
        on_engine(
            "llama-a",
            "timeline",
            RESTARTED,
            detail=supervised.told(RESTARTED.engines[0], supervised.OVER),
        ),
        (SMALL, LARGE),
    ),
    "supervision": (on_board(supervised.troubled(), cursor="mixtral"), (SMALL, MIDDLE, LARGE)),
    "supervision-ascii": (on_board(supervised.troubled(), cursor="llama-b", glyphs=ASCII), (SMALL,)),
    "engine-log": (searched, (SMALL,)),
    "stop": (asked, (SMALL,)),
    "restart": (restarted("llama-a"), (SMALL,)),
    "restart-refused": (restarted("qwen-coder"), (SMALL,)),
    "restart-now": (restarted("qwen-coder", now=True), (SMALL,)),
    "help": (helped, (SMALL,)),
}


def letters(line: Line) -> str:
    """Return a line's styles, a letter a cell."""
    return "".join(LETTERS[span.style] * width_of(span.text) for span in line)


def rendered(lines: list[Line]) -> str:
    """Return the text of a screen, then its styles."""
    text = "\n".join(line_text(line).rstrip() for line in lines)
    styles = "\n".join(letters(line).rstrip() for line in lines)
    return f"{text}\n==== styles\n{styles}\n"


def names() -> list[tuple[str, Size]]:
    """Return every case with every size."""
    return [(name, size) for name, (_, sizes) in CASES.items() for size in sizes]


def path(name: str, size: Size) -> Path:
    """Return the file of one screen."""
    return FOLDER / f"{name}-{size.width}x{size.height}.txt"


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, size in names():
        path(name, size).write_text(rendered(CASES[name][0](size)), encoding="utf-8")


if __name__ == "__main__":
    main()
