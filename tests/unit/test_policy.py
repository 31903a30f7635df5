"""What a policy does about an incident, and what keeps it from it."""

from __future__ import annotations

from typing import Any

import pytest

from alerts.policy import Able, Deed, Scene, judge
from opsboard.config.policies import DEFAULTS
from opsboard.config.units import Seconds
from opsboard.core.model import EngineState
from tests.support.policed import READY, incident, policy, route, scene

HOUR = 3600.0


def say(of: Scene, mono: float = 1000.0, **changes: Any) -> list[tuple[str | None, str | None]]:
    return [(one.which, one.why_not) for one in judge([policy(**changes)], of, mono)]


def test_a_proven_leak_is_acted_on_while_another_serves() -> None:
    (verdict,) = judge([policy()], scene(incident()), 1000.0)
    assert (verdict.engine, verdict.do, verdict.why_not, verdict.name) == ("a", ("drain", "restart"), None, "p")


@pytest.mark.parametrize(
    ("changes", "of"),
    [
        ({}, scene(incident(confirmed=False))),
        ({"severity": "page"}, scene(incident())),
        ({"after": Seconds(1001)}, scene(incident())),
        ({}, scene(incident(), stands={})),
        ({"on": ("stall", "latency")}, scene(incident())),
        ({"engines": ("b",)}, scene(incident())),
        ({"routes": ("other",)}, scene(incident())),
        ({"do": ()}, scene(incident())),
        ({}, scene(incident("gone"))),
        ({}, scene(incident(subject="host"))),
        ({}, scene(incident(), engines={"a": Able(state=EngineState.STARTING)})),
        ({}, scene(incident(), deeds=(Deed(policy="q", engine="a", mono=0.0, under_way=True),))),
    ],
    ids=[
        *("suspected", "too quiet", "too young", "not claimed now", "another detector", "another engine"),
        *("another route", "only told", "unknown engine", "no engine", "being worked on", "being acted on"),
    ],
)
def test_what_is_not_ripe_is_no_verdict(changes: dict[str, Any], of: Scene) -> None:
    assert say(of, **changes) == []


def test_what_a_suspicion_may_do_is_said() -> None:
    assert say(scene(incident(confirmed=False)), confirmed=False) == [(None, None)]


@pytest.mark.parametrize(
    ("which", "words", "changes", "of"),
    [
        ("not_built", "routes no requests", {"do": ("reroute",)}, scene(incident())),
        ("acknowledged", "by ann: left to them", {}, scene(incident(acknowledged=1.0, acknowledged_by="ann"))),
        ("flapping", "comes and goes", {}, scene(incident(flapping=True))),
        ("eta", "1 h 00 m more; less than 30 m", {"eta": Seconds(1800)}, scene(incident())),
        ("eta", "not known", {"eta": Seconds(1800)}, scene(incident(evidence={"exhausted_in_s": None}))),
        ("cannot", "never", {}, scene(incident(), engines={"a": Able(state=READY, cannot="never")})),
        ("cannot", "drain it", {"do": ("drain",)}, scene(incident(), engines={"a": Able(state=READY, observed=True)})),
        ("cooldown", "policy q acted on a", {}, scene(incident(), deeds=(Deed(policy="q", engine="a", mono=1.0),))),
        (
            "budget",
            "done 2 times within 1 d 0 h, and 2 are allowed",
            {},
            scene(incident(), deeds=(Deed(policy="p", engine="b", mono=1.0), Deed(policy="p", engine="c", mono=2.0))),
        ),
        (
            "failed",
            "c, restarted by policy q before, did not come back",
            {},
            scene(
                incident(),
                deeds=(Deed(policy="q", engine="c", mono=1.0, failed=True),),
                engines={"a": Able(state=READY), "c": Able(state=EngineState.PARKED)},
            ),
        ),
        ("barred", "rolling", {}, scene(incident(), barred="a rolling restart is under way")),
        ("others", "a is of no route", {}, scene(incident(), routes=())),
        ("others", "last healthy target", {}, scene(incident(), routes=(route(a=READY, b=EngineState.FAILED),))),
        (
            "others",
            "out of service of route chat: b; at most 1 at once",
            {},
            scene(incident(), routes=(route(a=READY, b=EngineState.DRAINING, c=READY),)),
        ),
    ],
)
def test_what_holds_it_back_is_said(which: str, words: str, changes: dict[str, Any], of: Scene) -> None:
    ((found, why),) = say(of, **changes)
    assert found == which
    assert words in (why or "")


def test_limits_end_where_they_end() -> None:
    old = (Deed(policy="p", engine="a", mono=0.0), Deed(policy="p", engine="b", mono=0.0))
    assert say(scene(incident(), deeds=old), 6 * HOUR)[0][0] == "budget"
    assert say(scene(incident(), deeds=old[:1]), 6 * HOUR) == [(None, None)]
    assert say(scene(incident(), deeds=old), 24 * HOUR) == [(None, None)]
    mended = (Deed(policy="q", engine="b", mono=1.0, failed=True),)
    assert say(scene(incident(), deeds=mended)) == [(None, None)]
    asleep = route(a=READY, b=READY, c=EngineState.ASLEEP, d=EngineState.STOPPED)
    assert say(scene(incident(), routes=(asleep,))) == [(None, None)], "out of service is what was to serve"
    assert say(scene(incident(), routes=()), alone=True) == [(None, None)]


def test_a_dry_run_counts_only_for_dry_runs() -> None:
    dry = (Deed(policy="p", engine="a", mono=900.0, dry=True),)
    assert say(scene(incident(), deeds=dry)) == [(None, None)]
    assert say(scene(incident(), deeds=dry), dry_run=True)[0][0] == "cooldown"
    real = (Deed(policy="p", engine="a", mono=900.0),)
    assert say(scene(incident(), deeds=real), dry_run=True) == [(None, None)]


def test_of_two_at_once_the_more_urgent_goes_and_the_other_waits() -> None:
    far, near = incident("a", 1), incident("b", 2, evidence={"eta_s": 60.0})
    three = (route(a=READY, b=READY, c=READY),)
    first, second = judge([policy()], scene(far, near, routes=three), 1000.0)
    assert (first.engine, first.why_not) == ("b", None)
    assert (second.engine, second.which) == ("a", "others")
    both = judge([policy(at_once=2)], scene(far, near, routes=three), 1000.0)
    assert [one.why_not for one in both] == [None, None]
    last = judge([policy(at_once=2)], scene(far, near), 1000.0)
    assert "last healthy target" in (last[1].why_not or ""), "the first does not serve any more"
    loners = judge([policy(alone=True)], scene(far, near, routes=()), 1000.0)
    assert loners[1].why_not == "out of service of no route: b; at most 1 at once"


def test_the_first_policy_for_an_incident_counts_and_reroute_is_left_out() -> None:
    quiet, loud = policy(name="first", do=(), engines=("a",)), policy(name="second", do=("reroute", "drain", "restart"))
    assert judge([quiet, loud], scene(incident("a")), 1000.0) == []
    (verdict,) = judge([quiet, loud], scene(incident("b")), 1000.0)
    assert (verdict.name, verdict.do) == ("second", ("drain", "restart"))


def test_the_default_acts_late_on_what_ends_soon() -> None:
    young, old = scene(incident()), scene(incident(evidence={"exhausted_in_s": 3 * HOUR}))
    assert judge(DEFAULTS, young, 599.0) == []
    assert [one.why_not for one in judge(DEFAULTS, young, 600.0)] == [None]
    assert [one.which for one in judge(DEFAULTS, old, 600.0)] == ["eta"]
    assert [one.which for one in judge(DEFAULTS, scene(incident(), routes=()), 600.0)] == ["others"]
