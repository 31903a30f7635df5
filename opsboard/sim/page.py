"""The ``/metrics`` page of a simulated engine, as its profile writes it.

Python front ends write Prometheus text 0.0.4 as prometheus_client does: labels sorted, every number a float,
``_created`` gauges beside counters, histograms and summaries, and the series of the serving process. The Rust front end
writes OpenMetrics 1.0 as the crate prometheus-client does: labels as declared, ``le`` first, whole numbers bare.
Everything that cannot change is put together once; a scrape fills in numbers.
"""

from __future__ import annotations

import gc
import platform
import resource
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from opsboard.sim.families import Family
from opsboard.sim.http_metrics import HttpMetrics
from opsboard.sim.metrics import EngineMetrics, Histogram
from opsboard.sim.model import Shape
from opsboard.sim.profiles import Profile

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_PAGE_BYTES = resource.getpagesize()


def number(value: float) -> str:
    """Write a number as prometheus_client does (Go's manner: exponents from 1e+06 on)."""
    text = repr(float(value))
    if text in {"inf", "-inf", "nan"}:
        return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}[text]
    dot = text.find(".")
    if value > 0 and dot > 6:
        mantissa = f"{text[0]}.{text[1:dot]}{text[dot + 1 :]}".rstrip("0.")
        return f"{mantissa}e+0{dot - 1}"
    return text


def _bare(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class _Lines:
    """The fixed parts of one family's lines: a head, then (prefix, key) pairs or one histogram."""

    __slots__ = ("family", "histogram", "series", "static", "tail")

    def __init__(self, family: Family, static: str, tail: str) -> None:
        self.family = family
        self.static = static
        self.tail = tail
        self.series: list[tuple[str, str]] = []
        self.histogram: tuple[list[str], str, str] | None = None


class Page:
    """Writes the page of one engine of ``model`` that began at ``started`` (Unix seconds)."""

    def __init__(self, profile: Profile, model: str, shape: Shape, started: float) -> None:
        """Put together all that does not change."""
        self._profile = profile
        self._started = started
        self._labels = {"model_name": model, "engine": "0"} if profile.engine_label else {"model_name": model}
        self._write = _bare if profile.rust else number
        self.content_type = OPENMETRICS if profile.rust else TEXT
        self._families = [self._compile(family) for family in profile.families]
        self._info = self._cache_info(profile.cache_labels(shape))

    def render(self, metrics: EngineMetrics, http: HttpMetrics) -> bytes:
        """Return the page of this moment."""
        parts = [] if self._profile.rust else [_python(), _process(self._started)]
        parts += [self._family(lines, metrics) for lines in self._families]
        parts.append(self._info)
        if self._profile.http:
            parts += self._http_rust(http) if self._profile.rust else self._http(http)
        if self._profile.rust:
            parts.append("# EOF\n")
        return "".join(parts).encode()

    # -- families of vLLM

    def _compile(self, family: Family) -> _Lines:
        name = family.name
        labels = dict(self._labels) if family.engine else {"model_name": self._labels["model_name"]}
        lines = _Lines(family, self._head(name, family.kind, family.help), "")
        base = name.removesuffix("_total") if family.kind == "counter" else name
        if family.kind == "histogram":
            lines.histogram = ([], f"{name}_count{self._label(labels)} ", f"{name}_sum{self._label(labels)} ")
        elif family.label:
            for value, key in family.keys.items():
                lines.series.append((f"{name}{self._label({**labels, family.label: value})} ", key))
        else:
            lines.series.append((f"{name}{self._label(labels)} ", family.key))
        if self._profile.created and family.kind != "gauge":
            variants = [{family.label: value} for value in family.keys] if family.label else [{}]
            lines.tail = self._head(f"{base}_created", "gauge", family.help) + "".join(
                f"{base}_created{self._label({**labels, **more})} {number(self._started)}\n" for more in variants
            )
        return lines

    def _family(self, lines: _Lines, metrics: EngineMetrics) -> str:
        if lines.histogram is not None:
            histogram = metrics.histograms[lines.family.key]
            if self._profile.lazy and not any(histogram.counts):
                return lines.static
            if not lines.histogram[0]:
                lines.histogram[0].extend(self._buckets(lines.family.name, self._labels, histogram.bounds))
            return lines.static + self._histogram(lines.histogram, histogram) + lines.tail
        values = metrics.values
        lazy = self._profile.lazy and lines.family.label
        write = number if lines.family.key == "kv_usage" else self._write  # the one that is no whole number
        body = "".join(f"{prefix}{write(values[key])}\n" for prefix, key in lines.series if values[key] or not lazy)
        return lines.static + body + lines.tail

    def _buckets(self, name: str, labels: Mapping[str, str], bounds: Iterable[float]) -> Iterator[str]:
        for bound in (*bounds, float("inf")):
            le = {"le": number(bound)}
            # prometheus_client sorts, the Rust crate puts its own label first.
            yield f"{name}_bucket{self._label({**le, **labels})} "

    def _histogram(self, prefixes: tuple[list[str], str, str], histogram: Histogram) -> str:
        buckets, count, total = prefixes
        out: list[str] = []
        so_far = 0
        for prefix, here in zip(buckets, histogram.counts, strict=True):
            so_far += here
            out.append(f"{prefix}{so_far}\n" if self._profile.rust else f"{prefix}{so_far}.0\n")
        counted, summed = f"{count}{self._write(so_far)}\n", f"{total}{number(histogram.total)}\n"
        if self._profile.rust:
            return summed + counted + "".join(out)
        return "".join(out) + counted + summed

    def _cache_info(self, labels: Mapping[str, str]) -> str:
        if not labels:
            return ""
        head = self._head("vllm:cache_config_info", "gauge", "Information of the LLMEngine CacheConfig")
        return f"{head}vllm:cache_config_info{self._label(labels)} 1.0\n"

    def _head(self, name: str, kind: str, about: str) -> str:
        if self._profile.rust:  # the crate ends every help text with a full stop and names counters without _total
            name, about = name.removesuffix("_total") if kind == "counter" else name, about.rstrip(".") + "."
        return f"# HELP {name} {about}\n# TYPE {name} {kind}\n"

    def _label(self, labels: Mapping[str, str]) -> str:
        if not labels:
            return ""
        pairs = labels.items() if self._profile.rust else sorted(labels.items())
        return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in pairs) + "}"

    # -- families of the HTTP middleware

    def _http(self, http: HttpMetrics) -> Iterator[str]:
        text = "Total number of requests by method, status and handler."
        keys = [{"handler": handler, "method": method, "status": status} for handler, method, status in http.requests]
        yield self._head("http_requests_total", "counter", text)
        yield from self._rows("http_requests_total", zip(keys, http.requests.values(), strict=True))
        yield from self._created("http_requests", text, zip(keys, http.requests, strict=True), http)
        for name, side, sizes in (
            ("http_request_size_bytes", "incoming requests", http.request_bytes),
            ("http_response_size_bytes", "outgoing responses", http.response_bytes),
        ):
            text = (
                f"Content length of {side} by handler. Only value of header is respected. Otherwise ignored. "
                "No percentile calculated. "
            )
            yield self._head(name, "summary", text)
            for handler, size in sizes.items():
                own = self._label({"handler": handler})
                yield f"{name}_count{own} {number(size.count)}\n{name}_sum{own} {number(size.total)}\n"
            yield from self._created(name, text, (({"handler": handler}, handler) for handler in sizes), http)
        name = "http_request_duration_highr_seconds"
        text = "Latency with many buckets but no API specific labels. Made for more accurate percentile calculations. "
        yield self._head(name, "histogram", text)
        yield self._whole_histogram(name, {}, http.all_durations)
        yield from self._created(name, text, [({}, None)], http)
        name = "http_request_duration_seconds"
        text = "Latency with only few buckets by handler. Made to be only used if aggregation by handler is important. "
        pairs = [({"handler": pair[0], "method": pair[1]}, pair) for pair in http.durations]
        yield self._head(name, "histogram", text)
        for labels, pair in pairs:
            yield self._whole_histogram(name, labels, http.durations[pair])
        yield from self._created(name, text, pairs, http)

    def _http_rust(self, http: HttpMetrics) -> Iterator[str]:
        if http.requests:  # a family without series is not written at all
            text = "Total number of HTTP requests by method, status, and handler."
            yield self._head("http_requests_total", "counter", text)
            keys = (
                {"method": method, "status": status, "handler": handler} for handler, method, status in http.requests
            )
            yield from self._rows("http_requests_total", zip(keys, http.requests.values(), strict=True))
            name = "http_request_duration_seconds"
            yield self._head(name, "histogram", "Duration of HTTP requests in seconds grouped by method and handler.")
            for (handler, method), histogram in http.durations.items():
                yield self._whole_histogram(name, {"method": method, "handler": handler}, histogram)
        name = "http_request_duration_highr_seconds"
        yield self._head(name, "histogram", "High-resolution duration of HTTP requests in seconds.")
        yield self._whole_histogram(name, {}, http.all_durations)

    def _rows(self, name: str, rows: Iterable[tuple[Mapping[str, str], float]]) -> Iterator[str]:
        for labels, value in rows:
            yield f"{name}{self._label(labels)} {self._write(value)}\n"

    def _created(
        self, name: str, help: str, rows: Iterable[tuple[Mapping[str, str], object]], http: HttpMetrics
    ) -> Iterator[str]:
        rows = list(rows)
        if self._profile.created and rows:
            yield self._head(f"{name}_created", "gauge", help)
            for labels, key in rows:
                yield f"{name}_created{self._label(labels)} {number(http.since.get(key, self._started))}\n"

    def _whole_histogram(self, name: str, labels: Mapping[str, str], histogram: Histogram) -> str:
        own = self._label(labels)
        buckets = list(self._buckets(name, labels, histogram.bounds))
        return self._histogram((buckets, f"{name}_count{own} ", f"{name}_sum{own} "), histogram)


# -- the serving process, as prometheus_client's own collectors tell of it


def _python() -> str:
    out = []
    for name, key, about in (
        ("objects_collected", "collected", "Objects collected during gc"),
        ("objects_uncollectable", "uncollectable", "Uncollectable objects found during GC"),
        ("collections", "collections", "Number of times this generation was collected"),
    ):
        out.append(f"# HELP python_gc_{name}_total {about}\n# TYPE python_gc_{name}_total counter\n")
        out += [
            f'python_gc_{name}_total{{generation="{generation}"}} {number(stats[key])}\n'
            for generation, stats in enumerate(gc.get_stats())
        ]
    major, minor, patch = platform.python_version_tuple()
    out.append(
        "# HELP python_info Python platform information\n# TYPE python_info gauge\n"
        f'python_info{{implementation="{platform.python_implementation()}",major="{major}",minor="{minor}",'
        f'patchlevel="{patch}",version="{platform.python_version()}"}} 1.0\n'
    )
    return "".join(out)


def _process(started: float) -> str:
    virtual, resident = (int(pages) * _PAGE_BYTES for pages in Path("/proc/self/statm").read_text().split()[:2])
    usage = resource.getrusage(resource.RUSAGE_SELF)
    rows = (
        ("virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", virtual),
        ("resident_memory_bytes", "gauge", "Resident memory size in bytes.", resident),
        ("start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", started),
        (
            "cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
            usage.ru_utime + usage.ru_stime,
        ),
        ("open_fds", "gauge", "Number of open file descriptors.", len(list(Path("/proc/self/fd").iterdir()))),
        ("max_fds", "gauge", "Maximum number of open file descriptors.", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    )
    return "".join(
        f"# HELP process_{name} {about}\n# TYPE process_{name} {kind}\nprocess_{name} {number(value)}\n"
        for name, kind, about, value in rows
    )
