"""Whatever is claimed, in whatever order: what must hold of incidents."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.incidents import SUSPECT_S, Change, Claim, Incidents
from alerts.inhibition import INHIBITS, WITHIN_S
from opsboard.core.clock import ManualClock
from opsboard.core.incidents import Incident

DETECTORS = sorted({*INHIBITS, *(one for of in INHIBITS.values() for one in of), "odd"})
SUBJECTS = ("engine/a", "engine/b", "host")

CLAIMS = st.lists(
    st.builds(
        lambda detector, severity, confirmed, ago: (detector, severity, confirmed, ago),
        st.sampled_from(DETECTORS),
        st.sampled_from(("page", "ticket", "note")),
        st.booleans(),
        st.floats(0, 500),
    ),
    max_size=4,
    unique_by=lambda claim: claim[0],
)
LOOKS = st.lists(
    st.tuples(
        st.sampled_from(SUBJECTS),
        CLAIMS,
        st.sampled_from((0.0, 1.0, 7.0, 61.0, 400.0)),
        st.booleans(),
        st.sampled_from((None, 0.0, float("inf"))),
        st.sampled_from((None, None, None, "ack", "note", "resolve", "next", "leave")),
    ),
    max_size=40,
)


Look = tuple[str, list[tuple[Any, ...]], float, bool, float | None, str | None]


class Watcher:
    """Holds what was ever said of each incident, and looks that it stays true."""

    def __init__(self) -> None:
        self.known: dict[str, Incident] = {}
        self.keys: dict[int, str] = {}

    def take(self, changes: list[Change], rules: Incidents) -> None:
        for change in changes:
            one, old = change.incident, self.known.get(change.incident.uid)
            assert self.keys.setdefault(one.id, one.uid) == one.uid, "a number is of one incident for ever"
            if old is not None:
                assert old.open or not one.open, "reopened"
                assert (one.opened, one.since, one.first_evidence) == (old.opened, old.since, old.first_evidence)
                assert old.resolved in {None, one.resolved}
            else:
                assert one.open
                assert all(said in self.keys for said in one.related), "related to what there is"
            self.known[one.uid] = one
        going = rules.open
        keys = [(one.detector, one.subject) for one in going]
        assert len(keys) == len(set(keys)), "two open incidents of one kind"
        told = {one.uid: one for one in self.known.values() if one.open}
        assert {one.uid for one in going} == told.keys(), "what is open was told, and what was told is open"

    def next_daemon(self) -> Incidents:
        """Go on with what was written down, as the store reads it."""
        known = sorted(self.known.values(), key=lambda one: one.id)
        rules = Incidents()
        last = {(one.detector, one.subject): (one.id, one.opened) for one in known}
        going = [one for one in known if one.resolved is None or one.ended is None]
        rules.resume(going, last, max(self.keys, default=0) + 1)
        return rules

    def linked(self) -> None:
        """Every incident that turned out to belong to another is named by it."""
        by_id = {one.id: one for one in self.known.values()}
        for one in self.known.values():
            if one.cause is not None:
                assert one.cause in one.related
                assert one.id in by_id[one.cause].related
                assert not one.open


@settings(max_examples=100, deadline=None)
@given(looks=LOOKS)
def test_what_holds_of_incidents_whatever_is_claimed(looks: list[Look]) -> None:
    clock, rules, watcher = ManualClock(), Incidents(), Watcher()
    for subject, claimed, seconds, calm, held, deed in looks:
        now = clock.advance(seconds)
        claims = [
            Claim(
                detector=detector,
                subject=subject,
                severity=severity,
                summary=detector,
                since=now.wall - ago,
                confirmed=confirmed,
            )
            for detector, severity, confirmed, ago in claimed
        ]
        watcher.take(rules.see(subject, claims, now, calm=calm, held=held), rules)
        if deed == "next":
            rules = watcher.next_daemon()
        elif deed == "leave":
            watcher.take(rules.leave({"host"}, now), rules)
        elif deed is not None and rules.open:
            one = rules.open[0]
            what = {"ack": rules.acknowledge, "note": rules.note, "resolve": rules.resolve}.get(deed)
            if what is not None:
                watcher.take([what(one, now, "ann", "x")], rules)
        watcher.linked()


@settings(max_examples=100, deadline=None)
@given(root=st.sampled_from(sorted(INHIBITS)), data=st.data(), after=st.floats(-WITHIN_S, 300))
def test_what_is_inhibited_is_a_line_of_its_cause(root: str, data: st.DataObject, after: float) -> None:
    effect = data.draw(st.sampled_from(sorted(INHIBITS[root] - {root})))
    clock, rules = ManualClock(), Incidents()
    now = clock.now()

    def claim(detector: str, since: float) -> Claim:
        return Claim(
            detector=detector, subject="engine/a", severity="ticket", summary="out of memory", since=since,
            confirmed=True, evidence={"kv_usage": 1.0},
        )  # fmt: skip

    cause = claim(root, now.wall)
    rules.see("engine/a", [cause], now)
    began = now.wall + after
    for _ in range(int(SUSPECT_S) + 5):
        rules.see("engine/a", [cause, claim(effect, began)], clock.advance(1.0))
    (one,) = rules.open
    assert (one.detector, [entry.kind for entry in one.timeline]) == (root, ["opened", "caused"])
