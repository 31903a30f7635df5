"""What is kept of an engine that was taken over: one file in its bundle, 0600, for its environment holds secrets."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from opsboard.core.errors import SuperviseError
from opsboard.core.model import Record
from opsboard.core.secret import Secret
from opsboard.supervise import bundle
from opsboard.supervise.takeover.reproduction import Reproduction

FILE = "taken_over.json"
_FORMAT = 1


class Kept(Record, frozen=True, kw_only=True):
    """An engine that was taken over: where it serves, and how it is started again."""

    url: str
    reproduction: Reproduction
    kind: str | None = None
    """Engine kind, when it was known."""


def keep(known: Kept, directory: Path) -> None:
    """Write it into the bundle ``directory``, which is made if need be; it survives a power cut.

    Raises:
        SuperviseError: it could not be written, or does not come back as it was.
    """
    record = msgspec.to_builtins(known, enc_hook=_reveal)
    try:
        for folder in (directory.parent, directory):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        bundle.write(str(directory), FILE, {"format": _FORMAT, **record}, sync=True)
    except OSError as error:
        raise SuperviseError(f"{directory / FILE}: cannot be written: {error.strerror}", permanent=False) from error
    if kept(directory) != known:
        raise SuperviseError(f"{directory / FILE} does not hold what was written", hint="is its command very long?")


def kept(directory: Path) -> Kept | None:
    """Return what was kept, None when nothing was.

    Raises:
        SuperviseError: the file is damaged, of a later format, or others could have written it.
    """
    path = directory / FILE
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SuperviseError(f"{path}: {error.strerror}") from error
    again = "remove it and take the engine over again"
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        # Its command is run as the engine's user: whoever could write it could run anything.
        raise SuperviseError(f"{path} could have been written or read by others: not believed", hint=again)
    try:
        record = bundle.read(str(directory), FILE)
    except OSError as error:
        raise SuperviseError(f"{path}: {error.strerror}", permanent=False) from error
    if record is None or record.pop("format", None) != _FORMAT:
        raise SuperviseError(f"{path} is damaged, or of another version of opsboard", hint=again)
    try:
        return msgspec.convert(record, Kept, dec_hook=_believe)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise SuperviseError(f"{path} is damaged", hint=again) from error


def everything(engines: Path) -> tuple[dict[str, Kept], list[SuperviseError]]:
    """Return all that is kept below ``STATE_DIR/engines`` by the engine's name, and what could not be believed."""
    found: dict[str, Kept] = {}
    errors: list[SuperviseError] = []
    for path in sorted(engines.glob(f"*/{FILE}")):
        try:
            known = kept(path.parent)
        except SuperviseError as error:
            errors.append(error)
        else:
            if known is not None:
                found[path.parent.name] = known
    return found, errors


def forget(directory: Path) -> None:
    """Remove what was kept. Raises OSError."""
    bundle.remove(str(directory), FILE)


def _reveal(value: object) -> object:
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError(type(value))


def _believe(kind: type, value: object) -> object:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise NotImplementedError(kind)
