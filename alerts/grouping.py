"""Several incidents that are no pages, told as one message: a message of its own, kept true until all of them are over.

Each channel has its own groups. What a group was told of its incidents is in its last message, so that the next daemon
goes on from the outbox.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from msgspec.structs import replace

from alerts.message import ACTIONS, FACTS, SENTENCE_CHARS, WORD_CHARS, About, message
from alerts.news import HEARD, LOUDNESS, news_of
from opsboard.core.deliveries import Fact, Message, NewDelivery, Step
from opsboard.core.incidents import Incident, Urgency
from opsboard.core.text import sanitise

MOST = 50
"""Incidents in one message: each of its changes is written down whole."""
PREFIX = "group-"
"""Begins the uid of a group, so that it is told from an incident's."""


class Group:
    """One of them. ``told`` is what is known there of each incident; None: what the last message says."""

    def __init__(self, uid: str, members: Iterable[str]) -> None:
        """``members``: uids of incidents, the first ones told first."""
        self.uid = uid
        self.members: dict[str, Incident | None] = dict.fromkeys(members)
        self.told: dict[str, Message] = {}
        self.last: Message | None = None


class Groups:
    """All that are not over, of every channel."""

    def __init__(self, about: Callable[[Incident], About], new_uid: Callable[[], str]) -> None:
        """``about`` says what is known beside an incident."""
        self._about = about
        self._new_uid = new_uid
        self._of: dict[tuple[str, str], Group] = {}
        """By channel and uid of an incident."""

    def resume(self, channel: str, last: Message) -> None:
        """Go on with what an earlier daemon told."""
        group = Group(last.uid, last.members)
        group.last = last
        self._of.update({(channel, uid): group for uid in group.members})

    def holds(self, channel: str, uid: str) -> bool:
        """Whether an incident is told there as one of several."""
        return (channel, uid) in self._of

    def known(self, uid: str, channels: Collection[str]) -> list[float]:
        """Return since when (Unix s) each of these channels knows of it in a group."""
        groups = [self._of[channel, uid] for channel in channels if (channel, uid) in self._of]
        return [group.last.known for group in groups if group.last is not None]

    def begin(self, channel: str, ones: Sequence[Incident], t: float) -> NewDelivery:
        """Return the first word of several."""
        group = Group(PREFIX + self._new_uid(), [one.uid for one in ones])
        for one in ones:
            self._take(group, one, t)
            self._of[channel, one.uid] = group
        return self._said(channel, group, "trigger", f"opened: {len(ones)} at once", t)

    def hear(self, channel: str, incident: Incident, t: float, *, waits: bool) -> list[NewDelivery]:
        """Return what a group has to say because of one of its incidents; ``waits``: news of it are kept back."""
        group = self._of[channel, incident.uid]
        told = group.told.get(incident.uid)
        if told is None and incident.open:  # as the last message has it
            self._take(group, incident, t)
            return []
        news: tuple[Step, str] | None = ("resolve", "over") if told is None else news_of(told, incident)
        if news is None or (waits and news[0] in HEARD):
            return []
        self._take(group, incident, t)
        if not incident.open:
            del self._of[channel, incident.uid]
        return [self._next(channel, group, news[0], f"{_name(incident)}: {news[1]}", t)]

    def end_without(self, going: Collection[str], t: float) -> list[NewDelivery]:
        """Return the ends of what waits for incidents that are not open any more, and whose end nobody told it."""
        fewer: dict[tuple[str, str], Group] = {}
        for (channel, uid), group in list(self._of.items()):
            if uid not in going:
                del self._of[channel, uid]
                del group.members[uid]
                fewer[channel, group.uid] = group
        return [self._next(channel, group, "update", "some are over", t) for (channel, _), group in fewer.items()]

    def _take(self, group: Group, one: Incident, t: float) -> None:
        group.members[one.uid] = one
        group.told[one.uid] = message(one, "update", "", self._about(one), t)

    def _next(self, channel: str, group: Group, step: Step, news: str, t: float) -> NewDelivery:
        going = [one for one in group.members.values() if one is None or one.open]
        if not going:
            return self._said(channel, group, "resolve", "all of them are over", t)
        taken = all(one is not None and one.acknowledged is not None for one in going)
        step = "acknowledge" if step == "acknowledge" and taken else "update"
        return self._said(channel, group, step, f"{news}; {len(going)} of {len(group.members)} go on", t)

    def _said(self, channel: str, group: Group, step: Step, news: str, t: float) -> NewDelivery:
        group.last = together(group, step, news, self._about, t)
        return NewDelivery(channel=channel, message=group.last, not_before=t)


def together(group: Group, step: Step, news: str, about: Callable[[Incident], About], t: float) -> Message:
    """Return a message of all that is known of a group's incidents: those that go on first."""
    ones = sorted((one for one in group.members.values() if one is not None), key=lambda one: (not one.open, one.id))
    last = group.last
    if not ones:
        if last is None:
            raise AssertionError("a group begins with its incidents")
        ended = {"state": "resolved", "resolved": t, "members": ()} if step == "resolve" else {}
        return replace(last, step=step, news=news, t=t, louder=False, **ended)
    lead, going = ones[0], [one for one in ones if one.open]
    severity: Urgency = max((_quiet(one.severity) for one in going or ones), key=LOUDNESS.__getitem__)
    detectors, subjects = {one.detector for one in ones}, {one.subject for one in ones}
    there = about(lead)
    host = f"ssh {there.ssh or there.host} opsboard"
    said = message(lead, step, news, there, t)
    over = f", {len(ones) - len(going)} of them over" if len(going) < len(ones) else ""
    summary = f"{len(ones)} incidents{over}: " + "; ".join(f"{_name(one)}: {one.summary}" for one in ones)
    return replace(
        said,
        uid=group.uid,
        members=tuple(uid for uid, one in group.members.items() if one is None or one.open),
        severity=severity,
        state="resolved" if not going else "acknowledged" if step == "acknowledge" else "open",
        detector=lead.detector if len(detectors) == 1 else "several",
        subject=lead.subject if len(subjects) == 1 else "host",
        engine=said.engine if len(subjects) == 1 else None,
        model=said.model if len(subjects) == 1 else None,
        summary=sanitise(summary, SENTENCE_CHARS),
        since=min(one.since for one in ones),
        opened=min(one.opened for one in ones),
        resolved=None if going else max(one.resolved or t for one in ones),
        facts=tuple(_fact(one) for one in ones[:FACTS]),
        actions=(),
        commands=(f"{host} incident list", *(f"{host} incident show {one.id}" for one in going[:ACTIONS])),
        spark=None,
        runbook=said.runbook if len(detectors) == 1 else None,
        louder=step == "trigger",
        known=t if last is None else last.known,
        rang=t if last is None else last.rang,
    )


def _quiet(severity: Urgency) -> Urgency:
    """A page is told by itself."""
    return "ticket" if severity == "page" else severity


def _name(one: Incident) -> str:
    return sanitise(f"{one.detector} of {one.subject.removeprefix('engine/')}", WORD_CHARS)


def _fact(one: Incident) -> Fact:
    state = "" if one.open and one.acknowledged is None else f"{one.state}: "
    return Fact(name=f"#{one.id} {_name(one)}", text=sanitise(state + one.summary, WORD_CHARS))
