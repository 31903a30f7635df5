"""What a copy of a process would lack."""

from __future__ import annotations

from opsboard.core.model import Record
from opsboard.core.text import sanitise


class Gap(Record, frozen=True, kw_only=True):
    """One thing that cannot be reproduced: ``what`` it is, ``why`` not, and what to do (``hint``).

    ``fatal``: without it no copy may be started. All texts are safe to show and hold no value of the environment.
    """

    what: str
    why: str
    hint: str | None = None
    fatal: bool = False

    @property
    def text(self) -> str:
        """One sentence for people."""
        return f"{self.what}: {self.why}"


def fatal(what: str, why: str, hint: str | None = None) -> Gap:
    """Return a gap without which nothing may be started."""
    return _gap(what, why, hint, is_fatal=True)


def small(what: str, why: str, hint: str | None = None) -> Gap:
    """Return a gap that a copy may live with."""
    return _gap(what, why, hint, is_fatal=False)


def _gap(what: str, why: str, hint: str | None, *, is_fatal: bool) -> Gap:
    said = None if hint is None else sanitise(hint)
    return Gap(what=what, why=sanitise(why), hint=said, fatal=is_fatal)
