"""Whatever strangers write, what is kept has no control characters."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from opsboard.core.text import sanitise, sanitise_line

BIDI = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")


@given(st.text())
def test_nothing_unsafe_is_left_and_twice_is_once(text: str) -> None:
    safe = sanitise(text, 100)
    assert not any(unicodedata.category(char) in ("Cc", "Cs") or char in BIDI for char in safe)
    assert len(safe) <= 100
    assert sanitise(safe, 100) == safe


@given(st.text())
def test_log_lines_are_as_safe(text: str) -> None:
    safe = sanitise_line(text)
    assert sanitise(safe, 5000) == safe


def test_colours_vanish_from_log_lines() -> None:
    assert sanitise_line("\x1b[31mERROR\x1b[0m it \x1b]0;title\x07broke\n") == "ERROR it broke"
