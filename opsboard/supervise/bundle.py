"""The files of one engine's bundle, ``STATE_DIR/engines/NAME/``, and how they are written. Standard library only.

=================  ==========  =====================================================================================
file               written by  holds
=================  ==========  =====================================================================================
``launch.json``    daemon      what to start, with its environment (secrets); the shim removes it before it starts
                               that, the daemon to call it off: who removes it decides
``environment``    daemon      what systemd gives the engine (secrets); the daemon removes it once the engine runs
``identity.json``  shim        who runs: pids with start times, boot id, unique id of the life
``status.json``    shim        the processes of the life as they come and go
``exit.json``      shim        how the main process ended and by whose wish, or why it could not start
``ready.json``     daemon      the life that has been ready, so that a restarted daemon does not wait for it again
``stop.json``      daemon      the life that an operator wants ended, and whether another one is to follow
``parked.json``    daemon      why the engine is left alone until a person starts it
``service.json``   daemon      that it runs but shall get no requests, and why
``transaction.json`` daemon    the restart that is under way, or the last one: its steps
``golden.json``    daemon      what it answered to the question whose answer must not change
``rest.json``      daemon      that an operator put it to sleep, or woke it
``lock``           shim        held as long as the shim lives: one shim a bundle
``engine.log``     engine      its standard output and error; ``engine.log.1`` ... are older
``shim.log``       shim        its own errors, normally empty
=================  ==========  =====================================================================================

All are 0600 in a directory of 0700.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

PROTOCOL = 1
LAUNCH = "launch.json"
ENVIRONMENT = "environment"
IDENTITY = "identity.json"
STATUS = "status.json"
EXIT = "exit.json"
READY = "ready.json"
STOP = "stop.json"
PARKED = "parked.json"
SERVICE = "service.json"
TRANSACTION = "transaction.json"
GOLDEN = "golden.json"
REST = "rest.json"
LOCK = "lock"
LOG = "engine.log"
SHIM_LOG = "shim.log"
_LIMIT = 1 << 22


def write(directory: str, name: str, record: object, *, sync: bool = False) -> None:
    """Replace a file in one step: a reader sees the old or the new one. Raises OSError.

    ``sync`` makes it survive a power cut.
    """
    path = f"{directory}/{name}"
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        data = json.dumps(record).encode()
        while data:
            data = data[os.write(fd, data) :]
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(temporary, path)  # noqa: PTH105  pathlib costs the shim 1 MB
    if sync:
        _sync_directory(directory)


def read(directory: str, name: str) -> dict[str, Any] | None:
    """Return a file's record, None when it is not there or is no record. Raises OSError when it cannot be read."""
    try:
        with open(f"{directory}/{name}", "rb") as file:  # noqa: PTH123  see write
            found = json.loads(file.read(_LIMIT))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def remove(directory: str, name: str) -> bool:
    """Remove a file if it is there; tell whether it was: of two who remove it, one did. Raises OSError."""
    try:
        os.remove(f"{directory}/{name}")  # noqa: PTH107  see write
    except FileNotFoundError:
        return False
    return True


def wall() -> float:
    """Return Unix seconds. The shim cannot use core/clock.py, which is not of the standard library."""
    return time.time()  # noqa: TID251


def _sync_directory(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
