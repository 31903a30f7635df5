"""The few things that Textual 8.2.8 has no public way for; the version is pinned, and all of them are here.

Its compositor sends a changed line from the line's beginning up to the change (``ChopsUpdate.render_segments``). A
board whose columns change one by one would send most of every line each second, so :func:`write` sends only the
changed cells.
"""
# ruff: noqa: SLF001

from __future__ import annotations

from typing import Any

from textual.app import App

MANY = 3
"""Writes that may wait for a slow terminal; Textual's writer blocks the event loop once thirty wait."""


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
