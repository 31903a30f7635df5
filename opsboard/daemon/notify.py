"""The readiness and watchdog protocol of systemd (sd_notify(3)), in the standard library.

Without ``$NOTIFY_SOCKET`` everything here does nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from opsboard.core.text import sanitise

MICRO = 1_000_000


class Notifier:
    """Tells the service manager how the daemon is doing. Never raises: a deaf manager is no reason to stop."""

    def __init__(self, environment: Mapping[str, str] | None = None, pid: int | None = None) -> None:
        """Read ``$NOTIFY_SOCKET``, ``$WATCHDOG_USEC`` and ``$WATCHDOG_PID`` once."""
        env = os.environ if environment is None else environment
        self._address = _address(env.get("NOTIFY_SOCKET", ""))
        self.watchdog_s = _watchdog_s(env, os.getpid() if pid is None else pid) if self._address else None
        """Seconds after which the manager kills a daemon that says nothing; None when it does not watch."""

    @property
    def active(self) -> bool:
        """Whether a manager listens."""
        return self._address is not None

    def ready(self, status: str) -> None:
        """Say that start-up is done."""
        self._send(f"READY=1\nSTATUS={sanitise(status)}")

    def reloading(self, mono_s: float) -> None:
        """Say that a reload began at ``mono_s`` (CLOCK_MONOTONIC seconds, as Type=notify-reload asks)."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(mono_s * MICRO)}")

    def stopping(self) -> None:
        """Say that the stop began."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Set the line that ``systemctl status`` shows."""
        self._send(f"STATUS={sanitise(text)}")

    def feed(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(message.encode(), self._address)
        except OSError:
            return


def _address(value: str) -> str | None:
    """Return the address to send to: a path, or an abstract name (written with a leading ``@``)."""
    if value.startswith("@"):
        return "\0" + value[1:]
    return value if value.startswith("/") else None


def _watchdog_s(env: Mapping[str, str], pid: int) -> float | None:
    micros, watched = env.get("WATCHDOG_USEC", ""), env.get("WATCHDOG_PID", "")
    if not micros.isdigit() or int(micros) == 0 or (watched and watched != str(pid)):
        return None
    return int(micros) / MICRO
