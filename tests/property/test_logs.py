"""Reading log files in pieces says what reading them whole says."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from collectors.logs import LogFollower, tail
from opsboard.core.text import sanitise_line

LINE = st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"\x1b[31mred", b"\xe2\x80\xae", b"x" * 5000])).map(
    lambda data: data.replace(b"\n", b"").replace(b"\r", b"")
)


def naive(data: bytes, lines: int | None = None) -> list[str]:
    pieces = data.split(b"\n")
    if pieces[-1] == b"":
        pieces.pop()
    texts = [sanitise_line(piece.decode("utf-8", "replace")) for piece in pieces]
    return texts if lines is None else texts[len(texts) - min(lines, len(texts)) :]


@given(lines=st.lists(LINE, max_size=40), ended=st.booleans(), wanted=st.integers(0, 50))
def test_the_tail_is_the_end_of_the_whole_file(lines: list[bytes], ended: bool, wanted: int) -> None:
    data = b"\n".join(lines) + (b"\n" if ended and lines else b"")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        path.write_bytes(data)

        assert tail(path, wanted) == naive(data, wanted)


@given(data=st.lists(st.one_of(LINE, st.just(b"\n")), max_size=60).map(b"".join), cuts=st.lists(st.integers(0, 400)))
def test_following_in_pieces_says_what_the_whole_file_says(data: bytes, cuts: list[int]) -> None:
    data += b"\n"
    places = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        follower = LogFollower(path)
        found: list[str] = []
        before = 0
        for place in places:
            with path.open("ab") as file:
                file.write(data[before:place])
            found += follower.read_new()
            before = place
        follower.close()

        assert found == naive(data)


@given(data=st.binary(max_size=3000))
def test_whatever_a_log_holds_no_control_character_comes_out(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        path.write_bytes(data)
        follower = LogFollower(path)

        for line in [*tail(path, 100), *follower.read_new()]:
            assert all(ord(letter) >= 32 and not 0x7F <= ord(letter) < 0xA0 for letter in line)
            assert len(line) <= 4096
        follower.close()
