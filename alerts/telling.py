"""Who is told what of an incident: from what has changed since the last message to a channel. No clock and no I/O.

A channel hears of an incident when one of the routes sends it there; once it has, it hears of its end whatever
happens. What was told is told by the messages themselves, so that nothing is remembered that is not in the outbox.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from msgspec.structs import replace

from alerts.grouping import MOST, Groups
from alerts.message import About, message
from alerts.news import HEARD, LOUDNESS, news_of, opened
from alerts.timeline import told_s
from opsboard.core.deliveries import Message, NewDelivery, Step
from opsboard.core.incidents import Incident
from opsboard.core.model import Record
from opsboard.core.quiet import Quiet
from opsboard.core.silences import Matchers, Silences


class Route(Matchers, frozen=True, kw_only=True):
    """Incidents that go to some channels."""

    channels: tuple[str, ...]
    escalate_after_s: float | None = None
    """Nobody has acknowledged it for so long: ``escalate_to`` hears of it, too."""
    escalate_to: tuple[str, ...] = ()


def everywhere(channels: Sequence[str]) -> Route:
    """Return the way of incidents where nobody says: pages and tickets go to every channel."""
    return Route(channels=tuple(channels), severities=("page", "ticket"))


class Manners(Record, frozen=True, kw_only=True):
    """How often and when people are told."""

    repeat_s: float = 0.0
    """A page that nobody acknowledges is told again so often; 0: never."""
    quiet: Quiet = Quiet()
    """When what is no page waits."""
    group_wait_s: float = 0.0
    """So long what is no page waits for others, to be told with them."""
    groups: frozenset[str] = frozenset()
    """The channels where several of them are one message."""


class Telling:
    """What every channel was told of every incident that is open, and what it is to be told next."""

    def __init__(
        self,
        channels: Sequence[str],
        routes: Sequence[Route],
        about: Callable[[Incident], About],
        silences: Silences | None = None,
        *,
        ease: Callable[[Incident, float], Incident] = lambda incident, _t: incident,
        new_uid: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        """Without routes every channel hears of pages and tickets.

        ``ease(incident, t)`` returns it as loud as people are to hear it, while nobody has heard it louder.
        """
        self._about = about
        self._ease = ease
        self._silences = silences or Silences()
        self._last: dict[str, dict[str, Message]] = {}
        """By uid and channel."""
        self._groups = Groups(about, new_uid)
        self.configure(channels, routes)

    def configure(self, channels: Sequence[str], routes: Sequence[Route], manners: Manners | None = None) -> None:
        """Take other channels, routes and manners; what was told stays told."""
        self._channels, self._routes = tuple(channels), tuple(routes) or (everywhere(channels),)
        self._manners = manners or Manners()

    def resume(self, last: Iterable[tuple[str, Message]]) -> None:
        """Take in the last message to each channel, as the outbox has them."""
        for channel, told in last:
            if told.members:
                self._groups.resume(channel, told)
            else:
                self._last.setdefault(told.uid, {})[channel] = told

    def hear(self, incident: Incident, t: float) -> list[NewDelivery]:
        """Return what is to be told of an incident as it is now."""
        return self._hear(incident, t, {})

    def look(self, incidents: Sequence[Incident], t: float) -> list[NewDelivery]:
        """Return what time alone makes due; ``incidents`` are all that are open."""
        first: dict[str, list[Incident]] = {}
        found = [one for incident in incidents for one in self._hear(incident, t, first)]
        for channel, ones in first.items():
            if all(0 <= t - one.opened < self._manners.group_wait_s for one in ones):
                continue  # others may come
            for at in range(0, len(ones), MOST):
                several = ones[at : at + MOST]
                if len(several) == 1:
                    found.append(self._said(channel, several[0], *opened(several[0]), t))
                else:
                    found.append(self._groups.begin(channel, several, t))
        return [*found, *self._groups.end_without({one.uid for one in incidents}, t)]

    def _hear(self, incident: Incident, t: float, first: dict[str, list[Incident]]) -> list[NewDelivery]:
        """Return what is to be told of it; what may be told with others comes into ``first``, by channel."""
        incident = self._eased(incident, t)
        wanted = {name for route in self._routes if route.takes(incident) for name in route.channels}
        found = self._tell(incident, wanted, t, first)
        if not incident.open:
            self._last.pop(incident.uid, None)
            return found
        if not self._waits(incident, t):
            found += self._escalated(incident, t)
            found += self._repeated(incident, t)
        return found

    def _eased(self, incident: Incident, t: float) -> Incident:
        loud = any(last.severity == incident.severity for last in self._last.get(incident.uid, {}).values())
        return incident if loud else self._ease(incident, t)

    def _waits(self, incident: Incident, t: float) -> bool:
        """Whether what is to be heard of it has to wait: somebody silenced it, or it is no page and the hour quiet."""
        if self._silences.of(incident, t) is not None:
            return True
        return incident.severity != "page" and self._manners.quiet.holds(t)

    def _escalated(self, incident: Incident, t: float) -> list[NewDelivery]:
        """Return the first words to those who hear of what nobody takes on."""
        told, found = self._last.get(incident.uid, {}), []
        if incident.acknowledged is not None or incident.severity == "note":
            return []  # a note asks nobody to do anything
        for route in self._routes:
            known = [told[name].known for name in route.channels if name in told]
            known += self._groups.known(incident.uid, route.channels)
            if route.escalate_after_s is None or not known or not route.takes(incident):
                continue
            waited = t - min(known)
            for name in route.escalate_to if waited >= route.escalate_after_s else ():
                if (
                    name in self._channels
                    and name not in told
                    and not self._groups.holds(name, incident.uid)
                    and incident.subject != f"channel/{name}"
                ):
                    news = f"nobody has acknowledged it for {told_s(waited)}: {incident.summary}"
                    found.append(self._said(name, incident, "trigger", news, t))
        return found

    def _repeated(self, incident: Incident, t: float) -> list[NewDelivery]:
        """Return once more what is a page and acknowledged by nobody."""
        every_s = self._manners.repeat_s
        if not every_s or incident.severity != "page" or incident.acknowledged is not None:
            return []
        told = self._last.get(incident.uid, {})
        due = [name for name in self._channels if name in told and not 0 <= t - told[name].rang < every_s]
        news = f"nobody has acknowledged it for {told_s(t - incident.opened)}: {incident.summary}"
        return [self._said(name, incident, "update", news, t, aloud=True) for name in due]

    def escalate(self, incident: Incident, t: float) -> list[NewDelivery]:
        """Return what is to be told because a channel cannot: every other one hears of the incident."""
        return self._tell(incident, self._channels, t, {}) if incident.open else []

    def resend(self, incident: Incident, every_s: Mapping[str, float], t: float) -> list[NewDelivery]:
        """Return what has to be said again to channels that forget; ``every_s`` by channel."""
        told, found = self._last.get(incident.uid, {}), []
        incident = self._eased(incident, t)
        for channel, seconds in every_s.items():
            last = told.get(channel)
            if last is not None and incident.open and not 0 <= t - last.t < seconds:
                found.append(self._said(channel, incident, "update", "still so", t))
        return found

    def _said(
        self, channel: str, incident: Incident, step: Step, news: str, t: float, *, aloud: bool = False
    ) -> NewDelivery:
        last = self._last.get(incident.uid, {}).get(channel)
        risen = last is None or LOUDNESS[incident.severity] > LOUDNESS[last.severity]
        said = replace(
            message(incident, step, news, self._about(incident), t),
            louder=risen or aloud,
            known=t if last is None or risen else last.known,
            rang=t if last is None or risen or aloud else last.rang,
        )
        self._last.setdefault(incident.uid, {})[channel] = said
        return NewDelivery(channel=channel, message=said, not_before=t)

    def _tell(
        self, incident: Incident, wanted: Collection[str], t: float, first: dict[str, list[Incident]]
    ) -> list[NewDelivery]:
        told = self._last.get(incident.uid, {})
        waits = self._waits(incident, t)
        found: list[NewDelivery] = []
        for channel in self._channels:
            if incident.subject == f"channel/{channel}":
                continue  # it cannot tell of its own trouble
            last = told.get(channel)
            if self._groups.holds(channel, incident.uid):
                found += self._groups.hear(channel, incident, t, waits=waits)
                if last is None and incident.severity != "page":
                    continue
            if last is None and (channel not in wanted or not incident.open):
                continue
            news = news_of(last, incident)
            if news is None or (waits and news[0] in HEARD):
                continue
            if last is None and incident.severity != "page" and channel in self._manners.groups:
                first.setdefault(channel, []).append(incident)
                continue
            found.append(self._said(channel, incident, *news, t))
        return found
