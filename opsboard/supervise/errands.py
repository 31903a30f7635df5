"""What takes time before an engine may be ended or begun: draining, clearing, proving, preparing.

Each returns what came of it as an event of the machine; none changes anything itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path

from opsboard.core.errors import NoRoom, OpsboardError, StillThere, SuperviseError
from opsboard.core.model import FatalVerdict, Restart, Severity
from opsboard.core.text import sanitise
from opsboard.supervise import golden
from opsboard.supervise.budget import Spent
from opsboard.supervise.golden import Proof
from opsboard.supervise.launch import LaunchSpec
from opsboard.supervise.moves import FOR_ROOM
from opsboard.supervise.situation import Body, Drained, Event, Prepared, Ready, Situation, Unprepared, Unproven
from opsboard.supervise.transaction import CUT, DIFFERS, FAILED, OK, SKIPPED
from opsboard.supervise.world import Inflight, World, log

LOOK_S = 0.5
QUIET_READINGS = 2
"""Readings in a row that must show nothing under way: a request may be between two queues in one of them."""
CLEAR_S = 30.0
"""What the driver may take to give memory back: seconds, for 80 GB of pinned memory."""
PROVE_S = 120.0
"""What the golden question may take, asked again: the first request of a life may have to compile."""
ROOM_S = 15.0
WRITE_S = 5.0

Tell = Callable[[str, str], None]
"""``tell(text, outcome)``: about the step under way, and what it is if it ends now."""


async def drain(engine: str, world: World, situation: Callable[[], Situation], tell: Tell) -> Event | None:
    """Wait until nothing is under way in an engine; None when it is not drained any more."""
    over = await quiet(lambda: world.around.inflight(engine), lambda: situation().drain_by is not None, tell)
    return Drained() if over else None


async def quiet(inflight: Callable[[], Inflight | None], draining: Callable[[], bool], tell: Tell) -> bool:
    """Wait until nothing is under way; False when ``draining`` says before that it is no more waited for."""
    readings, last_read = 0, float("-inf")
    while draining():
        known = inflight()
        if known is not None and known.read > last_read:
            last_read = known.read
            readings = readings + 1 if known.requests == 0 else 0
            many = {0.0: "nothing", 1.0: "1 request"}.get(known.requests, f"{known.requests:g} requests")
            tell(f"{many} under way", CUT if known.requests else OK)
            if readings == QUIET_READINGS:
                return True
        elif known is None:
            tell("it is not known what is under way", CUT)
        await asyncio.sleep(LOOK_S)
    return False


async def clear(world: World, pids: Collection[int], gpus: Sequence[str] | None) -> None:
    """Wait until processes that are gone hold no GPU memory. Raises SuperviseError: they still do."""
    try:
        async with asyncio.timeout(CLEAR_S + WRITE_S):
            holds = await world.around.cleared(pids, gpus, CLEAR_S)
    except TimeoutError:  # where the driver does not answer, that the processes are gone is the proof
        log.warning("GPU memory of pids %s: the driver did not answer within %g s", list(pids), CLEAR_S + WRITE_S)
        holds = None
    if holds is not None:
        hint = "the driver may be wedged: see nvidia-smi; a reset of the GPU or of the host may be needed"
        raise SuperviseError(f"GPU memory of its last life is not free: {holds}", hint=hint)


async def room(world: World, spec: LaunchSpec) -> None:
    """Raise SuperviseError when an engine cannot be started now. What cannot be found out refuses nothing."""
    try:
        async with asyncio.timeout(ROOM_S):
            await world.around.room(spec)
    except TimeoutError:
        log.warning("engine %s: whether there is room could not be found out within %g s", spec.name, ROOM_S)


async def prove(engine: str, world: World, directory: Path, command: str, tell: Tell) -> Event:
    """Ask an engine that says it is ready the golden question; ``command`` is the fingerprint of what runs."""
    around = world.around
    try:
        async with asyncio.timeout(PROVE_S):
            proof = await golden.prove(
                directory, lambda: around.golden(engine), command=command, version=around.version(engine)
            )
    except TimeoutError:
        proof = Proof(text=f"the canary got no answer within {PROVE_S:g} s", failed=True)
    except Exception as error:  # noqa: BLE001  a question that cannot be asked proves nothing
        log.warning("engine %s: no canary: %s", engine, error)
        proof = Proof(text=f"no canary: {sanitise(str(error))}", asked=False)
    tell(proof.text, outcome_of(proof))
    if proof.failed:
        return Unproven(f"it says that it is ready, but {proof.text}")
    if not proof.doubt:
        return Ready()
    busy = around.inflight(engine)
    if busy is not None and busy.requests > 1:  # ours may be one of them
        text = f"{proof.text}; {busy.requests:g} requests were under way, which may round it apart"
        world.tell(engine, "output_drift", text, Severity.WARNING)
        return Ready()
    world.tell(engine, "output_drift", proof.text, Severity.ERROR)
    # Doubtful answers are better than none: the last one that serves stays in service, and it is told.
    alone = around.serving_others(engine)
    return Ready(proof.text if alone is None else None)


def outcome_of(proof: Proof) -> str:
    """Return what the question makes of its step."""
    return FAILED if proof.failed else DIFFERS if proof.doubt else OK if proof.asked else SKIPPED


def cause_of(situation: Situation) -> str:
    """Say why an engine is restarted by itself."""
    return situation.cause or "restarted by itself"


async def prepare(
    world: World, spec: LaunchSpec, rehearse: Callable[[], Awaitable[None]], situation: Situation
) -> Prepared | Unprepared:
    """Find out whether a restart by ourselves can be begun, and count it on the disk."""
    try:
        await rehearse()
        if situation.body is Body.NOTHING:
            await room(world, spec)
        return await count(world, spec, situation)
    except NoRoom as error:
        text = FOR_ROOM + said(error) if error.verdict is FatalVerdict.WAIT else said(error)
        return Unprepared(text, error.verdict, left=isinstance(error, StillThere))
    except SuperviseError as error:
        return Unprepared(said(error), verdict_of(error, FatalVerdict.WAIT))
    except Exception as error:  # noqa: BLE001  the machine waits for an answer, whatever happened
        return Unprepared(f"{type(error).__name__}: {sanitise(str(error))}")


def waits_anew(before: Situation, event: Event) -> str | None:
    """Return what is to be told when an engine that was to be restarted waits for room instead; None: nothing new."""
    if not isinstance(event, Unprepared) or (before.message or "").startswith(FOR_ROOM):
        return None
    return event.message if event.message.startswith(FOR_ROOM) else None


async def count(world: World, spec: LaunchSpec, situation: Situation) -> Prepared | Unprepared:
    """Count a restart by ourselves, in memory at once and on the disk before this returns.

    What is not begun after all is to be taken back.
    """
    now, gpus, cause = world.clock.now(), spec.gpus or (), cause_of(situation)
    if now.mono < world.ledger.not_before:
        return Unprepared("the last daemon did not end in order: automation only looks for a while")
    if (wedged := world.around.wedged(spec.gpus)) is not None:
        return Unprepared(f"{wedged}: {cause}", FatalVerdict.PARK)
    served_s = situation.served(now.mono)
    decision = world.ledger.decide(spec.name, gpus, now.mono, served_s)
    if isinstance(decision, Spent):
        return Unprepared(f"{decision.text}: {cause}", FatalVerdict.PARK)
    restart = Restart(engine=spec.name, t=now.wall, cause=cause, gpus=gpus, served_s=served_s)
    world.ledger.add(restart, now.mono)
    try:
        async with asyncio.timeout(WRITE_S):
            await world.around.on_restart(restart)
    except asyncio.CancelledError:  # something else has become of it
        take_back(world, restart)
        raise
    except Exception as error:  # noqa: BLE001  automation does not pass a disk that takes no record of it
        take_back(world, restart)
        return Unprepared(f"no restart by itself, it cannot be written down: {sanitise(str(error)) or 'no answer'}")
    return Prepared(restart)


async def planned(world: World, spec: LaunchSpec, situation: Situation, begin: Callable[[], bool]) -> None:
    """Count a restart and ``begin`` it; what does not begin after all is not counted.

    Raises SuperviseError then, or that with which ``begin`` refuses.
    """
    outcome = await count(world, spec, situation)
    if isinstance(outcome, Unprepared):
        raise SuperviseError(f"{spec.name} is not restarted: {outcome.message}")
    refusal: OpsboardError = SuperviseError(f"{spec.name} is not restarted: it does not serve any more")
    try:
        if begin():
            return
    except OpsboardError as error:
        refusal = error
    if outcome.restart is not None:
        take_back(world, outcome.restart)
    raise refusal


def take_back(world: World, restart: Restart) -> None:
    """Let a restart that was counted and not begun count no more."""
    world.ledger.take_back(restart)
    world.around.on_taken_back(restart)


def said(error: SuperviseError) -> str:
    """Return an error and its hint in one line."""
    return f"{error.message} ({error.hint})" if error.hint else error.message


def verdict_of(error: SuperviseError, passing: FatalVerdict) -> FatalVerdict:
    """Return what an error asks for; ``passing`` where it only says that trying again may help."""
    verdict = getattr(error, "verdict", None)
    if isinstance(verdict, FatalVerdict):
        return verdict
    return FatalVerdict.PARK if error.permanent else passing
