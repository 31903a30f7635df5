"""One engine under a daemon that is killed again and again, and what must be true of it after every crash."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from opsboard.supervise.processes import Process, everybody, look, send
from tests.support.crash_daemon import MARK, Settings
from tests.support.herd import Herd, connects
from tests.support.waiting import NeverHappened, wait_until

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20.0


class Daemon:
    """The daemon's side, and all it has said."""

    def __init__(self, herd: Herd, settings: Settings) -> None:
        herd.state_dir.mkdir(mode=0o700, exist_ok=True)
        words = (str(herd.state_dir), str(herd.runtime_dir), msgspec.json.encode(settings).decode())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.crash_daemon", *words],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError):
            for line in self.process.stdout:
                self.lines.append(line.strip())

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def state(self) -> str | None:
        """What it said last of the engine's state."""
        return next((line.split()[1] for line in reversed(self.lines) if line.startswith("life")), None)

    def say(self, word: str) -> int:
        """Say a word; return how much it had said before."""
        assert self.process.stdin is not None
        before = len(self.lines)
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return before

    def until(self, words: str | tuple[str, ...], since: int = 0, deadline: float = PATIENCE_S) -> str:
        """Return the first line after ``since`` that begins with these words."""

        def found() -> str | None:
            assert self.alive or self._reader.is_alive(), f"the daemon's side ended before {words!r}"
            return next((line for line in self.lines[since:] if line.startswith(words)), None)

        line = wait_until(found, deadline, f"the daemon says {words!r} after {self.lines[since:]}")
        assert line is not None
        return line

    def wish(self, word: str) -> None:
        """Say a wish; return when it is on the disk."""
        self.until(f"wished {'down' if word == 'stop' else 'up'}", self.say(word))

    def asks(self, word: str) -> bool:
        """Say a word and wait for its end; False when it was refused."""
        return self.until(("done", "refused"), self.say(word)).startswith("done")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Scene:
    """An engine ``a`` and the daemons that follow each other."""

    def __init__(self, herd: Herd, settings: Settings) -> None:
        self.herd = herd
        self.settings = settings
        self.daemon = Daemon(herd, settings)
        self.daemon.until("adopted")

    # --- what tests do ---

    def new_daemon(self) -> None:
        """Let another daemon follow one that was killed."""
        self.daemon = Daemon(self.herd, self.settings)
        self.daemon.until("adopted")

    def end(self) -> None:
        self.release()
        self.daemon.kill()

    def hold(self, step: str) -> None:
        """Let nobody get further than this step."""
        fresh = self.herd.state_dir / "hold.new"
        fresh.write_text(step)
        fresh.rename(self.herd.state_dir / "hold")

    def release(self) -> None:
        (self.herd.state_dir / "hold").unlink(missing_ok=True)

    def jump(self, seconds: float) -> None:
        """Put the wall clock of all daemons forward."""
        fresh = self.herd.state_dir / "clock.new"
        fresh.write_text(str(seconds))
        fresh.rename(self.herd.state_dir / "clock")

    def wait_for(self, state: str) -> None:
        self._wait(lambda: self.daemon.state == state, state)

    def wait_for_step(self, step: str, after: str | None) -> None:
        """Wait until a later transaction than ``after`` has come to a step; at ``serving`` it is over."""

        def there() -> bool:
            found = self.transaction()
            return found.get("id") != after and any(one["name"] == step for one in found["steps"])

        self._wait(there, f"the step {step}")

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        try:
            wait_until(condition, PATIENCE_S, what)
        except NeverHappened as error:
            told = "\n".join(map(str, self.timeline()[-12:]))
            raise NeverHappened(f"{error}\n{told}\n{self.daemon.lines[-30:]}") from None

    def kill(self, victim: str) -> bool:
        """Kill -9 one of ``daemon``, ``shim``, ``api``, ``core``, ``worker``; False when it is not there."""
        if victim == "daemon":
            self.daemon.kill()
            return True
        process = self.victim(victim)
        if process is None or not send(process, signal.SIGKILL):
            return False
        wait_until(lambda: not process.same_as(look(process.pid)), what=f"the end of {victim}")
        return True

    # --- what there is ---

    @property
    def port(self) -> int:
        return int(str(self.settings.value).split()[0])

    def victim(self, name: str) -> Process | None:
        if name == "shim":
            return next(iter(self.shims()), None)
        pid = self.family().get(name)
        return next((process for process, _ in self.marked() if process.pid == pid), None)

    def family(self) -> dict[str, int]:
        """Return the pids of the newest life's API server and, of an engine that has them, of core and worker."""
        if self.settings.mode != "three_deep":
            return dict(zip(("api",), self.herd.births("a")[-1:], strict=False))
        with contextlib.suppress(OSError):
            found: dict[str, int] = json.loads((self.herd.work("a") / "family").read_text())
            return found
        return {}

    def transaction(self) -> dict[str, Any]:
        with contextlib.suppress(OSError):
            found: dict[str, Any] = self.herd.record("a", "transaction.json")["transaction"]
            return found
        return {}

    def marked(self) -> list[tuple[Process, str]]:
        """Return the living processes of all lives of the engine, each with its life."""
        mine = f"{MARK}={self.herd.state_dir}".encode()
        return [(one, life) for one in everybody().values() if (life := _life_of(one.pid, mine)) is not None]

    def shims(self) -> list[Process]:
        place = os.fsencode(self.herd.bundle("a"))
        return [one for one in everybody().values() if place in _arguments(one.pid)]

    def rows(self, question: str) -> list[tuple[Any, ...]]:
        """Ask ``state.db``."""
        where = f"file:{self.herd.state_dir / 'state.db'}?mode=ro"
        with contextlib.closing(sqlite3.connect(where, uri=True, timeout=5.0)) as connection:
            return connection.execute(question).fetchall()

    def timeline(self) -> list[tuple[str, str]]:
        """Return every state since the beginning, and its reason with its message."""
        rows = self.rows("SELECT state, reason, message FROM transitions ORDER BY id")
        return [(state, " | ".join(filter(None, (reason, message)))) for state, reason, message in rows]

    # --- what must be true ---

    def is_sound(self, *, up: bool) -> None:
        """Wait until the engine is as it was wished, all three processes of it, then look at everything."""
        state = "ready" if up else "stopped"
        self._wait(lambda: self.daemon.state == state and (not up or self.is_whole()), f"{state} and whole")
        births = self.herd.births("a")
        living = self.marked()
        assert not self.herd.doubles("a"), "two lives had the GPU at once"
        if self.settings.mode == "three_deep":
            assert len({process.group for process, _ in living}) == int(up), f"process groups of {living}"
        assert len({life for _, life in living}) == int(up), f"lives of {living}"
        if up:
            assert births[-1] in {process.pid for process, _ in living}, "what serves is not what began last"
            wait_until(lambda: connects(self.port), what="it serves")
            assert len(self.shims()) <= 1, "two shims"
        else:
            wait_until(lambda: not self.shims(), what="the end of the shim")
        wish = self.rows("SELECT wish FROM wishes WHERE engine = 'a'")
        assert wish == [("up" if up else "down",)], "a lost wish"
        self._is_told(state)

    def is_whole(self) -> bool:
        """All processes of the newest life are there."""
        family = self.family()
        return bool(family) and set(family.values()) <= {process.pid for process, _ in self.marked()}

    def _is_told(self, state: str) -> None:
        wait_until(lambda: self.timeline()[-1][0] == state, what=f"{state} on the timeline {self.timeline()[-6:]}")
        unexplained = [(came, said) for came, said in self.timeline()[1:] if not said and came != "stopped"]
        assert not unexplained, f"states without a reason: {self.timeline()}"
        last = self.transaction()
        assert last["outcome"] is not None, f"a transaction that never ended: {last}"
        ended = f"SELECT outcome FROM actions WHERE id = '{last['id']}'"
        wait_until(lambda: self.rows(ended) == [(last["outcome"],)], what=f"{last['id']} in the record of actions")


def _life_of(pid: int, mark: bytes) -> str | None:
    variables = _read(f"/proc/{pid}/environ").split(b"\0")
    if mark not in variables or look(pid) is None:
        return None
    return next((one.decode() for one in variables if one.startswith(b"OPSBOARD_INSTANCE=")), "")


def _arguments(pid: int) -> list[bytes]:
    return _read(f"/proc/{pid}/cmdline").split(b"\0")


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
