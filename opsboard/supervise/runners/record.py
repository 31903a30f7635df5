"""A life without a shim, written down by the daemon in the shim's words, so that everybody reads it alike."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from opsboard.core.errors import SuperviseError
from opsboard.supervise import bundle
from opsboard.supervise.adopt import Remains
from opsboard.supervise.launch import LaunchSpec, fingerprint
from opsboard.supervise.processes import Process, boot_id


def begin(
    directory: Path, spec: LaunchSpec, *, instance: str, life: int, process: Process | None = None, **more: Any
) -> None:
    """Write the identity of a life, ``process`` None before it is there; of the one before only the log stays.

    ``more`` is what its runner has to know of it. Raises SuperviseError: the bundle cannot be written.
    """
    identity = {
        "protocol": bundle.PROTOCOL,
        "engine": spec.name,
        "instance": instance,
        "life": life,
        "runner": spec.runner,
        "shim": None,
        "process": None if process is None else process.record(),
        "boot_id": boot_id(),
        "argv_sha256": fingerprint(spec.command),
        "url": spec.url,
        "log": str(directory / bundle.LOG),
        "log_offset": _open_log(directory),
        "socket": "",
        "started": bundle.wall(),
        **more,
    }
    try:
        for name in (bundle.EXIT, bundle.STATUS, bundle.READY):
            bundle.remove(str(directory), name)
        bundle.write(str(directory), bundle.IDENTITY, identity, sync=True)
    except OSError as error:
        raise _unwritten(directory, error) from error


def is_news(directory: Path, before: Remains | None, process: Process | None) -> bool:
    """Tell whether what runs is not written down yet; ``before`` is what was when it was looked for it.

    A start of ours may have written it meanwhile. Ask and begin without a pause between.
    """
    identity = bundle.read(str(directory), bundle.IDENTITY) or {}
    known = identity.get("process") or {}
    same = process is not None and (known.get("pid"), known.get("start_ticks")) == (process.pid, process.start_ticks)
    return not same and identity.get("instance") == (None if before is None else before.instance)


def know(directory: Path, instance: str, **more: Any) -> None:
    """Add to the identity of a life what was learned of it. Raises OSError."""
    identity = bundle.read(str(directory), bundle.IDENTITY)
    if identity is not None and identity.get("instance") == instance:
        bundle.write(str(directory), bundle.IDENTITY, identity | more, sync=True)


def never_began(directory: Path, instance: str, error: SuperviseError) -> None:
    """Write down why a life did not begin, if the disk takes it."""
    with contextlib.suppress(OSError):
        ended(directory, instance, message=error.message)


def processes(directory: Path, instance: str, living: Iterable[Process]) -> None:
    """Write down who belongs to a life now. Raises OSError."""
    found = [process.record() for process in sorted(living)]
    record = {"protocol": bundle.PROTOCOL, "instance": instance, "state": "running", "processes": found}
    bundle.write(str(directory), bundle.STATUS, record)


def ended(
    directory: Path,
    instance: str,
    *,
    code: int | None = None,
    asked_by: str | None = None,
    message: str | None = None,
    result: str | None = None,
) -> None:
    """Write down how a life ended, by whose wish if it was one; ``message`` when it never began. Raises OSError."""
    record = {
        "protocol": bundle.PROTOCOL,
        "instance": instance,
        "code": code,
        "ended": bundle.wall(),
        "asked_by": asked_by,
        "message": message,
        "result": result,
    }
    bundle.write(str(directory), bundle.EXIT, record, sync=True)


def _open_log(directory: Path) -> int:
    """Make sure that there is a log; return where a new life begins in it. Raises SuperviseError."""
    try:
        for folder in (directory.parent, directory):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(directory / bundle.LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)
    except OSError as error:
        raise _unwritten(directory, error) from error


def _unwritten(directory: Path, error: OSError) -> SuperviseError:
    return SuperviseError(f"{directory}: cannot be written: {error.strerror}", permanent=False)
