"""What every engine dialect is: one frozen record in one file, found by :mod:`opsboard.core.registry`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from opsboard.core.model import EngineView, Record


class Page(Record, frozen=True, kw_only=True):
    """A parsed exposition page.

    ``samples`` maps a sample name to its ``(labels, value)`` pairs in page order; labels are mappings of sanitised
    strings and shared between readings: never change them. ``types`` maps a family name to counter, gauge, histogram,
    summary, info, ... as the page says.
    """

    samples: Mapping[str, Sequence[tuple[Mapping[str, str], float]]]
    types: Mapping[str, str]


class Dialect(Record, frozen=True, kw_only=True):
    """How to read one kind of engine.

    ``recognise`` says whether a page is of this kind; ``read`` turns it into canonical fields (missing stays None or
    absent); ``process_role`` maps a process's name and argv to a role of :class:`~opsboard.core.model.ProcessView`,
    or None when the process is no engine of this kind; ``health_path`` answers 200 when the server accepts requests;
    ``metrics_path`` is where the page is.
    """

    kind: str
    recognise: Callable[[Page], bool]
    read: Callable[[Page], EngineView]
    process_role: Callable[[str, Sequence[str]], str | None]
    metrics_path: str = "/metrics"
    health_path: str = "/health"
    version_path: str | None = "/version"
    default_port: int = 8000
    no_series: str | None = None
    """Why a page of this kind may have none of its series: a flag, in a few words for people."""
