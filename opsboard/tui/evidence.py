"""The numbers that justify an incident, in words and with their units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from opsboard.core.model import Record
from opsboard.core.text import sanitise
from opsboard.tui import format as fmt
from opsboard.tui.spans import Line, Span, clip, fit, width_of

Evidence = Mapping[str, float | str | bool | None]
Say = Callable[[float], str]


class Fact(Record, frozen=True, kw_only=True):
    """One number in words; ``was``: what it was when people were told, where that differs."""

    name: str
    label: str
    text: str | None
    """None: not known."""
    was: str | None = None


def _of(unit: str) -> Say:
    return lambda value: f"{fmt.count(value)} {unit}"


def _few(unit: str) -> Say:
    """Tell of something there may be less than one of."""
    return lambda value: f"{fmt.count(value) if value >= 10 else f'{value:.2g}'} {unit}"


def _seconds(value: float) -> str:
    return f"{1000 * value:.3g} ms" if value < 1 else fmt.duration(value)


def _size_each(unit: str) -> Say:
    return lambda value: f"{fmt.size(value)} {unit}"


def _part(value: float) -> str:
    return f"{100 * value:.3g} %"


def _times(value: float) -> str:
    return f"{value:.3g} times"


_WORDS: Mapping[str, tuple[str, Say]] = {
    "lost_blocks": ("lost at least", _of("blocks")),
    "lost_tokens": ("room for", _of("tokens")),
    "pool_blocks": ("of a pool of", _of("blocks")),
    "used_blocks": ("in use", _of("blocks")),
    "load_explains_blocks": ("its load needs", _of("blocks")),
    "explained_tokens": ("explained", _of("tokens under way")),
    "blocks_per_finished_request": ("each finished request", _few("blocks")),
    "blocks_per_aborted_request": ("each aborted request", _few("blocks")),
    "blocks_per_hour": ("an hour", _few("blocks")),
    "exhausted_in_s": ("exhausted in", _seconds),
    "all_accounted_for_s_ago": ("none was lost until", lambda value: f"{_seconds(value)} ago"),
    "by": ("seen by", str),
    "drift_score": ("drift", lambda value: f"{value:.1f} sigma"),
    "level_score": ("level", lambda value: f"{value:.1f} sigma"),
    "leaked_bytes": ("leaked", fmt.size),
    "bytes_per_request": ("each finished request", fmt.size),
    "bytes_per_token": ("each token", fmt.size),
    "bytes_per_work_low": ("or at least", fmt.size),
    "bytes_per_hour": ("an hour", fmt.size),
    "base_bytes": ("before", fmt.size),
    "room_bytes": ("room left", fmt.size),
    "eta_s": ("memory is full in", _seconds),
    "eta_latest_s": ("at the latest in", _seconds),
    "role": ("process", str),
    "processes": ("processes", fmt.count),
    "ratio": ("observed / expected", lambda value: f"{value:.3g}"),
    "tolerance": ("tolerated above", _part),
    "seconds": ("takes", _seconds),
    "expected_s": ("this load explains", _seconds),
    "batch": ("in a batch of", _few("requests")),
    "context_tokens": ("context", _of("tokens")),
    "prefill_tokens_per_step": ("prefill a step", _of("tokens")),
    "learnt_s": ("learnt from", lambda value: f"{_seconds(value)} of work"),
    "cause": ("moved most", str),
    "causes": ("moved beside it", str),
    "event": ("began with", str),
    "no_progress_s": ("no progress for", _seconds),
    "patience_s": ("told after", _seconds),
    "inflight": ("under way to it", _of("requests")),
    "connections": ("connected", _of("clients")),
    "iterations": ("steps so far", fmt.count),
    "generation_tokens": ("tokens so far", fmt.count),
    "canaries_unanswered": ("canaries", _of("unanswered")),
    "canary_s": ("the canary waited", _seconds),
    "engine_core_cpu_ratio": ("EngineCore uses", _few("cores")),
    "gpu_utilization": ("its GPU is busy", _part),
    "kv_usage": ("KV cache in use", _part),
    "kv_usage_highest": ("KV cache at most", _part),
    "running": ("running", _of("requests")),
    "waiting": ("waiting", _of("requests")),
    "finished": ("finished", _of("requests")),
    "requests_finished": ("finished", _of("requests")),
    "preemptions": ("preempted", _of("times")),
    "preemptions_per_finished": ("each finished request", _few("preemptions")),
    "window_s": ("within", _seconds),
    "tokens_per_s": ("gives", _of("tokens/s")),
    "own_level_tokens_per_s": ("gave as loaded", _of("tokens/s")),
    "part_of_own_level": ("of its own level", _part),
    "prompt_tokens_per_s": ("prompts", _of("tokens/s")),
    "lasts_s": ("lasts", _seconds),
    "limit_s": ("objective", _seconds),
    "counted_beyond_s": ("counted beyond", _seconds),
    "allowed_ratio": ("may miss it", _part),
    "burn_limit": ("burning is", _times),
    "long_window_s": ("long window", _seconds),
    "long_burn": ("burns there", _times),
    "long_bad": ("missed there", _of("events")),
    "long_events": ("of", _of("events")),
    "short_window_s": ("short window", _seconds),
    "short_burn": ("burns in it", _times),
    "short_bad": ("missed in it", _of("events")),
    "short_events": ("of these", _of("events")),
    "known_s": ("known of it", _seconds),
    "budget_lasts_s": ("budget lasts", _seconds),
    "temperature_c": ("temperature", _of("C")),
    "sm_clock_mhz": ("SM clock", _of("MHz")),
    "power_w": ("power", _of("W")),
    "gpu_index": ("GPU", lambda value: f"{value:.0f}"),
    "xid": ("Xid", lambda value: f"{value:.0f}"),
    "exit_code": ("exit code", lambda value: f"{value:.0f}"),
    "restarts": ("restarts", fmt.count),
    "pages_failed": ("pages in a row", _of("failed")),
    "answers_that_differ": ("answers that differ", fmt.count),
    "predicate": ("kind", str),
    "predicates": ("kinds", str),
    "gpu": ("its uuid", str),
    "disk_free_bytes": ("free", fmt.size),
    "disk_total_bytes": ("of", fmt.size),
}
"""Of each known number its name for people, and how it is told."""
_SUFFIXES: Sequence[tuple[str, Say]] = (
    ("_per_s", lambda value: f"{fmt.count(value)} a second"),
    ("_s", _seconds),
    ("_bytes", fmt.size),
    ("_ratio", _part),
    ("_per_hour", _size_each("an hour")),
)
_BOUNDS = ("_low", "_high")
_COLUMN = 38


def facts(newest: Evidence, first: Evidence) -> list[Fact]:
    """Return every number in words, an interval with what it is of; ``first`` is what people were told with."""
    found = []
    for name, value in newest.items():
        if any(name.endswith(bound) and name.removesuffix(bound) in newest for bound in _BOUNDS):
            continue
        label, text = _said(name, value)
        if text is not None:
            text += _interval(name, newest)
        was = _said(name, first[name])[1] if name in first and first[name] != value else None
        found.append(Fact(name=name, label=label, text=text, was=was if was != text else None))
    return found


def _said(name: str, value: float | str | bool | None) -> tuple[str, str | None]:
    label, say = _WORDS.get(name, (sanitise(name).replace("_", " "), None))
    if value is None:
        return label, None
    if isinstance(value, str):
        return label, sanitise(value)
    if isinstance(value, bool):
        return label, "yes" if value else "no"
    if say is None or say is str:
        say = next((how for suffix, how in _SUFFIXES if name.endswith(suffix)), fmt.count)
    return label, say(float(value))


def _interval(name: str, evidence: Evidence) -> str:
    ends = [_said(name, evidence.get(name + bound))[1] for bound in _BOUNDS]
    if None in ends:
        return ""
    unit = " " + (_said(name, evidence.get(name))[1] or "").partition(" ")[2]
    low, high = ((end or "").removesuffix(unit) for end in ends)
    return f" ({low} to {high})"


def ordered(detector: str, known: Sequence[Fact]) -> list[Fact]:
    """Return the facts that are known, those at the front that people look at first."""
    rank = {name: number for number, name in enumerate(_FIRST.get(detector, ()))}
    return sorted((fact for fact in known if fact.text is not None), key=lambda fact: rank.get(fact.name, len(rank)))


_FIRST: Mapping[str, Sequence[str]] = {
    "kv_leak": (
        "lost_blocks", "pool_blocks", "used_blocks", "load_explains_blocks", "exhausted_in_s",
        "blocks_per_finished_request", "blocks_per_hour", "by", "all_accounted_for_s_ago", "running", "waiting",
    ),
    "memory_leak": (
        "leaked_bytes", "role", "bytes_per_request", "bytes_per_token", "bytes_per_hour", "eta_s", "room_bytes",
    ),
    "gpu_memory_leak": (
        "leaked_bytes", "gpu_index", "bytes_per_request", "bytes_per_token", "bytes_per_hour", "eta_s", "room_bytes",
    ),
    "latency": ("seconds", "expected_s", "ratio", "tolerance", "causes", "batch", "context_tokens"),
    "stall": (
        "no_progress_s", "running", "waiting", "canaries_unanswered", "canary_s", "engine_core_cpu_ratio",
        "gpu_utilization", "connections",
    ),
    "preemption_storm": (
        "preemptions", "finished", "preemptions_per_finished", "window_s", "kv_usage_highest", "tokens_per_s",
        "part_of_own_level", "running", "waiting",
    ),
    "throughput_collapse": (
        "tokens_per_s", "own_level_tokens_per_s", "part_of_own_level", "lasts_s", "running", "waiting",
    ),
    "gpu_fault": ("gpu_index", "xid", "throttle", "temperature_c", "sm_clock_mhz", "power_w", "ecc_uncorrected"),
    "engine_down": ("state", "exit_code", "page_error", "pages_failed", "canary", "processes"),
    "slo_burn": ("objective", "limit_s", "long_burn", "long_bad", "long_events", "budget_lasts_s"),
}  # fmt: skip


def grid(known: Sequence[Fact], width: int, most: int) -> list[Line]:
    """Return the first facts side by side, over at most ``most`` lines; a long one takes several columns."""
    columns = max(1, width // _COLUMN)
    cell = width // columns
    lines: list[Line] = []
    row: list[Span] = []
    used = 0
    for fact in known:
        need = width_of(fact.label) + width_of(fact.text or "") + 4
        cells = min(-(-need // cell), columns)
        if used + cells > columns:
            lines.append(clip(row, width))
            row, used = [], 0
        row += _cell(fact, cells * cell)
        used += cells
    if row:
        lines.append(clip(row, width))
    return lines[:most]


def _cell(fact: Fact, width: int) -> Line:
    text = fact.text or fmt.UNKNOWN
    label = fit(fact.label, min(width_of(fact.label), max(width // 2, width - width_of(text) - 4)))
    room = width - width_of(label) - 4
    return clip((Span(" " + label + "  ", "dim"), Span(fit(text, room))), width)


def listed(known: Sequence[Fact], width: int) -> list[Line]:
    """Return every number on a line of its own: what is not known too, and what people were told with."""
    names = min(max((width_of(fact.label) for fact in known), default=0), 30)
    lines = []
    for fact in known:
        was = f"   (when told: {fact.was})" if fact.was else ""
        text = fact.text or fmt.UNKNOWN
        lines.append(
            clip(
                (
                    Span(" " + fit(fact.label, names) + "  ", "dim"),
                    Span(fit(text, min(width_of(text), max(1, width - names - 4))), "" if fact.text else "dim"),
                    Span(fit(was, width_of(was)), "dim"),
                ),
                width,
            )
        )
    return lines
