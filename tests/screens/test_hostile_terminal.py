"""A daemon that is hostile in every text, on every screen, in a real pseudo terminal: nothing of it acts there.

All that was written is decoded. What is not the board's own cursor, colours and modes fails.
"""

from __future__ import annotations

import base64
import contextlib
import re

import pytest

from tests.screens.terminal import Terminal, daemon

TOKEN = re.compile(
    "\x1b\\[[0-?]*[ -/]*[@-~]"  # CSI
    "|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)"  # OSC
    "|\x1b[PX^_].*?\x1b\\\\"  # DCS, SOS, PM, APC
    "|\x1b[ -/]*[0-~]"
    "|[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]",
    re.DOTALL,
)
OWN = re.compile(
    "\x1b\\[[0-9;]*[mHABCDGJK]"
    "|\x1b\\[\\?[0-9;]+[hlu$]p?"
    "|\x1b\\[[<>=?][0-9;]*[ucqm]"
    "|\x1b\\[c|\x1b\\[[0-9]+ q"
    "|\x1b\\]22;default\x07"
    "|\x1b[78=>]|[\n\r]"
)
"""What Textual and the board write themselves."""
COPY = re.compile("\x1b\\]52;c;([A-Za-z0-9+/=]*)\x07")
"""Puts a name on the clipboard, when somebody asked for that."""
KEY_S, ESCAPE_S = 0.04, 0.12
"""How long it paints; an escape is one when nothing follows it so soon."""
TRIES, PAINTED_S = 5, 3.0
SCREENS = {
    "a name taken": "y",
    "an engine": "\r",
    "its parts": "245",
    "a log": "3",
    "a question, and what a refusal says": "\x1bs\r",
    "another": "\x1bx\x1bd\x1b",
    "all events": "\x1b\x1be",
    "an incident": "\x1bi",
    "its evidence and timeline": "23",
    "what it asks": "an",
    "all incidents": "\x1b\x1b\x1b:incidents\r",
    "help": "\x1b?",
    "a command that completes": ":restart \t\t",
    "a filter": "\x1b/VILE",
    "a filter by what is vile": "\x1b/6666\r",
}


SHOWN = {"an engine", "a log", "all events", "an incident"}
"""Those that are painted whole, and so must show what was made harmless."""


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 60)])
def test_nothing_hostile_acts_on_the_terminal(columns: int, lines: int) -> None:
    with daemon("vile") as path:
        terminal = Terminal(path, columns=columns, lines=lines)
        try:
            terminal.until("\ufffd")
            for screen, keys in SCREENS.items():
                _go(terminal, keys, shown=screen in SHOWN)
            assert not terminal.ended(), "a text ended the board"
            terminal.press("\x03")
            terminal.wait()
        finally:
            terminal.close()
    said = terminal.said.decode("utf-8", "strict")
    copied = [base64.b64decode(one).decode() for one in COPY.findall(said)]
    assert copied == ["llama-a"], "the name that was asked for"
    foreign = {one for one in TOKEN.findall(COPY.sub("", said)) if "6666" in one or not OWN.fullmatch(one)}
    assert not foreign, foreign


def _go(terminal: Terminal, keys: str, *, shown: bool) -> None:
    """Press keys; again where nothing came of them, as a busy machine takes an escape with what follows for one key."""
    since = len(terminal.said)
    for _ in range(TRIES):
        for key in keys:
            terminal.press(key)
            terminal.read(ESCAPE_S if key == "\x1b" else KEY_S)
        if not shown:
            return
        with contextlib.suppress(AssertionError):
            terminal.until("\ufffd", since, deadline=PAINTED_S)
            return
    pytest.fail(f"nothing hostile was shown after {keys!r}")
