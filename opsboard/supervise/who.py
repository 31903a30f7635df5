"""Who a process is, in words for people. What strangers call themselves is made harmless here."""

from __future__ import annotations

import psutil

from opsboard.core.model import Record
from opsboard.core.secret import without_secrets
from opsboard.core.text import sanitise

_NAME_CHARS, _COMMAND_CHARS = 80, 300


class Who(Record, frozen=True, kw_only=True):
    """One process of this machine; what we may not see is None. ``command`` hides secrets."""

    pid: int
    name: str | None = None
    user: str | None = None
    command: str | None = None

    def __str__(self) -> str:
        """Say who it is: ``pid 4211 (python3, user bob)``."""
        user = None if self.user is None else f"user {self.user}"
        known = ", ".join(part for part in (self.name, user) if part)
        return f"pid {self.pid} ({known})" if known else f"pid {self.pid}"


def who(pid: int) -> Who:
    """Return who has ``pid`` now; only the number when nobody does."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            name = sanitise(process.name(), _NAME_CHARS)
            user = sanitise(process.username(), _NAME_CHARS)
            command = sanitise(" ".join(without_secrets(process.cmdline())), _COMMAND_CHARS)
    except psutil.Error:
        return Who(pid=pid)
    return Who(pid=pid, name=name or None, user=user or None, command=command or None)
