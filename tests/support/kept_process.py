"""What Docker and systemd have in common, for the fakes of both: a process kept by a parent that outlives who asked.

``keep`` forks that parent. In the folder it writes ``state.json``, ``log`` (a Unix time, a tab, a line) and
``cgroup.procs``, and it reads ``stop``: the seconds that TERM gets before KILL.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from opsboard.supervise.processes import Family

POLL_S = 0.02
_SUBREAPER = 36


def write(folder: Path, name: str, text: str) -> None:
    """Replace a file in one step."""
    (folder / f"{name}.new").write_text(text)
    (folder / f"{name}.new").replace(folder / name)


def state(folder: Path) -> dict[str, Any]:
    """Return what the parent wrote last; nothing when there is no such folder."""
    try:
        found: dict[str, Any] = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def keep(folder: Path, argv: list[str], env: dict[str, str], cwd: str | None, **more: Any) -> None:
    """Begin ``argv`` below a parent of its own; return when it is executed. Raises OSError when it cannot be."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stop").unlink(missing_ok=True)
    said, tell = os.pipe()
    if os.fork() == 0:
        os.close(said)
        os.setsid()
        if os.fork():
            os._exit(0)
        for fd in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), fd)
        _be_parent(folder, argv, {"env": env, "cwd": cwd}, tell, more)
        os._exit(0)
    os.close(tell)
    number = os.read(said, 16)
    os.close(said)
    if number:
        raise OSError(int(number), os.strerror(int(number)))


def follow(folder: Path, since: float, *, ends: bool) -> None:
    """Print the log from ``since`` on, for ever, or (``ends``) until the process is gone."""
    position = 0
    while True:
        over = ends and state(folder).get("code") is not None
        with contextlib.suppress(OSError), (folder / "log").open("rb") as file:
            file.seek(position)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                position += len(line)
                written, _, text = line.partition(b"\t")
                if float(written) >= since:
                    sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()
        if over:
            return
        time.sleep(POLL_S)


def _be_parent(folder: Path, argv: list[str], world: dict[str, Any], tell: int, more: dict[str, Any]) -> None:
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    try:
        child = subprocess.Popen(
            argv, **world, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        os.write(tell, str(error.errno).encode())
        os._exit(1)
    assert child.stdout is not None
    known: dict[str, Any] = {"pid": child.pid, "code": None, "stop": False, "over": False, **more}
    family = Family(os.getpid())
    family.refresh()
    _show(folder, known, family)
    os.close(tell)
    child.returncode = 0  # we reap everybody ourselves
    _watch(folder, known, family, child.stdout.fileno())


def _watch(folder: Path, known: dict[str, Any], family: Family, pipe: int) -> None:
    selector = selectors.DefaultSelector()
    selector.register(pipe, selectors.EVENT_READ)
    asked: dict[int, int] = {}
    kill_at = float("inf")
    rest = b""
    with (folder / "log").open("ab", buffering=0) as log:
        while True:
            if selector.select(POLL_S) and (data := os.read(pipe, 65536)):
                *lines, rest = (rest + data).split(b"\n")
                log.write(b"".join(b"%.6f\t%s\n" % (time.time(), line) for line in lines))
            with contextlib.suppress(ChildProcessError):
                while (found := os.waitpid(-1, os.WNOHANG))[0]:
                    if found[0] == known["pid"]:
                        known["code"] = os.waitstatus_to_exitcode(found[1])
            family.refresh(full=True)
            if (folder / "stop").exists() and not known["stop"]:
                known["stop"] = True
            ends = known["stop"] or known["code"] is not None
            if ends and kill_at == float("inf"):
                kill_at = time.monotonic() + float((folder / "stop").read_text() if known["stop"] else known["grace"])
            for process in family.members.values() if ends else ():
                killing = time.monotonic() >= kill_at
                if killing or asked.get(process.pid) != process.start_ticks:
                    asked[process.pid] = process.start_ticks
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGKILL if killing else signal.SIGTERM)
            known["over"] = known["code"] is not None and not family.members
            _show(folder, known, family)
            if known["over"]:
                return


def _show(folder: Path, known: dict[str, Any], family: Family) -> None:
    write(folder, "cgroup.procs", "".join(f"{pid}\n" for pid in sorted(family.members)))
    write(folder, "state.json", json.dumps(known))
