"""An engine of three processes, as vLLM's are: ``python -S three_deep.py PORT HOLD [LOG_BYTES]``.

The API server is the parent of EngineCore, which is the parent of a worker. The last two hold the "GPU": a lock in the
working directory. A core that does not get it writes to ``doubles``, says what vLLM says, and dies. They die as vLLM's
do: without its core an API server exits with 0; a core and a worker outlive a killed API server and keep the GPU.
``births`` has the pid of every API server, ``family`` the three of the present life. While the file HOLD says ``start``
or ``end``, that is as far as it gets. With LOG_BYTES it writes until its log takes no more, as on a full disk.
"""

import contextlib
import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
import time

POLL_S = 0.01
asked: list[int] = []


def held(hold: str, step: str) -> bool:
    """Tell whether we are to wait in this step."""
    try:
        with open(hold, encoding="utf-8") as file:  # noqa: PTH123  pathlib is slow to import
            return file.read() == step
    except OSError:
        return False


def say(line: str) -> None:
    """Write to the log, if it takes anything."""
    with contextlib.suppress(OSError):
        os.write(1, f"{line}\n".encode())


def flood(limit: int) -> None:
    """Write until the log is full. Whatever writes after us fails, as does every child of ours."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with contextlib.suppress(OSError):
        while True:
            os.write(1, b"x" * 99 + b"\n")


def append(file: str) -> None:
    """Add our pid to a file."""
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{os.getpid()}\n".encode())
    os.close(fd)


def wait_to_end(hold: str) -> None:
    """Wait as long as nobody is to end."""
    while held(hold, "end"):
        time.sleep(POLL_S)


def work_for_ever(hold: str) -> None:
    """Be a worker."""

    def end(*_: object) -> None:
        wait_to_end(hold)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        time.sleep(600)


def be_core(tell: int, hold: str) -> None:
    """Hold the GPU with a worker, until one of us dies."""
    gpu = os.open("gpu", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(gpu, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        append("doubles")
        say("ValueError: Free memory on device cuda:0 (1.0/80.0 GiB) on startup is less than desired")
        os._exit(1)
    worker = os.fork()
    if worker == 0:
        work_for_ever(hold)

    def end(*_: object) -> None:
        wait_to_end(hold)
        os.kill(worker, signal.SIGTERM)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    os.write(tell, f"{worker}\n".encode())
    os.close(tell)
    os.waitpid(worker, 0)
    os._exit(1)


def has_ended(core: int) -> bool:
    """Tell whether EngineCore has."""
    return os.waitpid(core, os.WNOHANG)[0] == core


def end(core: int, hold: str) -> None:
    """End in order."""
    while held(hold, "end") and not has_ended(core):
        time.sleep(POLL_S)
    os.kill(core, signal.SIGTERM)
    os._exit(0)


def main(port: str, hold: str, log_bytes: str = "") -> None:
    """Be the API server."""
    append("births")
    if log_bytes:
        flood(int(log_bytes))
    said, tell = os.pipe()
    core = os.fork()
    if core == 0:
        os.close(said)
        be_core(tell, hold)
    os.close(tell)
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    worker = os.read(said, 64).decode().strip()
    if not worker:
        sys.exit(1)
    with open("family.new", "w", encoding="utf-8") as file:  # noqa: PTH123  see held
        json.dump({"api": os.getpid(), "core": core, "worker": int(worker)}, file)
    os.replace("family.new", "family")  # noqa: PTH105  see held
    say("INFO Starting to load model tiny")
    while held(hold, "start") and not asked and not has_ended(core):
        time.sleep(POLL_S)
    with socket.create_server(("127.0.0.1", int(port))) as server:
        say("INFO Application startup complete.")
        while True:
            if asked:
                end(core, hold)
            if has_ended(core):
                say("ERROR EngineDeadError: EngineCore encountered an issue")
                os._exit(0)
            if select.select([server], [], [], POLL_S)[0]:
                server.accept()[0].close()


main(*sys.argv[1:])
