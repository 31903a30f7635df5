"""The golden canary: a fixed question, asked greedily after every start, whose answer must not change.

Weights that were damaged on the disk, a wrong quantisation or a broken kernel let an engine start and answer
nonsense. The first answer of a command is kept in the bundle; a later one that differs is a doubt, until a person
takes it as the new one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from opsboard.core.model import CanaryOutcome, CanaryReading, Record
from opsboard.core.text import sanitise
from opsboard.supervise import bundle

Ask = Callable[[], Awaitable[CanaryReading]]

AGAIN = 2
"""How often it is asked again when its answer differs: requests that are batched with others may be rounded apart."""
_QUOTE_CHARS = 60
_DEAD = frozenset({CanaryOutcome.TIMEOUT, CanaryOutcome.REFUSED})


class Proof(Record, frozen=True, kw_only=True):
    """What became of the question. Of ``failed`` and ``doubt`` one is set at most."""

    text: str
    asked: bool = True
    failed: bool = False
    """It does not answer, so it does not serve."""
    doubt: bool = False
    """It answers, but not what it answered before."""


async def prove(directory: Path, ask: Ask, *, command: str, version: str | None) -> Proof:
    """Ask, and compare with what is kept in the bundle ``directory``; keep the answer where nothing can be compared.

    ``command`` is the fingerprint of the command; another one, or another version of the engine (that of the reading,
    else ``version``), is another engine: its answer may differ. Raises OSError when the answer cannot be kept, or
    what was kept cannot be read.
    """
    reading = await ask()
    version = reading.version or version
    if reading.outcome in _DEAD:
        return Proof(text=f"the canary failed: {reading.error or reading.outcome.value}", failed=True)
    if reading.outcome is not CanaryOutcome.OK or reading.output_sha256 is None:
        return Proof(text=f"no canary: {reading.error or reading.outcome.value}", asked=False)
    kept = bundle.read(str(directory), bundle.GOLDEN) or {}
    same = kept.get("command") == command and _same_version(kept.get("version"), version)
    if not same or not kept.get("sha256"):
        _keep(directory, reading, command, version)
        return Proof(text="its answer is kept as the golden one")
    for _ in range(AGAIN):
        if reading.output_sha256 == kept["sha256"]:
            break
        again = await ask()
        reading = again if again.output_sha256 is not None else reading
    if reading.output_sha256 == kept["sha256"]:
        if kept.pop("other", None) is not None:  # there is nothing to accept any more
            bundle.write(str(directory), bundle.GOLDEN, kept)
        return Proof(text=f"its answer is the golden one ({reading.seconds:.1f} s)")
    bundle.write(str(directory), bundle.GOLDEN, kept | {"other": _answer(reading, command, version)})
    return Proof(text=_difference(kept.get("output"), reading.output), doubt=True)


def accept(directory: Path) -> bool:
    """Take the last answer that differed as the golden one; False when there is none. Raises OSError."""
    kept = bundle.read(str(directory), bundle.GOLDEN) or {}
    other = kept.get("other")
    if not isinstance(other, dict):
        return False
    bundle.write(str(directory), bundle.GOLDEN, {"protocol": bundle.PROTOCOL, **other})
    return True


def _keep(directory: Path, reading: CanaryReading, command: str, version: str | None) -> None:
    bundle.write(str(directory), bundle.GOLDEN, {"protocol": bundle.PROTOCOL, **_answer(reading, command, version)})


def _answer(reading: CanaryReading, command: str, version: str | None) -> dict[str, Any]:
    return {
        "sha256": reading.output_sha256,
        "output": reading.output,
        "command": command,
        "version": version,
    }


def _same_version(kept: object, version: str | None) -> bool:
    return kept is None or version is None or kept == version


def _difference(golden: object, output: str | None) -> str:
    return f"its output differs from the golden one: {_quoted(output)} instead of {_quoted(golden)}"


def _quoted(text: object) -> str:
    return f"“{sanitise(str(text or ''), _QUOTE_CHARS)}”"
