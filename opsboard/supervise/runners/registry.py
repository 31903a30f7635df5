"""Which runners there are, and which of them began a life."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from opsboard.core.errors import SuperviseError
from opsboard.core.text import sanitise
from opsboard.supervise import bundle
from opsboard.supervise.adopt import Remains, examine, runner_in, write_again
from opsboard.supervise.launch import LaunchSpec
from opsboard.supervise.runners.base import Place, Runner, Tell
from opsboard.supervise.runners.command import CommandRunner
from opsboard.supervise.runners.restart import RestartRunner
from opsboard.supervise.runners.shim import ShimRunner
from opsboard.supervise.runners.systemd import SystemdRunner

log = logging.getLogger("opsboard.supervise")

REHEARSE_S = 30.0
AGAIN_S = 1.0
_ALL: tuple[Runner, ...] = (ShimRunner(), SystemdRunner(), CommandRunner(), RestartRunner())
RUNNERS = {runner.name: runner for runner in _ALL}


def began(directory: Path, otherwise: str) -> Runner:
    """Return the runner of the life that the bundle ``directory`` holds; ``otherwise`` names it where it holds none."""
    identity = bundle.read(str(directory), bundle.IDENTITY)
    return named(otherwise if identity is None else runner_in(identity))


def named(name: str) -> Runner:
    """Return a runner; one that this version does not know left processes as the shim does."""
    return RUNNERS.get(name, RUNNERS["shim"])


async def find(spec: LaunchSpec, place: Place, budget_s: float) -> Remains | None:
    """Return what there is of an engine by the runner of its last life, else by that of its next one.

    Raises TimeoutError, OSError: it could not be found out.
    """
    last, following = began(place.bundle, spec.runner), RUNNERS[spec.runner]
    remains = await last.find(spec, place, budget_s)
    if following is not last and following.restarts_itself and (remains is None or not remains.lives):
        return await following.find(spec, place, budget_s)
    return remains


async def begin(spec: LaunchSpec, place: Place, instance: str) -> SuperviseError | None:
    """Begin a life; return why that failed, None when it did not."""
    try:
        before = await asyncio.to_thread(examine, place.bundle)
        number = before.life + 1 if before else 1
        await RUNNERS[spec.runner].start(spec, place, instance=instance, life=number)
    except SuperviseError as error:
        return error
    except OSError as error:
        return SuperviseError(f"{place.bundle}: cannot be looked at: {error}", permanent=False)
    except Exception as error:
        log.exception("engine %s: start failed", spec.name)
        return SuperviseError(f"{type(error).__name__}: {sanitise(str(error))}", permanent=False)
    return None


async def rehearse(spec: LaunchSpec, place: Place) -> None:
    """Raise SuperviseError when a new life could not begin now, or nobody can tell."""
    try:
        async with asyncio.timeout(REHEARSE_S):
            await RUNNERS[spec.runner].rehearse(spec, place)
    except TimeoutError:
        text = f"it could not be found out within {REHEARSE_S:g} s whether it would start"
        raise SuperviseError(text, permanent=False) from None


async def end(
    spec: LaunchSpec, place: Place, by: str, tell: Tell, stuck: Callable[[str], None], *, known: Remains | None
) -> Remains | None:
    """End what there is of an engine by the runner that began it; return what was known of it.

    ``known`` is the life as it was found, in case that somebody has removed what was written down of it. Nothing may be
    started before this has worked, so it is tried for ever; ``stuck`` hears of it.
    """
    while True:
        try:
            if known is not None:
                await asyncio.to_thread(write_again, known)
            runner = await asyncio.to_thread(began, place.bundle, spec.runner)
            await runner.end(spec, place, by, tell, stuck)
            return await asyncio.to_thread(examine, place.bundle)
        except Exception as error:
            log.warning("engine %s: cannot be stopped", spec.name, exc_info=not isinstance(error, OSError))
            stuck(f"cannot be stopped: {getattr(error, 'strerror', None) or error}")
            await asyncio.sleep(AGAIN_S)
