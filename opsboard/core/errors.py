"""The one error tree.

OpsboardError
├── ConfigError         the configuration is wrong               exit 2
├── UsageError          the command line is wrong                exit 2
├── FetchError          an HTTP read failed or broke a limit
├── MqttError           a broker is away, refuses, or breaks off
├── ExpositionError     a metrics page cannot be trusted
├── CollectError        a local source (driver, /proc) failed
├── RecordingError      a recording cannot be read, or not from some line on
├── StoreError          SQLite cannot do what was asked
│   ├── NewerSchema     the file was written by a newer opsboard
│   ├── StateDirLocked  another daemon owns the state directory
│   └── DiskFull        no room left; reads still work
├── SuperviseError      an engine cannot be started, stopped or adopted
│   └── NoRoom          something is in the way of a start
└── ControlError        the control socket said no
    ├── NotReachable    no daemon answers                        exit 3
    ├── BadRequest      what is asked for makes no sense         exit 2
    ├── Denied          the peer has no right to do this
    ├── NotFound        no such engine, incident, ...
    └── Conflict        not possible in the present state

Every error says what happened and where (``message``) and what to do (``hint``). ``permanent`` is False when trying
again may help.
"""

from __future__ import annotations

from pathlib import Path

from opsboard.core.model import FatalVerdict


class OpsboardError(Exception):
    """Base of all errors that opsboard raises on purpose."""

    exit_code = 1
    code = "error"

    def __init__(self, message: str, *, hint: str | None = None, permanent: bool = True) -> None:
        """Keep the sentence for people, the hint for the next step, and whether a retry can help."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.permanent = permanent


class ConfigError(OpsboardError):
    """The configuration file is missing, malformed or contradicts itself."""

    exit_code = 2
    code = "config"


class UsageError(OpsboardError):
    """The command line asks for something that does not exist."""

    exit_code = 2
    code = "usage"


class FetchError(OpsboardError):
    """An HTTP read failed, was cut, or passed a limit. ``reason`` is one short word for metrics and logs."""

    code = "fetch"

    def __init__(self, message: str, *, reason: str, status: int | None = None, hint: str | None = None) -> None:
        """``reason`` is one short word.

        One of refused, unreachable, connect_timeout, timeout, too_large, truncated, status, encoding, protocol; here:
        nothing could be asked, for want of file descriptors, ports or names, which says nothing of the other side.
        """
        super().__init__(message, hint=hint, permanent=False)
        self.reason = reason
        self.status = status


class MqttError(OpsboardError):
    """An MQTT broker is away, refuses the connection or breaks it off. Trying again may help."""

    code = "mqtt"

    def __init__(self, message: str) -> None:
        """The message names the broker."""
        super().__init__(message, permanent=False)


class ExpositionError(OpsboardError):
    """A metrics page is cut, malformed or over a limit: the reading is FAILED, never fewer samples."""

    code = "exposition"


class CollectError(OpsboardError):
    """A local source such as the GPU driver or /proc could not be read."""

    code = "collect"


class RecordingError(OpsboardError):
    """A recording is not what it should be. Not ``permanent``: only this line is bad, the next may be good."""

    code = "recording"

    def __init__(
        self, message: str, *, path: Path, line: int | None = None, hint: str | None = None, permanent: bool = True
    ) -> None:
        """``path`` and ``line`` (from 1) say where, and stand before the message."""
        where = f"{path}" if line is None else f"{path}: line {line}"
        super().__init__(f"{where}: {message}", hint=hint, permanent=permanent)
        self.path = path
        self.line = line


class StoreError(OpsboardError):
    """SQLite could not do what was asked."""

    code = "store"


class NewerSchema(StoreError):
    """The database was written by a newer opsboard and is left untouched."""

    code = "newer_schema"


class StateDirLocked(StoreError):
    """Another daemon owns this state directory."""

    code = "state_dir_locked"


class DiskFull(StoreError):
    """The disk (or the quota) is full: nothing can be written, reads still work."""

    code = "disk_full"


class SuperviseError(OpsboardError):
    """An engine cannot be started, stopped or adopted."""

    code = "supervise"


class NoRoom(SuperviseError):
    """A port, GPU memory or what is left of an earlier life is in the way of a start."""

    code = "no_room"

    def __init__(self, message: str, *, verdict: FatalVerdict, hint: str | None = None) -> None:
        """``verdict`` is WAIT for what may go away by itself, PARK for what a person must change."""
        super().__init__(message, hint=hint, permanent=verdict is FatalVerdict.PARK)
        self.verdict = verdict


class StillThere(NoRoom):
    """Something of an earlier life runs: it is to be ended before another one begins."""


class ControlError(OpsboardError):
    """The control socket refused a request."""

    code = "control"


class NotReachable(ControlError):
    """No daemon answers on the control socket."""

    exit_code = 3
    code = "not_reachable"


class BadRequest(ControlError):
    """The daemon finds that the request, or its configuration file, makes no sense."""

    exit_code = 2
    code = "usage"


class Denied(ControlError):
    """The peer may not do this."""

    code = "denied"


class NotFound(ControlError):
    """What was named does not exist."""

    code = "not_found"


class Conflict(ControlError):
    """Not possible in the present state."""

    code = "conflict"
