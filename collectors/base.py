"""What every engine dialect is: one frozen record in one file, found by :mod:`opsboard.core.registry`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from opsboard.core.model import EngineView, Record


class Column(NamedTuple):
    """The samples of one name in the order of the page: their labels, and beside them their values."""

    labels: Sequence[Mapping[str, str]]
    values: Sequence[float]


METRICS_PATH = "/metrics"
_NOTHING = Column((), ())


class Page(Record, frozen=True, kw_only=True):
    """A parsed exposition page.

    ``columns`` maps a sample name to its samples; labels are mappings of sanitised strings and shared between
    readings: never change them. ``types`` maps a family name to counter, gauge, histogram, summary, info, ... as the
    page says. ``kept`` is handed on from page to page for as long as a target says the same series in the same order:
    a reader may keep there what follows from that. A column of which no value changed is then the same object again.
    """

    columns: Mapping[str, Column]
    types: Mapping[str, str]
    kept: dict[Any, Any] = msgspec.field(default_factory=dict)

    def column(self, name: str) -> Column:
        """Return the samples of ``name``, an empty column when there are none."""
        return self.columns.get(name, _NOTHING)

    def rows(self, name: str) -> list[tuple[Mapping[str, str], float]]:
        """Return the samples of ``name`` as pairs of labels and value."""
        return list(zip(*self.column(name), strict=True))

    @property
    def samples(self) -> dict[str, list[tuple[Mapping[str, str], float]]]:
        """All rows by name: dear, for people and tests."""
        return {name: self.rows(name) for name in self.columns}


class Tokens(Record, frozen=True, kw_only=True):
    """How to ask an engine for tokens.

    ``body(model, prompt, tokens)`` is posted as JSON to ``path`` and asks for exactly that many, greedily;
    ``text(answer)`` is what was generated; ``models(answer)`` are the names that ``models_path`` tells. Both raise
    ValueError for what is no such answer.
    """

    path: str
    body: Callable[[str, str, int], bytes]
    text: Callable[[bytes], str]
    models_path: str
    models: Callable[[bytes], Sequence[str]]


class Sleep(Record, frozen=True, kw_only=True):
    """How to ask whether an engine sleeps, and how to make it.

    ``questions`` are paths and the field of their answer that says yes; ``sleep_path`` holds ``{level}``. They are
    posted without a body. ``lacks(command)`` says what an engine needs and was not started with, None where nothing
    is known to be missing; ``hint`` is what to do where it cannot sleep.
    """

    questions: tuple[tuple[str, str], ...]
    sleep_path: str
    wake_path: str
    lacks: Callable[[Sequence[str]], str | None]
    hint: str


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
    metrics_path: str = METRICS_PATH
    health_path: str = "/health"
    version_path: str | None = "/version"
    default_port: int = 8000
    no_series: str | None = None
    """Why a page of this kind may have none of its series: a flag, in a few words for people."""
    tokens: Tokens | None = None
    """None: no canary can be sent."""
    sleep: Sleep | None = None
    """None: it cannot sleep, or nobody can ask."""
    reset_path: str | None = None
    """Posted to, it empties the prefix cache and answers ``{"success": true}``, or false while a block is held."""


def base_url(url: str, dialect: Dialect | None) -> str:
    """Return the address without the path of the metrics page, which people like to give with it."""
    return url.rstrip("/").removesuffix(dialect.metrics_path if dialect else METRICS_PATH)
