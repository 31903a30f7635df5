"""A running process written down as a life of ours, so that a daemon adopts it as it adopts its own."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from collectors import procfs
from opsboard.core.errors import SuperviseError
from opsboard.core.text import sanitise
from opsboard.supervise import bundle
from opsboard.supervise.launch import fingerprint, socket_path
from opsboard.supervise.processes import look
from opsboard.supervise.takeover.reproduction import Reproduction
from opsboard.supervise.watching import record_for_the_shim


def begin(reproduction: Reproduction, directory: Path, runtime_dir: Path, *, name: str, url: str, life: int = 1) -> str:
    """Write the identity of a life without a shim into the bundle; return its instance.

    The next :func:`opsboard.supervise.adopt.examine` finds the process and all below it. It carries no mark in its
    environment, how it ends will not be known, for it is not our child, and its output stays where it goes; the
    bundle's log says where that is.

    Raises:
        SuperviseError: it does not run any more, or the bundle cannot be written.
    """
    process = look(reproduction.pid)
    if process is None or not reproduction.lives:
        raise SuperviseError(f"engine {name}: pid {reproduction.pid} has ended meanwhile", hint="start it")
    instance = uuid.uuid4().hex
    output = None if reproduction.output is None else sanitise(reproduction.output)
    note = f"opsboard: taken over as pid {process.pid}; until its next start its output goes to {output or 'no file'}\n"
    identity = {
        "protocol": bundle.PROTOCOL,
        "engine": name,
        "instance": instance,
        "life": life,
        "shim": None,
        "process": process.record(),
        "boot_id": reproduction.boot_id,
        "argv_sha256": fingerprint(reproduction.argv),
        "url": url,
        "log": str(directory / bundle.LOG),
        "log_offset": 0,
        "socket": str(socket_path(directory, runtime_dir)),
        "started": procfs.boot_time() + reproduction.start_ticks / procfs.TICKS_PER_SECOND,
        "taken_over": True,
        "output": output,
    }
    try:
        for folder in (directory.parent, directory):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        identity["log_offset"] = _append(directory / bundle.LOG, note.encode())
        bundle.write(str(directory), bundle.IDENTITY, identity, sync=True)
        record_for_the_shim(directory)
    except OSError as error:
        raise SuperviseError(f"{directory}: cannot be written: {error.strerror}", permanent=False) from error
    return instance


def _append(path: Path, line: bytes) -> int:
    """Add a line to a log of ours; return where what follows it begins."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, line)
        return os.fstat(fd).st_size
    finally:
        os.close(fd)
