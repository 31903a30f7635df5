"""A small engine for tests of supervision, a mode for each misbehaviour: ``python -S small_engine.py MODE [VALUE]``.

Every life appends its pid to ``births`` in its working directory and holds a lock there: a second life beside it
writes to ``doubles``.
"""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time

SLEEPER = (
    "import signal, time; signal.signal(signal.SIGTERM, {handler}); print('child up', flush=True); time.sleep(600)"
)


def child(handler: str = "signal.SIG_DFL", *, own_session: bool = False) -> None:
    """Start a child and wait until it is up."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", SLEEPER.format(handler=handler)],
        stdout=subprocess.PIPE,
        start_new_session=own_session,
    )
    assert process.stdout is not None
    process.stdout.readline()


def append(file: str) -> None:
    """Add our pid to a file."""
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{os.getpid()}\n".encode())
    os.close(fd)


def take_time(seconds: float) -> None:
    """End, but not at once."""
    time.sleep(seconds)
    sys.exit(0)


def be_born() -> int:
    """Write down that we live, and who else does."""
    append("births")
    lock = os.open("alone", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        append("doubles")
    return lock


def serve(port: int) -> None:
    """Answer TCP connections for ever."""
    print("INFO vLLM API server version 0.0", flush=True)
    print("INFO Starting to load model tiny", flush=True)
    with socket.create_server(("127.0.0.1", port)) as server:
        print("INFO Application startup complete.", flush=True)
        while True:
            connection, _ = server.accept()
            with contextlib.suppress(OSError):
                connection.close()


def spam(bytes_per_s: int) -> None:
    """Write numbered lines for ever; so many bytes a second, or as fast as it goes for 0."""
    number, began = 0, time.monotonic()
    while True:
        lines = "".join(f"{number + i:012d} {'x' * 86}\n" for i in range(1000))
        number += 1000
        os.write(1, lines.encode())
        ahead = number * 100 / bytes_per_s - (time.monotonic() - began) if bytes_per_s else 0
        if ahead > 0:
            time.sleep(ahead)


def main(mode: str, value: str = "") -> None:
    """Behave."""
    lock = be_born()
    if mode == "die":
        print("booting\nCUDA out of memory: \x1b[31mtried\x1b[0m to \x1b]52;c;aGk=\x07allocate", flush=True)
        sys.exit(int(value))
    if mode in {"stubborn", "serve_stubborn"}:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode == "slow_to_stop":
        signal.signal(signal.SIGTERM, lambda *_: take_time(float(value)))
    if mode in {"family", "serve_with_family"}:
        child()
        child("signal.SIG_IGN")
        child("signal.SIG_IGN", own_session=True)
    if mode == "serve_with_child":
        child()
    if mode == "environment":
        print(*sorted(f"{name}={text}" for name, text in os.environ.items()), sep="\n", flush=True)
    if mode == "spam":
        spam(int(value))
    print("up", flush=True)
    if mode.startswith("serve"):
        serve(int(value))
    while lock:
        time.sleep(600)


main(*sys.argv[1:])
