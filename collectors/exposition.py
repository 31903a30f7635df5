"""Prometheus text 0.0.4 and OpenMetrics 1.0, read whole or not at all.

A page repeats itself: from one scrape to the next only some numbers change, and :mod:`collectors.layout` takes those.
Of a page that differs in more, a line is split at its last space, and what stands before it (name and labels) is
looked up; only a prefix never seen before is taken apart.
"""

from __future__ import annotations

import re
from math import isfinite

from collectors.base import Page
from collectors.layout import Labels, Layout, floats
from opsboard.core.errors import ExpositionError
from opsboard.core.model import Record
from opsboard.core.text import sanitise


class Limits(Record, frozen=True, kw_only=True):
    """What a page may cost. Beyond any of these the whole page is refused."""

    page_bytes: int = 4 * 1024 * 1024
    samples: int = 20_000
    labels: int = 64
    """Labels of one sample."""
    value_chars: int = 1024
    """Characters of one label value."""


class Parser:
    """Reads the pages of one target and remembers its names and label sets. Not for two threads at once."""

    def __init__(self, limits: Limits | None = None) -> None:
        """Start knowing nothing."""
        self._limits = limits or Limits()
        self._forget()

    def _forget(self) -> None:
        self._ids: dict[str, int] = {}  # what stands before the value -> index into _series
        self._canonical: dict[tuple[str, frozenset[tuple[str, str]]], int] = {}
        self._series: list[tuple[str, Labels]] = []
        self._layout = Layout([], self._series)
        self._comments: list[str] = []
        self._types: dict[str, str] = {}

    def parse(self, data: bytes, content_type: str | None = None) -> Page:
        """Return the samples of a page without its ``_created`` ones, timestamps and exemplars.

        Raises ExpositionError when the page is empty, no metrics page, cut (no newline at the end, or no ``# EOF`` in
        OpenMetrics), not UTF-8, malformed, over a limit, or says a series twice.
        """
        lines = self._lines(data, content_type)
        if not self._layout.update(lines):
            self._take(lines)
        return Page(columns=self._layout.columns, types=self._types, kept=self._layout.kept)

    def _take(self, lines: list[str]) -> None:
        """Take a page whose series, comments or order are not those of the page before."""
        # Labels that change every time must not pile up, nor must those of pages that are refused in the end.
        if max(len(self._ids), len(self._series)) > 2 * len(self._layout.ids) + 1024:
            self._forget()
        numbers = [number for number, line in enumerate(lines) if line and line[:1] != "#"]
        if len(numbers) > self._limits.samples:
            raise ExpositionError(f"the page has {len(numbers)} samples, {self._limits.samples} are allowed")
        ids: list[int] = []
        places: list[tuple[int, int]] = []
        words: list[str] = []
        for number in numbers:
            prefix, _, word = lines[number].rpartition(" ")
            index = self._ids.get(prefix) if word else None  # no value at all is told with more words
            if index is None:
                unknown = self._read_unknown(lines[number])
                if unknown is None:
                    continue
                index, word = unknown
            ids.append(index)
            places.append((number, len(prefix) if prefix in self._ids else 0))
            words.append(word)
        values = floats(words)
        if ids != self._layout.ids:
            self._layout = Layout(ids, self._series)
        self._layout.fill(lines, places, values)
        comments = [line for line in lines if line[:1] == "#"]
        if comments != self._comments:
            self._types, self._comments = _types(comments), comments

    def _lines(self, data: bytes, content_type: str | None) -> list[str]:
        if len(data) > self._limits.page_bytes:
            raise ExpositionError(f"the page has {len(data)} bytes, {self._limits.page_bytes} are allowed")
        start = data[:256].lstrip()
        if not start and not data.strip():
            raise ExpositionError("the page is empty")
        if start[:1] == b"<" or (content_type or "").startswith("text/html"):
            raise ExpositionError("this is an HTML page, not metrics", hint=_WRONG_PLACE)
        if start[:1] in b"{[":
            raise ExpositionError("this is JSON, not metrics", hint=_WRONG_PLACE)
        try:
            lines = data.decode().split("\n")
        except UnicodeDecodeError as error:
            raise ExpositionError(f"the page is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}") from None
        last = lines.pop()
        if (content_type or "").startswith("application/openmetrics-text"):
            end = last or (lines.pop() if lines else "")
            if end.rstrip("\r") != "# EOF" or "# EOF" in lines:
                raise ExpositionError("the page is cut: an OpenMetrics page ends with # EOF")
        elif last and last != "# EOF":
            raise ExpositionError(f"the page is cut: its last line has no end: {_excerpt(last)}")
        return lines

    def _read_unknown(self, line: str) -> tuple[int, str] | None:
        """Take apart a line that the cache does not know: a new series, a timestamp, an exemplar, odd spacing.

        None: it is blank, or a comment that does not begin at the first character.
        """
        if not line.strip() or line.lstrip().startswith("#"):
            return None
        name, labels, tokens = _split(line, self._limits)
        index = self._index(name, labels)
        prefix, _, word = line.rpartition(" ")
        if tokens == [word]:
            self._ids[prefix] = index
        return index, _value(tokens, line)

    def _index(self, name: str, labels: dict[str, str]) -> int:
        key = (name, frozenset(labels.items()))
        index = self._canonical.get(key)
        if index is None:
            index = self._canonical[key] = len(self._series)
            self._series.append((name, {key: sanitise(value) for key, value in labels.items()}))
        return index


_WRONG_PLACE = "Check the URL and the path of the metrics."
_NAME = re.compile(r"[ \t]*([a-zA-Z_:][a-zA-Z0-9_:]*)[ \t]*")
_LABEL = re.compile(r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"([^"\\]*(?:\\.[^"\\]*)*)"[ \t]*(,|(?=\}))')
_CLOSE = re.compile(r"[ \t]*\}")
_ESCAPE = re.compile(r'\\([\\"n])')
_UNESCAPED = {"\\": "\\", '"': '"', "n": "\n"}


def _split(line: str, limits: Limits) -> tuple[str, dict[str, str], list[str]]:
    """Return name, labels and the words after them."""
    match = _NAME.match(line)
    if match is None:
        raise ExpositionError(f"no metric name: {_excerpt(line)}")
    name, at = match[1], match.end()
    labels: dict[str, str] = {}
    if line[at : at + 1] == "{":
        at += 1
        while (close := _CLOSE.match(line, at)) is None:
            label = _LABEL.match(line, at)
            if label is None or label[1] in labels:
                raise ExpositionError(f"{'malformed labels' if label is None else 'a label twice'}: {_excerpt(line)}")
            value = _ESCAPE.sub(lambda escape: _UNESCAPED[escape[1]], label[2])
            if len(value) > limits.value_chars or len(labels) == limits.labels:
                raise ExpositionError(
                    f"more than {limits.labels} labels or {limits.value_chars} characters in one: {_excerpt(line)}"
                )
            labels[label[1]] = value
            at = label.end()
        at = close.end()
    return name, labels, line[at:].split()


def _value(tokens: list[str], line: str) -> str:
    """Return the value among ``value [timestamp] [# {exemplar} ...]``."""
    words = tokens[: tokens.index("#")] if "#" in tokens else tokens
    if not 1 <= len(words) <= 2:
        raise ExpositionError(f"not one value and at most one timestamp: {_excerpt(line)}")
    if len(words) == 2 and not isfinite(floats(words[1:])[0]):
        raise ExpositionError(f"the timestamp is no number: {_excerpt(line)}")
    return words[0]


def _types(comments: list[str]) -> dict[str, str]:
    types: dict[str, str] = {}
    for comment in comments:
        words = comment.split(None, 3)
        if len(words) == 4 and words[:2] == ["#", "TYPE"] and not words[2].endswith("_created"):
            types[sanitise(words[2])] = sanitise(words[3].strip())
    return types


def _excerpt(text: str) -> str:
    return sanitise(text, 120)
