"""What a page says of an engine: parsed, its kind recognised, read by that kind's dialect. Live and from recordings."""

from __future__ import annotations

from collectors.base import Dialect, Page
from collectors.exposition import Limits, Parser
from opsboard.core.errors import ExpositionError
from opsboard.core.model import EngineView
from opsboard.core.registry import dialects
from opsboard.core.text import sanitise


class PageReader:
    """Reads the pages of one engine. ``kind`` None: by its page. Not for two threads at once."""

    def __init__(self, kind: str | None, limits: Limits | None = None) -> None:
        """Read nothing yet."""
        self._configured = kind
        self._parser = Parser(limits)
        self.dialect: Dialect | None = dialects().found.get(kind) if kind else None
        """None: nobody knows what it is, or nobody here can read it."""

    @property
    def kind(self) -> str | None:
        """The kind that is configured or was recognised; None while nobody knows."""
        return self.dialect.kind if self.dialect else self._configured

    @property
    def unreadable(self) -> str | None:
        """Why no page of it will ever be read; None where that is not so."""
        foreign = self._configured is not None and self.dialect is None
        return f"opsboard reads no metrics of kind {self._configured!r}" if foreign else None

    def parse(self, data: bytes, content_type: str | None = None) -> Page:
        """Return the page. Raises ExpositionError."""
        return self._parser.parse(data, content_type)

    def view(self, page: Page) -> EngineView | None:
        """Return what it says; None when it is of no kind we know, or not of the one that is configured.

        Raises ExpositionError when the dialect breaks on it.
        """
        try:
            if not self._configured and (self.dialect is None or not self.dialect.recognise(page)):
                known = dialects().found.values()
                self.dialect = next((dialect for dialect in known if dialect.recognise(page)), None)
            if self.dialect is None or not self.dialect.recognise(page):
                return None
            return self.dialect.read(page)
        except Exception as error:  # a dialect may come from another package
            message = f"the dialect {self.kind!r} cannot read this page: {sanitise(repr(error), 200)}"
            raise ExpositionError(message) from error

    @property
    def nothing(self) -> str:
        """Why a page gave no view."""
        if self.dialect is not None:
            reason = f": {self.dialect.no_series}" if self.dialect.no_series else ""
            return f"the page has no series of kind {self.dialect.kind!r}{reason}"
        reasons = [dialect.no_series for dialect in dialects().found.values() if dialect.no_series]
        return "the page is of no engine that opsboard knows" + (f" ({'; '.join(reasons)})" if reasons else "")
