"""Incidents on the screen: from the board to one, what a person does about it, and back."""

from __future__ import annotations

import msgspec

from opsboard.core.errors import Conflict
from opsboard.tui.screens.board import BoardPage
from opsboard.tui.screens.engine import EnginePage
from opsboard.tui.screens.incident import AGAIN_S
from tests.screens import boards, troubles
from tests.screens.stage import staged
from tests.screens.test_pages import played
from tests.support.waiting import wait_until_async


@played
async def test_one_key_leads_from_the_board_to_what_is_most_urgent_and_to_the_next() -> None:
    async with staged(troubles.board()) as stage:
        await stage.shows("▲ page   llama-b     has leaked 48 KV blocks")
        assert stage.footer.startswith(" i incident")
        await stage.press("i")
        await stage.shows("open for 12m, not taken on")
        await stage.shows("only a restart gives lost blocks back: plan one within 48m20")
        await stage.shows("██ lost 7%   ░░ in use")
        await stage.shows("ana (uid 1000): traffic moved to llama-a")
        await stage.press("right_square_bracket")
        await stage.shows("llama-a, suspected: tokens take 17% longer")
        await stage.shows("longer than the load explains  17%  ┄┄ 8%")
        await stage.press("left_square_bracket", "left_square_bracket")
        await stage.shows("host memory by requests finished")
        await stage.press("2")
        await stage.shows("each finished request  62.0K")
        await stage.press("escape")
        await stage.shows("STATE       ENGINE")


@played
async def test_a_board_without_incidents_says_nothing_of_them_and_lists_none() -> None:
    async with staged(boards.busy()) as stage:
        await stage.shows("no incidents")
        assert "incident" not in stage.footer
        assert stage.text.splitlines()[1].startswith(" STATE")
        await stage.press("i")
        await stage.shows("incidents: 0 open, 0 over")
        await stage.shows("no incident so far")
        await stage.press("enter", "j", "q")
        await stage.shows("STATE       ENGINE")


@played
async def test_it_is_taken_on_noted_and_resolved_after_a_question() -> None:
    async with staged(troubles.board()) as stage:
        await stage.press("i")
        await stage.shows("timeline ─")
        await stage.press("a")
        await stage.shows("incident 7 is taken on")
        await stage.press("n")
        assert stage.footer.startswith(" note ")
        await stage.press(*"moved qR", "enter")
        await stage.shows("incident 7 has your note")
        await stage.press("z")
        assert stage.footer.startswith(" silence 2h ")
        await stage.press(*"swap", "enter")
        await stage.shows("incident 7 is silenced")
        await stage.press("R")
        await stage.shows("closed for good, in your")
        stage.clock.advance(1.0)
        await stage.press("enter")
        await stage.shows("nothing was done")
        await stage.press("R", "tab")
        stage.clock.advance(1.0)
        await stage.press("enter")
        await stage.shows("incident 7 is resolved")
        assert stage.feed.told == [
            (7, "ack", None),
            (7, "note", "moved qR"),
            (7, "silence", "2h swap"),
            (7, "resolve", None),
        ]


@played
async def test_an_empty_note_and_a_second_ack_say_nothing_to_the_daemon_and_refusals_are_told() -> None:
    async with staged(troubles.board(troubles.slow())) as stage:
        await stage.press("i")
        await stage.shows("taken on 22:10:00 by ana")
        await stage.press("a")
        await stage.shows("taken on already by ana (uid 1000); n writes a note")
        await stage.press("n", "space", "enter")
        await stage.press("n", "x", "escape")
        assert stage.feed.told == []
        stage.feed.refuses = Conflict("incident 8 is resolved already", hint="opsboard incident note 8 TEXT")
        await stage.press("n", "x", "enter")
        await stage.shows("note: incident 8 is resolved already")


@played
async def test_read_only_looks_and_refuses_with_a_word() -> None:
    async with staged(troubles.board(), readonly=True) as stage:
        await stage.press("i")
        await stage.shows("timeline ─")
        assert " a ack" not in stage.footer
        for key in ("a", "n", "z", "R"):
            await stage.press(key)
            await stage.shows("read-only: incidents cannot be touched from here")
        await stage.press("r")
        await stage.shows("read-only: engines cannot be touched from here")
        await stage.press("question_mark")
        await stage.shows("acknowledge (read-only)")
        assert stage.feed.told == []


@played
async def test_the_list_holds_what_is_over_and_opens_it_among_its_neighbours() -> None:
    async with staged(troubles.board()) as stage:
        stage.feed.past = [troubles.hang(id=3, uid="u3", summary="an old one"), troubles.leak()]
        await stage.press("colon", *"incidents", "enter")
        await stage.shows("incidents: 3 open, 2 over")
        await stage.press("G")
        await stage.shows("▸▲ page   llama-b     an old one")
        await stage.press("enter")
        await stage.shows("incident 3  stall  llama-b  resolved, lasted 1m")
        await stage.press("a")
        await stage.shows("incident 3 is resolved already; a note can still be written")
        await stage.press("right_square_bracket")
        await stage.shows("incident 7")
        await stage.press("i")
        await stage.shows("incidents: 3 open, 2 over")
        await stage.press("q")
        await stage.shows("STATE       ENGINE")
        assert isinstance(stage.app.page, BoardPage)
        await stage.press("colon", *"incident 8", "enter")
        await stage.shows("incident 8")
        await stage.press("colon", *"incident 99", "enter")
        await stage.shows("there is no incident 99")


@played
async def test_an_engine_leads_to_its_incident_and_back_without_piling_up_pages() -> None:
    async with staged(troubles.board()) as stage:
        await stage.press("j", "enter")
        await stage.shows("has leaked 48 KV blocks in 12 m 0 s")
        for _ in range(3):
            await stage.press("i")
            await stage.shows("incident 7")
            await stage.press("enter")
            await stage.hides("not taken on")
        assert isinstance(stage.app.page, EnginePage)
        assert len(stage.app.screen_stack) <= 4
        await stage.press("q")
        await stage.shows("STATE       ENGINE")
        await stage.press("i", "l")
        await stage.shows("3 log")
        await stage.shows("Avg generation throughput")
        await stage.press("q")
        await stage.shows("incident 7")


@played
async def test_its_numbers_are_of_now_its_past_is_asked_for_now_and_then_and_its_end_is_seen() -> None:
    async with staged(troubles.board()) as stage:
        await stage.press("i")
        await stage.shows("timeline ─")
        asked = stage.feed.asked_incidents
        more = troubles.leak(summary="has leaked 50 KV blocks")
        stage.feed.say(troubles.board(more, t=1.0))
        await stage.shows("llama-b has leaked 50 KV blocks")
        assert stage.feed.asked_incidents == asked
        stage.clock.advance(AGAIN_S)
        stage.feed.say(troubles.board(more, t=11.0))
        await wait_until_async(lambda: stage.feed.asked_incidents == asked + 1)
        over = msgspec.structs.replace(more, ended=boards.T0, resolved=boards.T0 + 60, state="resolved")
        stage.feed.say(troubles.board(over, t=61.0))
        await stage.shows("resolved, lasted 12m")
        await wait_until_async(lambda: stage.feed.asked_incidents == asked + 2)


@played
async def test_the_mouse_opens_what_it_points_at() -> None:
    async with staged(troubles.board()) as stage:
        await stage.shows("qwen-coder  its EngineCore")
        await stage.pilot.click(offset=(20, 4))
        await stage.shows("incident 9")
        await stage.press("i")
        await stage.shows("incidents: 3 open, 1 over")
        row = next(y for y, line in enumerate(stage.text.splitlines()) if "stall" in line or "no step ends" in line)
        await stage.pilot.click(offset=(20, row))
        await stage.shows("▸▲ page   llama-b     requests run")
        await stage.pilot.click(offset=(20, row))
        await stage.shows("incident 5")


@played
async def test_every_size_holds_and_a_daemon_without_an_answer_is_told() -> None:
    async with staged(troubles.board()) as stage:
        stage.feed.refuses = Conflict("too busy to say")
        await stage.press("i")
        await stage.shows("too busy to say")
        stage.feed.refuses = None
        stage.clock.advance(AGAIN_S)
        stage.feed.say(troubles.board(t=11.0))
        await stage.hides("too busy to say")
        for size in ((40, 8), (41, 9), (60, 12), (100, 30), (200, 60), (20, 5), (80, 24)):
            await stage.pilot.resize_terminal(*size)
            for key in ("1", "2", "3", "j", "k", "G"):
                await stage.press(key)
        await stage.shows("incident 7")
