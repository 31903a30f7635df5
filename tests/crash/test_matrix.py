"""Everybody killed with -9 at every step of a restart and at random moments: a round ends as the operator wished.

``OPSBOARD_CRASH_ROUNDS`` rounds (20), chosen by ``OPSBOARD_CRASH_SEED``; 0 takes a seed by chance and prints it.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.crash_daemon import Settings
from tests.support.crash_scene import Scene
from tests.support.herd import free_port
from tests.support.waiting import NeverHappened, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.herd import Herd

ROUNDS = int(os.environ.get("OPSBOARD_CRASH_ROUNDS", "20"))
SEED = int(os.environ.get("OPSBOARD_CRASH_SEED", "3")) or random.SystemRandom().randrange(1, 1 << 32)

ENGINE = ("api", "core", "worker")
STEPS = {
    "drain": ("daemon", "shim", *ENGINE, "daemon shim", "daemon api"),
    "end": ("daemon", "shim", *ENGINE, "daemon shim", "shim api"),
    "clear": ("daemon",),
    "launch": ("daemon",),
    "start": ("daemon", "shim", *ENGINE, "daemon shim", "daemon core"),
    "canary": ("daemon", "shim", *ENGINE, "daemon api", "shim core"),
    "serving": ("daemon", "shim", *ENGINE, "daemon shim api", "daemon worker"),
}
WITHOUT_DRAIN = ("now", "accuse", "api")
"""What begins a restart: an operator, a finding, or the death of the API server."""


class Round(NamedTuple):
    """``begun`` begins a restart; the victims die at ``step``, or ``after_s`` seconds later; then ``word`` is said."""

    begun: str
    victims: tuple[str, ...]
    step: str | None
    after_s: float
    word: str | None


def rounds(seed: int) -> Iterator[Round]:
    """Every victim at every step, in blocks of random order, and as many rounds at random moments."""
    chance = random.Random(seed)
    grid = [(step, victims) for step, all_victims in STEPS.items() for victims in all_victims]
    while True:
        for step, victims in chance.sample(grid, len(grid)):
            begun = chance.choice(("restart", "renew") if step == "drain" else ("restart", *WITHOUT_DRAIN))
            word = chance.choice((None, None, None, "stop", "restart", "now"))
            yield Round(begun, tuple(victims.split()), step, 0.0, word)
            _, others = chance.choice(grid)
            begun = chance.choice(("restart", "renew", "stop", *WITHOUT_DRAIN))
            yield Round(begun, tuple(others.split()), None, chance.uniform(0.0, 0.5), chance.choice((None, "stop")))


def play(scene: Scene, plan: Round) -> list[str]:
    """One round, from a serving engine to one that is as it was wished last; return who was there to be killed."""
    if scene.daemon.state != "ready":
        scene.daemon.wish("start")
        scene.wait_for("ready")
    if "shim" in plan.victims and not scene.shims():  # an earlier round has killed it
        scene.daemon.wish("now")
        scene.is_sound(up=True)
    last = scene.transaction().get("id")
    if plan.step is not None:
        scene.hold(plan.step)
    up = _begin(scene, plan.begun)
    if plan.step is None:
        time.sleep(plan.after_s)  # not to wait for something: the moment of the crash
    else:
        scene.wait_for_step(plan.step, last)
        if plan.step == "start":
            wait_until(scene.is_whole, what="the new life")
    killed = [victim for victim in plan.victims if scene.kill(victim)]
    scene.release()
    if not scene.daemon.alive:
        scene.new_daemon()
    if plan.word is not None:
        up = plan.word != "stop"
        _wish(scene, plan.word)
    scene.is_sound(up=up)
    return killed


def _begin(scene: Scene, begun: str) -> bool:
    """Begin what is to be disturbed; tell whether the engine is to run at the end."""
    if begun == "api":
        scene.kill("api")
    elif begun == "renew":  # a daemon whose last one was killed only looks at first
        wait_until(lambda: scene.daemon.asks("renew"), what="a restart by age")
    elif begun == "accuse":
        scene.daemon.until("asked accuse", scene.daemon.say("accuse"))
    else:
        scene.daemon.wish(begun)
    return begun != "stop"


def _wish(scene: Scene, word: str) -> None:
    """Say a wish and wait until it is kept; a restart that is refused, because it could not be begun, is none."""
    if word == "stop":
        scene.daemon.wish(word)
    else:
        scene.daemon.until(("wished", "refused"), scene.daemon.say(word))


@pytest.mark.timeout(60 + 30 * ROUNDS)
def test_everybody_killed_at_every_step(herd: Herd) -> None:
    scene = Scene(herd, Settings(name="a", mode="three_deep", value=free_port()))
    killed = 0
    try:
        for number, plan in enumerate(itertools.islice(rounds(SEED), ROUNDS)):
            began = time.monotonic()
            try:
                dead = play(scene, plan)
            except (AssertionError, NeverHappened) as error:
                pytest.fail(f"seed {SEED}, round {number}, {plan}: {error}")
            print(f"round {number}: {plan}, killed {dead}, {time.monotonic() - began:.1f} s")
            there = plan.step is not None and not (plan.begun == "api" and plan.step == "end")
            assert not there or dead == list(plan.victims), f"seed {SEED}, round {number}: {plan}, but killed {dead}"
            killed += len(dead)
        print(f"seed {SEED}: {killed} killed in {ROUNDS} rounds")
        scene.daemon.wish("stop")
        scene.is_sound(up=False)
    finally:
        scene.end()
