"""Every screen is the text that was looked at, exactly as large as the terminal."""

from __future__ import annotations

import pytest

from opsboard.tui.spans import line_width
from opsboard.tui.view import Size
from tests.screens import golden


@pytest.mark.parametrize(("name", "size"), golden.names(), ids=lambda value: value if isinstance(value, str) else None)
def test_the_screen_is_as_it_was(name: str, size: Size) -> None:
    lines = golden.CASES[name][0](size)
    assert [line_width(line) for line in lines] == [size.width] * size.height
    assert golden.rendered(lines) == golden.path(name, size).read_text(encoding="utf-8"), (
        "python -m tests.screens.golden"
    )
