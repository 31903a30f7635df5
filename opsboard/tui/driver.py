"""The few things that Textual 8.2.8 has no public way for; the version is pinned, and all of them are here.

Its compositor sends a changed line from the line's beginning up to the change (``ChopsUpdate.render_segments``). A
board whose columns change one by one would send most of every line each second, so :func:`write` sends only the
changed cells.
"""
# ruff: noqa: SLF001

from __future__ import annotations

import contextlib
import termios
import time
from queue import Empty
from typing import Any

from textual.app import App
from textual.drivers.linux_driver import LinuxDriver

MANY = 3
"""Writes that may wait for a slow terminal; Textual's writer blocks the event loop once thirty wait."""

FLUSHES = 50
FLUSH_S = 0.01
"""At the end what a slow terminal did not take is dropped: at most so often, so many seconds apart."""


class Driver(LinuxDriver):
    """Textual's driver, which at the end would wait until a slow terminal has taken all that was written."""

    def stop_application_mode(self) -> None:
        """Drop what was not taken yet, then restore the terminal."""
        if self._drop():
            self.write("\x1b[?2026l\x1b[0m")  # the lost output may have held the end of what it began
        super().stop_application_mode()

    def _drop(self) -> bool:
        """Drop what waits for a slow terminal; return whether there was any."""
        writer = self._writer_thread
        if writer is None or not writer.is_alive():
            return False
        if writer._queue.qsize():
            time.sleep(FLUSH_S)
        behind = False
        with contextlib.suppress(Empty):
            while writer._queue.get_nowait() is not None:
                behind = True
        for _ in range(2):  # the first is taken when a write has begun, the second when it has ended
            writer.write("")
            for _ in range(FLUSHES):
                if not writer._queue.qsize():
                    break
                time.sleep(FLUSH_S)
                if writer._queue.qsize():
                    behind = True
                    self._flush_terminal()
        if behind:
            self._flush_terminal()  # what the last write left, so that there is room for what restores it
        return behind

    def _flush_terminal(self) -> None:
        """Empty the kernel's buffer; setting the modes wakes the thread that waits for room in it."""
        with contextlib.suppress(termios.error):
            termios.tcflush(self.fileno, termios.TCOFLUSH)
            termios.tcsetattr(self.fileno, termios.TCSANOW, termios.tcgetattr(self.fileno))


def write(app: App[Any], text: str) -> None:
    """Send ``text`` to the terminal in one piece (synchronised where the terminal can)."""
    if app._driver is None or app.is_headless:
        return
    app._begin_update()
    app._driver.write(text)
    app._end_update()


def congested(app: App[Any]) -> bool:
    """Return True while the terminal takes what is written more slowly than it comes."""
    writer = getattr(app._driver, "_writer_thread", None)
    return writer is not None and writer._queue.qsize() >= MANY


def without_extras(app: App[Any]) -> None:
    """Do without tooltips and toasts: each page would carry two more widgets, and their code."""
    app._disable_tooltips = True
    app._disable_notifications = True


def exit_soon(app: App[Any]) -> None:
    """Ask for an orderly end, from a signal handler."""
    if app._loop is not None:
        app._loop.call_soon_threadsafe(app.exit)
