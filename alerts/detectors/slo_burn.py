"""An engine that spends what its objectives allow to go wrong faster than it is given.

The multi-window multi-burn-rate rules of Google's SRE workbook (chapter 5, "Alerting on SLOs", table 5-8), over exact
counts: a rule holds while both its windows burn faster than its rate. A long window alone would tell late that it is
over, a short one alone would tell of every hiccup.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from msgspec import Meta
from msgspec.structs import replace

from alerts.base import Detector, Learning, Observation, Off, Step, unread
from alerts.event_history import Events, History
from alerts.objectives import Counted, Objective, counted, objectives
from alerts.timeline import told_s
from opsboard.config.schema import Slo
from opsboard.config.units import format_seconds
from opsboard.core.judgement import Unknown
from opsboard.core.lives import PROCESS_START_SLACK_S, other_process
from opsboard.core.model import EngineState, EngineView, Finding, Outcome, Record

_NOTHING_OWED = Off("no objective is set in [slo]")
_NEVER = "its page was not read yet"
HOLD = 0.2
"""A rule that held is over when its short window has been calm for this part of itself: near its rate it would flap."""


class Rule(NamedTuple):
    """Spending ``budget`` (a part of the period's) within ``long_s``, and still at it in the last ``short_s``."""

    severity: Literal["page", "ticket"]
    budget: float
    long_s: float
    short_s: float

    def rate(self, period_s: float) -> float:
        """Return how many times too fast that is: 14.4, 6, 3 and 1 for 30 days. Below 1 nothing burns."""
        return max(1.0, self.budget * period_s / self.long_s)


RULES = (
    Rule("page", 0.02, 3600.0, 300.0),
    Rule("page", 0.05, 6 * 3600.0, 1800.0),
    Rule("ticket", 0.10, 86400.0, 2 * 3600.0),
    Rule("ticket", 0.10, 3 * 86400.0, 6 * 3600.0),
)
"""The worst first."""


class Params(Record, frozen=True, kw_only=True):
    """What is owed is said in `[slo]`."""

    events: Annotated[
        float,
        Meta(ge=1, description="in a short window, so that a few bad ones are no burning budget"),
    ] = 100.0
    known_s: Annotated[float, Meta(description="so much has to be known before anything is claimed")] = 60.0
    slo: Slo = Slo()


class Burn(NamedTuple):
    """A rule that holds."""

    objective: Objective
    rule: Rule
    edge_s: float | None
    """What is later was counted."""
    began: float
    """Monotonic seconds."""
    held: float
    """When it was last seen to hold."""
    known_s: float
    """How much is known of its long window."""
    long: Events
    short: Events

    def rates(self) -> tuple[float, float]:
        """Return how many times too fast each window burns, the long one first."""
        return self.long.ratio / self.objective.allowed, self.short.ratio / self.objective.allowed


class Account(NamedTuple):
    """What is known of one objective."""

    objective: Objective
    last: Counted | None = None
    history: History | None = None


class State(Record, frozen=True, kw_only=True):
    """What is remembered, over all lives of the engine. The histories are changed where they lie."""

    params: Params
    accounts: tuple[Account, ...]
    view: EngineView | None = None
    """The last page, read ``at`` (monotonic s), ``wall`` (Unix s)."""
    at: float = float("-inf")
    wall: float = 0.0
    burns: tuple[Burn, ...] = ()
    claim: Finding | None = None


def begin(params: Params) -> State:
    """Know nothing."""
    return State(params=params, accounts=tuple(Account(objective) for objective in objectives(params.slo)))


def step(state: State, seen: Observation) -> Step:
    """Take in one observation. What a page says counts once; where none comes, windows only grow older."""
    mono = seen.now.mono
    if not state.accounts:
        return Step(state, unknown=_NOTHING_OWED)
    if seen.life is not None and seen.life.state is EngineState.STOPPED and state.burns:
        state = replace(state, burns=(), claim=None)  # it owes nobody anything, and no page comes any more
    if not seen.fresh or seen.reading is None or mono <= state.at:
        return Step(state, state.claim, unknown=_unknown(state, seen))
    view = seen.reading.view if seen.reading.outcome is Outcome.OK else None
    if view is not None:
        state = _read(state, view, seen)
    elif not state.burns:
        return Step(state, unknown=_unknown(state, seen))
    burns = tuple(burn for account in state.accounts for burn in _burns(account, state, mono))
    if burns or state.burns:
        state = replace(state, burns=burns, claim=_finding(burns, state.params.slo, seen) if burns else None)
    return Step(state, state.claim, unknown=_unknown(state, seen))


def _unknown(state: State, seen: Observation) -> Unknown | None:
    """Return why an objective cannot be judged. What cannot be read now is counted when it can: counters wait."""
    if state.view is None:
        return unread(seen) or _NEVER
    untold = [account.objective.name for account in state.accounts if account.last is None]
    if untold:
        return f"its page does not count what {', '.join(untold)} asks for, or its buckets end below the limit"
    known_s = seen.now.mono - max([one.history.began for one in state.accounts if one.history is not None])
    least_s = state.params.known_s
    return None if known_s >= least_s else Learning(known_s, least_s, "s of events")


# --- what came ---


def _read(state: State, view: EngineView, seen: Observation) -> State:
    """Take in a page. What a process has counted that began since the last one, it has counted since."""
    other = state.view is not None and bool(other_process(state.view, view))
    born = other and view.process_start is not None and view.process_start >= state.wall - PROCESS_START_SLACK_S
    accounts = tuple(
        _counted(account, counted(account.objective, view), seen.now.mono, other=other, born=born)
        for account in state.accounts
    )
    return replace(state, accounts=accounts, view=view, at=seen.now.mono, wall=seen.now.wall)


def _counted(account: Account, new: Counted | None, mono: float, *, other: bool, born: bool) -> Account:
    objective, old, history = account
    if new is None:
        return Account(objective, None, history) if other else account
    if history is None:
        return Account(objective, new, History(mono))
    if born:
        history.add(mono, new.bad, new.total)
    elif old is not None and not other and old.edge_s == new.edge_s:
        bad, total = new.bad - old.bad, new.total - old.total
        if 0.0 <= bad <= total:  # else they were counted anew, and nobody knows since when
            history.add(mono, bad, total)
    return Account(objective, new, history)


# --- what follows ---


def _burns(account: Account, state: State, mono: float) -> list[Burn]:
    """Return the rules that hold for one objective."""
    objective, last, history = account
    if history is None:
        return []
    params, known_s = state.params, mono - history.began
    edge_s = None if last is None else last.edge_s
    before = [one for one in state.burns if one.objective == objective]
    found: list[Burn] = []
    for rule in RULES:
        allowed = rule.rate(params.slo.period) * objective.allowed
        old = next((one for one in before if one.rule == rule), None) if before else None
        short = history.last(rule.short_s, mono)
        burning = short.bad > allowed * short.total
        opens = burning and short.total >= params.events and known_s >= params.known_s
        if old is None and not opens:
            continue
        long = history.last(rule.long_s, mono)
        burning = burning and long.bad > allowed * long.total
        burn = Burn(objective, rule, edge_s, mono, mono, min(known_s, rule.long_s), long, short)
        if old is not None and (burning or mono - old.held < HOLD * rule.short_s):
            held, edge_s = mono if burning else old.held, old.edge_s if last is None else edge_s
            found.append(burn._replace(began=old.began, held=held, edge_s=edge_s))
        elif old is None and burning:
            began = history.onset(rule.long_s, mono, allowed)
            found.append(burn if began is None else burn._replace(began=began))
    return found


def _finding(burns: tuple[Burn, ...], slo: Slo, seen: Observation) -> Finding:
    """Tell the worst: the most urgent rule, and of what breaks that the fastest."""
    worst = min(burns, key=lambda burn: (RULES.index(burn.rule), -burn.rates()[1]))
    objective, rule = worst.objective, worst.rule
    long_rate, short_rate = worst.rates()
    return Finding(
        detector="slo_burn",
        engine=seen.engine,
        summary=_summary(worst, slo),
        since=seen.now.wall - (seen.now.mono - min(burn.began for burn in burns)),
        confirmed=True,
        severity=rule.severity,
        evidence={
            "objective": objective.name,
            "limit_s": objective.limit_s,
            "counted_beyond_s": worst.edge_s,
            "allowed_ratio": round(objective.allowed, 9),
            "burn_limit": rule.rate(slo.period),
            "long_window_s": rule.long_s,
            "known_s": round(worst.known_s, 3),
            "long_burn": round(long_rate, 3),
            "long_bad": round(worst.long.bad, 3),
            "long_events": round(worst.long.total, 3),
            "short_window_s": rule.short_s,
            "short_burn": round(short_rate, 3),
            "short_bad": round(worst.short.bad, 3),
            "short_events": round(worst.short.total, 3),
            "budget_lasts_s": round(slo.period / long_rate) if long_rate > 0 else None,
            "burning": ", ".join(dict.fromkeys(burn.objective.name for burn in burns)),
        },
    )


def _summary(burn: Burn, slo: Slo) -> str:
    objective, rule = burn.objective, burn.rule
    long_rate, _ = burn.rates()
    whole = burn.known_s >= rule.long_s
    window = format_seconds(rule.long_s) if whole else f"the {told_s(burn.known_s)} that are known"
    what = f"{objective.event} in {window} "
    if objective.limit_s is None:
        what += "failed"
    else:
        what += f"came later than {format_seconds(objective.limit_s)}"
        if burn.edge_s is not None and burn.edge_s > objective.limit_s * (1 + 1e-9):
            what += f" (counted beyond {format_seconds(burn.edge_s)}, its next bucket)"
    lasts = ""
    if long_rate > 0:
        lasts = f"; at this rate the budget of {format_seconds(slo.period)} lasts {_long(slo.period / long_rate)}"
    return (
        f"{objective.name} burns its budget {long_rate:.1f} times too fast: {100 * burn.long.ratio:.3g} % of "
        f"{burn.long.total:.0f} {what}, {100 * objective.allowed:.3g} % may{lasts}"
    )


def _long(seconds: float) -> str:
    return f"{seconds / 86400:.1f} d" if seconds >= 86400 else f"{seconds / 3600:.1f} h"


DETECTOR = Detector(
    name="slo_burn",
    severity="page",
    summary="an engine that spends the error budget of `[slo]` faster than it is given",
    lasting=True,
    params=Params,
    begin=begin,
    step=step,
)
