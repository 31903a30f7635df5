"""A process that says how it was started: ``python -S telltale.py FILE MODE [VALUE]``; FILE is there once it is up.

``tell`` only tells; ``serve`` listens on port VALUE with a child that calls itself an EngineCore; ``retitle`` writes a
title over its arguments and its environment, as setproctitle does.
"""

import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

CHILD = (
    "import ctypes, time; ctypes.CDLL(None).prctl(15, b'VLLM::EngineCor', 0, 0, 0); print(flush=True); time.sleep(600)"
)


def account(file: str) -> None:
    """Write down what we were given."""
    umask = os.umask(0)
    os.umask(umask)
    told = {
        "argv": Path("/proc/self/cmdline").read_bytes().decode("utf-8", "surrogateescape"),
        "env": dict(os.environ),
        "cwd": str(Path.cwd()),
        "umask": umask,
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "ids": [os.getuid(), os.getgid(), sorted({*os.getgroups(), os.getgid()})],
    }
    new = Path(f"{file}.new")
    new.write_text(json.dumps(told))
    new.rename(file)


def retitle(title: bytes) -> None:
    """Fill arguments and environment with a title and NULs (proc_pid_stat(5): fields 48 to 51)."""
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    begin, end = int(fields[45]), int(fields[48])
    ctypes.memset(begin, 0, end - begin)
    ctypes.memmove(begin, title, len(title))


def main(file: str, mode: str, value: str = "") -> None:
    """Behave."""
    if mode == "retitle":
        retitle(value.encode())
    if mode == "serve":
        server = socket.create_server(("127.0.0.1", int(value)))
        child = subprocess.Popen([sys.executable, "-S", "-c", CHILD], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        signal.signal(signal.SIGUSR1, lambda *_: server.close())
    account(file)
    while True:
        time.sleep(600)


if sys.argv[1:2] == ["serve"]:  # called as vLLM is: vllm serve --port PORT --out FILE
    main(sys.argv[5], "serve", sys.argv[3])
main(*sys.argv[1:])
