"""An environment as systemd reads it from a file (EnvironmentFile=), for argv and unit properties are public.

The grammar is that of systemd's env-file.c: in double quotes everything stands for itself but the backslash, which
makes literal what needs it. What systemd would drop with a warning (variables whose name is no identifier or whose
value is not UTF-8 or holds control characters; env-util.c) is refused instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from opsboard.core.errors import SuperviseError
from opsboard.core.text import sanitise

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z", re.ASCII)
_SPECIAL = re.compile(r'(["\\`$])')
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_NO_CHARACTERS = range(0xFDD0, 0xFDF0)


def quoted(env: Mapping[str, str]) -> str:
    """Return the text of such a file. Raises SuperviseError, which names the variable and never its value."""
    return "".join(f'{_name(name)}="{_SPECIAL.sub(_literal, _value(name, value))}"\n' for name, value in env.items())


def _name(name: str) -> str:
    if not _NAME.match(name):
        raise _refused(name, "systemd takes only letters, digits and `_` in its name")
    return name


def _value(name: str, value: str) -> str:
    if _CONTROL.search(value):
        raise _refused(name, "systemd takes no control characters in its value, but tabs and line ends")
    if not all(_is_character(ord(letter)) for letter in value):
        raise _refused(name, "systemd takes only UTF-8 in its value")
    return value


def _is_character(point: int) -> bool:
    """Tell what systemd's utf8_is_valid() lets pass: no surrogates (how Python has other bytes), no noncharacters."""
    return not (0xD800 <= point < 0xE000 or point in _NO_CHARACTERS or point & 0xFFFE == 0xFFFE)


def _literal(found: re.Match[str]) -> str:
    return f"\\{found[1]}"


def _refused(name: str, why: str) -> SuperviseError:
    return SuperviseError(
        f"the environment variable {sanitise(name, 80)!r} cannot be handed over by systemd: {why}",
        hint='leave it out of `env`, or let the engine run with runner = "shim"',
    )
