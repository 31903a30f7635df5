"""systemd-run, systemctl and journalctl as far as opsboard asks them, without a systemd.

What they print and how they end is what the real ones of systemd 252 did (tests/fixtures/systemd/README.md). The units
are folders in ``$FAKE_SYSTEMD``, which is also the root of the control groups.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.kept_process import follow, keep, state, write

ROOT = Path(os.environ.get("FAKE_SYSTEMD", "/nowhere"))
CLEAN = (0, -15)


def env_file(text: str) -> dict[str, str]:
    """Read an EnvironmentFile= as systemd's env-file.c does, as far as double-quoted values go."""
    found: dict[str, str] = {}
    place = 0
    while place < len(text):
        name, _, _ = text[place:].partition("=")
        place += len(name) + 1
        assert text[place] == '"', "this fake reads quoted values only"
        place += 1
        value = ""
        while text[place] != '"':
            if text[place] == "\\":
                place += 1
                value += text[place] if text[place] in '"\\`$' else "" if text[place] == "\n" else f"\\{text[place]}"
            else:
                value += text[place]
            place += 1
        found[name] = value
        place = text.index("\n", place) + 1
    return found


def settle(unit: Path) -> dict[str, Any]:
    """Return a unit's state; one that was stopped and ended cleanly is gone, as transient units are."""
    found = state(unit)
    if found.get("over") and found["stop"] and found["code"] in CLEAN:
        forget(unit)
        return {}
    return found


def forget(unit: Path) -> None:
    for name in ("state.json", "stop", "cgroup.procs"):
        (unit / name).unlink(missing_ok=True)


def say(text: str, code: int) -> int:
    print(text)
    return code


def run(words: list[str]) -> int:
    options, command = words[: words.index("--")], words[words.index("--") + 1 :]
    name = next(word.partition("=")[2] for word in options if word.startswith("--unit="))
    unit = ROOT / name
    if settle(unit):
        return say(f"Failed to start transient service unit: Unit {name} was already loaded or has a fragment file.", 1)
    settings = dict(word.partition("=")[2].partition("=")[::2] for word in options if word.startswith("--property="))
    env = {"PATH": os.environ["PATH"], **env_file(Path(settings["EnvironmentFile"].removeprefix("-")).read_text())}
    more: dict[str, Any] = {
        "description": settings["Description"],
        "invocation": uuid.uuid4().hex,
        "grace": settings["TimeoutStopSec"].rstrip("s"),
        "settings": settings,
    }
    (unit / "log").unlink(missing_ok=True)
    unit.mkdir(exist_ok=True)
    (unit / "invocation").write_text(more["invocation"])  # the journal keeps what systemd forgets
    try:
        keep(unit, [word.replace("$$", "$") for word in command], env, settings.get("WorkingDirectory"), **more)
    except OSError:
        return say(f"Job for {name} failed because the control process exited with error code.", 1)
    return 0


def show(name: str) -> int:
    found = settle(ROOT / name)
    if not found:
        return say("MainPID=0\nExecMainPID=0\nLoadState=not-found\nActiveState=inactive\nSubState=dead", 0)
    code, over, stop = found["code"], found["over"], found["stop"]
    failed = code is not None and code != 0
    active = "failed" if over and failed else "active" if over or code is None else "deactivating"
    if stop and not over:
        active = "deactivating"
    sub = {"failed": "failed", "deactivating": "stop-sigterm"}.get(active, "exited" if over else "running")
    result = "success" if not failed else "exit-code" if code > 0 else "signal"
    status = f"ExecMainCode={0 if code is None else 1 if code >= 0 else 2}\nExecMainStatus={abs(code or 0)}"
    return say(
        f"MainPID={found['pid'] if code is None else 0}\nResult={result}\nExecMainPID={found['pid']}\n{status}\n"
        f"ExecStop={{ path=/bin/true ; argv[]=/bin/true ; pid={int(stop)} ; code=(null) ; status=0/0 }}\n"
        f"ControlGroup={'' if over else f'/{name}'}\nDescription={found['description']}\nLoadState=loaded\n"
        f"ActiveState={active}\nSubState={sub}\nInvocationID={found['invocation']}",
        0,
    )


def control(words: list[str]) -> int:
    verb, name = next((word, words[words.index(word) + 1]) for word in words if not word.startswith("--"))
    unit = ROOT / name
    if verb == "show":
        return show(name)
    found = settle(unit)
    if not found:
        return say(f"Failed to {verb} {name}: Unit {name} not loaded.", 5)
    if verb == "reset-failed" or (verb == "stop" and found["over"]):
        if found["over"]:
            forget(unit)
        return 0
    write(unit, "stop", found["grace"])
    while "--no-block" not in words and settle(unit).get("over") is False:
        time.sleep(0.02)
    return 0


def journal(words: list[str]) -> int:
    since = float(next(word.partition("@")[2] for word in words if word.startswith("--since=@")))
    wanted = next(word.partition("=")[2] for word in words if word.startswith("_SYSTEMD_INVOCATION_ID="))
    unit = next((file.parent for file in ROOT.glob("*/invocation") if file.read_text() == wanted), None)
    if unit is not None:
        follow(unit, since, ends=False)
    return 0


PROGRAMS = {"systemd-run": run, "systemctl": control, "journalctl": journal}

if __name__ == "__main__":
    sys.exit(PROGRAMS[sys.argv[1]](sys.argv[2:]))
