"""Page in, view out: every page under tests/fixtures/metrics/KIND against engines/KIND/PAGE.json.

It runs over the registry, so a new dialect is held to it before it has tests of its own. After a wanted change write
the files anew with ``python -m tests.golden.test_engines`` and read the difference.
"""

from __future__ import annotations

import json
from math import inf
from pathlib import Path
from typing import Any

import msgspec
import pytest

from collectors.base import Dialect, Page
from collectors.exposition import Parser
from opsboard.core.canonical import COUNTERS, GAUGES, HISTOGRAMS
from opsboard.core.model import EngineView, Histogram
from opsboard.core.registry import dialects

TESTS = Path(__file__).parents[1]
PAGES = TESTS / "fixtures/metrics"
GOLDEN = TESTS / "golden/engines"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"

cases = [(path.parent.name, path) for path in sorted(PAGES.glob("*/*.txt"))]


def load(path: Path) -> Page:
    data = path.read_bytes()
    return Parser().parse(data, OPENMETRICS if data.endswith(b"# EOF\n") else "text/plain; version=0.0.4")


def dialect(kind: str) -> Dialect:
    found: Dialect = dialects().found[kind]
    return found


def shown(view: EngineView) -> dict[str, Any]:
    """Return the view as JSON, histograms by the buckets where their count rises. A rank alone says it once."""
    record: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(view))
    for rank, said in zip(view.ranks, record["ranks"], strict=True):
        if rank.counters is view.counters:
            del said["counters"], said["gauges"]
    record["histograms"] = {name: steps(histogram) for name, histogram in view.histograms.items()}
    return record


def steps(histogram: Histogram) -> dict[str, Any]:
    rising: dict[str, float] = {}
    for bound, count in zip(histogram.bounds, histogram.counts, strict=True):
        if count > max(rising.values(), default=0.0):
            rising["+Inf" if bound == inf else repr(bound)] = count
    return {"bounds": len(histogram.bounds), "steps": rising, "total": histogram.total}


@pytest.mark.parametrize(("kind", "path"), cases, ids=[f"{kind}-{path.stem}" for kind, path in cases])
def test_a_page_reads_as_it_did(kind: str, path: Path) -> None:
    expected = json.loads((GOLDEN / kind / f"{path.stem}.json").read_text())
    assert shown(dialect(kind).read(load(path))) == expected


@pytest.mark.parametrize(("kind", "path"), cases, ids=[f"{kind}-{path.stem}" for kind, path in cases])
def test_a_page_is_recognised_by_its_own_dialect_alone(kind: str, path: Path) -> None:
    page = load(path)
    assert [name for name, one in dialects().found.items() if one.recognise(page)] == [kind]


@pytest.mark.parametrize("kind", sorted(dialects().found))
def test_every_dialect_has_pages_and_says_canonical_names_only(kind: str) -> None:
    assert dialects().broken == {}
    paths = [path for own, path in cases if own == kind]
    assert paths, f"put a page of {kind} under tests/fixtures/metrics/{kind}/"
    for path in paths:
        view = dialect(kind).read(load(path))
        assert view.kind == kind
        assert set(view.counters) <= set(COUNTERS)
        assert set(view.gauges) <= set(GAUGES)
        assert set(view.histograms) <= set(HISTOGRAMS)
        assert all(histogram.bounds[-1] == inf for histogram in view.histograms.values())


@pytest.mark.parametrize("kind", sorted(dialects().found))
def test_every_dialect_reads_a_page_that_has_nothing_for_it(kind: str) -> None:
    empty = Page(columns={}, types={})
    assert not dialect(kind).recognise(empty)
    view = dialect(kind).read(empty)
    assert (view.running, view.kv_usage, view.ranks, dict(view.counters)) == (None, None, (), {})


if __name__ == "__main__":
    for own_kind, page_path in cases:
        golden = GOLDEN / own_kind / f"{page_path.stem}.json"
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(json.dumps(shown(dialect(own_kind).read(load(page_path))), indent=1) + "\n")
