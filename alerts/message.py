"""From an incident to what is told of it: one sentence, its numbers, what was done, what to type. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import quote

from msgspec.structs import replace

from alerts.timeline import told_s
from opsboard.core.deliveries import Fact, Message, Step
from opsboard.core.incidents import Incident
from opsboard.core.model import Record
from opsboard.core.text import sanitise

FACTS, ACTIONS = 10, 5
SENTENCE_CHARS, WORD_CHARS = 500, 120
_BARS = "▁▂▃▄▅▆▇█"
SPARK_CHARS = 24


class About(Record, frozen=True, kw_only=True):
    """What is known beside the incident: of its host, of the engine it is about, and what people configured."""

    host: str
    model: str | None = None
    runbook: str | None = None
    """A link; ``{detector}`` in it becomes the detector's name."""
    ssh: str | None = None
    """What people write after ``ssh`` to get here; None: the host's name."""
    spark: str | None = None


def message(incident: Incident, step: Step, news: str, about: About, t: float) -> Message:
    """Return what is told of an incident now."""
    kind, _, name = incident.subject.partition("/")
    return Message(
        step=step,
        uid=incident.uid,
        number=incident.id,
        host=about.host,
        detector=incident.detector,
        subject=incident.subject,
        severity=incident.severity,
        state=incident.state,  # type: ignore[arg-type]  # one of those three
        summary=sanitise(incident.summary, SENTENCE_CHARS),
        news=sanitise(news, SENTENCE_CHARS),
        t=t,
        lines=len(incident.timeline) + incident.left_out,
        since=incident.since,
        opened=incident.opened,
        resolved=incident.resolved,
        acknowledged_by=incident.acknowledged_by,
        engine=name if kind == "engine" else None,
        model=None if about.model is None else sanitise(about.model, WORD_CHARS),
        facts=tuple(facts(incident.evidence.items())),
        actions=tuple(actions(incident)),
        commands=tuple(commands(incident, about)),
        spark=about.spark,
        runbook=None if about.runbook is None else about.runbook.replace("{detector}", quote(incident.detector)),
    )


def bounded(said: Message) -> Message:
    """Return a message of at most about 20 kB, for services that take it whole."""
    return replace(
        said,
        summary=said.summary[:SENTENCE_CHARS],
        news=said.news[:SENTENCE_CHARS],
        facts=said.facts[:FACTS],
        actions=tuple(action[:SENTENCE_CHARS] for action in said.actions[-ACTIONS:]),
        commands=tuple(command[:SENTENCE_CHARS] for command in said.commands[:FACTS]),
    )


def facts(evidence: Iterable[tuple[str, float | str | bool | None]]) -> list[Fact]:
    """Return the numbers of the evidence in words, the first ones: detectors name the most telling first."""
    known = ((name, value) for name, value in evidence if value is not None)
    return [
        Fact(name=sanitise(_words(name), WORD_CHARS), text=sanitise(_value(name, value), WORD_CHARS))
        for name, value in known
    ][:FACTS]


def actions(incident: Incident) -> list[str]:
    """Return what was done, the newest last, and what came of it."""
    return [
        sanitise(
            f"{one.kind}: {one.outcome or 'under way'}" + (f" ({one.reason})" if one.reason else ""), SENTENCE_CHARS
        )
        for one in incident.actions[-ACTIONS:]
    ]


def commands(incident: Incident, about: About) -> list[str]:
    """Return what to type, from anywhere that reaches the host."""
    there = f"ssh {about.ssh or about.host} opsboard"
    lines = [f"{there} incident show {incident.id}"]
    if incident.open and incident.acknowledged is None:
        lines.append(f"{there} incident ack {incident.id}")
    kind, _, name = incident.subject.partition("/")
    if kind == "engine" and incident.open:
        lines.append(f"{there} engine logs {name}")
    return lines


def spark(points: Sequence[float]) -> str | None:
    """Draw a series from its least to its largest, in at most ``SPARK_CHARS`` characters; None without two points."""
    if len(points) < 2:
        return None
    size = min(SPARK_CHARS, len(points))
    means = []
    for at in range(size):
        part = points[at * len(points) // size : (at + 1) * len(points) // size]
        means.append(sum(part) / len(part))
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((mean - low) * scale)] for mean in means)


def _words(name: str) -> str:
    for unit in ("_bytes", "_s", "_ratio"):
        if name.endswith(unit):
            return name.removesuffix(unit).replace("_", " ")
    return name.replace("_", " ")


def _value(name: str, value: float | str | bool) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_bytes"):
        return _bytes(value)
    if name.endswith("_s") and not name.endswith("_per_s"):
        return told_s(value) if value >= 10 else f"{value:.3g} s"
    if name.endswith("_ratio"):
        return f"{value:.1%}"
    return f"{value:,.0f}" if value == int(value) else f"{value:.4g}"


def _bytes(value: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"
