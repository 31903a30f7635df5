"""A GPU that this engine uses is broken, breaks, or is slowed by heat or power: by what the driver says of it.

Every engine on the card claims it for itself, because it is each of them that is hit; ``gpu`` in the evidence says that
it is one card. Which cards an engine uses is remembered for its life: a card that is lost names no process any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Annotated, NamedTuple

from msgspec import Meta
from msgspec.structs import replace

from alerts.base import Detector, Observation, Off, Step, check_seconds, unread
from alerts.timeline import told_s
from opsboard.core.judgement import Unknown
from opsboard.core.lives import SERVES, other_process
from opsboard.core.model import EngineState, EngineView, Finding, GpuView, Record
from opsboard.core.xids import NEEDS_RESET, NEEDS_RESTART, WEARS

_NO_GPUS = Off("no GPU is seen here")
_NONE_OF_ITS = "the driver names no process of it on a GPU"
_SILENT = "the GPU driver tells nothing now"
_BY_HARDWARE = frozenset({"hw_slowdown", "hw_thermal", "hw_power_brake"})
_BY_HEAT = frozenset({"sw_thermal"})
_PENDING = frozenset({EngineState.STOPPING, EngineState.BACKING_OFF, EngineState.PARKED, EngineState.FAILED})
"""Between two lives: what was claimed stands until it serves again."""


class Params(Record, frozen=True, kw_only=True):
    """Seconds."""

    slowed_s: Annotated[
        float, Meta(description="clocks lowered by the hardware (heat, power brake) for so long; at least 1s")
    ] = 60.0
    hot_s: Annotated[float, Meta(description="clocks lowered by the driver because of heat for so long")] = 300.0
    calm_s: Annotated[float, Meta(description="not lowered for so long is over; at least 1s")] = 60.0

    def __post_init__(self) -> None:
        """Raise ValueError for what makes no sense together."""
        check_seconds(self, ("slowed", "calm"), [("slowed", "hot")])


class Card(NamedTuple):
    """One card of the engine. Monotonic seconds, but ``*_wall`` (Unix)."""

    number: int
    ecc: int | None
    """Uncorrected errors when this life was first seen on it."""
    xid: tuple[int | None, float | None]
    """The Xid that it had then: not of this life."""
    since_wall: Mapping[str, float] = {}
    """When each fault that it has now was first seen."""
    slowed: tuple[float, float] = (inf, -inf)
    """First and last time that the hardware slowed it, with no pause of ``calm``."""
    hot: tuple[float, float] = (inf, -inf)
    """Likewise the driver, because of heat."""
    faults: Mapping[str, Fault] = {}


class Fault(NamedTuple):
    """What is wrong with a card. ``text`` follows its name."""

    kind: str
    text: str
    urgency: str
    confirmed: bool


_OF_A_LIFE = frozenset({"xid_reset", "xid_restart", "xid_wears"})
_RANK = ("lost", "xid_reset", "ecc", "xid_restart", "slowed", "hot", "xid_wears")


class State(Record, frozen=True, kw_only=True):
    """What is remembered of one life. ``cards`` by the uuid of the whole card."""

    params: Params
    started: float | None = None
    """When the supervised life began."""
    page: EngineView | None = None
    """The last one that told when its process began."""
    cards: Mapping[str, Card] = {}


def begin(params: Params) -> State:
    """Know nothing."""
    return State(params=params)


def step(state: State, seen: Observation) -> Step:
    """Take in what the driver says of the cards of this engine."""
    life = seen.life
    if life is not None and life.state in SERVES and life.started != state.started:
        state = State(params=state.params, started=life.started)
    elif life is not None and life.state not in SERVES and life.state not in _PENDING:
        return Step(State(params=state.params, started=state.started), unknown=unread(seen))
    view = seen.reading.view if seen.fresh and seen.reading is not None else None
    if view is not None and view.process_start is not None:
        if life is None and state.page is not None and other_process(state.page, view):  # its owner restarted it
            state = State(params=state.params)
        state = replace(state, page=view)
    if seen.gpus:
        whole = {gpu.uuid: gpu for gpu in seen.gpus if gpu.mig is None}
        cards = dict(state.cards)
        for gpu in seen.gpus:
            uuid = gpu.parent or gpu.uuid
            if uuid not in cards and any(held.engine == seen.engine for held in gpu.processes):
                card = whole.get(uuid, gpu)
                cards[uuid] = Card(card.index, card.ecc_uncorrected, (card.xid, card.xid_time))
        cards = {uuid: _looked(card, whole.get(uuid), seen, state.params) for uuid, card in cards.items()}
        state = replace(state, cards=cards)
    return Step(state, _finding(state, seen), unknown=_unknown(state, seen))


def _unknown(state: State, seen: Observation) -> Unknown | None:
    """Return why nothing is known of its cards."""
    if not seen.gpus:
        return _NO_GPUS
    if not state.cards:
        return _NONE_OF_ITS
    told = any(gpu.memory_used_bytes is not None or gpu.throttle is not None or gpu.lost for gpu in seen.gpus)
    return None if told else _SILENT


def _looked(card: Card, gpu: GpuView | None, seen: Observation, params: Params) -> Card:
    """Return the card with what is wrong with it now."""
    mono = seen.now.mono
    hit = {kind: fault for kind, fault in card.faults.items() if kind in _OF_A_LIFE}  # of Xids the last one is shown
    if gpu is None or gpu.lost:
        text = "does not answer the driver any more" if gpu is not None else "is not listed by the driver any more"
        return _with(card, [Fault("lost", text, "page", confirmed=True), *hit.values()], seen)
    if gpu.xid is not None and (gpu.xid, gpu.xid_time) != card.xid:
        hit |= {fault.kind: fault for fault in _xid(gpu.xid)}
    found = [*hit.values()]
    if gpu.ecc_uncorrected is None:
        found += [card.faults[kind] for kind in ("ecc",) if kind in card.faults]
    elif card.ecc is None or gpu.ecc_uncorrected < card.ecc:  # first known now, or the driver began anew
        card = card._replace(ecc=gpu.ecc_uncorrected)
    elif gpu.ecc_uncorrected > card.ecc:
        many = gpu.ecc_uncorrected - card.ecc
        found.append(Fault("ecc", f"had {many} uncorrected memory error{'s' * (many > 1)}", "page", confirmed=False))
    reasons = frozenset() if gpu.throttle is None else frozenset(gpu.throttle)
    slowed, hot = (
        was if gpu.throttle is None else _stretch(was, mono, params.calm_s, now=bool(reasons & names))
        for was, names in ((card.slowed, _BY_HARDWARE), (card.hot, _BY_HEAT))
    )
    names = " and ".join(sorted(reasons & (_BY_HARDWARE | _BY_HEAT)))
    why = f": {names}" if names else ""
    if slowed[1] - slowed[0] >= params.slowed_s:
        text = f"is slowed by its hardware for {told_s(mono - slowed[0])}{why}"
        found.append(Fault("slowed", text, "ticket", confirmed=False))
    if hot[1] - hot[0] >= params.hot_s:
        found.append(
            Fault("hot", f"is slowed because of heat for {told_s(mono - hot[0])}{why}", "ticket", confirmed=False)
        )
    return _with(card._replace(slowed=slowed, hot=hot), found, seen)


def _xid(xid: int) -> list[Fault]:
    for kind, known, urgency in (
        ("xid_reset", NEEDS_RESET, "page"),
        ("xid_restart", NEEDS_RESTART, "ticket"),
        ("xid_wears", WEARS, "ticket"),
    ):
        if xid in known:
            then = "; it needs a reset" if kind == "xid_reset" else ""
            return [Fault(kind, f"reported Xid {xid} ({known[xid]}){then}", urgency, confirmed=kind == "xid_reset")]
    return []


def _stretch(was: tuple[float, float], mono: float, calm_s: float, *, now: bool) -> tuple[float, float]:
    """Return the first and the last time of what lasts, begun anew after ``calm_s`` without it."""
    over = mono - was[1] > calm_s
    if now:
        return (mono if over else was[0]), mono
    return (inf, -inf) if over else was


def _with(card: Card, faults: list[Fault], seen: Observation) -> Card:
    since = {fault.kind: card.since_wall.get(fault.kind, _began(fault, card, seen)) for fault in faults}
    return card._replace(faults={fault.kind: fault for fault in faults}, since_wall=since)


def _began(fault: Fault, card: Card, seen: Observation) -> float:
    known = {"slowed": card.slowed, "hot": card.hot}.get(fault.kind)
    return seen.now.wall if known is None or known[0] == inf else seen.now.wall - (seen.now.mono - known[0])


def _finding(state: State, seen: Observation) -> Finding | None:
    """Claim the worst of what is wrong, None: nothing is."""
    faults = [(uuid, card, fault) for uuid, card in state.cards.items() for fault in card.faults.values()]
    if not faults:
        return None
    uuid, card, worst = min(faults, key=lambda one: _RANK.index(one[2].kind))
    gpu = next((gpu for gpu in seen.gpus if gpu.uuid == uuid), None)
    more = len(faults) - 1
    kinds = {fault.kind for where, _, fault in faults if where == uuid}
    agree = "ecc" in kinds and bool(kinds & {"xid_reset", "xid_restart", "xid_wears"})
    return Finding(
        detector="gpu_fault",
        engine=seen.engine,
        summary=f"GPU {card.number} {worst.text}" + (f", and {more} more" if more else ""),
        since=min(card.since_wall.values()),
        confirmed=worst.confirmed or agree,
        evidence={
            "gpu": uuid,
            "gpu_index": float(card.number),
            "predicate": worst.kind,
            "predicates": " ".join(sorted(fault.kind for _, _, fault in faults)),
            "cards": float(len({where for where, _, _ in faults})),
            "urgency": worst.urgency,
            "xid": None if gpu is None or gpu.xid is None else float(gpu.xid),
            "ecc_uncorrected": None if gpu is None or gpu.ecc_uncorrected is None else float(gpu.ecc_uncorrected),
            "throttle": None if gpu is None or gpu.throttle is None else " ".join(gpu.throttle),
            "temperature_c": None if gpu is None else gpu.temperature_c,
            "sm_clock_mhz": None if gpu is None else gpu.sm_clock_mhz,
            "power_w": None if gpu is None else gpu.power_w,
        },
    )


DETECTOR = Detector(
    name="gpu_fault",
    severity="ticket",  # what it takes down pages, and belongs to the same incident
    summary="a GPU that this engine uses is lost, reports errors, or is slowed by heat or its hardware",
    params=Params,
    begin=begin,
    step=step,
)
