"""The daemon's log lines."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator

import pytest

from opsboard.daemon.journal import open_journal


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def logged(environment: dict[str, str], *texts: str, secrets: tuple[str, ...] = ()) -> list[str]:
    out = io.StringIO()
    lines = open_journal(secrets, environment, out)
    for text in texts:
        logging.getLogger("opsboard.events").warning("%s", text)
    lines.redact(["newer-secret"])
    logging.getLogger("opsboard.events").info("%s", "the newer-secret")
    return out.getvalue().splitlines()


def test_plain_lines() -> None:
    first, last = logged({}, "engine a: ready")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} WARNING events: engine a: ready", first)
    assert last.endswith("INFO events: the ***")


def test_under_systemd_the_journal_has_time_and_level() -> None:
    assert logged({"JOURNAL_STREAM": "8:1"}, "x")[0] == "<4>events: x"


def test_foreign_text_cannot_forge_a_line_or_reach_the_terminal() -> None:
    lines = logged({}, "bad\n2026-01-01T00:00:00+0000 ERROR daemon: forged", "a\x1b]0;title\x07b\x9bc")
    assert lines[1].startswith("    2026-01-01")
    assert lines[2].endswith("events: ab\N{REPLACEMENT CHARACTER}c")
    assert not any(character in "".join(lines) for character in "\x1b\x07\x9b")


def test_secrets_are_blacked_out() -> None:
    lines = logged({}, "GET /?key=hunter22 failed", "an ordinary word", secrets=("hunter22", "or"))
    assert lines[0].endswith("GET /?key=*** failed")
    assert lines[1].endswith("an ordinary word")


def test_a_traceback_is_indented_and_safe() -> None:
    out = io.StringIO()
    open_journal(("hunter22",), {}, out)
    try:
        raise ValueError("boom hunter22 \x1b[31m")
    except ValueError:
        logging.getLogger("opsboard.tasks").exception("failed")
    first, *rest = out.getvalue().splitlines()
    assert first.endswith("ERROR tasks: failed")
    assert all(line.startswith("    ") for line in rest)
    assert rest[-1].strip() == "ValueError: boom ***"
