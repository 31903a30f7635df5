"""Against prometheus_client's parser, on pages nobody thought of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from collectors.base import Page
from collectors.exposition import Parser
from collectors.families import histogram
from opsboard.core.errors import ExpositionError
from opsboard.core.text import sanitise

Row = tuple[str, frozenset[tuple[str, str]], str]

names = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,8}", fullmatch=True).filter(
    lambda name: not name.endswith("_created")
)
label_names = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,5}", fullmatch=True)
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\n\r")
awkward = st.sampled_from(["\\", '"', "\\n", "{", "}", ",", " ", "#", "=", "\\\\", '\\"', "\n"])
label_values = st.lists(awkward | characters, max_size=8).map("".join)
numbers = st.one_of(
    st.floats().map(repr),
    st.integers(-(10**9), 10**9).map(str),
    st.sampled_from(["NaN", "+Inf", "-Inf", "1e+06", "0.0"]),
)


@st.composite
def samples(draw: st.DrawFn) -> str:
    labels = draw(st.dictionaries(label_names, label_values, max_size=4))
    escaped = (value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for value in labels.values())
    inside = ",".join(f'{name}="{value}"' for name, value in zip(labels, escaped, strict=True))
    block = "{" + inside + draw(st.sampled_from(["", ","]) if inside else st.just("")) + "}"
    end = draw(st.sampled_from(["", "", "", " 1395066363000"]))
    return f"{draw(names)}{block if labels else draw(st.sampled_from(['', '{}']))} {draw(numbers)}{end}\n"


comments = st.builds(
    "# {} {} {}\n".format,
    st.sampled_from(["HELP", "TYPE"]),
    names,
    st.sampled_from(["gauge", "untyped"]),
)
pages = st.lists(samples() | comments, min_size=1, max_size=12).map("".join)


def rows(page: Page) -> list[Row]:
    return sorted(
        ((name, frozenset(labels.items()), repr(value)) for name, own in page.samples.items() for labels, value in own),
        key=repr,
    )


def reference(text: str) -> list[Row]:
    return sorted(
        (
            (
                sample.name,
                frozenset((key, sanitise(value)) for key, value in sample.labels.items()),
                repr(float(sample.value)),
            )
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ),
        key=repr,
    )


def series(text: str) -> list[tuple[str, frozenset[tuple[str, str]]]]:
    return [
        (sample.name, frozenset(sample.labels.items()))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


@given(st.lists(pages, min_size=1, max_size=3))
def test_it_reads_what_the_reference_reads_cold_and_warm(texts: list[str]) -> None:
    warm = Parser()
    for text in [*texts, *texts]:
        said = series(text)
        if len(set(said)) != len(said):
            for parser in (warm, Parser()):
                try:
                    parser.parse(text.encode())
                except ExpositionError as error:
                    assert "twice" in error.message  # noqa: PT017  both parsers in turn
                else:
                    raise AssertionError(text)
            continue
        assert rows(warm.parse(text.encode())) == rows(Parser().parse(text.encode())) == reference(text)


edits = st.one_of(
    st.tuples(st.just(" "), st.sampled_from([" 7\n", " 7 1700000000000\n", "  7\n", " x\n", " 7 # {} 1\n", "\n", ""])),
    st.tuples(st.just("#"), st.sampled_from(["# TYPE a gauge\n", "a 1\n", "\n"])),
)
"""What becomes of a line: cut at the last of a character, another end."""


def outcome(parser: Parser, text: str) -> object:
    try:
        page = parser.parse(text.encode())
    except ExpositionError as error:
        return error.message
    return rows(page), page.types, {name: histogram(page, name.removesuffix("_bucket"), ()) for name in page.columns}


@given(pages, st.lists(st.tuples(st.integers(0, 30), edits), max_size=8))
def test_a_page_that_was_changed_here_and_there_reads_as_if_it_were_the_first(
    text: str, changes: list[tuple[int, tuple[str, str]]]
) -> None:
    warm = Parser()
    assert outcome(warm, text) == outcome(Parser(), text)
    for number, (mark, end) in changes:
        lines = text.splitlines(keepends=True)
        at = number % len(lines)
        changed = "".join([*lines[:at], lines[at].rstrip("\n").rpartition(mark)[0] + end, *lines[at + 1 :]])
        assert outcome(warm, changed) == outcome(Parser(), changed)
        text = changed or text


@given(pages, st.data())
def test_a_cut_page_is_never_silently_smaller(text: str, data: st.DataObject) -> None:
    page = text.encode()
    cut = page[: data.draw(st.integers(0, len(page) - 1))]
    for content_type in ("text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0"):
        if cut.endswith(b"\n") and content_type.startswith("text"):
            continue  # only the announced length shows this one
        try:
            Parser().parse(cut, content_type)
        except ExpositionError:
            continue
        raise AssertionError(cut)


@given(st.binary(max_size=200) | st.text(alphabet='ab{}="\\, \n#1.e+NaI_\t', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        Parser().parse(data)
    except ExpositionError as error:
        assert error.message == sanitise(error.message, 400)  # noqa: PT017  whatever was refused
