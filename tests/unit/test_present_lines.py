"""Lines: made to fit, made harmless, compared cell by cell; and the parts that share a screen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsboard.core.text import sanitise
from opsboard.tui.bars import area, bar, nice_top, resample, spark
from opsboard.tui.columns import COLUMNS, place
from opsboard.tui.diff import changed
from opsboard.tui.glyphs import ASCII, UNICODE
from opsboard.tui.layout import share_out
from opsboard.tui.spans import Line, Span, clip, fit, line_text, line_width, plain_ascii, split_ends, width_of
from opsboard.tui.view import Size

TEXT = st.text(max_size=30)
LINE = st.lists(st.builds(Span, TEXT.map(sanitise), st.sampled_from(["", "dim", "bad"])), max_size=6).map(tuple)


@given(TEXT, st.integers(0, 40), st.sampled_from(["<", ">"]), st.booleans())
def test_a_cell_is_exactly_as_wide_as_asked_and_harmless(text: str, width: int, align: str, middle: bool) -> None:
    fitted = fit(text, width, align, middle=middle)  # type: ignore[arg-type]
    assert width_of(fitted) == width
    assert sanitise(fitted) == fitted


def test_long_names_keep_both_ends() -> None:
    assert fit("llama-70b-blue-1", 11, middle=True) == "llama…lue-1"
    assert fit("llama-70b-blue-1", 6, middle=True) == "llama…"
    assert fit("日本語のエンジン", 9, middle=True).startswith("日本")


@given(LINE, st.integers(0, 60))
def test_a_clipped_line_has_the_width_of_the_screen(line: Line, width: int) -> None:
    assert line_width(clip(line, width)) == width


@given(LINE)
def test_ascii_keeps_the_cells(line: Line) -> None:
    assert line_width(plain_ascii(line)) == line_width(line)
    assert line_text(plain_ascii(line)).isascii()


def test_the_right_end_falls_off_first() -> None:
    left, right = (Span("left"),), (Span("right"),)
    assert line_text(split_ends(left, right, 12)) == "left   right"
    assert line_text(split_ends(left, right, 9)) == "left     "


def cells(line: Line) -> list[tuple[str, str]]:
    """Return a line as one styled character a cell (wide characters take part with a filler)."""
    out: list[tuple[str, str]] = []
    for span in line:
        for char in span.text:
            wide = width_of(char)
            out += [(char, span.style)] * min(wide, 1) + [("", span.style)] * (wide - 1)
    return out


@given(
    st.lists(st.tuples(st.sampled_from(["ab", "xyz", "12345"]), st.sampled_from(["", "dim"])), min_size=1, max_size=8),
    st.data(),
)
def test_painting_what_changed_gives_the_new_line(columns: list[tuple[str, str]], data: st.DataObject) -> None:
    old = tuple(Span(text, style) for text, style in columns)  # type: ignore[arg-type]
    picked = data.draw(st.lists(st.booleans(), min_size=len(old), max_size=len(old)))
    new = tuple(Span(s.text.upper(), s.style) if yes else s for s, yes in zip(old, picked, strict=True))
    terminal = cells(old)
    for first, end in changed(old, new):
        terminal[first:end] = cells(new)[first:end]
    assert terminal == cells(new)


@given(LINE, LINE)
def test_lines_that_lie_differently_are_painted_to_the_end(old: Line, new: Line) -> None:
    width = max(line_width(old), line_width(new))
    old, new = clip(old, width), clip(new, width)
    if old != new and cells(old) != cells(new):
        assert changed(old, new)
    stretches = changed(old, new)
    assert all(0 <= first < end <= width for first, end in stretches)
    assert stretches == sorted(stretches)


def test_one_changed_column_is_one_short_stretch() -> None:
    old = (Span("llama-a "), Span("  12"), Span("  2.17k"), Span(" 530ms"))
    new = (Span("llama-a "), Span("  13"), Span("  2.17k"), Span(" 530ms"))
    assert changed(old, old) == []
    assert changed(old, new) == [(8, 12)]


# --- bars --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_bars_and_columns(glyphs: object) -> None:
    for ratio in (None, -1.0, 0.0, 0.01, 0.5, 1.0, 7.0, float("nan")):
        filled, empty = bar(ratio, 8, UNICODE)
        assert width_of(filled.text + empty.text) == 8
    assert bar(0.001, 8, UNICODE)[0].text == "╸"
    assert bar(None, 3, ASCII)[1].text == "..."
    assert spark([None, 0.0, 0.5, 1.0], 5, 1.0, UNICODE) == "··▁▄█"
    assert area([0.0, 0.5, 1.0], 3, 2, 1.0, UNICODE) == ["  █", "▁██"]


def test_charts_are_resampled_and_scaled_to_round_numbers() -> None:
    assert resample([1.0, 3.0, None, 5.0], 2) == [2.0, 5.0]
    assert resample([], 3) == [None, None, None]
    assert resample([1.0], 3) == [1.0, 1.0, 1.0]
    assert [nice_top([v], 0.0) for v in (0.0, 0.31, 1.0, 2170.0)] == [1.0, 0.5, 1.0, 5000.0]


# --- who gets the room -----------------------------------------------------------------------------------------


@given(st.integers(40, 250), st.integers(8, 80), st.integers(1, 60), st.integers(0, 16), st.integers(1, 16))
def test_the_parts_never_take_more_lines_than_there_are(
    width: int, height: int, engines: int, gpus: int, grid: int
) -> None:
    rooms = share_out(Size(width, height), banners=0, engines=engines, gpus=gpus, grid_rows=grid)
    assert rooms.table >= 2
    assert rooms.events >= 1
    assert rooms.table + rooms.gpus + rooms.focus + rooms.charts + rooms.events == height - 2


@given(st.integers(40, 250), st.integers(0, 80), st.integers(0, 80))
def test_columns_fit_and_wider_screens_only_add(width: int, name: int, model: int) -> None:
    placed = place(width, name, model)
    assert sum(cells for _, cells in placed) <= width - 1
    assert [c.key for c, _ in placed][:2] == ["state", "name"]
    narrower = {column.key for column, _ in place(max(40, width // 2), name, model)}
    assert narrower <= {column.key for column, _ in placed} or width < 80


def test_every_column_has_a_rank_of_its_own_or_shares_it_with_its_pair() -> None:
    ranks = [column.rank for column in COLUMNS]
    assert {rank for rank in ranks if ranks.count(rank) > 1} == {0, 1}
