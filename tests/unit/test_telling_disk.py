"""A disk that does not answer, or is full: a page is told all the same, once."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import threading
from pathlib import Path

import pytest

from opsboard.daemon import messenger
from tests.support.in_loop import in_loop
from tests.support.receiver import receiver
from tests.support.telling_life import fill, teller
from tests.support.waiting import wait_until, wait_until_async


@in_loop
async def test_a_page_is_told_while_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messenger, "PATIENCE_S", 0.05)
    with receiver() as service:
        (tmp_path / "opsboard.toml").write_text(
            f'[[channel]]\nname = "oncall"\nkind = "webhook"\nurl = "{service.url}"\n'
        )
        async with teller(tmp_path) as one:
            answers = threading.Event()

            def stand_still(_connection: object) -> None:
                answers.wait(20)

            one.store._change(stand_still)
            page, ticket = one.open("a"), one.open("b", "ticket")
            try:
                await wait_until_async(lambda: service.requests, what="a page")
                assert not page.done()
            finally:
                answers.set()
            await asyncio.gather(asyncio.wrap_future(page), asyncio.wrap_future(ticket))
            await wait_until_async(lambda: len(service.requests) > 1, what="the ticket")
            await one.told()
            kept = await one.store.outbox.listed(("sent", "due", "superseded"), 9)
        subjects = [json.loads(said.body)["alerts"][0]["labels"]["engine"] for said in service.requests]
        assert subjects == ["a", "b"], "the page before the disk has it, the ticket after that, each once"
        assert [one.state for one in kept] == ["sent", "sent"]


def test_a_page_is_told_while_the_disk_is_full(tmp_path: Path) -> None:
    with receiver() as service:
        (tmp_path / "opsboard.toml").write_text(
            f'[[channel]]\nname = "oncall"\nkind = "webhook"\nurl = "{service.url}"\n'
        )
        process = multiprocessing.get_context("spawn").Process(target=fill, args=(str(tmp_path),))
        process.start()
        try:
            wait_until(lambda: service.requests or not process.is_alive(), what="a page")
            (tmp_path / "heard").touch()
            process.join(20)
            assert process.exitcode == 0
        finally:
            process.kill()
            process.join()
        assert len(service.requests) == 1
