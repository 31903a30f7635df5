"""The shim: parent of one engine, so that a daemon may die, be upgraded and come back while the engine serves.

Run as a file (``python -I -S .../shim.py BUNDLE_DIR``), detached, by :mod:`opsboard.supervise.launch`. Standard library
only and no pathlib: it lives as long as its engine and stays below 15 MB. It speaks protocol 1 for ever
(docs/supervision.md).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from typing import Any

if not __package__:  # run as a file, without site-packages: our folder comes last, so that it shadows nothing
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))  # noqa: PTH100, PTH120

from opsboard.supervise import bundle, manners
from opsboard.supervise.ending import Ending
from opsboard.supervise.processes import Family, alive, boot_id, look, tagged
from opsboard.supervise.rotate import rotate
from opsboard.supervise.shim_socket import ShimSocket

IDLE_S = 1.0
ENDING_S = 0.1
DESCENDANTS_LIMIT = 512
PASSING = frozenset({
    *(errno.EAGAIN, errno.EINTR, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE),
    *(errno.ENOSPC, errno.EDQUOT, errno.ETXTBSY),
})  # fmt: skip
"""What time may cure: a host that is full or busy, a program that is just being installed (ETXTBSY)."""
_PR_SET_NAME = 15  # prctl(2)
_PR_SET_CHILD_SUBREAPER = 36


class Refused(Exception):
    """The engine was not started; the text says why. ``passing``: time may cure it."""

    def __init__(self, text: str, why: OSError | None = None) -> None:
        """``why`` is what the kernel said."""
        super().__init__(text)
        self.passing = passes(why)


class Occupied(Refused):
    """Something of the engine's last life is still there."""

    def __init__(self, text: str) -> None:
        """It may go."""
        super().__init__(text)
        self.passing = True


def passes(error: BaseException | None) -> bool:
    """Tell whether time may cure what kept an engine from starting."""
    return error.passing if isinstance(error, Refused) else isinstance(error, OSError) and error.errno in PASSING


class Shim:
    """One engine's parent: reaps, records, rotates, answers, ends."""

    def __init__(self, directory: str, launch: dict[str, Any]) -> None:
        """Start the engine that ``launch`` describes. Raises Refused."""
        self.directory = directory
        self._launch = launch
        self._log = f"{directory}/{bundle.LOG}"
        self._family = Family(os.getpid())
        self._ending: Ending | None = None
        self._asked_by: str | None = None
        self._exit: dict[str, Any] | None = None
        self._signal: int | None = None
        self._rotations = 0
        self._selector = selectors.DefaultSelector()
        self._wake, wake_fd = socket.socketpair()
        self._wake.setblocking(False)
        wake_fd.setblocking(False)
        self._wake_end = wake_fd
        signal.set_wakeup_fd(wake_fd.fileno(), warn_on_full_buffer=False)
        # Handlers, not SIG_IGN: an ignored signal would stay ignored in the engine.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self.pid = self._start()

    def hello(self) -> dict[str, Any]:
        """Who we are; the first line of every conversation."""
        return {"ok": True, "protocol": bundle.PROTOCOL, "shim_pid": os.getpid(), **self._identity}

    def run(self) -> None:
        """Serve until the last process of the life is gone."""
        while not (self._exit and not self._family.members):
            self._wait(ENDING_S if self._ending else IDLE_S)
            self._reap()
            if self._signal and not self._ending:
                self._stop(self._launch["stop_timeout_s"], f"{signal.Signals(self._signal).name} to the shim")
            changed = self._family.refresh(full=self._ending is not None)
            if self._ending:
                self._ending.step(self._family.members.values(), time.monotonic())
            self._socket.ensure()
            self._rotate()
            if changed:
                self._record_status()
            if self._exit and changed:
                self._record_exit()
        self._record_status()
        self._record_exit()
        self._socket.close()

    # --- start ---

    def _start(self) -> int:
        launch = self._launch
        self._identity = {
            "engine": launch["engine"],
            "instance": launch["instance"],
            "life": launch["life"],
            "shim": _record(os.getpid()),
            "process": None,
            "boot_id": boot_id(),
            "argv_sha256": launch["argv_sha256"],
            "url": launch["url"],
            "log": self._log,
            "log_offset": _size(self._log),
            "socket": launch["socket"],
            "started": bundle.wall(),
            "stop_timeout_s": launch["stop_timeout_s"],
            "log_bytes": launch["log_bytes"],
            "log_files": launch["log_files"],
        }
        for name in (bundle.EXIT, bundle.STATUS, bundle.READY):
            bundle.remove(self.directory, name)
        # Before the engine is there: whoever finds our remains can look for the mark of this life.
        self._record_identity()
        try:
            self._socket = ShimSocket(launch["socket"], self._selector, self._answer)
        except OSError as error:
            raise Refused(f"{launch['socket']}: cannot listen: {error.strerror}", error) from error
        try:
            pid = self._spawn()
        except Refused as refused:
            self._socket.close()
            self._exit = self._ended(None, str(refused)) | {"passing": refused.passing}
            self._record_exit()
            raise
        self._identity["process"] = _record(pid)
        with contextlib.suppress(OSError):  # the mark still tells whose it is
            self._record_identity()
        self._family.refresh()
        self._record_status()
        return pid

    def _spawn(self) -> int:
        launch = self._launch
        wanted = manners.parse(launch.get("manners"))
        failed = manners.make_room(wanted)
        try:
            log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Refused(f"{self._log}: cannot be opened: {error.strerror}", error) from error
        try:
            child = subprocess.Popen(
                launch["argv"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=launch["env"],
                cwd=launch["cwd"],
                user=launch["uid"],
                group=launch["gid"],
                extra_groups=launch["groups"],
                start_new_session=True,
                umask=-1 if wanted.umask is None else wanted.umask,
                preexec_fn=(lambda: manners.keep_to(wanted)) if wanted.limits else None,  # noqa: PLW1509  one thread
            )
        except OSError as error:
            raise Refused(_why(launch, error), error) from error
        finally:
            os.close(log)
        for failure in failed + manners.give(child.pid, wanted):
            sys.stderr.write(f"{failure}\n")
        child.returncode = 0  # we reap everybody ourselves
        return child.pid

    # --- while it lives ---

    def _wait(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._wake:
                with contextlib.suppress(BlockingIOError):
                    while self._wake.recv(4096):
                        pass
            else:
                self._socket.work(key)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.pid:
                    self._family.refresh(full=True)
                    self._exit = self._ended(os.waitstatus_to_exitcode(status))
                    self._record_status()  # first: whoever sees the exit must see who is left
                    self._record_exit()

    def _ended(self, code: int | None, message: str | None = None) -> dict[str, Any]:
        return {
            "protocol": bundle.PROTOCOL,
            "instance": self._identity["instance"],
            "code": code,
            "ended": bundle.wall(),
            "asked_by": self._asked_by,
            "message": message,
        }

    def _rotate(self) -> None:
        with contextlib.suppress(OSError):
            if rotate(self._log, self._launch["log_bytes"], self._launch["log_files"]):
                self._rotations += 1

    def _on_signal(self, number: int, _frame: object) -> None:
        """Somebody ends the shim, as a shutdown of the host does: then the engine is stopped as an operator would."""
        if number in {signal.SIGTERM, signal.SIGINT}:
            self._signal = number

    def _stop(self, grace_s: float, by: str) -> None:
        now = time.monotonic()
        if self._ending:
            self._ending.hurry(grace_s, now)
            return
        self._asked_by = by
        self._ending = Ending(self.pid, grace_s, now)
        self._record_status()

    # --- what others are told ---

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        operation = request.get("op")
        if operation == "hello":
            return self.hello()
        if operation == "status":
            return {"ok": True, **self._status()}
        if operation == "descendants":
            return {"ok": True, "processes": self._processes()}
        if operation == "stop":
            grace_s = request.get("grace_s", self._launch["stop_timeout_s"])
            if isinstance(grace_s, bool) or not isinstance(grace_s, int | float) or not 0 <= grace_s < 1e6:
                return {"ok": False, "error": "grace_s must be seconds, 0 or more"}
            self._stop(float(grace_s), str(request.get("by", "an operator"))[:200])
            return {"ok": True, "state": "stopping"}
        return {"ok": False, "error": f"unknown op {str(operation)[:40]!r}; known: hello, status, descendants, stop"}

    def _status(self) -> dict[str, Any]:
        state = "stopping" if self._ending else "exited" if self._exit else "running"
        return {
            "protocol": bundle.PROTOCOL,
            "instance": self._identity["instance"],
            "state": state,
            "killed": bool(self._ending and self._ending.killed_at),
            "exit": self._exit,
            "rotations": self._rotations,
        }

    def _processes(self) -> list[dict[str, Any]]:
        return [process.record() for process in sorted(self._family.members.values())[:DESCENDANTS_LIMIT]]

    def _record_identity(self) -> None:
        record = {"protocol": bundle.PROTOCOL} | self._identity
        bundle.write(self.directory, bundle.IDENTITY, record, sync=True)

    def _record_status(self) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end the parent of an engine
            bundle.write(self.directory, bundle.STATUS, self._status() | {"processes": self._processes()})

    def _record_exit(self) -> None:
        if self._exit:
            with contextlib.suppress(OSError):
                record = self._exit | {"left": self._processes()}
                bundle.write(self.directory, bundle.EXIT, record, sync=True)


def main(arguments: list[str]) -> int:
    """Detach, start the engine of the bundle named by the only argument, print one line of JSON and live with it."""
    if len(arguments) != 1:
        sys.stderr.write("usage: opsboard shim BUNDLE_DIR (internal: the daemon starts it)\n")
        return 2
    if os.fork():
        os._exit(0)  # the daemon reaps this one at once; the shim belongs to nobody
    os.setsid()
    # uvloop hands a child a second copy of its pipe: kept open, the daemon would wait for the shim's end
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    _become_parent()
    try:
        shim = Shim(*_take(arguments[0]))
    except (Refused, OSError) as error:
        _report({"ok": False, "error": str(error), "passing": passes(error)})
        return 1
    _report(shim.hello())
    shim.run()
    return 0


def _take(directory: str) -> tuple[str, dict[str, Any]]:
    """Lock the bundle and take its launch record, which so starts one engine and never a second. Raises Refused."""
    directory = os.path.abspath(directory)  # noqa: PTH100  pathlib costs 1 MB
    try:
        lock = os.open(f"{directory}/{bundle.LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until we end: nobody closes this descriptor
    except BlockingIOError:
        raise Occupied("another shim runs this engine") from None
    except OSError as error:
        raise Refused(f"{directory}: {error.strerror}", error) from error
    try:
        _check_last_life(directory)
    except OSError as error:
        raise Occupied(f"it cannot be found out whether the engine still runs: {error}") from error
    launch = bundle.read(directory, bundle.LAUNCH)
    if launch is None:
        raise Refused(f"{directory}/{bundle.LAUNCH}: nothing to launch")
    if not bundle.remove(directory, bundle.LAUNCH):
        raise Refused("the daemon has called it off")
    return directory, launch


def _check_last_life(directory: str) -> None:
    """Raise Occupied when any of it runs, OSError when that cannot be found out."""
    before = bundle.read(directory, bundle.IDENTITY)
    if before and before.get("boot_id") == boot_id():
        process = before.get("process") or {}
        if alive(process.get("pid"), process.get("start_ticks")):
            raise Occupied(f"the engine still runs as pid {process['pid']}")
        if carriers := tagged(str(before.get("instance"))):
            raise Occupied(f"process {carriers[0].pid} of the engine's last life still runs")


def _become_parent() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NAME, b"opsboard-shim", 0, 0, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _report(line: dict[str, Any]) -> None:
    """Tell the daemon, if it is still there, and close the pipe to it."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(line).encode() + b"\n")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


def _why(launch: dict[str, Any], error: OSError) -> str:
    """Say in words why the command could not be started."""
    program, cwd = launch["argv"][0], launch["cwd"]
    if cwd is not None and not os.path.isdir(cwd):  # noqa: PTH112  see _take
        return f"working directory {cwd} does not exist"
    if isinstance(error, FileNotFoundError):
        where = "no such file" if "/" in program else f"not in PATH={launch['env'].get('PATH', '')}"
        return f"command not found: {program} ({where})"
    if isinstance(error, PermissionError):
        return f"cannot execute {program}: permission denied"
    return f"cannot execute {program}: {error.strerror}"


def _record(pid: int) -> dict[str, Any]:
    """Name a process; one that has ended already, or cannot be looked at, has only its pid, which names nobody."""
    try:
        process = look(pid)
    except OSError:
        process = None
    return process.record() if process else {"pid": pid, "start_ticks": None}


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116  see _take
    except OSError:
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
