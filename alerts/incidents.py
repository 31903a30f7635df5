"""The life of incidents: a claim opens one once, and only its absence, or a person, closes it. No clock and no I/O.

Who calls says at every look what is claimed of a subject now (:meth:`Incidents.see`). Certain claims open an incident
at once, others when they have stood for :data:`SUSPECT_S`. An incident is over when its claim has stayed away for
:data:`AWAY_S` while the subject could be judged; one that flaps (flapping.py) stays open. It is never reopened: what
comes again is another one, related to it. What another incident explains (inhibition.py) is a line of that one.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from alerts.flapping import STATES, flaps, part_of_change
from alerts.incident_actions import action_of, put
from alerts.inhibition import WITHIN_S, explains, lingers_s, rank, root_of
from alerts.timeline import add, told_s
from opsboard.core.clock import Now
from opsboard.core.incidents import Evidence, Incident, IncidentAction, Urgency
from opsboard.core.model import EngineState, Event, Record, Transaction

SUSPECT_S = 15.0
"""How long a claim that is not certain stands before people are told."""
LOUD_S = 120.0
"""A suspicion that would page is a ticket until it has stood for so long: some can never be made sure."""
AWAY_S = 60.0
"""How long a claim stays away before its incident is over."""
RESUMED_AWAY_S = 900.0
"""The same after the daemon has begun anew, for claims that take long to be made again."""
LEAK_AWAY_S = 6 * 3600.0
"""And for those that take hours of work, unless the engine begins anew, too."""
CHECK_S = 120.0
"""Between two states that flapping is told from: 21 of them are 40 min."""
GONE_S = 10.0
"""A claim that is back sooner was not away, as far as the timeline tells."""
REFRESH_S = 60.0
"""Numbers that move are written down so often."""
RELATED_S = 7 * 86400.0
"""An earlier incident of the same kind is related for so long."""
RECENT_S, RECENT_KEPT = 3600.0, 20
"""Resolved incidents that the board still shows."""
AT_ONCE = frozenset({"stall", "engine_down", "scrape_failed", "parked", "budget_spent", "disk_low", "gpu_fault"})
"""Claims that are made again within seconds where they are still true."""

_LEAKS = frozenset({"memory_leak", "gpu_memory_leak"})
_ACTIONS = frozenset({"action", "action_failed"})
_STATES = frozenset(EngineState)
_LOUDNESS: dict[Urgency, int] = {"note": 0, "ticket": 1, "page": 2}

Key = tuple[str, str]
"""Detector and subject."""


class Claim(Record, frozen=True, kw_only=True):
    """What is claimed of a subject now. As a finding, with how loud it is; ``since`` in Unix seconds."""

    detector: str
    subject: str
    severity: Urgency
    summary: str
    since: float
    confirmed: bool = False
    evidence: Evidence = {}

    @property
    def key(self) -> Key:
        """What it is of: one incident of it can be open."""
        return self.detector, self.subject


class Change(NamedTuple):
    """An incident that changed, and what people are told of it; None: nothing new, only newer numbers."""

    incident: Incident
    told: str | None = None
    loud: bool = False
    """It is worth as much noise as the incident is."""


class Watch:
    """What is remembered of one claim. Monotonic seconds."""

    __slots__ = ("away", "check", "first", "gone", "left", "part", "root", "states", "written")

    def __init__(self, mono: float) -> None:
        self.first: float | None = mono
        """Since when it is claimed without a break; None: it is not."""
        self.away: float | None = None
        """Since when it is not claimed although it could be seen; None: it is, or that is not known."""
        self.left = 0.0
        """When (Unix s) it was last claimed."""
        self.gone = False
        """The timeline says that it is not claimed any more."""
        self.states: deque[bool] = deque(maxlen=STATES)
        self.part = 0.0
        """How much they change."""
        self.check = mono
        self.written = mono
        self.root: int | None = None
        """The incident whose line it is, while it is claimed."""


class Incidents:
    """All that is open, and what was lately."""

    def __init__(self, new_uid: Callable[[], str] = lambda: uuid.uuid4().hex) -> None:
        """Begin with nothing; ``new_uid`` names incidents for ever."""
        self._new_uid = new_uid
        self._next_id = 1
        self._open: dict[Key, Incident] = {}
        self._dismissed: dict[Key, Incident] = {}
        """Closed by a person while it was claimed: it opens no other one until it has been away."""
        self._recent: deque[tuple[float, Incident]] = deque()
        """Resolved ones with when that was (monotonic s)."""
        self._last: dict[Key, tuple[int, float]] = {}
        """The last one of a kind: its id, and when it opened (Unix s)."""
        self._watches: dict[Key, Watch] = {}
        self._resumed: set[Key] = set()

    # --- what there is

    @property
    def open(self) -> list[Incident]:
        """Return what is open, the oldest first."""
        return sorted(self._open.values(), key=lambda one: one.id)

    def shown(self, now: Now) -> list[Incident]:
        """Return what a board shows: all that is open, oldest first, then what was resolved in the last hour."""
        self._forget(now)
        return [*self.open, *(one for _, one in reversed(self._recent))]

    def resume(self, kept: Iterable[Incident], last: Mapping[Key, tuple[int, float]], next_id: int) -> None:
        """Go on with what an earlier daemon left: what is open, and what was closed by hand and is not over."""
        self._next_id, self._last = next_id, dict(last)
        for one in kept:
            key = (one.detector, one.subject)
            if one.open:
                self._open[key] = one
                self._resumed.add(key)
            else:
                self._dismissed[key] = one

    # --- what is seen

    def see(
        self, subject: str, claims: Sequence[Claim], now: Now, *, calm: bool = True, held: float | None = None
    ) -> list[Change]:
        """Take in all that is claimed of ``subject`` now; return what that changes.

        ``calm``: the subject could be judged, so that what is not claimed is not there. ``held``: somebody works on
        it; what begins is expected, and opens nothing.
        """
        if not claims and not self.concerned(subject):
            return []
        changes: list[Change] = []
        for claim in sorted(claims, key=lambda claim: rank(claim.detector)):
            changes += self._claimed(claim, now, held=held)
        claimed = {claim.key for claim in claims}
        for key in [key for key in self._known(subject) if key not in claimed]:
            changes += self._unclaimed(key, now, calm=calm)
        return changes

    def concerned(self, subject: str) -> bool:
        """Tell whether anything is remembered of it, so that it has to be looked at again as time goes by."""
        return any(key[1] == subject for keys in (self._open, self._watches, self._dismissed) for key in keys)

    def _known(self, subject: str) -> list[Key]:
        known = dict.fromkeys((*self._open, *self._watches, *self._dismissed))
        return [key for key in known if key[1] == subject]

    def _claimed(self, claim: Claim, now: Now, *, held: float | None) -> Iterable[Change]:
        watch = self._watches.get(claim.key)
        if watch is None:
            watch = self._watches[claim.key] = Watch(now.mono)
        if watch.first is None:
            watch.first = now.mono
        self._check(watch, now, claimed=True)
        if claim.severity == "page" and not claim.confirmed and now.mono - watch.first < LOUD_S:
            claim = replace(claim, severity="ticket")
        back, watch.gone, watch.away, watch.left = watch.gone, False, None, now.wall
        self._resumed.discard(claim.key)
        ongoing = self._open.get(claim.key)
        if ongoing is not None:
            return self._goes_on(ongoing, claim, watch, now, back=back)
        ripe = claim.confirmed or now.mono - watch.first >= SUSPECT_S
        expected = held is not None and claim.since <= held
        if expected or not ripe:
            return []
        over: list[Change] = []
        dismissed = self._dismissed.get(claim.key)
        if dismissed is not None:
            if not claim.confirmed or _LOUDNESS[claim.severity] <= _LOUDNESS[dismissed.severity]:
                return []
            over = [Change(replace(self._dismissed.pop(claim.key), ended=now.wall))]  # worse than what was closed
        root = self._root(claim, watch, now)
        if root is None:
            return [*over, *self._opens(claim, watch, now)]
        if root.open and self._open.get((root.detector, root.subject)) is root:
            return [*over, *self._belongs(root, claim, watch, now)]
        return over

    def _goes_on(self, ongoing: Incident, claim: Claim, watch: Watch, now: Now, *, back: bool) -> Iterable[Change]:
        newer = replace(ongoing, summary=claim.summary, evidence=claim.evidence, ended=None)
        told: str | None = None
        if back:
            newer = add(newer, now, "back", claim.summary)
        if claim.confirmed and not ongoing.confirmed:
            newer = add(replace(newer, confirmed=True), now, "confirmed", claim.summary)
        if _LOUDNESS[claim.severity] > _LOUDNESS[ongoing.severity]:
            newer, told = _louder(newer, claim.severity, now)
        if not ongoing.flapping and flaps(watch.part, before=False):
            newer = add(replace(newer, flapping=True), now, "flapping", "it comes and goes: kept open until it rests")
            told = "is flapping"
        elif ongoing.flapping and not flaps(watch.part, before=True):
            newer = add(replace(newer, flapping=False), now, "flapping", "it does not come and go any more")
        numbers = (newer.summary, newer.evidence) != (ongoing.summary, ongoing.evidence)
        if newer.timeline is ongoing.timeline and not (numbers and now.mono - watch.written >= REFRESH_S):
            self._open[claim.key] = newer
            return []
        watch.written = now.mono
        return [self._keep(newer, told, loud=told is not None)]

    def _opens(self, claim: Claim, watch: Watch, now: Now) -> Iterable[Change]:
        others = [one.id for one in self._open.values() if one.subject == claim.subject]
        before, opened = self._last.get(claim.key, (0, 0.0))
        recent = [before] if before and now.wall - opened < RELATED_S else []
        recent += [watch.root] if watch.root is not None else []
        one = Incident(
            id=self._next_id,
            uid=self._new_uid(),
            detector=claim.detector,
            subject=claim.subject,
            severity=claim.severity,
            since=min(claim.since, now.wall),
            opened=now.wall,
            summary=claim.summary,
            first_summary=claim.summary,
            evidence=claim.evidence,
            first_evidence=claim.evidence,
            confirmed=claim.confirmed,
            related=tuple(sorted({*recent, *others})),
        )
        self._next_id += 1
        self._last[claim.key] = (one.id, one.opened)
        watch.written, watch.root = now.mono, None
        one = add(one, now, "opened", claim.summary)
        changes = [self._keep(one, f"opened: {one.severity}", loud=True)]
        for other in [other for other in self._open.values() if other.subject == one.subject and other.id != one.id]:
            changes += self._relate(one, other, now)
        return changes

    def _relate(self, one: Incident, other: Incident, now: Now) -> Iterable[Change]:
        """Link one that was open already; one that came of this, before that was known, ends here.

        Not if somebody has taken it on: they are told that the two are related.
        """
        linked = replace(other, related=tuple(sorted({*other.related, one.id})))
        if not explains(one, other) or other.acknowledged is not None:
            return [self._keep(linked)]
        text = f"belongs to incident {one.id}: {one.summary}"
        watch = self._watches.get((other.detector, other.subject))
        if watch is not None:
            watch.root = one.id
        root = add(self._open[one.detector, one.subject], now, "caused", f"{other.detector}: {other.summary}")
        if _LOUDNESS[other.severity] > _LOUDNESS[root.severity]:
            root, _ = _louder(root, other.severity, now)
        return [self._keep(root), self._close(replace(linked, cause=one.id, ended=now.wall), now, text)]

    def _belongs(self, root: Incident, claim: Claim, watch: Watch, now: Now) -> Iterable[Change]:
        """Make it a line of its cause, once, and that as loud as it is."""
        grown = root
        if watch.root != root.id:
            watch.root = root.id
            grown = add(root, now, "caused", f"{claim.detector}: {claim.summary}")
        told: str | None = None
        if _LOUDNESS[claim.severity] > _LOUDNESS[root.severity]:
            grown, told = _louder(grown, claim.severity, now)
        return [] if grown is root else [self._keep(grown, told, loud=told is not None)]

    def _root(self, claim: Claim, watch: Watch, now: Now) -> Incident | None:
        self._forget(now)
        going = {one.id: one for one in self._open.values() if one.subject == claim.subject}
        if watch.root in going:
            return going[watch.root]
        over = (
            one
            for mono, one in self._recent
            if one.cause is None and now.mono - mono <= lingers_s(claim.detector) and one.subject == claim.subject
        )
        closed = (replace(one, resolved=None) for one in self._dismissed.values() if one.subject == claim.subject)
        caused = (
            (going[other.root], detector)
            for (detector, _), other in self._watches.items()
            if other.first is not None and other.root in going
        )
        return root_of((*going.values(), *closed, *over), claim, caused)

    # --- what is not seen any more

    def _unclaimed(self, key: Key, now: Now, *, calm: bool) -> Iterable[Change]:
        watch = self._watches.get(key)
        if watch is None:
            watch = self._watches[key] = Watch(now.mono)
        self._check(watch, now, claimed=False)
        watch.first = None
        if not calm:
            watch.away = None
            return []
        if watch.away is None:
            watch.away = now.mono
        away, ongoing = now.mono - watch.away, self._open.get(key)
        if away >= GONE_S:
            watch.root = None
        changes: list[Change] = []
        resumed = key in self._resumed
        if ongoing is not None and away >= GONE_S and not watch.gone and not resumed:
            watch.gone = True
            ongoing = add(replace(ongoing, ended=watch.left), now, "gone", "not claimed any more")
            changes.append(self._keep(ongoing))
        if away < (_resumed_s(key[0]) if resumed else AWAY_S):
            return changes
        if ongoing is not None:
            return [*changes, *self._over(ongoing, watch, now)]
        if key in self._dismissed:
            changes.append(Change(replace(self._dismissed.pop(key), ended=now.wall)))
        if not any(watch.states):
            del self._watches[key]
        return changes

    def _over(self, ongoing: Incident, watch: Watch, now: Now) -> Iterable[Change]:
        if flaps(watch.part, before=ongoing.flapping):
            return []
        one = replace(ongoing, flapping=False, ended=now.wall if ongoing.ended is None else ongoing.ended)
        text = f"over after {told_s((one.ended or now.wall) - one.since)}"
        if (one.detector, one.subject) in self._resumed and ongoing.ended is None:
            text = "not claimed since opsboard began anew; nobody saw it end"
        return [self._close(one, now, text)]

    def leave(self, subjects: Collection[str], now: Now) -> list[Change]:
        """Close what is open of any other subject: it is not here any more."""
        gone = [one for one in self._open.values() if one.subject not in subjects]
        for key in [key for key in self._watches if key[1] not in subjects]:
            del self._watches[key]
        changes = [
            Change(replace(self._dismissed.pop(key), ended=now.wall))
            for key in [key for key in self._dismissed if key[1] not in subjects]
        ]
        for one in gone:
            text = f"{one.subject} is not configured any more"
            changes.append(self._close(replace(one, ended=one.ended or now.wall), now, text))
        return changes

    def _check(self, watch: Watch, now: Now, *, claimed: bool) -> None:
        """Take the states that are due for flapping."""
        if now.mono < watch.check:
            return
        due = min(STATES, 1 + int((now.mono - watch.check) / CHECK_S))
        watch.states.extend([claimed] * due)
        watch.check = max(watch.check + due * CHECK_S, now.mono)
        watch.part = part_of_change(watch.states)

    # --- what is done

    def hear(self, event: Event, now: Now) -> list[Change]:
        """Take a line of a subject's timeline into its open incidents: a change of state, or what somebody asks for."""
        kind = "action" if event.kind in _ACTIONS else "state"
        if kind == "state" and event.kind not in _STATES:
            return []
        if event.kind == EngineState.STARTING:
            self._resumed = {key for key in self._resumed if key[1] != event.subject}
        of = [one for one in self._open.values() if one.subject == event.subject]
        return [self._keep(add(one, now, kind, event.text)) for one in of]

    def act(self, transaction: Transaction, now: Now) -> list[Change]:
        """Take in a start or restart of an engine that began, or is over, while incidents of it are open."""
        changes: list[Change] = []
        subject = f"engine/{transaction.engine}"
        for one in [one for one in self._open.values() if one.subject == subject]:
            if transaction.began < one.since - WITHIN_S:
                continue
            done = action_of(transaction)
            if done in one.actions:
                continue
            begun = all(action.id != done.id for action in one.actions)
            newer = replace(one, actions=put(one.actions, done))
            if begun or done.outcome is not None:
                text = f"{done.kind} {'began' if done.outcome is None else done.outcome}"
                why = f": {done.reason}" if begun and done.reason else ""
                newer = add(newer, now, "action", text + why)
            changes.append(self._keep(newer))
        return changes

    def decide(self, incident: Incident, action: IncidentAction, now: Now, text: str | None) -> Change | None:
        """Take in what a policy does about an incident, or why it does not; ``text`` is its line of the timeline.

        The same ``id`` again is the same decision. None: that is known.
        """
        if action in incident.actions:
            return None
        newer = replace(incident, actions=put(incident.actions, action))
        return self._keep(newer if text is None else add(newer, now, "action", text), text)

    # --- what people do

    def acknowledge(self, incident: Incident, now: Now, by: str, text: str) -> Change:
        """Somebody has taken it on. Again is no error, and changes nothing but the timeline."""
        if incident.acknowledged is None:
            incident = replace(incident, acknowledged=now.wall, acknowledged_by=by)
        return self._keep(add(incident, now, "ack", text or "acknowledged", by), f"acknowledged by {by}")

    def note(self, incident: Incident, now: Now, by: str, text: str) -> Change:
        """Somebody has something to say; also of one that is over."""
        return self._keep(add(incident, now, "note", text, by), f"note by {by}: {text}")

    def silence(self, incident: Incident, now: Now, by: str, text: str) -> Change:
        """Somebody wants to hear no more of it for a while."""
        return self._keep(add(incident, now, "silence", text, by), f"silenced by {by}: {text}")

    def resolve(self, incident: Incident, now: Now, by: str, text: str) -> Change:
        """Somebody closes it. What is still claimed then opens no other one before it has been away."""
        key = (incident.detector, incident.subject)
        watch = self._watches.get(key)
        claimed = watch is None or watch.away is None or now.mono - watch.away < AWAY_S
        ended = None if claimed else incident.ended or now.wall
        change = self._close(replace(incident, ended=ended, resolved_by=by), now, text or "resolved", by)
        if claimed:
            self._dismissed[key] = change.incident
        return change

    def find(self, id: int) -> Incident | None:
        """Return one that is open, or was lately, or was closed by hand and goes on."""
        known = (*self._open.values(), *self._dismissed.values(), *(one for _, one in self._recent))
        return next((one for one in known if one.id == id), None)

    # --- keeping

    def _keep(self, one: Incident, told: str | None = None, *, loud: bool = False) -> Change:
        key = (one.detector, one.subject)
        if one.open:
            if self._open.get(key, one).id == one.id:
                self._open[key] = one
        elif (dismissed := self._dismissed.get(key)) is not None and dismissed.id == one.id:
            self._dismissed[key] = one
        for at, (mono, old) in enumerate(self._recent):
            if old.id == one.id:
                self._recent[at] = (mono, one)
        return Change(one, told, loud)

    def _close(self, one: Incident, now: Now, text: str, by: str | None = None) -> Change:
        key = (one.detector, one.subject)
        closed = add(replace(one, resolved=now.wall), now, "resolved", text, by)
        if self._open.get(key, one).id == one.id:
            self._open.pop(key, None)
            self._resumed.discard(key)
        self._recent.append((now.mono, closed))
        self._forget(now)
        who = f" by {by}" if by else ""
        return Change(closed, f"resolved{who}: {text}")

    def _forget(self, now: Now) -> None:
        recent = self._recent
        while recent and (now.mono - recent[0][0] > RECENT_S or len(recent) > RECENT_KEPT):
            recent.popleft()


def _resumed_s(detector: str) -> float:
    """Return how long a claim of an earlier daemon stays away before it is over."""
    if detector in _LEAKS:
        return LEAK_AWAY_S
    return AWAY_S if detector in AT_ONCE else RESUMED_AWAY_S


def _louder(one: Incident, severity: Urgency, now: Now) -> tuple[Incident, str]:
    text = f"from {one.severity} to {severity}"
    return add(replace(one, severity=severity), now, "severity", text), f"went {text}"
