"""Words with systemd about one transient unit, through its own programs: systemd-run, systemctl."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from opsboard.core.errors import SuperviseError
from opsboard.core.model import Record
from opsboard.supervise.runners.commands import Said, run

ASK_S = 5.0
"""What systemctl may take; it is 0.01 s on an idle host."""
_ROOT = 0
BOOTED = Path("/run/systemd/system")
"""Exists where systemd is the first process (sd_booted(3))."""
_UNIT_WORD = re.compile(r"[^A-Za-z0-9_.]")
_PID = re.compile(r"\bpid=(\d+)")
_CLD_EXITED = "1"
_PROPERTIES = (
    *("LoadState", "ActiveState", "SubState", "Description", "InvocationID", "ControlGroup"),
    *("MainPID", "ExecMainPID", "ExecMainCode", "ExecMainStatus", "Result", "ExecStop"),
)
_EXITS = {200: "its working directory cannot be entered", 203: "it cannot be executed", 217: "no such user"}
"""What the child of systemd says when it does not get as far as the program (systemd.exec(5), process exit codes)."""
HIERARCHIES = ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified")
"""Where the control groups of units lie: version 2, version 1, both."""


class Unit(Record, frozen=True, kw_only=True):
    """What systemd says of a unit. One that is gone has the ``active`` state "inactive" and nothing else."""

    name: str
    loaded: bool = False
    active: str = "inactive"
    sub: str = "dead"
    description: str = ""
    invocation: str = ""
    cgroup: str | None = None
    """Its directory in the file system, while it has one."""
    main_pid: int | None = None
    last_pid: int | None = None
    """Its main process, running or not."""
    code: int | None = None
    """How that ended: a returncode; None as long as it has not."""
    result: str = "success"
    stop_asked: bool = False
    """Somebody asked systemd to stop it: only then its ExecStop= is run."""

    @property
    def runs(self) -> bool:
        """True while processes of it are there, or about to be."""
        return self.active in {"active", "activating", "deactivating", "reloading"} and self.sub != "exited"

    @property
    def why(self) -> str | None:
        """What the result says that the returncode does not."""
        return None if self.result in {"success", "exit-code", "signal"} else f"systemd says: {self.result}"


def name_of(engine: str) -> str:
    """Return what the unit of an engine is called; `-` would make slices of the name where slices are meant."""
    return f"opsboard-{_UNIT_WORD.sub('-', engine)}.service"


def manager() -> tuple[str, ...]:
    """Return which systemd is asked: that of the host, or that of the daemon's user when it is not root's."""
    return () if os.geteuid() == _ROOT else ("--user",)


async def systemctl(*words: str, deadline_s: float = ASK_S) -> Said:
    """Ask systemd. Raises SuperviseError: systemctl is not there."""
    return await run(("systemctl", *manager(), "--no-ask-password", *words), deadline_s=deadline_s)


async def show(name: str) -> Unit:
    """Return what systemd says of a unit. Raises SuperviseError: it says nothing."""
    said = await systemctl("show", name, f"--property={','.join(_PROPERTIES)}")
    if not said.ok:
        raise _silent(name, said)
    return parse(name, said.text)


def _silent(name: str, said: Said) -> SuperviseError:
    if BOOTED.is_dir():
        return SuperviseError(f"systemctl show {name}: {said}", hint="systemctl status", permanent=False)
    what = f"this machine does not run systemd (there is no {BOOTED}); systemctl {said}"
    return SuperviseError(what, hint='`runner` = "shim" does without')


def parse(name: str, text: str) -> Unit:
    """Return what ``systemctl show`` printed."""
    found = dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)
    if found.get("LoadState") != "loaded":
        return Unit(name=name)
    exited = found.get("ExecMainCode", "0")
    status = int(found.get("ExecMainStatus") or 0)
    code = None if exited in {"", "0"} else status if exited == _CLD_EXITED else -status
    stopping = _PID.search(found.get("ExecStop", ""))
    return Unit(
        name=name,
        loaded=True,
        active=found.get("ActiveState", "inactive"),
        sub=found.get("SubState", "dead"),
        description=found.get("Description", ""),
        invocation=found.get("InvocationID", ""),
        cgroup=_directory(found.get("ControlGroup", "")),
        main_pid=int(found.get("MainPID") or 0) or None,
        last_pid=int(found.get("ExecMainPID") or 0) or None,
        code=code,
        result=found.get("Result", "success"),
        stop_asked=stopping is not None and stopping[1] != "0",
    )


async def begin(name: str, words: Sequence[str], *, settings: Sequence[str], environment: Path) -> None:
    """Start a transient unit and return when its program is executed. ``words`` is the program with its arguments.

    Raises:
        SuperviseError: it was not, and why.
    """
    properties = [
        *("Type=exec", "RemainAfterExit=yes", "KillMode=control-group", "Restart=no", "OOMPolicy=continue"),
        "ExecStop=/bin/true",
        # Not there any more when ExecStop= is run, which must not fail; whoever starts it again gets no half an engine.
        *(f"EnvironmentFile=-{environment}", f"AssertFileNotEmpty={environment}"),
        *settings,
    ]
    options = [f"--property={one}" for one in properties]
    # systemd would put variables of the unit's environment in their place
    literal = [word.replace("$", "$$") for word in words]
    said = await run(
        ("systemd-run", *manager(), "--no-ask-password", "--quiet", f"--unit={name}", *options, "--", *literal),
        deadline_s=4 * ASK_S,
    )
    if said.ok:
        return
    unit = await show(name)
    if unit.active == "failed" and unit.code in _EXITS:
        await forget(name)
        raise SuperviseError(f"{words[0]}: {_EXITS[unit.code]} (systemd says {unit.code})", hint="correct `command`")
    raise SuperviseError(f"systemd-run {said}", hint=f"systemctl status {name}", permanent=False)


async def forget(name: str) -> None:
    """Let systemd forget a unit whose processes are gone, however it ended; raises SuperviseError as :func:`show`."""
    unit = await show(name)
    if unit.loaded and unit.active == "active":
        await systemctl("stop", name)
    if unit.loaded:
        await systemctl("reset-failed", name)


def _directory(group: str) -> str | None:
    """Return where a control group lies in the file system; None without one."""
    if not group or group == "/":
        return None
    places = (Path(root + group) for root in HIERARCHIES)
    return next((str(place) for place in places if (place / "cgroup.procs").is_file()), None)
