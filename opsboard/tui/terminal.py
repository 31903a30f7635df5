"""Manners towards the terminal: what it can show, and how we leave it, whatever happens."""

from __future__ import annotations

import contextlib
import locale
import os
import select
import signal
import sys
import termios
from collections.abc import Callable, Mapping, MutableMapping
from types import FrameType, TracebackType
from typing import Any, Self

GRACE_S = 2.0
"""After a signal to end, so long may an orderly end take (a terminal that stopped reading blocks it)."""

RESTORE = (
    b"\x1b[?2026l\x1b[<u\x1b[?1000l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?1004l\x1b[?7h\x1b[0m\x1b[?1049l\x1b[?25h"
)
"""Ends what Textual may have begun: synchronised output, kitty keys, mouse, paste, focus, the second screen."""


def ascii_only(asked: bool | None, env: Mapping[str, str] = os.environ, encoding: str | None = None) -> bool:
    """Return whether to draw in ASCII: as asked, else when the locale is not UTF-8 or the terminal is bare.

    Python takes the C locale for UTF-8, which is right where nobody set one; ``LC_ALL=C`` was set by somebody.
    """
    if asked is not None:
        return asked
    if env.get("TERM") in ("linux", "vt100", "vt220", "cons25") or env.get("LC_ALL") in ("C", "POSIX"):
        return True
    name = encoding or locale.getpreferredencoding(do_setlocale=False)
    return name.lower().replace("-", "") != "utf8"


def interactive(env: Mapping[str, str] = os.environ) -> bool:
    """Return whether a screen can be drawn here at all."""
    streams = (sys.__stdin__, sys.__stdout__, sys.__stderr__)
    return env.get("TERM", "") not in ("", "dumb") and all(s is not None and s.isatty() for s in streams)


def prepare(env: MutableMapping[str, str] = os.environ) -> None:
    """Set Textual's switches (it reads them when it is imported): no animation, the terminal's own colours.

    ``LINES`` and ``COLUMNS`` are for terminals that do not know their size; where one does, they would defeat resizing.
    """
    env["TEXTUAL_ANIMATIONS"] = "none"
    env["TEXTUAL_SMOOTH_SCROLL"] = "0"
    env["TEXTUAL_COLOR_SYSTEM"] = "standard"
    with contextlib.suppress(OSError):
        size = os.get_terminal_size(1)
        if size.columns > 0 and size.lines > 0:
            env.pop("LINES", None)
            env.pop("COLUMNS", None)


def gone(fd: int = 0) -> bool:
    """Return whether the terminal has hung up."""
    poll = select.poll()
    try:
        poll.register(fd, 0)
        return any(events & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0))
    except OSError:
        return True


class Leaving:
    """Ends the board on TERM and HUP: orderly if the terminal lets us, else by force; always restores it."""

    def __init__(self, stop: Callable[[], None]) -> None:
        """``stop`` asks for an orderly end; it may be called from a signal handler."""
        self.code = 0
        self._stop = stop
        self._before: dict[int, Any] = {}
        self._modes: list[Any] | None = None

    def __enter__(self) -> Self:
        """Remember the terminal's modes and take the signals."""
        with contextlib.suppress(termios.error):
            self._modes = termios.tcgetattr(0)
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        if self.code:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def leave(self, number: int) -> None:
        """End as if signal ``number`` had come."""
        if not self.code:
            self.code = 128 + number
            self._before.setdefault(signal.SIGALRM, signal.getsignal(signal.SIGALRM))
            signal.signal(signal.SIGALRM, self._by_force)
            signal.setitimer(signal.ITIMER_REAL, GRACE_S)
        self._stop()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.leave(number)

    def _by_force(self, _number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            os.set_blocking(2, False)
            os.write(2, RESTORE)
        if self._modes is not None:
            with contextlib.suppress(termios.error):
                termios.tcflush(0, termios.TCOFLUSH)
                termios.tcsetattr(0, termios.TCSANOW, self._modes)
        os._exit(self.code)
