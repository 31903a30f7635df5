"""EngineCore: the process that holds the scheduler, under the name the real one has.

It plays its part of the start-up, then runs the model in real time: take in what the front end sent, run a step, sleep
until the step is over, tell. Like the real one it does not watch its parent: after ``kill -9`` of the front end it
lives on as an orphan, and its own death is for the front end to notice.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import NoReturn

from opsboard.core.clock import Clock
from opsboard.sim.logs import ERR, Log
from opsboard.sim.model import EngineModel
from opsboard.sim.options import Setup
from opsboard.sim.pause import Pause
from opsboard.sim.pipe import Abort, Add, ClearFault, CoreEnd, Emptied, Ready, Returned, SetFault, Stepped, Utility
from opsboard.sim.startup import CORE, FATAL, script

TITLE = "VLLM::EngineCore"
_PR_SET_NAME = 15
_ACTIVE_POLL_S = 0.05
"""How often faults that act by themselves get a turn on an idle engine."""
_SELF_ACTING = ("hang", "host_leak", "log_spam", "leak_per_hour")
_NEVER_READY_AT = 0.5
_HOST_LEAK_LIMIT = 2 * 1024**3
"""``host_leak`` ends here: it is to be seen, not to take the machine down."""


def run(setup: Setup, sock: socket.socket, clock: Clock, began: float) -> NoReturn:
    """Be EngineCore until a signal ends it. Call it in a forked child; ``began`` is the start's monotonic instant."""
    code = 1
    try:
        set_title(TITLE)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave)
        EngineCore(setup, sock, clock).serve(began)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  nothing of the parent's stack may run in the child
        traceback.print_exc()
    finally:
        os._exit(code)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def set_name(name: str) -> None:
    """Show ``name``, of which the kernel keeps 15 bytes, as this process's name; its command line stays."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def set_title(title: str) -> None:
    """Show ``title`` as this process's name and command line, as setproctitle does for vLLM."""
    set_name(title)
    # Fields 48 and 49 of /proc/PID/stat: where the kernel reads the command line from (proc(5)).
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    begin, end = int(fields[45]), int(fields[46])
    if 0 < begin < end:
        ctypes.memset(begin, 0, end - begin)
        text = title.encode()[: end - begin - 1]
        ctypes.memmove(begin, text, len(text))


class EngineCore:
    """The process's state: the model, the pipe, and what its faults have piled up."""

    def __init__(self, setup: Setup, sock: socket.socket, clock: Clock) -> None:
        """Nothing runs yet."""
        self._setup = setup
        self._clock = clock
        self._faults = setup.faults
        self._model = EngineModel(setup.shape, setup.faults, setup.options.seed)
        self._pause = Pause(self._model)
        self._asked: list[Utility] = []
        self._pipe = CoreEnd(sock)
        self._log = Log(setup.profile, CORE, clock)
        self._hoard: list[bytes] = []
        self._last_turn: float | None = None
        self._due = {"host_leak": 0.0, "log_spam": 0.0}

    def serve(self, began: float) -> NoReturn:
        """Start up, then serve for ever. Ends by SystemExit."""
        self._start(began)
        self._pipe.send(Ready())
        while True:
            self._take_in(0.0 if self._busy else self._patience())
            self._act()
            self._answer()
            if self._busy:
                result = self._model.step(self._now())
                time.sleep(max(0.0, result.ends - self._now()))
                self._pipe.send(Stepped(result))

    @property
    def _busy(self) -> bool:
        return self._model.can_step and not self._pause.frozen and "hang" not in self._faults

    def _now(self) -> float:
        return self._clock.now().mono

    def _patience(self) -> float | None:
        return _ACTIVE_POLL_S if self._asked or any(name in self._faults for name in _SELF_ACTING) else None

    # -- starting

    def _start(self, began: float) -> None:
        seconds = self._setup.options.startup_seconds
        bar_open = False
        for line in script(self._setup, ""):
            if line.role != CORE:
                continue
            if "never_ready" in self._faults and line.at > _NEVER_READY_AT:
                while True:
                    signal.pause()
            if "fail_start" in self._faults and line.at > _NEVER_READY_AT:
                self._log.write(FATAL, "core.py:700", "ERROR")
                raise SystemExit(1)
            time.sleep(max(0.0, began + line.at * seconds - self._now()))
            if line.source:
                if bar_open:
                    self._log.raw("\n", ERR)
                self._log.write(line.text, line.source)
            else:
                self._log.raw(f"\r{line.text}", ERR)
            bar_open = not line.source
        time.sleep(max(0.0, began + seconds - self._now()))

    # -- serving

    def _take_in(self, timeout: float | None) -> None:
        aborted = False
        if self._pipe.orphaned and not self._model.has_work:
            time.sleep(timeout if timeout is not None else 3600.0)
        for message in self._pipe.receive(timeout):
            if isinstance(message, Add):
                with contextlib.suppress(ValueError):  # the front end has checked that it fits
                    self._model.add(message.request, message.at)
            elif isinstance(message, Abort):
                aborted |= self._model.abort(message.id)
            elif isinstance(message, SetFault):
                self._faults.set(message.name, message.value)
            elif isinstance(message, ClearFault):
                self._faults.clear(message.name)
            elif isinstance(message, Utility):
                self._asked.append(message)
        if aborted and not self._model.has_work and self._setup.profile.stats_after_abort:
            self._pipe.send(Emptied(self._model.stats()))

    def _answer(self) -> None:
        """Answer what was asked between two steps; what has to wait is asked again after the next one."""
        if "hang" in self._faults:
            return
        for utility in self._asked[:]:
            value = self._pause.call(utility)
            if value is not None:
                self._asked.remove(utility)
                self._pipe.send(Returned(utility.id, value))

    # -- faults

    def _act(self) -> None:
        """Let the faults that act by themselves act for the time since the last turn."""
        now = self._now()
        passed = 0.0 if self._last_turn is None else min(now - self._last_turn, 1.0)
        self._last_turn = now
        if "engine_death" in self._faults:
            self._log.write("EngineCore encountered a fatal error.", "core.py:700", "ERROR")
            self._log.write(
                "RuntimeError: CUDA error: an illegal memory access was encountered", "core.py:700", "ERROR"
            )
            raise SystemExit(1)
        if not self._model.has_work:
            self._model.tick(now)
        self._due["host_leak"] += passed * self._faults.value("host_leak") * 2**20 / 60.0
        self._due["log_spam"] += passed * self._faults.value("log_spam") * 2**20
        self._leak_memory()
        self._spam()

    def _leak_memory(self) -> None:
        chunk = 2**18
        while self._due["host_leak"] >= chunk:
            self._due["host_leak"] -= chunk
            if len(self._hoard) * chunk < _HOST_LEAK_LIMIT:
                self._hoard.append(b"\x01" * chunk)  # written to, so that it is resident

    def _spam(self) -> None:
        line = "Received request: this line is one of very many " + "x" * 200
        count = int(self._due["log_spam"] / len(line))
        self._due["log_spam"] -= count * len(line)
        if count:
            self._log.write("\n".join([line] * count), "async_llm.py:270")
