"""What each way in imports, seen in ``sys.modules`` of a fresh process.

Import contracts cannot prove that a deferred import stays deferred. New modules are found by scanning.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TERMINAL = {"rich", "textual"}
HEAVY = {"httpx", "numpy", "uvloop"}
# The shim lives as long as its engine, in <= 15 MB.
TOO_BIG_FOR_THE_SHIM = TERMINAL | HEAVY | {"asyncio", "click", "h11", "msgspec", "psutil", "sqlite_utils"}
LIST_MODULES = "import sys, {module}; print(*sorted(name.partition('.')[0] for name in sys.modules))"
RUN_VERB = """
import sys
from opsboard.cli.main import main
try:
    main({argv!r})
finally:
    print("LOADED", *sorted(name.partition('.')[0] for name in sys.modules), file=sys.stderr)
"""

SHIM = "opsboard.supervise.shim"


def modules_under(*folders: str) -> list[str]:
    """Return the dotted names of all modules in these folders of the checkout."""
    names = []
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name == "__main__.py":
                continue  # importing it would run it
            parts = path.relative_to(ROOT).with_suffix("").parts
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def imported_by(module: str) -> set[str]:
    """Return the top-level names that a fresh interpreter has loaded after importing the module."""
    ran = subprocess.run(
        [sys.executable, "-c", LIST_MODULES.format(module=module)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())


VERBS = modules_under("opsboard/cli", "opsboard/client", "opsboard/core")
HEADLESS = [
    *modules_under("opsboard/config", "opsboard/daemon", "opsboard/httpd", "opsboard/sim", "opsboard/store"),
    *modules_under("opsboard/mqttc", "opsboard/recording", "opsboard/supervise", "collectors", "alerts"),
]


def guilty(modules: list[str], forbidden: set[str]) -> list[str]:
    """Return the modules that import something forbidden: one process for all, and one each only when that fails."""
    if not imported_by(", ".join(modules)) & forbidden:
        return []
    return [module for module in modules if imported_by(module) & forbidden]


def test_verbs_import_nothing_heavy() -> None:
    assert guilty(VERBS, TERMINAL | HEAVY) == []


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["--version"], 0),
        (["--help"], 0),
        (["status", "--json"], 3),
        (["engine", "list"], 3),
        (["engine", "stop", "llama-a"], 3),
        (["config", "explain"], 0),
        (["backtest", str(ROOT / "tests/fixtures/recordings/overload.jsonl.xz")], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_verbs_load_nothing_heavy_while_they_run(argv: list[str], code: int, tmp_path: Path) -> None:
    alone = ["--socket", str(tmp_path / "nobody.sock"), *argv]  # whatever daemon this machine has
    ran = subprocess.run(
        [sys.executable, "-c", RUN_VERB.format(argv=alone)], capture_output=True, text=True, timeout=25, check=False
    )
    assert ran.returncode == code, ran.stderr
    loaded = ran.stderr.rpartition("LOADED")[2].split()
    assert "click" in loaded
    assert set(loaded) & (TERMINAL | HEAVY) == set()


def test_headless_modules_import_no_terminal() -> None:
    assert guilty(HEADLESS, TERMINAL) == []


def test_a_daemon_without_mqtt_loads_nothing_of_it() -> None:
    loaded = imported_by("opsboard.daemon.wiring")
    assert "msgspec" in loaded
    assert "mqtt5" not in loaded


def test_the_shim_stands_on_the_standard_library() -> None:
    assert imported_by(SHIM) & TOO_BIG_FOR_THE_SHIM == set()


def test_the_roof_imports_nothing() -> None:
    assert imported_by("opsboard") & {"asyncio", "click", "msgspec"} == set()


def test_the_scan_finds_the_rooms() -> None:
    assert {"opsboard.core.model", "collectors.base"} <= {*VERBS, *HEADLESS}
    assert imported_by("json, msgspec") >= {"json", "msgspec"}
    assert guilty(["json", "msgspec"], {"msgspec"}) == ["msgspec"]
