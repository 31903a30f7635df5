"""docker run, stop, inspect and logs as far as an engine of the ``command`` runner asks them, without a Docker.

Containers are folders in ``$FAKE_DOCKER``. As with Docker, variables reach a container by ``--env`` only, and
``inspect`` of one that has ended prints 0.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.kept_process import follow, keep, state, write

ROOT = Path(os.environ["FAKE_DOCKER"])


def run(words: list[str]) -> int:
    split = words.index("--")
    options, command = words[:split], words[split + 1 :]
    name = options[options.index("--name") + 1]
    if state(ROOT / name) and not state(ROOT / name)["over"]:
        print(f"Error response from daemon: Conflict. The container name {name} is already in use.")
        return 125
    names = [options[i + 1] for i, word in enumerate(options) if word == "--env"]
    env = {"PATH": os.environ["PATH"], **{name: os.environ[name] for name in names if name in os.environ}}
    (ROOT / name / "log").unlink(missing_ok=True)
    try:
        keep(ROOT / name, command, env, options[options.index("--workdir") + 1], grace="5")
    except OSError as error:
        print(f"Error response from daemon: failed to create task: exec: {command[0]}: {error.strerror}")
        return 127
    print(name)
    return 0


def stop(words: list[str]) -> int:
    folder = ROOT / words[-1]
    write(folder, "stop", words[words.index("--time") + 1])
    while not state(folder).get("over", True):
        time.sleep(0.02)
    return 0


def inspect(words: list[str]) -> int:
    found = state(ROOT / words[-1])
    if not found:
        print(f"Error: No such object: {words[-1]}")
        return 1
    print(found["pid"] if found["code"] is None else 0)
    return 0


def logs(words: list[str]) -> int:
    follow(ROOT / words[-1], float(words[words.index("--since") + 1]), ends=True)
    return 0


PROGRAMS = {"run": run, "stop": stop, "inspect": inspect, "logs": logs}

if __name__ == "__main__":
    sys.exit(PROGRAMS[sys.argv[2]](sys.argv[3:]))
