"""The page parser: two formats read whole, everything untrustworthy refused with a reason."""

from __future__ import annotations

import gzip
from math import inf, isnan
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from collectors.base import Page
from collectors.exposition import Limits, Parser
from collectors.families import histogram
from opsboard.core.errors import ExpositionError
from opsboard.core.model import Histogram

RECORDED = Path(__file__).parents[1] / "fixtures/metrics/vllm/0.32.txt"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def read(text: str, content_type: str | None = None) -> Page:
    return Parser().parse(text.encode(), content_type)


def as_set(page: Page) -> set[tuple[str, frozenset[tuple[str, str]], float]]:
    return {(name, frozenset(ls.items()), value) for name, rows in page.samples.items() for ls, value in rows}


def test_the_recorded_page_is_what_the_reference_parser_reads() -> None:
    text = RECORDED.read_text()
    expected = {
        (sample.name, frozenset(sample.labels.items()), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    parser = Parser()
    for _ in range(2):  # cold, then from the cache
        page = parser.parse(text.encode(), "text/plain; version=0.0.4")
        assert as_set(page) == expected
        assert len(expected) == 381
        assert page.types["vllm:iteration_tokens_total"] == "histogram"
        assert not any(name.endswith("_created") for name in (*page.samples, *page.types))


def test_the_numbers_of_a_known_page_are_new_each_time() -> None:
    parser = Parser()
    assert parser.parse(b'a{x="1"} 1\nb 2\n').samples == {"a": [({"x": "1"}, 1.0)], "b": [({}, 2.0)]}
    assert parser.parse(b'a{x="1"} 3\nb 4\n').samples == {"a": [({"x": "1"}, 3.0)], "b": [({}, 4.0)]}
    assert parser.parse(b'b 5\na{x="2"} 6\n').samples == {"b": [({}, 5.0)], "a": [({"x": "2"}, 6.0)]}


def test_a_column_without_a_changed_line_is_the_same_object() -> None:
    parser = Parser()
    first = parser.parse(b"a 1\nb 2\n")
    second = parser.parse(b"a 1\nb 3\n")
    assert second.columns["a"] is first.columns["a"]
    assert (first.samples["b"], second.samples["b"]) == ([({}, 2.0)], [({}, 3.0)])
    assert second.kept is first.kept
    assert parser.parse(b"a 1\nb 3\nc 4\n").kept is not first.kept, "what follows from the layout ends with it"


def test_a_histogram_without_a_changed_line_is_the_same_object() -> None:
    parser = Parser()
    page = 'h_bucket{{le="+Inf"}} {0}\nh_bucket{{le="1"}} {0}\nh_sum {1}\n'
    first, same, other, worse = (
        histogram(parser.parse(page.format(*numbers).encode()), "h", ())
        for numbers in ((1, 2), (1, 2), (1, 3), ("NaN", 3))
    )
    assert first == Histogram(bounds=(1.0, inf), counts=(1.0, 1.0), total=2.0)
    assert same is first
    assert other == Histogram(bounds=(1.0, inf), counts=(1.0, 1.0), total=3.0)
    assert worse is None


def test_a_refused_page_leaves_nothing_behind() -> None:
    parser = Parser()
    good = b"# TYPE a gauge\na 1\n"
    parser.parse(good)
    for refused in (b"# TYPE a gauge\na x\n", b"# TYPE a counter\na 1\nb x\n", b"# TYPE a gauge\na 1_0\n"):
        with pytest.raises(ExpositionError, match="no number"):
            parser.parse(refused)
        page = parser.parse(good)
        assert (page.types, page.samples) == ({"a": "gauge"}, {"a": [({}, 1.0)]})


def test_a_known_line_may_get_and_lose_a_timestamp() -> None:
    parser = Parser()
    for text, value in (
        ("a 1\n", 1),
        ("a 2 1395066363000\n", 2),
        ("a 3 1395066364000\n", 3),
        ("a 4\n", 4),
        ("a  5\n", 5),
    ):
        assert parser.parse(text.encode()).samples == {"a": [({}, value)]}


@pytest.mark.parametrize("line", ["7", "NaN", "a_total2 7", "a_tota 7"])
def test_a_known_line_that_begins_otherwise_is_read_anew(line: str) -> None:
    parser = Parser()
    parser.parse(b"a_total 1\nb_total 2\n")
    page = f"{line}\nb_total 3\n".encode()
    if " " in line:
        assert as_set(parser.parse(page)) == as_set(Parser().parse(page))
    else:
        with pytest.raises(ExpositionError):
            parser.parse(page)


def test_a_known_line_that_lost_its_value_is_refused_as_at_first() -> None:
    parser = Parser()
    parser.parse(b"a 1\n")
    with pytest.raises(ExpositionError, match="not one value"):
        parser.parse(b"a \n")


def test_samples_of_one_name_that_stand_apart_are_brought_together() -> None:
    page = read('h_bucket{e="0"} 1\nh_sum{e="0"} 2\nh_bucket{e="1"} 3\nh_sum{e="1"} 4\n')
    assert page.samples["h_bucket"] == [({"e": "0"}, 1.0), ({"e": "1"}, 3.0)]
    assert page.samples["h_sum"] == [({"e": "0"}, 2.0), ({"e": "1"}, 4.0)]


def test_spaces_timestamps_exemplars_and_blank_lines() -> None:
    page = read(
        '\n  # a comment\n#a comment\na 1 1395066363000\n b{x = "1" , y="2",} \t2\nc\t3\nd{} 4\n'
        'e_bucket{le="1.0"} 17 # {trace_id="oHg5SJYRHA0"} 9.8 1520879607.789\nf 1e3 # {} 2\r\n'
    )
    assert {name: rows[0][1] for name, rows in page.samples.items()} == {
        "a": 1, "b": 2, "c": 3, "d": 4, "e_bucket": 17, "f": 1000,
    }  # fmt: skip
    assert page.samples["b"][0][0] == {"x": "1", "y": "2"}


def test_escapes_in_labels() -> None:
    page = read(r'a{x="q\"q\\n\n{}, #\t",y="z"} 1' + "\n")
    assert page.samples["a"][0][0] == {"x": 'q"q\\n\ufffd{}, #\\t', "y": "z"}


def test_terminal_escapes_in_labels_are_made_harmless() -> None:
    page = read('a{x="\x1b]52;c;ZXZpbA==\x07\x9b31m\u202e"} 1\n')
    assert page.samples["a"][0][0] == {"x": "\ufffd]52;c;ZXZpbA==\ufffd\ufffd31m\ufffd"}


def test_series_that_differ_only_in_what_is_made_harmless_are_two() -> None:
    assert len(read('a{x="\x01"} 1\na{x="\x02"} 2\n').samples["a"]) == 2


def test_nan_and_infinities() -> None:
    page = read("a NaN\nb +Inf\nc -Inf\nd 1e400\n")
    assert isnan(page.samples["a"][0][1])
    assert [page.samples[name][0][1] for name in "bcd"] == [inf, -inf, inf]


def test_openmetrics_needs_its_end_mark() -> None:
    assert read("# TYPE a counter\na_total 1\na_created 2\n# EOF\n", OPENMETRICS).samples == {"a_total": [({}, 1.0)]}
    assert read("a 1\n# EOF", OPENMETRICS).samples == {"a": [({}, 1.0)]}
    for cut in ("a_total 1\n", "# EO", "# EOF\na 1\n", "# EOF\na 1\n# EOF\n"):
        with pytest.raises(ExpositionError, match="cut"):
            read(cut, OPENMETRICS)


def test_a_page_without_samples_is_a_page() -> None:
    assert read("# EOF\n", OPENMETRICS).samples == {}
    assert read("# HELP a b\n# TYPE a gauge\n").samples == {}


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"<!doctype html><html></html>\n", "HTML"),
        (b"\n  <html>\n", "HTML"),
        (b'{"detail": "Not Found"}', "JSON"),
        (b"a 1\nb 2", "cut"),
        (b"a 1\nb", "cut"),
        (b"a \xff\n", "not UTF-8: byte 2 is 0xff"),
        (gzip.compress(b"a 1\n", mtime=0), "not UTF-8"),
        (b"a 1\na 2\n", "twice"),
        (b'a{x="1",y="2"} 1\na{y="2",x="1"} 2\n', "twice"),
        (b'a{x="1",x="2"} 1\n', "label twice"),
        (b"a one\n", "no number"),
        (b"a 1_000\n", "no number"),
        ("a ١\n".encode(), "no number"),
        (b"a 0x10\n", "no number"),
        (b"a\n", "not one value"),
        (b"a{} \n", "not one value"),
        (b"a 1 2 3\n", "not one value"),
        (b"a 1 then\n", "no number"),
        (b"a 1 NaN\n", "no number"),
        (b"9a 1\n", "no metric name"),
        (b'a{x="1" 1\n', "labels"),
        (b'a{x="1\n', "labels"),
        (b"a{x=1} 1\n", "labels"),
        (b'a{x="1"y="2"} 1\n', "labels"),
        (b'a{x="' + b"v" * 1025 + b'"} 1\n', "1024 characters"),
        (b"a{" + b",".join(b'l%d="v"' % n for n in range(65)) + b"} 1\n", "64 labels"),
        (b"a 1\n" * 5_000_000, "bytes"),
        (b"".join(b"a%d 1\n" % n for n in range(200_000)), "200000 samples, 20000 are allowed"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[:12].hex(),
)
def test_what_cannot_be_trusted_is_refused_with_a_reason(page: bytes, reason: str) -> None:
    parser = Parser()
    with pytest.raises(ExpositionError, match=reason) as caught:
        parser.parse(page, "text/plain; version=0.0.4")
    assert len(caught.value.message) < 300
    assert parser.parse(b"a 1\n").samples == {"a": [({}, 1.0)]}, "the next good page is read"


def test_the_excerpt_in_a_reason_is_harmless() -> None:
    with pytest.raises(ExpositionError) as caught:
        read("\x1b[2J 1\n")
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize("known", [True, False])
def test_a_page_cut_at_any_byte_is_refused_or_ends_at_a_line(known: bool) -> None:
    """A cut at a line's end shows only in the length that the server announced: see test_fetch."""
    page = RECORDED.read_bytes()[20_000:24_000].partition(b"\n")[2].rpartition(b"\n")[0] + b"\n"
    parser = Parser()
    whole = as_set(parser.parse(page))
    for cut in range(len(page)):
        reader = parser if known else Parser()
        if page[:cut].endswith(b"\n"):
            assert as_set(reader.parse(page[:cut])) <= whole
        else:
            with pytest.raises(ExpositionError, match=r"cut|empty"):
                reader.parse(page[:cut])
        with pytest.raises(ExpositionError, match=r"cut|empty"):
            reader.parse(page[:cut], OPENMETRICS)


@pytest.mark.parametrize("line", ['a{x="%d"} 1\n', 'a{x="%d"} 1 1700000000000\n'], ids=["plain", "with a timestamp"])
def test_labels_that_change_every_time_do_not_pile_up(line: str) -> None:
    parser = Parser(Limits(samples=10))
    for n in range(5_000):
        page = parser.parse(("# TYPE a gauge\n" + line % n).encode())
        assert (page.types, page.samples) == ({"a": "gauge"}, {"a": [({"x": str(n)}, 1.0)]})
    assert len(parser._ids) <= 1100
    assert len(parser._series) <= 1100
    assert len(parser._canonical) <= 1100


def test_labels_of_refused_pages_do_not_pile_up() -> None:
    parser = Parser(Limits(samples=10))
    for n in range(2_000):
        with pytest.raises(ExpositionError, match="twice"):
            parser.parse(b'a{x="%d"} 1\nb 1\nb 2\n' % n)
    assert len(parser._ids) <= 1100
    assert len(parser._series) <= 1100
    assert len(parser._canonical) <= 1100
