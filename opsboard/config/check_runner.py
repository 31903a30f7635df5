"""Which keys go with which way to run an engine."""

from __future__ import annotations

from pathlib import Path

from opsboard.config.schema import Engine
from opsboard.core.errors import ConfigError

NEEDED = ("start_command", "stop_command", "status_command")
"""Of an engine that others run."""
_OF_OTHERS = (*NEEDED, "logs_command")
_COMMANDS = ("command", "restart_command", *_OF_OTHERS)


def check_runner(path: Path, where: str, engine: Engine) -> None:
    """Refuse commands without words, and commands that contradict each other or `runner`. Raises ConfigError."""
    given = [key for key in _COMMANDS if getattr(engine, key) is not None]
    for key in given:
        words = getattr(engine, key)
        if not words or not words[0]:
            raise ConfigError(f"{path}: `{where}.{key}`: expected the words of a command, found none")
    if engine.runner == "command":
        _check_others(path, where, engine, given)
    else:
        _check_ours(path, where, engine, given)
    if engine.restart_command is None and not engine.supervised and engine.restart in {"on-failure", "always"}:
        raise ConfigError(
            f"{path}: `{where}.restart`: {engine.name!r} has no command that could restart it",
            hint="give it a `restart_command`, or drop `restart`",
        )


def _check_others(path: Path, where: str, engine: Engine, given: list[str]) -> None:
    missing = [key for key in NEEDED if key not in given]
    if missing or "command" in given or "restart_command" in given:
        wrong = [f"`{key}`" for key in ("command", "restart_command") if key in given]
        says = f"has {' and '.join(wrong)}" if wrong else f"lacks `{missing[0]}`"
        raise ConfigError(
            f'{path}: `{where}`: {engine.name!r} with `runner = "command"` {says}',
            hint=f"it takes {', '.join(f'`{key}`' for key in NEEDED)}, and `logs_command` if there is one",
        )
    if engine.url is None:
        raise ConfigError(f'{path}: `{where}`: {engine.name!r} with `runner = "command"` needs `url`')


def _check_ours(path: Path, where: str, engine: Engine, given: list[str]) -> None:
    of_others = [key for key in _OF_OTHERS if key in given]
    if of_others:
        raise ConfigError(
            f'{path}: `{where}.{of_others[0]}`: it goes with `runner = "command"`, and {engine.name!r} has '
            f'`runner = "{engine.runner}"`',
            hint='set `runner = "command"`, or give it a `command` that opsboard runs itself',
        )
    if engine.command is None and engine.runner != "shim":
        raise ConfigError(f'{path}: `{where}`: {engine.name!r} with `runner = "{engine.runner}"` needs `command`')
    if engine.command is None and engine.url is None:
        raise ConfigError(f"{path}: `{where}`: {engine.name!r} needs `command` (supervised) or `url` (observed)")
    if engine.command is not None and engine.restart_command is not None:
        raise ConfigError(
            f"{path}: `{where}.restart_command`: {engine.name!r} has a `command`, which opsboard restarts itself",
            hint="keep one of the two",
        )
