"""Keys and manners: what a person presses, and what the board says then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path

import msgspec
import pytest

from opsboard.client.stream import Disconnected
from opsboard.core.errors import Conflict
from opsboard.core.model import Rolling
from opsboard.core.text import sanitise
from opsboard.core.wire import EventInfo, Status
from opsboard.tui.session import MESSAGE_S
from tests.screens import boards, supervised
from tests.screens.stage import staged


def played(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an asynchronous test."""

    @wraps(test)
    def run(**fixtures: object) -> None:
        asyncio.run(test(**fixtures))  # type: ignore[arg-type]

    return run


GONE = Disconnected(message="no daemon answers (/x/y.sock: nobody listens)", for_s=3.0)


@played
async def test_news_are_shown_and_the_cursor_moves() -> None:
    async with staged(boards.busy()) as stage:
        await stage.shows("▸● ready     llama-a")
        await stage.press("j", "down")
        await stage.shows("▸● ready     qwen-coder")
        await stage.press("G")
        await stage.shows("▸◐ starting  vision")
        await stage.press("g")
        await stage.shows("▸● ready     llama-a")


@played
async def test_a_filter_works_with_each_letter_and_esc_clears_it() -> None:
    async with staged(boards.busy()) as stage:
        await stage.press("slash", *"qwe")
        await stage.shows("▸● ready     qwen-coder")
        await stage.hides("mixtral     exit")
        assert stage.footer.startswith(" /qwe")
        await stage.press("enter")
        assert "filter qwe" in stage.footer
        await stage.press("escape")
        await stage.shows("mixtral     exit")
        await stage.press("ctrl+r")
        await stage.hides("mixtral     exit")
        await stage.press("escape")
        await stage.shows("mixtral     exit")


@played
async def test_sorting_shows_its_arrow_reverses_and_is_lazy() -> None:
    async with staged(boards.busy()) as stage:
        await stage.press("K")
        await stage.shows("KV CACHE▼")
        assert stage.text.index("llama-b") < stage.text.index("qwen-coder")
        await stage.press("K")
        await stage.shows("KV CACHE▲")
        await stage.press("K")
        low = boards.busy()
        fresh = [msgspec.structs.replace(e, kv_usage=0.01) if e.name == "llama-b" else e for e in low.engines]
        stage.feed.say(msgspec.structs.replace(low, engines=tuple(fresh), time=low.time + 1))
        await stage.shows("  1%")
        rows = stage.text.splitlines()[2:10]
        assert "llama-b" in rows[0], "rows jumped at once"
        stage.clock.advance(6.0)
        stage.feed.say(msgspec.structs.replace(low, engines=tuple(fresh), time=low.time + 2))
        await stage.shows("22:13:22")
        assert "llama-b" not in stage.text.splitlines()[2]
        await stage.press("0")
        await stage.hides("▼")


@played
async def test_pause_freezes_the_display_only() -> None:
    async with staged(boards.steady()) as stage:
        await stage.shows("22:13:20")
        await stage.press("p")
        await stage.shows("PAUSED")
        stage.feed.say(boards.steady(7.0))
        await stage.pilot.pause()
        await stage.press("j")
        await stage.shows("shown as of 7s ago")
        assert "22:13:20" in stage.text
        await stage.press("space")
        await stage.shows("22:13:27")


@played
async def test_a_daemon_that_goes_away_leaves_its_last_board_and_comes_back_by_itself() -> None:
    async with staged(boards.busy()) as stage:
        await stage.shows("llama-a")
        stage.clock.advance(12.0)
        stage.feed.say(GONE)
        await stage.shows("daemon not reachable for 12s, retrying")
        await stage.shows("llama-a")
        stage.feed.say(boards.busy(20.0))
        await stage.hides("not reachable")
        await stage.shows("22:13:40")


@played
async def test_no_daemon_at_all_says_what_to_do() -> None:
    async with staged(GONE) as stage:
        await stage.shows("opsboard demo")
        await stage.shows("nobody listens")
        await stage.press("enter", "x", "j", "e", "escape", "question_mark", "escape")
        await stage.shows("opsboard daemon")


@played
async def test_silence_is_noticed() -> None:
    async with staged(boards.busy()) as stage:
        await stage.shows("llama-a")
        stage.clock.advance(25.0)
        await stage.shows("no news from the daemon for 25s")


@played
async def test_stopping_begins_on_cancel_needs_the_name_and_then_acts() -> None:
    async with staged(boards.busy()) as stage:
        await stage.shows("llama-a")
        await stage.press("x", "enter")
        await stage.shows("type its name")  # too early: a key that was meant for the board
        stage.clock.advance(1.0)
        await stage.press("tab", "enter")
        await stage.shows("nothing was done")
        assert stage.feed.acted == []

        await stage.press("x")
        stage.clock.advance(1.0)
        await stage.press(*"llama", "minus", "a", "enter")
        await stage.shows("the daemon took it on; events tell")
        assert [act[:2] for act in stage.feed.acted] == [("stop", "llama-a")]


@played
async def test_a_failed_engine_is_restarted_without_its_name_but_not_by_one_key() -> None:
    async with staged(boards.busy()) as stage:
        await stage.press("j", "j", "j", "r")
        await stage.shows("restart mixtral")
        stage.clock.advance(1.0)
        await stage.press("right", "enter")
        await stage.shows("the daemon took it on")
        assert stage.feed.acted[0][:2] == ("restart", "mixtral")


@played
async def test_the_last_target_of_a_route_is_restarted_only_when_it_is_said() -> None:
    async with staged(supervised.troubled()) as stage:
        await stage.press("j", "j", "r")
        await stage.shows("qwen-coder is the last healthy target of route chat")
        stage.clock.advance(1.0)
        await stage.press("tab", "enter")
        await stage.shows("nothing was done")
        await stage.press("colon", *"restart qwen", "minus", *"coder now", "enter")
        await stage.shows("are cut off")
        stage.clock.advance(1.0)
        await stage.press(*"qwen", "minus", *"coder", "enter")
        await stage.shows("the daemon took it on")
        assert [act[:2] for act in stage.feed.acted] == [("restart now", "qwen-coder")]


@played
async def test_draining_and_back() -> None:
    async with staged(boards.busy()) as stage:
        await stage.press("u")
        await stage.shows("llama-a is ready: there is nothing to undrain")
        await stage.press("d")
        await stage.shows("It leaves its routes")
        stage.clock.advance(1.0)
        await stage.press("tab", "enter")
        await stage.shows("the daemon took it on")
        stage.feed.say(supervised.troubled())
        await stage.shows("draining")
        await stage.press("u")
        await stage.shows("The restart that it drains for is called off")
        stage.clock.advance(1.0)
        await stage.press("tab", "enter")
        await stage.shows("the daemon took it on")
        assert [act[:2] for act in stage.feed.acted] == [("drain", "llama-a"), ("undrain", "llama-a")]


@played
async def test_a_refusal_is_told() -> None:
    async with staged(boards.busy()) as stage:
        stage.feed.refuses = Conflict("mixtral is stopping", hint="wait until it has stopped")
        await stage.press("j", "j", "j", "s")
        await stage.shows("start mixtral")
        stage.clock.advance(1.0)
        await stage.press("tab", "enter")
        await stage.shows("mixtral is stopping (wait until it has stopped)")
        stage.clock.advance(MESSAGE_S + 1)
        await stage.shows("open")


@played
async def test_read_only_touches_nothing_and_offers_nothing() -> None:
    async with staged(boards.busy(), readonly=True) as stage:
        await stage.shows("llama-a")
        assert "stop" not in stage.footer
        await stage.press("x")
        await stage.shows("read-only: engines cannot be touched")
        await stage.press("colon", *"stop llama", "minus", "a", "enter")
        await stage.shows("read-only")
        assert stage.feed.acted == []


@played
async def test_a_private_daemon_and_observed_engines_are_not_touched() -> None:
    seen = boards.status((boards.engine(0, supervised=False),))
    async with staged(seen) as stage:
        await stage.press("r")
        await stage.shows("llama-a is observed only")
    looks = msgspec.structs.replace(boards.busy(), daemon=boards.daemon(read_only=True))
    async with staged(looks) as stage:
        await stage.press("r")
        await stage.shows("read-only")


@played
async def test_commands_complete_and_act() -> None:
    async with staged(boards.busy()) as stage:
        await stage.press("colon", *"so", "tab")
        await stage.shows(":sort")
        await stage.press(*"kv", "enter")
        await stage.shows("KV CACHE▼")
        await stage.press("colon", *"open mix", "tab", "enter")
        await stage.shows("1 overview")
        await stage.shows("mixtral")
        await stage.press("escape", "colon", *"fly", "enter")
        await stage.shows("no command 'fly'; one of: start stop")
        await stage.press("colon", *"filter embed", "enter")
        await stage.hides("mixtral     exit")
        await stage.press("escape", "colon", "escape")
        await stage.shows("open")


@played
async def test_help_is_made_from_the_keys() -> None:
    async with staged(boards.busy()) as stage:
        await stage.press("question_mark")
        await stage.shows("keys of the board")
        await stage.press("G")
        await stage.shows("in binary units")
        await stage.press("q")
        await stage.shows("▸● ready")
        await stage.press("enter", "f1")
        await stage.shows("keys of an engine")


@played
async def test_an_engine_opens_with_details_past_and_ranges() -> None:
    async with staged(boards.busy()) as stage:
        await stage.press("enter")
        await stage.shows("LATENCY")
        await stage.shows("last 15m")
        assert "engine/llama-a/ttft_p95_s" in stage.feed.asked
        await stage.press("t")
        await stage.shows("last 1h")
        await stage.press("b")
        await stage.shows("last 10s: each quantile lies in the bucket")
        await stage.press("2")
        await stage.shows("engine_core")
        await stage.press("j", "j")
        await stage.shows("lines 3-")
        await stage.press("4")
        await stage.shows("requests wait for KV cache")
        await stage.press("tab", "tab")
        await stage.shows("LATENCY")
        await stage.press("q")
        await stage.shows("STATE")


@played
async def test_a_log_is_followed_held_and_searched() -> None:
    async with staged(boards.busy()) as stage:
        await stage.press("l")
        await stage.shows("of 60  following")
        stage.feed.more_log.put_nowait("INFO a new line")
        await stage.shows("a new line")
        await stage.press("slash", *"preempt", "enter")
        await stage.shows("held, f follows  /preempt")
        await stage.press("n")
        await stage.shows("812 is")
        await stage.press("slash", "ctrl+u", *"nowhere", "enter")
        await stage.shows("no match for 'nowhere'")
        await stage.press("f")
        await stage.shows("following")
        await stage.press("right")
        await stage.hides("(APIServer")
        await stage.press("left")
        await stage.shows("(APIServer")
        await stage.press("k")
        await stage.shows("held")
        stage.feed.more_log.put_nowait("INFO another line")
        await stage.shows("of 62  held")
        assert "another line" not in stage.text
        await stage.press("G")
        await stage.shows("another line")


@played
async def test_the_log_of_a_failed_engine_begins_at_its_first_line_and_is_wrapped_as_wanted() -> None:
    async with staged(boards.busy(), size=(60, 16)) as stage:
        stage.feed.log = [f"{n} " + "word " * 20 + f"end-of-{n}" for n in range(40)]
        await stage.press("j", "j", "j", "l")
        await stage.shows("end-of-39")
        await stage.press("g")
        await stage.shows(" 0 word")
        await stage.press("w")
        await stage.hides("end-of")
        await stage.press("right")
        await stage.hides(" 0 word")
        await stage.press("w", "G")
        await stage.shows("end-of-39")


@played
async def test_a_filter_stays_in_sight_beside_a_message_and_the_next_key_ends_the_message() -> None:
    async with staged(boards.busy()) as stage:
        await stage.press("slash", *"llama", "minus", "a", "enter", "s")
        await stage.shows("filter llama-a  (1 of 8 shown, Esc clears)  llama-a is ready already")
        await stage.press("j")
        await stage.hides("already")
        await stage.press("escape")
        await stage.shows("open")


@played
async def test_an_engine_that_leaves_the_board_is_told() -> None:
    async with staged(boards.busy()) as stage:
        await stage.press("enter")
        await stage.shows("LATENCY")
        stage.feed.say(boards.status((boards.engine(1),)))
        await stage.shows("llama-a is not on the board")
        await stage.press("x", "escape")
        await stage.shows("llama-b")


@played
async def test_the_mouse_points_opens_and_scrolls() -> None:
    async with staged(boards.busy()) as stage:
        await stage.shows("▸● ready     llama-a")
        await stage.pilot.click(offset=(20, 4))
        await stage.shows("▸● ready     qwen-coder")
        await stage.pilot.click(offset=(20, 12))  # a GPU: not an engine
        await stage.shows("▸● ready     qwen-coder")
        await stage.pilot.click(offset=(20, 4))
        await stage.shows("Qwen2.5-Coder")
        await stage.shows("1 overview")


@played
async def test_a_rolling_restart_says_how_far_it_is() -> None:
    roll = Rolling(id="r1", engines=("llama-a", "llama-b"), reason="weekly", began=0.0, changed=0.0, begun=True)
    async with staged(boards.busy()) as stage:
        assert "rolling restart" not in stage.text
        stage.feed.say(msgspec.structs.replace(boards.busy(), rolling=roll))
        await stage.shows("rolling restart: 0 of 2 done, now llama-a, next: llama-b")


def happened(number: int) -> tuple[EventInfo, ...]:
    return tuple(boards.event(n, "engine/llama-a", "state", f"event-{n:02d}") for n in range(number))


@played
async def test_events_open_at_the_newest_follow_and_are_held_while_old_ones_are_read() -> None:
    def told(number: int) -> Status:
        return msgspec.structs.replace(boards.busy(), events=happened(number))

    async with staged(told(40)) as stage:
        await stage.press("e")
        await stage.shows("events, newest last")
        await stage.shows("event-39")
        assert stage.text.index("event-38") < stage.text.index("event-39")
        assert "event-05" not in stage.text
        stage.feed.say(told(41))
        await stage.shows("event-40")
        await stage.press("k")
        await stage.hides("event-40")
        stage.feed.say(told(42))
        await stage.shows("of 42")
        assert "event-39" in stage.text
        assert "event-40" not in stage.text
        await stage.press("G")
        await stage.shows("event-41")
        await stage.press("g")
        await stage.shows("event-00")


@played
async def test_an_engines_events_have_the_same_order_and_open_at_the_newest() -> None:
    async with staged(boards.busy()) as stage:
        stage.feed.events = happened(40)
        await stage.press("enter", "4")
        await stage.shows("event-39")
        assert stage.text.index("event-38") < stage.text.index("event-39")
        assert "event-05" not in stage.text
        await stage.press("k")
        await stage.hides("event-39")
        await stage.press("g")
        await stage.shows("event-00")
        await stage.press("G", "G", "k", "k")
        await stage.hides("event-38")
        await stage.shows("event-37")
        await stage.press("2")
        await stage.shows("lines 1-")


@played
async def test_the_screen_is_saved_as_text_and_json(tmp_path: Path) -> None:
    async with staged(boards.busy()) as stage:
        await stage.shows("llama-a")
        await stage.press("ctrl+s")
        await stage.shows("saved ")
    saved = sorted((tmp_path / "home/.local/state/opsboard/screens").iterdir())
    assert [path.suffix for path in saved] == [".json", ".txt"]
    assert "llama-a" in saved[1].read_text()
    assert saved[0].stat().st_mode & 0o777 == 0o600


@played
async def test_history_is_asked_for_once_and_again_after_an_outage() -> None:
    async with staged(boards.steady()) as stage:
        await stage.shows("llama-a")
        stage.feed.say(boards.steady(1.0))
        await stage.shows("22:13:21")
        assert stage.feed.asked.count("engine/llama-a/kv_usage") == 1
        stage.feed.say(GONE)
        stage.feed.say(boards.steady(9.0))
        await stage.shows("22:13:29")
        await stage.pilot.pause()
        assert stage.feed.asked.count("engine/llama-a/kv_usage") == 2


@played
async def test_resizing_through_every_size_never_breaks() -> None:
    async with staged(boards.busy(), size=(80, 24)) as stage:
        for keys in ((), ("enter",), ("2",), ("3",), ("escape", "x")):
            await stage.press(*keys)
            for size in ((20, 3), (300, 80), (1, 1), (40, 8)):
                await stage.pilot.resize_terminal(*size)
                await stage.pilot.pause()
                lines = stage.text.splitlines()
                assert len(lines) == size[1]
        await stage.pilot.resize_terminal(39, 3)
        await stage.shows("opsboard needs 40x8")


HOSTILE_KEYS = [
    (),
    ("enter",),
    ("enter", "2"),
    ("l",),
    ("enter", "4"),
    ("e",),
    ("x",),
    ("question_mark",),
    ("y",),
    ("colon", "s", "space"),
]


@pytest.mark.parametrize(("size", "ascii_only"), [((80, 24), False), ((200, 60), True), ((41, 9), False)])
def test_hostile_strings_reach_no_screen(size: tuple[int, int], ascii_only: bool) -> None:
    async def story() -> None:
        async with staged(boards.hostile(), size=size, ascii_only=ascii_only) as stage:
            stage.feed.log = [f"line {n} {boards.HOSTILE}" for n in range(50)]
            for keys in HOSTILE_KEYS:
                await stage.press(*keys)
                await stage.pilot.pause()
                for line in stage.text.split("\n"):
                    assert sanitise(line) == line
                    assert not ascii_only or line.isascii()
                assert len(stage.text.split("\n")) == size[1]
                await stage.press("escape")
                stage.clock.advance(MESSAGE_S + 1)

    asyncio.run(story())
