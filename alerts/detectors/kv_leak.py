"""KV-cache blocks that no request holds and the engine does not get back: the pool shrinks until nothing is admitted.

No statistics: vLLM counts blocks exactly, and what its requests can hold at most is known. Three kinds of evidence, the
strongest first: the requests that a gateway has under way; the tokens on the engine's own page; an idle engine, which
holds nothing. Each gives a number of blocks that are lost at least.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Annotated

from msgspec import Meta
from msgspec.structs import replace

from alerts.base import Detector, Learning, Observation, Step, check_seconds, unread
from alerts.eta import urgency
from alerts.kv_accounting import Blocks, blocks, lacking, together
from alerts.kv_drift import pace
from alerts.kv_growth import Growth, Point, accounted, grew, seconds_left
from alerts.kv_level import pace as raised_pace
from alerts.kv_rank import IDLE_READINGS, Rank, met, read, returned
from alerts.kv_truth import Truth, cleared, compared
from alerts.kv_votes import TRIED
from alerts.timeline import told_s
from opsboard.core.judgement import Unknown
from opsboard.core.lives import SERVES, other_process
from opsboard.core.model import CanaryOutcome, EngineView, Finding, Outcome, Record

_LENDS = "a KV connector may hold blocks for others: it has to rest for the time of their lease"
_UNEXPLAINED = "its tokens do not tell how many blocks its requests may hold: only without a request it can be told"
_LATELY_S = 600.0
_BACK = 3
"""So many pages in a row with lower counters are another life; fewer came late."""
_SMOOTH = 0.05


class Params(Record, frozen=True, kw_only=True):
    """What people may set."""

    blocks: Annotated[int, Meta(ge=1, description="so many lost blocks are claimed")] = 1
    lease_s: Annotated[
        float,
        # NIXL 0.33: 30 s and heartbeats, the side that decodes 480 s; Mooncake 480 s; another 2 minutes on top.
        Meta(
            description="where a KV connector may hold blocks for others, an engine without requests must have rested "
            "so long; at least 1s"
        ),
    ] = 600.0
    again_s: Annotated[
        float, Meta(description="between two canaries that show whether an idle engine's usage is of now; at least 1s")
    ] = 30.0
    reset_prefix_cache: Annotated[
        bool,
        Meta(
            description="after such a canary, have the engine empty its prefix cache (`VLLM_SERVER_DEV_MODE=1`): it "
            "refuses while a block is held, and loses its cache where none is"
        ),
    ] = False
    page_s: Annotated[float, Meta(description="a pool that lasts less is urgent: `page` in the evidence")] = 7200.0
    ticket_s: Annotated[float, Meta(description="and less than this is a `ticket`, more a `note`")] = 259_200.0

    def __post_init__(self) -> None:
        """Raise ValueError for what makes no sense."""
        check_seconds(self, ("lease", "again", "page"), [("page", "ticket")])


class State(Record, frozen=True, kw_only=True):
    """What is remembered of one life. Instants are monotonic seconds."""

    params: Params
    view: EngineView | None = None
    at: float = -inf
    back: int = 0
    """Pages in a row that say less than the last one that was taken."""
    ranks: Mapping[str, Rank] = {}
    truth: Truth = Truth()
    growth: Growth = Growth()
    level: float | None = None
    """Blocks in use, smoothed."""
    first: float | None = None
    asked: float = -inf
    answered: float = -inf
    """When a canary was last answered: then the engine made a step."""
    refused: bool = False
    """It could not empty its prefix cache since, without a request: somebody holds blocks."""
    since: float | None = None
    """Unix seconds, of the claim that stands."""
    began: float = 0.0
    """The same on the monotonic clock, which makes no steps."""
    confirmed: bool = False
    opened: int = 0
    """Blocks lost when it was claimed first."""


def begin(params: Params) -> State:
    """Know nothing."""
    return State(params=params)


def step(state: State, seen: Observation) -> Step:
    """Take in one observation."""
    if seen.life is not None and seen.life.state not in SERVES:
        return Step(begin(state.params), unknown=unread(seen))
    if seen.canary is not None and seen.canary.outcome is CanaryOutcome.OK:
        state = replace(state, answered=seen.now.mono, refused=_refused(state, seen.canary.reset))
    if seen.fresh and seen.reading is not None and seen.reading.outcome is Outcome.OK:
        view = seen.reading.view
        if view is not None and not view.asleep and seen.now.mono > state.at:
            state = _read(state, view, seen)
    return _judge(state, seen).saying(_unknown(state, seen))


# --- what came ---


def _refused(state: State, reset: bool | None) -> bool:
    """Tell whether an engine without requests could not empty its prefix cache."""
    if reset is None:
        return state.refused
    return not reset and all(rank.last.idle for rank in state.ranks.values())


def _read(state: State, view: EngineView, seen: Observation) -> State:
    found, mono = blocks(view), seen.now.mono
    if not found:
        return replace(state, at=mono)
    if state.view is not None and (other_process(state.view, view) or view.model != state.view.model):
        state = begin(state.params)
    known = {rank: one.last for rank, one in state.ranks.items()}
    if any(_other(known[new.rank], new) for new in found if new.rank in known):
        state = begin(state.params)
    elif any(_less(known[new.rank], new) for new in found if new.rank in known):
        if state.back + 1 < _BACK:
            return replace(state, at=mono, back=state.back + 1)
        state = begin(state.params)
    lends, spec = bool(view.kv_connectors), view.spec_tokens or 0
    ranks = dict(state.ranks)
    for new in found:
        before = ranks.get(new.rank)
        ranks[new.rank] = met(new, mono) if before is None else read(before, new, mono, spec_tokens=spec, lends=lends)
    moved = any(known.get(new.rank) != new for new in found)  # else it repeats what was true before
    whole = together(found)
    truth = state.truth
    if whole is not None and whole.idle and whole.used == 0:
        truth = cleared(truth)
    elif whole is not None and moved and _comparable(whole) and not lends and seen.accounted is not None:
        truth = compared(truth, whole, seen.accounted, spec, mono)
    used = sum(new.used for new in found)
    level = used if state.level is None else state.level + _SMOOTH * (used - state.level)
    first = mono if state.first is None else state.first
    state = replace(state, view=view, at=mono, back=0, ranks=ranks, truth=truth, level=level, first=first)
    return _grown(_lent_back(state, found, mono) if lends else state, mono)


def _comparable(whole: Blocks) -> bool:
    """Tell whether what its requests can hold follows from their tokens, and only those that run hold anything."""
    return whole.uniform and not whole.deferred


def _other(old: Blocks, new: Blocks) -> bool:
    """Tell whether the pool is another one."""
    return (old.pool, old.size) != (new.pool, new.size)


def _less(old: Blocks, new: Blocks) -> bool:
    """Tell whether a counter fell: a page that came late, or another life of an engine that does not tell its start."""
    return len(old.counted) == len(new.counted) and any(
        now < before for before, now in zip(old.counted, new.counted, strict=True)
    )


def _lent_back(state: State, found: tuple[Blocks, ...], mono: float) -> State:
    """Take what is used for lost where a connector lends: after a long rest, and a step since then shows it still."""
    ranks = dict(state.ranks)
    for new in found:
        rank = ranks[new.rank]
        rested = rank.resting is not None and state.answered - rank.resting >= state.params.lease_s
        if new.idle and rested and mono > state.answered and new.used > rank.reserved:
            ranks[new.rank] = returned(rank)
    return replace(state, ranks=ranks)


def _grown(state: State, mono: float) -> State:
    """Note how far the loss has come."""
    ranks = state.ranks.values()
    point = Point(
        mono,
        sum(one.last.finished or 0.0 for one in ranks),
        sum(one.ledger.gone for one in ranks if one.ledger is not None),
        _lost(state),
    )
    if point.lost == 0:
        clean = all(one.clean == mono for one in ranks)
        return replace(state, growth=accounted(point)) if clean or not state.growth.points else state
    exact = point.lost == sum(one.idle_lost for one in ranks)
    return replace(state, growth=grew(state.growth, point, exact=exact))


def _suspected(state: State) -> int:
    return sum(one.suspected for one in state.ranks.values())


def _lost(state: State) -> int:
    """Return the blocks of which it is proven."""
    return max(state.truth.lost, sum(one.lost for one in state.ranks.values()))


# --- what follows ---


def _unknown(state: State, seen: Observation) -> Unknown | None:
    """Return why a loss would not be seen now. While all was accounted for lately, or by requests, nothing is amiss."""
    why = unread(seen)
    if why is not None or seen.reading is None or seen.reading.view is None:
        return why
    view, mono = seen.reading.view, seen.now.mono
    if state.view is not view and (lacks := lacking(view)):
        return lacks
    ranks = state.ranks.values()
    if view.kv_connectors:
        lease_s = state.params.lease_s
        rested = all(one.resting is not None and state.answered - one.resting >= lease_s for one in ranks)
        return None if rested else _LENDS
    if state.since is not None or (state.truth.page is not None and mono - state.truth.mono < _LATELY_S):
        return None
    for rank in ranks:
        if rank.resting is not None or (rank.clean is not None and mono - rank.clean < _LATELY_S):
            continue
        if rank.ledger is None or not rank.last.uniform or rank.votes.distrusted:
            return _UNEXPLAINED
        if not rank.votes.trusted:
            return Learning(rank.votes.held, TRIED, "readings at work")
    return None


def _judge(state: State, seen: Observation) -> Step:
    lost, mono = max(_lost(state), _suspected(state)), seen.now.mono
    if state.view is None:
        return Step(state)
    finding = None
    if lost >= state.params.blocks:
        began = _began(state) if state.since is None else state.began
        state = replace(
            state,
            since=seen.now.wall - (mono - began) if state.since is None else state.since,
            began=began,
            opened=state.opened or lost,
            confirmed=state.confirmed or _sure(state),
        )
        finding = _finding(state, seen, lost)
    elif state.since is not None:
        state = replace(state, since=None, confirmed=False, opened=0, refused=False)
    ask = _doubtful(state, mono)
    return Step(replace(state, asked=mono) if ask else state, finding, canary=ask)


def _began(state: State) -> float:
    """Return when the loss began as well as is known: after the last time that all was accounted for."""
    ranks = state.ranks.values()
    clean = min((one.clean for one in ranks if one.clean is not None), default=state.first)
    if state.truth.lost:
        shown = state.truth.since
    elif _lost(state):
        shown = None
    else:
        rising = [one.drift.rising for one in ranks if one.drifted]
        rising += [one.level.claim.since for one in ranks if one.raised and one.level.claim is not None]
        shown = min((at for at in rising if at is not None), default=None)
    return max((at for at in (clean, shown) if at is not None), default=state.at)


def _sure(state: State) -> bool:
    """Tell whether more than one kind of evidence speaks, or the one that needs no second."""
    if state.truth.lost or (state.refused and any(one.idle_lost for one in state.ranks.values())):
        return True
    return any(
        one.idle_lost
        and (one.votes.lost or (one.moments > 1 and (one.clean is not None or _lost(state) > state.opened)))
        for one in state.ranks.values()
    )


def _doubtful(state: State, mono: float) -> bool:
    """Tell whether a token would help: an idle engine in use says what its last step said, which may be old."""
    params = state.params
    if state.confirmed or mono - state.asked < params.again_s:
        return False
    lends = state.view is not None and bool(state.view.kv_connectors)
    for rank in state.ranks.values():
        if not rank.last.idle or rank.last.used <= rank.reserved or rank.resting is None:
            continue
        if lends:
            rested = mono - rank.resting >= params.lease_s
            if rested and state.answered - rank.resting < params.lease_s:
                return True
        elif rank.moments < IDLE_READINGS:
            return True
    return False


_BY = {
    "requests": "the requests under way explain less",
    "tokens": "the tokens under way explain less",
    "idle": "no request runs or waits",
    "drift": "between clients that went away more are used from stretch to stretch",
    "level": "more are used than the load explains, at few requests as at many, and ever more",
}


def _suspected_pace(rank: Rank, mono: float) -> Growth:
    claim = rank.level.claim
    if claim is not None and rank.raised >= rank.drifted:
        return raised_pace(claim, rank.level.pace)
    return pace(rank.drift, rank.last.finished, mono)


def _finding(state: State, seen: Observation, lost: int) -> Finding:
    ranks = state.ranks.values()
    pool, used = sum(one.last.pool for one in ranks), sum(one.last.used for one in ranks)
    worst = max(ranks, key=lambda one: max(one.lost, one.suspected))
    growth = state.growth if _lost(state) else _suspected_pace(worst, state.at)
    left_s, soonest_s, latest_s = seconds_left(growth, pool - (state.level or used))
    said = {
        "requests": state.truth.lost,
        "tokens": sum(one.votes.lost for one in ranks),
        "idle": sum(one.idle_lost for one in ranks),
        "drift": sum(one.drifted for one in ranks),
        "level": sum(one.raised for one in ranks),
    }
    by = max(said, key=lambda kind: said[kind])
    each = "" if not growth.per_finished else f", {growth.per_finished:.2g} a finished request"
    left = "" if left_s is None else f"; the pool of {pool} is exhausted in {told_s(left_s)}"
    clean = [one.clean for one in ranks if one.clean is not None]
    return Finding(
        detector="kv_leak",
        engine=seen.engine,
        summary=f"has leaked {lost} KV block{'s' * (lost != 1)} in {told_s(seen.now.mono - state.began)}{each}{left}",
        since=seen.now.wall if state.since is None else state.since,
        confirmed=state.confirmed,
        evidence={
            "lost_blocks": float(lost),
            "by": f"{by}: {_BY[by]}",
            "by_requests_blocks": float(said["requests"]),
            "by_tokens_blocks": float(said["tokens"]),
            "by_idle_blocks": float(said["idle"]),
            "by_drift_blocks": float(said["drift"]),
            "by_level_blocks": float(said["level"]),
            "drift_score": worst.drift.score,
            "level_score": None if worst.level.claim is None else worst.level.claim.score,
            "load_explains_blocks": worst.level.explained,
            "lost_tokens": float(lost * worst.last.size),
            "pool_blocks": float(pool),
            "used_blocks": float(used),
            "running": float(sum(one.last.running for one in ranks)),
            "waiting": float(sum(one.last.waiting for one in ranks)),
            "explained_tokens": None if worst.ledger is None else worst.ledger.tokens,
            "blocks_per_finished_request": growth.per_finished,
            "blocks_per_aborted_request": growth.per_gone,
            "blocks_per_hour": None if growth.per_hour is None else growth.per_hour.value,
            "blocks_per_hour_low": None if growth.per_hour is None else growth.per_hour.low,
            "blocks_per_hour_high": None if growth.per_hour is None else growth.per_hour.high,
            "exhausted_in_s": left_s,
            "exhausted_in_s_low": soonest_s,
            "exhausted_in_s_high": latest_s,
            "urgency": urgency(left_s, state.params.page_s, state.params.ticket_s),
            "all_accounted_for_s_ago": seen.now.mono - min(clean) if clean else None,
            "reset_refused": state.refused or None,
            "rank": worst.last.rank if len(state.ranks) > 1 else None,
        },
    )


DETECTOR = Detector(
    name="kv_leak",
    severity="ticket",
    summary="KV-cache blocks that no request holds and that are never given back",
    params=Params,
    begin=begin,
    step=step,
)
"""Others may read the numbers of its evidence: docs/detectors/kv_leak.md says what each means."""
