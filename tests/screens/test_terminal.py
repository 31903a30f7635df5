"""The real board in a real pseudo terminal: how it starts, what it sends, how it leaves, whatever happens to it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.screens.terminal import BOARD, Terminal, daemon
from tests.support.waiting import wait_until

LEAVES = (b"\x1b[?1049l", b"\x1b[?25h")
"""Back to the first screen, cursor visible."""
COLOURS = re.compile(rb"\x1b\[[0-9;]*\b(3[0-9]|4[0-9]|9[0-7]|10[0-7])(;[0-9;]*)?m")


@pytest.fixture(scope="module")
def socket() -> Iterator[Path]:
    with daemon("busy") as path:
        yield path


@pytest.fixture
def board(socket: Path) -> Iterator[Terminal]:
    terminal = Terminal(socket)
    try:
        terminal.until("llama-a")
        yield terminal
    finally:
        terminal.close()


def test_q_leaves_the_terminal_as_it_was(board: Terminal) -> None:
    board.press("q")
    assert board.wait() == 0
    assert all(words in board.said for words in LEAVES)
    assert b"Traceback" not in board.said


def test_keys_that_come_in_one_piece_are_taken_in_their_order(board: Terminal) -> None:
    since = board.press("/qwen\rx")
    board.until("type its name", since)
    assert b"stop qwen-coder" in board.said[since:]
    assert not board.ended()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_in_good_order(board: Terminal, number: signal.Signals) -> None:
    os.kill(board.pid, number)
    assert board.wait() == 128 + number
    assert all(words in board.said for words in LEAVES)


def test_a_crash_restores_the_terminal_and_says_what_happened(socket: Path) -> None:
    crash = BOARD.replace("sys.exit", "import opsboard.tui.session as s; s.Session.take = lambda *_: 1 / 0; sys.exit")
    terminal = Terminal(socket, code=crash)
    assert terminal.wait() != 0
    assert all(words in terminal.said for words in LEAVES)
    assert b"ZeroDivisionError" in terminal.said
    terminal.close()


def test_a_terminal_that_goes_away_takes_the_board_with_it(board: Terminal) -> None:
    os.close(board.fd)
    assert wait_until(lambda: os.waitpid(board.pid, os.WNOHANG)[0], 10.0) == board.pid
    board.code = 0
    board.fd = os.open(os.devnull, os.O_RDONLY)


def test_even_when_it_was_told_to_ignore_the_hangup(socket: Path) -> None:
    deaf = "import signal; " + BOARD.replace("sys.exit", "signal.signal = lambda *a: None; sys.exit")
    terminal = Terminal(socket, code=deaf)
    terminal.until("llama-a")
    os.close(terminal.fd)
    assert wait_until(lambda: os.waitpid(terminal.pid, os.WNOHANG)[0], 10.0) == terminal.pid


def test_a_terminal_that_stops_reading_delays_nothing_but_itself(socket: Path, board: Terminal) -> None:
    other = Terminal(socket, columns=200, lines=60)
    try:
        other.until("llama-a")
        for n in range(120):  # nobody reads this one: resizing makes it paint everything each time
            other.resize(200 - n % 2, 60)
        before = len(board.said)
        board.until("22:13:", before)  # this one goes on
        os.kill(other.pid, signal.SIGTERM)
        wait_until(lambda: _gone(other), 10.0, "the stalled board ends")
    finally:
        other.close()


def test_q_does_not_wait_until_a_slow_terminal_took_everything(socket: Path) -> None:
    flood = "import opsboard.tui.screens.page as p; p.Page.action_pause = lambda s: s.app._driver.write('x' * 2**17); "
    terminal = Terminal(socket, code=flood + BOARD)
    try:
        terminal.until("llama-a")
        before = terminal.press("pq")  # more than a terminal's buffer holds, and from here on nobody reads
        wait_until(lambda: _gone(terminal), 10.0, "the board ends")
        terminal.read(0.05)
        assert terminal.code == 0
        assert all(words in terminal.said[before:] for words in LEAVES)
        assert terminal.said.count(b"x", before) < 100_000
        assert b"Traceback" not in terminal.said
    finally:
        terminal.close()


def _gone(terminal: Terminal) -> bool:
    pid, status = os.waitpid(terminal.pid, os.WNOHANG)
    if pid:
        terminal.code = os.waitstatus_to_exitcode(status)
    return bool(pid)


def test_a_storm_of_sizes_ends_on_a_whole_board(board: Terminal) -> None:
    for columns, lines in ((20, 3), (300, 80), (79, 24), (1, 1), (120, 40), (20, 3)) * 5:
        board.resize(columns, lines)
        board.read(0.01)
    board.until("40x8")
    since = len(board.said)
    board.resize(80, 24)
    board.until("help", since)
    assert not board.ended()


def test_no_color_is_plain(socket: Path) -> None:
    terminal = Terminal(socket, env={"NO_COLOR": "1"})
    try:
        terminal.until("llama-a")
        terminal.press("x")
        terminal.until("type its name")
        assert not COLOURS.search(terminal.said)
    finally:
        terminal.close()


def test_colours_are_the_terminals_own_sixteen(board: Terminal) -> None:
    board.read(0.3)
    assert COLOURS.search(board.said)
    assert b"38;2;" not in board.said
    assert b"38;5;" not in board.said


@pytest.mark.parametrize("env", [{"TERM": "linux"}, {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0"}])
def test_plain_terminals_get_ascii(socket: Path, env: dict[str, str]) -> None:
    terminal = Terminal(socket, env={"PYTHONCOERCECLOCALE": "0", **env})
    try:
        terminal.until("llama-a")
        terminal.read(0.2)
        assert terminal.said.isascii()
    finally:
        terminal.close()


@pytest.mark.parametrize("term", ["screen", "xterm", "tmux-256color"])
def test_other_terminals_show_the_board(socket: Path, term: str) -> None:
    terminal = Terminal(socket, env={"TERM": term})
    try:
        terminal.until("help")
    finally:
        terminal.close()


def test_a_terminal_without_a_size_is_taken_at_its_word_in_the_environment(socket: Path) -> None:
    for env, last in (({}, "\x1b[24;1H"), ({"LINES": "30", "COLUMNS": "100"}, "\x1b[30;1H")):
        terminal = Terminal(socket, columns=0, lines=0, env=env)
        try:
            terminal.until("help")
            assert last.encode() in terminal.said or terminal.said.count(b"\r\n") + 1 >= int(last[2:4])
        finally:
            terminal.close()


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"TERM": ""}])
def test_where_nothing_can_be_drawn_the_board_is_printed_once(socket: Path, env: dict[str, str]) -> None:
    terminal = Terminal(socket, env=env)
    assert terminal.wait() == 0
    assert b"llama-a" in terminal.said
    assert b"\x1b" not in terminal.said
    terminal.close()


def test_a_pipe_gets_text(socket: Path) -> None:
    got = subprocess.run(
        [sys.executable, "-c", BOARD, str(socket)], capture_output=True, text=True, timeout=20, check=True
    )
    assert "mixtral" in got.stdout
    assert "\x1b" not in got.stdout


def test_ctrl_z_suspends_and_fg_brings_it_back(board: Terminal) -> None:
    board.press("\x1a")
    wait_until(lambda: _state(board.pid) == "T", what="the board is stopped")
    board.read(0.05)
    assert LEAVES[0] in board.said
    since = len(board.said)
    os.kill(board.pid, signal.SIGCONT)
    board.until("llama-a", since)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_it_reconnects_when_the_daemon_restarts(tmp_path: Path) -> None:
    path = Path(os.environ["XDG_RUNTIME_DIR"]) / "s.sock"
    with daemon("steady", path):
        terminal = Terminal(path)
        terminal.until("llama-a")
        since = len(terminal.said)
    try:
        terminal.until("not reachable", since)
        since = len(terminal.said)
        path.unlink()
        with daemon("busy", path):
            terminal.until("CUDA out of memory", since)
    finally:
        terminal.close()
