"""Would starting the same arguments in the same directory run the same program?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from opsboard.core.secret import without_secrets
from opsboard.core.text import sanitise
from opsboard.supervise.takeover.gap import Gap, fatal, small
from opsboard.supervise.takeover.seen import Seen

_DELETED = " (deleted)"
_DESCRIPTOR = re.compile(r"(/dev/fd|/proc/self/fd)/\d+")
_SPAWNED = re.compile(r"\bmultiprocessing\.(spawn|forkserver|resource_tracker)\b|^--multiprocessing-fork$")
_BY_HAND = "write the engine's `command` into the configuration"


def gaps(seen: Seen) -> Iterator[Gap]:
    """Yield what keeps a copy from running the same program."""
    if seen.exe is None or seen.exe_id is None:
        yield fatal("program", "/proc does not say which file it runs: it belongs to another user", _AS_ROOT)
    yield from _arguments(seen)
    yield from _directory(seen)
    yield from _input_and_output(seen)


def warnings(seen: Seen) -> Iterator[str]:
    """Yield in what a copy may differ, though it can be started."""
    if seen.exe is not None and seen.exe.endswith(_DELETED) and seen.program is not None:
        yield f"{sanitise(seen.exe.removesuffix(_DELETED))} was replaced since it began: the copy runs the new one"


_AS_ROOT = "run the daemon as root or as the engine's user"


def _arguments(seen: Seen) -> Iterator[Gap]:
    if not seen.argv or not seen.argv[0]:
        yield fatal("arguments", "the process has wiped them, or they may not be read", _BY_HAND)
        return
    shown = sanitise(seen.argv[0], 200)
    if any(_SPAWNED.search(word) for word in seen.argv[1:]):
        yield fatal("arguments", "it is a child of a Python process, not an engine's main process")
    elif seen.program is None and _is_title(seen):
        yield fatal("arguments", f"the process renamed itself to “{shown}”: the real ones are gone", _BY_HAND)
    elif seen.program is None:
        yield fatal("program", f"{shown} cannot be found or executed any more", _BY_HAND)
    elif not _same_program(seen):
        program, exe = sanitise(seen.program), sanitise(seen.exe or "")
        yield fatal("program", f"{shown} leads to {program}, but the process runs {exe}", _BY_HAND)
    for word in without_secrets(seen.argv):
        if _DESCRIPTOR.search(word):
            yield fatal("arguments", f"{sanitise(word, 200)} is a file that only its starter had open", _BY_HAND)
    if len(seen.argv) > 1 and seen.argv[1] == "-" and Path(seen.argv[0]).name.startswith("python"):
        yield fatal("program", "it was read from the standard input and is not kept anywhere", _BY_HAND)
    for name in seen.missing:
        yield fatal("program", f"{sanitise(name)} is gone", _BY_HAND)


def _is_title(seen: Seen) -> bool:
    """One word that is no file, ``VLLM::EngineCore`` or ``nginx: master process``, and NULs where arguments were."""
    return not any(seen.argv[1:]) and (":" in seen.argv[0] or " " in seen.argv[0])


def _same_program(seen: Seen) -> bool:
    """Tell whether ``argv[0]`` leads to what runs; a newer file under the same name does."""
    if seen.exe is None or seen.exe_id is None or seen.program is None:
        return True  # unknown: said elsewhere
    return seen.program_id == seen.exe_id or seen.program == seen.exe.removesuffix(_DELETED)


def _directory(seen: Seen) -> Iterator[Gap]:
    if seen.cwd is None:
        yield fatal("directory", "its working directory may not be seen", _AS_ROOT)
    elif seen.cwd.endswith(_DELETED):
        yield fatal("directory", f"its working directory {sanitise(seen.cwd.removesuffix(_DELETED))} is gone", _BY_HAND)


def _input_and_output(seen: Seen) -> Iterator[Gap]:
    if seen.fds is None:
        yield small("output", "where it writes its log may not be seen; the copy writes to engine.log")
        return
    places = dict.fromkeys(sanitise(_place(seen.fds[number])) for number in (1, 2) if number in seen.fds)
    lost = [place for place in places if place != "/dev/null"]
    if lost:
        yield small("output", f"it writes to {' and '.join(lost)}; the copy writes to engine.log")
    given = seen.fds.get(0, "/dev/null")
    if given != "/dev/null" and not given.startswith(("/dev/pts/", "/dev/tty")):
        yield small("input", f"it may read from {sanitise(_place(given))}; the copy reads nothing")


def _place(target: str) -> str:
    if target.startswith("pipe:"):
        return "a pipe to another process"
    if target.startswith("socket:"):
        return "a socket (systemd's journal, or a log collector)"
    if target.startswith(("/dev/pts/", "/dev/tty", "/dev/console")):
        return f"the terminal {target}"
    return target
