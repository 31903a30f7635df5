"""Whatever happens: never more of a route at once, never within the cool-down, never beyond the budget, never dry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.policy import Able, Deed, Scene, judge, routes_of
from opsboard.config.units import Seconds
from opsboard.core.model import EngineState
from tests.support.policed import READY, incident, policy, route

if TYPE_CHECKING:
    from opsboard.config.schema import Policy
    from opsboard.core.wire import RouteInfo

ENGINES = ("a", "b", "c", "d", "e")
ROUTES = (("a", "b", "c"), ("c", "d"))
OUT = (EngineState.FAILED, EngineState.PARKED, EngineState.UNREACHABLE)
POLICIES = st.lists(
    st.builds(
        lambda at_once, at_most, cooldown, dry, alone: policy(
            at_once=at_once,
            at_most=at_most,
            cooldown=Seconds(cooldown),
            window=Seconds(600),
            dry_run=dry,
            alone=alone,
        ),
        st.integers(1, 3),
        st.integers(1, 4),
        st.sampled_from((60.0, 120.0, 900.0)),
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=2,
)
LOOKS = st.lists(
    st.tuples(
        st.sampled_from((1.0, 30.0, 61.0, 300.0)),
        st.sets(st.sampled_from(ENGINES)),  # what leaks
        st.sets(st.sampled_from(ENGINES), max_size=2),  # what breaks, or is mended
        st.sets(st.sampled_from(ENGINES)),  # whose restarts come to an end
    ),
    max_size=30,
)


class Herd:
    """Five engines, two routes, and what was done."""

    def __init__(self, policies: list[Policy]) -> None:
        # Of two policies for the same detector the first counts: each has its engines.
        halves = (("a", "c", "e"), ("b", "d")) if len(policies) == 2 else (ENGINES,)
        fields = zip(policies, halves, strict=True)
        self.policies = [
            policy(
                **{key: getattr(one, key) for key in ("at_once", "at_most", "cooldown", "window", "dry_run", "alone")},
                engines=engines,
                name=f"p{number}",
            )
            for number, (one, engines) in enumerate(fields)
        ]
        self.states = dict.fromkeys(ENGINES, READY)
        self.done: list[Deed] = []
        self.mono = 0.0

    def look(self, leaking: set[str]) -> None:
        leaks = [incident(name, number) for number, name in enumerate(sorted(leaking))]
        scene = Scene(
            incidents=leaks,
            stands={one.uid: 0.0 for one in leaks},
            engines={name: Able(state=state) for name, state in self.states.items()},
            routes=self.routes(),
            deeds=self.done,
        )
        for verdict in judge(self.policies, scene, self.mono):
            if verdict.why_not is None:
                self._act(verdict.policy, verdict.engine)

    def routes(self) -> tuple[RouteInfo, ...]:
        return tuple(route(f"r{n}", **{name: self.states[name] for name in names}) for n, names in enumerate(ROUTES))

    def _act(self, of: Policy, engine: str) -> None:
        name, dry = of.name or "", of.dry_run
        mine = [deed for deed in self.done if deed.dry == dry]
        assert self.states[engine] is READY
        assert not any(deed.engine == engine and self.mono - deed.mono < of.cooldown for deed in mine), "cool-down"
        assert sum(deed.policy == name and self.mono - deed.mono < of.window for deed in mine) < of.at_most, "budget"
        assert of.alone or engine != "e", "nobody stands in for it"
        self.done.append(Deed(policy=name, engine=engine, mono=self.mono, dry=dry, under_way=not dry))
        if not dry:  # what is dry touches nothing
            self.states[engine] = EngineState.DRAINING
        out = [{name for name in names if self.states[name] is not READY} | {engine} for names in ROUTES]
        for names, away in zip(ROUTES, out, strict=True):
            if engine in names:
                assert len(away) <= of.at_once, "more than so many of a route"
                assert set(names) - away, "the last one that serves"

    def end(self, engines: set[str]) -> None:
        for at, deed in enumerate(self.done):
            if deed.under_way and deed.engine in engines:
                self.done[at] = Deed(policy=deed.policy, engine=deed.engine, mono=deed.mono)
                self.states[deed.engine] = READY


@settings(max_examples=100)
@given(policies=POLICIES, looks=LOOKS)
def test_limits_hold_in_any_sequence(
    policies: list[Policy], looks: list[tuple[float, set[str], set[str], set[str]]]
) -> None:
    herd = Herd(policies)
    for seconds, leaking, turned, ended in looks:
        herd.mono += seconds
        herd.end(ended)
        acting = {deed.engine for deed in herd.done if deed.under_way}
        for number, name in enumerate(sorted(turned - acting)):
            herd.states[name] = OUT[number % len(OUT)] if herd.states[name] is READY else READY
        herd.look(leaking)
    assert all(not deed.dry or not deed.under_way for deed in herd.done)
    assert routes_of("e", ()) == []
