"""A recording read back, moment by moment: what is wrong with it, and where, in words that help."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from opsboard.core.clock import Now
from opsboard.core.errors import RecordingError
from opsboard.core.text import sanitise
from opsboard.core.wire import RECORDING_SCHEMA
from opsboard.recording.clock import RecordedClock
from opsboard.recording.files import read_lines
from opsboard.recording.lines import NOT_ASKED, Header, Line
from opsboard.recording.readings import Readings, Recorded

ENGINES = 1000
"""More in one recording are no engines: each costs memory."""

PROBLEMS_KEPT = 20
_LEAVE_OUT = "--keep-going leaves such lines out"


class Moment(NamedTuple):
    """What one line says. ``now``: wall as recorded, mono from the first line on."""

    now: Now
    engine: str
    readings: Sequence[Recorded]


class Reader:
    """Reads one file once, as a stream. With ``keep_going`` bad lines are counted and left out.

    Each iteration begins at the front, and ends at what cannot be passed: a cut or damaged file, another schema.
    Without ``keep_going`` the first bad line raises RecordingError.
    """

    def __init__(self, path: Path, *, keep_going: bool = False) -> None:
        """Read nothing yet."""
        self._path = path
        self._keep_going = keep_going
        self._decode = msgspec.json.Decoder(Line).decode
        self._begin()

    def _begin(self) -> None:
        self._readings = Readings()
        self._clock = RecordedClock()
        self._engines: set[str] = set()
        self.first: float | None = None
        """Unix seconds of the first good line."""
        self.lines = 0
        """Good ones that hold a reading."""
        self.bad = 0
        self.dropped = 0
        """Readings that the recorder itself missed."""
        self.problems: list[RecordingError] = []
        """The first few of what was left out."""

    @property
    def engines(self) -> int:
        """How many engines there were so far."""
        return len(self._engines)

    @property
    def seconds(self) -> float:
        """From the first good line to the newest."""
        return self._clock.seconds

    @property
    def late(self) -> int:
        """Lines that came late or twice, and were passed over."""
        return self._clock.late

    def __iter__(self) -> Iterator[Moment]:
        """Yield the moments in the order of the file. Raises RecordingError."""
        self._begin()
        lines = read_lines(self._path)
        while True:
            try:
                number, raw = next(lines)
                moment = self._moment(number, raw)
            except StopIteration:
                return
            except RecordingError as error:
                if not self._keep_going:
                    raise
                self.bad += 1
                if len(self.problems) < PROBLEMS_KEPT:
                    self.problems.append(error)
                if error.permanent:
                    return
                continue
            if moment is not None:
                yield moment

    def _moment(self, number: int, raw: bytes) -> Moment | None:
        """Return what a line says; None for one that says nothing: a blank one, the schema."""
        line = self._line(number, raw)
        if line is None:
            return None
        if (line.metrics is None and line.error is None) or (line.metrics is not None and line.error):
            found = "both" if line.error else "neither"
            raise self._bad(f"expected either `metrics` or `error`, found {found}", number)
        if line.engine not in self._engines and len(self._engines) >= ENGINES:
            raise self._bad(f"engine {_shown(line.engine)} is one more than {ENGINES} engines", number, _LEAVE_OUT)
        is_reading = line.reason != NOT_ASKED
        now = self._clock.at(line.engine, line.t, is_reading=is_reading)
        if now is None:
            return None
        self._engines.add(line.engine)
        self.first = line.t if self.first is None else self.first
        self.lines += is_reading
        self.dropped += line.dropped
        return Moment(now, sanitise(line.engine), self._readings.of(line, now))

    def _line(self, number: int, raw: bytes) -> Line | None:
        try:
            return self._decode(raw)
        except msgspec.ValidationError as error:
            if self._is_header(number, raw):
                return None
            raise self._bad(_plain(str(error)), number) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if not raw.strip():
                return None
            if not raw.endswith(b"\n"):
                raise self._bad("the file is cut here: the last line has no end", number) from None
            raise self._bad(f"is not JSON: {sanitise(str(error), 120)}", number) from None

    def _is_header(self, number: int, raw: bytes) -> bool:
        try:
            row = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
            schema = msgspec.json.decode(raw, type=Header).schema
        except msgspec.DecodeError:
            return False
        if "schema" not in row:
            return False
        if schema != RECORDING_SCHEMA:
            hint = "a newer opsboard may have written it" if schema.startswith("opsboard.recording/") else None
            text = f"the schema is {_shown(schema)}, this opsboard reads {RECORDING_SCHEMA!r}"
            raise RecordingError(text, path=self._path, line=number, hint=hint)
        return True

    def _bad(self, text: str, number: int, hint: str | None = None) -> RecordingError:
        return RecordingError(text, path=self._path, line=number, hint=hint or _LEAVE_OUT, permanent=False)


def _shown(text: str) -> str:
    return repr(sanitise(text, 80))


def _plain(message: str) -> str:
    """Return msgspec's words with the field in front: what people look for in the line."""
    text, _, where = message.partition(" - at `$")
    field = where.rstrip("`").lstrip(".")
    return f"`{field}`: {text[0].lower()}{text[1:]}" if field else f"is no reading: {text[0].lower()}{text[1:]}"
