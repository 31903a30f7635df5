"""What stays the same from one page of a target to the next: which line says which series.

Lines that did not change are not looked at again, and a column none of whose lines changed stays the same object: who
computed something from it may keep that (:func:`collectors.families.histogram` does).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import compress
from operator import eq, ne
from typing import Any

from collectors.base import Column
from opsboard.core.errors import ExpositionError
from opsboard.core.text import sanitise

Labels = Mapping[str, str]

_NO_SAMPLE = "\n"
"""No line begins so."""


class Layout:
    """The series of a page in their order, and its newest lines and values. Pages of one engine keep it for hours."""

    def __init__(self, ids: list[int], series: Sequence[tuple[str, Labels]]) -> None:
        """``ids`` are the indices in ``series`` of the samples. Raises ExpositionError when one is there twice."""
        if len(set(ids)) != len(ids):
            name, labels = series[Counter(ids).most_common(1)[0][0]]
            raise ExpositionError(f"the page says a series twice: {sanitise(name + str(dict(labels)), 120)}")
        self.ids = ids
        self.columns: dict[str, Column] = {}
        """Of the newest page, without those of ``_created``. Replaced by the next, not changed."""
        self.kept: dict[Any, Any] = {}
        """For what readers of the page compute once a layout."""
        self._names = [series[index][0] for index in ids]
        places: dict[str, list[int]] = {}
        for place, name in enumerate(self._names):
            if not name.endswith("_created"):
                places.setdefault(name, []).append(place)
        self._labels = {name: tuple([series[ids[place]][1] for place in at]) for name, at in places.items()}
        self._places: dict[str, slice | list[int]] = {
            name: slice(at[0], at[-1] + 1) if at[-1] - at[0] + 1 == len(at) else at for name, at in places.items()
        }
        self._lines: list[str] = []
        self._prefixes: list[str] = []
        self._place_of: list[int] = []
        self._values: list[float] = []

    def fill(self, lines: list[str], samples: Sequence[tuple[int, int]], values: list[float]) -> None:
        """Take a whole page: for each sample the number of its line and where in it the space before the value is.

        0 for that: the line says more than name, labels and value, and must be taken apart each time.
        """
        self._lines, self._values = lines, values
        self._prefixes, self._place_of = [_NO_SAMPLE] * len(lines), [0] * len(lines)
        for place, (number, cut) in enumerate(samples):
            if cut:
                self._prefixes[number] = lines[number][: cut + 1]
            self._place_of[number] = place
        self.columns = {name: self._column(name) for name in self._places}

    def update(self, lines: list[str]) -> bool:
        """Take a page that differs from the last one in values only; False when it differs in more or is malformed."""
        if len(lines) != len(self._lines):
            return False
        differ = list(map(ne, lines, self._lines))
        changed = list(compress(lines, differ))
        words = list(map(str.removeprefix, changed, compress(self._prefixes, differ)))
        if any(map(eq, words, changed)):  # it begins otherwise
            return False
        try:
            values = floats(words)
        except ExpositionError:
            return False  # a timestamp may have come, or a space; the whole page is read to tell
        self._lines = lines
        touched = set()
        newest, names = self._values, self._names
        for place, value in zip(compress(self._place_of, differ), values, strict=True):
            newest[place] = value
            touched.add(names[place])
        self.columns = {**self.columns, **{name: self._column(name) for name in touched & self._places.keys()}}
        return True

    def _column(self, name: str) -> Column:
        at = self._places[name]
        values = self._values[at] if isinstance(at, slice) else [self._values[place] for place in at]
        return Column(self._labels[name], values)


def floats(words: Sequence[str]) -> list[float]:
    """Return the numbers. Python reads more spellings than the format has: ``1_000`` and foreign digits are refused."""
    try:
        values = list(map(float, words))
    except ValueError as error:
        text = sanitise(str(error).rpartition(":")[2].strip(), 120)
        raise ExpositionError(f"a value is no number: {text}") from None
    joined = "".join(words)
    if "_" in joined or not joined.isascii():
        raise ExpositionError("a value is no number: underscores and foreign digits are no part of the format")
    return values
