"""The worker of a channel, in virtual time: order, retries, rests, dead letters."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from alerts.answers import by_status
from alerts.delivery import GIVEN_UP_S, Worker
from alerts.notifier import Answer, Http, Later, Notifier, Outcome, Rate, Refused, Request, Sent
from opsboard.core.clock import Clock, Now
from opsboard.core.deliveries import Delivery, NewDelivery
from opsboard.core.errors import StoreError
from opsboard.core.secret import Secret
from tests.support import virtual_time
from tests.support.messages import LEAK, OVER, delivery, new, told

START = virtual_time.WALL_START


class Outbox:
    """In memory, as the store's."""

    def __init__(self, *waiting: Delivery) -> None:
        self.waiting = {one.id: replace(one, created=START, not_before=START) for one in waiting}
        self.done: list[tuple[int, str, str | None]] = []
        self.early: list[str] = []
        self.broken = 0
        self.mark: Callable[[], Future[None]] = _done
        """How long a mark takes to be on disk; meanwhile the message is still found."""

    async def due(self, channel: str, now: float, limit: int) -> list[Delivery]:
        if self.broken:
            self.broken -= 1
            raise StoreError("the disk is gone")
        found = [one for one in self.waiting.values() if one.not_before <= now]
        return sorted(found, key=lambda one: (one.attempts, one.id))[:limit]

    async def next_due(self, channel: str) -> float | None:
        return min((one.not_before for one in self.waiting.values()), default=None)

    def delivered(self, delivery: Delivery, ref: str | None) -> Future[None]:
        return self._over(delivery, "sent", ref)

    def given_up(self, delivery: Delivery, error: str) -> Future[None]:
        return self._over(delivery, "dead", error)

    def delayed(self, delivery: Delivery, error: str, not_before: float) -> Future[None]:
        one = self.waiting[delivery.id]
        self.waiting[delivery.id] = replace(one, attempts=one.attempts + 1, not_before=not_before, error=error)
        return _done()

    def sent_early(self, said: NewDelivery, ref: str | None) -> Future[None]:
        self.early.append(said.message.uid)
        return self.mark()

    def _over(self, delivery: Delivery, how: str, why: str | None) -> Future[None]:
        self.done.append((delivery.id, how, why))
        written = self.mark()
        if written.done():
            del self.waiting[delivery.id]
        else:
            written.add_done_callback(lambda _: self.waiting.pop(delivery.id))
        return written


def pending(kept: list[Future[None]]) -> Callable[[], Future[None]]:
    """Return what makes futures that are done when somebody says so."""

    def make() -> Future[None]:
        kept.append(Future())
        return kept[-1]

    return make


def _done() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future


class Service:
    """Answers by a script, the last answer for ever; keeps when it was asked."""

    def __init__(self, *answers: Answer | int) -> None:
        self.answers = [one if isinstance(one, Answer) else Answer(status=one) for one in answers]
        self.asked: list[tuple[float, bytes]] = []

    async def send(self, request: Request) -> Answer:
        assert isinstance(request, Http)
        self.asked.append((round(asyncio.get_running_loop().time(), 3), request.body))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def plain(_params: Any, one: Delivery) -> Sequence[Request]:
    return [Http(url=Secret("http://x/"), body=str(one.id).encode())]


OFTEN = Rate(every_s=1.0, burst=100)


def go(
    outbox: Outbox,
    service: Service,
    seconds: float = 3600,
    rate: Rate = OFTEN,
    *,
    render: Callable[[Any, Delivery], Sequence[Request]] = plain,
    hurry_at: float | None = None,
    then: Callable[[Worker], None] = lambda _worker: None,
    clock: Clock | None = None,
) -> list[Outcome]:
    """``then`` happens with the worker after 5 s."""
    heard: list[Outcome] = []
    notifier = Notifier(
        kind="fake",
        summary="",
        params=msgspec.Struct,
        render=render,
        classify=lambda _params, answer: by_status(answer),
        rate=rate,
    )

    async def main() -> None:
        worker = Worker(
            "chat",
            None,
            notifier,
            outbox,
            sender=service,
            clock=clock or virtual_time.LoopClock(),
            hear=lambda _channel, _delivery, outcome: heard.append(outcome),
        )
        if hurry_at is not None:
            asyncio.get_running_loop().call_later(hurry_at, worker.hurry)
        asyncio.get_running_loop().call_later(5, then, worker)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await worker.run()

    virtual_time.run(main())
    return heard


def test_sent_then_marked() -> None:
    outbox, service = Outbox(delivery()), Service(200)
    assert go(outbox, service) == [Sent()]
    assert outbox.done == [(1, "sent", None)]
    assert len(service.asked) == 1


def test_what_fails_is_tried_again_on_the_schedule_of_pages() -> None:
    outbox, service = Outbox(delivery()), Service(503)
    go(outbox, service, seconds=1000)
    assert [t for t, _ in service.asked] == [0, 2, 7, 22, 52, 112, 412, 712]
    assert not outbox.done


def test_a_service_that_does_not_answer_rests_for_all_messages() -> None:
    outbox, service = Outbox(delivery(), delivery(id=2)), Service(Answer(status=None, error="refused"), 200)
    go(outbox, service, seconds=60)
    assert service.asked == [(0, b"1"), (2, b"2"), (2, b"1")], "the one that was not tried comes first"


def test_who_mends_a_channel_need_not_wait_for_it() -> None:
    outbox, service = Outbox(delivery()), Service(503)
    go(outbox, service, seconds=100, hurry_at=40)
    assert [t for t, _ in service.asked] == [0, 2, 7, 22, 52], "what is not due stays so"
    outbox, service = (
        Outbox(delivery(), delivery(id=2)),
        Service(Answer(status=429, headers={"retry-after": "40"}), 200),
    )
    go(outbox, service, seconds=100, hurry_at=10)
    assert [t for t, _ in service.asked] == [0, 10, 40]


def test_the_service_says_when() -> None:
    outbox, service = Outbox(delivery()), Service(Answer(status=429, headers={"retry-after": "40"}), 200)
    assert go(outbox, service, seconds=100) == [Later("HTTP 429", 40.0), Sent()]
    assert [t for t, _ in service.asked] == [0, 40]


def test_no_service_may_ask_for_more_than_an_hour() -> None:
    outbox, service = Outbox(delivery()), Service(Answer(status=429, headers={"retry-after": "1e9"}), 200)
    go(outbox, service, seconds=4000)
    assert [t for t, _ in service.asked] == [0, 3600]


def test_what_is_refused_is_a_dead_letter_and_holds_nobody_up() -> None:
    outbox, service = Outbox(delivery(), delivery(id=2)), Service(Answer(status=400, body=b"no \x1b[2J"), 200)
    heard = go(outbox, service, seconds=1)
    assert heard == [Refused("HTTP 400: no \ufffd[2J"), Sent()]
    assert outbox.done == [(1, "dead", "HTTP 400: no \ufffd[2J"), (2, "sent", None)]


def test_nothing_is_tried_for_ever() -> None:
    outbox, service = Outbox(delivery()), Service(503)
    go(outbox, service, seconds=GIVEN_UP_S + 700)
    ((_, how, why),) = outbox.done
    assert how == "dead"
    assert why is not None
    assert "24 h" in why


def test_a_service_is_asked_no_more_often_than_it_wants() -> None:
    outbox, service = Outbox(*(delivery(id=n) for n in range(1, 8))), Service(200)
    go(outbox, service, rate=Rate(every_s=5.0, burst=3), seconds=60)
    assert [t for t, _ in service.asked] == [0, 0, 0, 5, 10, 15, 20]


def test_a_notifier_that_breaks_gives_one_message_up() -> None:
    def render(_params: Any, one: Delivery) -> Sequence[Request]:
        if one.id == 1:
            raise KeyError("x")
        return plain(None, one)

    outbox, service = Outbox(delivery(), delivery(id=2)), Service(200)
    go(outbox, service, seconds=1, render=render)
    assert [(number, how) for number, how, _ in outbox.done] == [(1, "dead"), (2, "sent")]


def test_a_message_that_a_service_does_not_care_for_is_done_without_a_word() -> None:
    outbox, service = Outbox(delivery()), Service(200)
    assert go(outbox, service, seconds=1, render=lambda _params, _one: []) == [Sent()]
    assert not service.asked


def test_several_requests_go_in_order_and_the_first_name_counts() -> None:
    def render(_params: Any, one: Delivery) -> Sequence[Request]:
        return [Http(url=Secret("http://x/"), body=b"a"), Http(url=Secret("http://x/"), body=b"b")]

    outbox, service = Outbox(delivery()), Service(200, 503, 200)
    go(outbox, service, seconds=10, render=render)
    assert [body for _, body in service.asked] == [b"a", b"b", b"a", b"b"], "at least once"
    assert outbox.done == [(1, "sent", None)]


def test_a_disk_that_fails_is_asked_again() -> None:
    outbox, service = Outbox(delivery()), Service(200)
    outbox.broken = 3
    go(outbox, service, seconds=10)
    assert [t for t, _ in service.asked] == [3]


def test_what_the_disk_does_not_mark_is_not_sent_again_and_holds_nobody_up() -> None:
    messages = [told(replace(LEAK, id=n, uid=str(n))) for n in (1, 2, 3)]
    outbox, service = Outbox(*(delivery(of, id=of.number) for of in messages)), Service(200)
    slow: list[Future[None]] = []
    outbox.mark = pending(slow)
    go(outbox, service, seconds=3600)
    assert [t for t, _ in service.asked] == [0, 2, 2], "each once, though the outbox still has them"
    assert len(outbox.waiting) == 3

    def taken(_worker: Worker) -> None:
        for one in slow:
            one.set_result(None)

    outbox, service, slow = Outbox(delivery(messages[0])), Service(200), []
    outbox.mark = pending(slow)
    go(outbox, service, seconds=3600, then=taken)
    assert (len(service.asked), outbox.waiting) == (1, {})


def test_a_mark_that_is_refused_is_made_again() -> None:
    outbox, service = Outbox(delivery()), Service(200)

    def refused() -> Future[None]:
        outbox.mark = _done
        future: Future[None] = Future()
        future.set_exception(StoreError("too many are waiting"))
        return future

    def over(delivery: Delivery, how: str, why: str | None) -> Future[None]:
        written = outbox.mark()
        if written.exception() is None:
            del outbox.waiting[delivery.id]
        outbox.done.append((delivery.id, how, why))
        return written

    outbox.mark, outbox._over = refused, over  # type: ignore[method-assign]
    go(outbox, service, seconds=60)
    assert (len(service.asked), outbox.done, outbox.waiting) == (1, [(1, "sent", None)] * 2, {})


def test_what_the_disk_does_not_take_is_sent_from_memory_and_marked() -> None:
    outbox, service = Outbox(), Service(503, 200)
    seen: list[Delivery] = []

    def render(_params: Any, one: Delivery) -> Sequence[Request]:
        seen.append(one)
        return plain(None, one)

    def then(worker: Worker) -> None:
        for step in ("trigger", "update"):
            worker.tell_early(new("chat", told(step=step)))
        asyncio.get_running_loop().call_later(10, worker.tell_early, new("chat", told(OVER, "resolve", t=START + 15)))

    go(outbox, service, seconds=60, render=render, then=then)
    steps = [(one.message.step, one.told) for one in seen]
    assert steps == [("update", False), ("update", False), ("resolve", True)], "the newest, until it is taken"
    assert seen[0].seq == seen[1].seq < seen[2].seq, "the key of a message is its own, and stays"
    assert [t for t, _ in service.asked] == [5, 7, 15]
    assert outbox.early == [LEAK.uid] * 2


def test_a_page_that_comes_does_not_wait_behind_what_was_read_before() -> None:
    tickets = [delivery(told(replace(LEAK, uid=str(n))), id=n) for n in range(10, 30)]
    outbox, service = Outbox(*tickets), Service(200)

    def then(worker: Worker) -> None:
        outbox.waiting[1] = replace(delivery(), created=START, not_before=START)
        worker.wake()

    go(outbox, service, rate=Rate(every_s=1.0, burst=1), seconds=100, then=then)
    assert (6, b"1") in service.asked
    assert len(service.asked) == 21


class Jumping(virtual_time.LoopClock):
    """Its wall clock is set by so many seconds when it is 1 s old."""

    def __init__(self, by_s: float) -> None:
        super().__init__()
        self._by_s = by_s

    def now(self) -> Now:
        now = super().now()
        return Now(wall=now.wall + (self._by_s if now.mono > 1 else 0), mono=now.mono)


@pytest.mark.parametrize("by_s", [-86_400.0, -600.0, 3 * 86_400.0])
def test_a_clock_that_jumps_makes_nothing_late_and_nothing_old(by_s: float) -> None:
    outbox, service = Outbox(delivery()), Service(503, 503, 503, 200)
    go(outbox, service, seconds=60, clock=Jumping(by_s))
    assert [t for t, _ in service.asked] == [0, 2, 7, 22]
    assert outbox.done == [(1, "sent", None)]


def test_every_status_means_something() -> None:
    for status in range(100, 600):
        outcome = by_status(Answer(status=status))
        if 200 <= status < 300:
            assert outcome == Sent()
        elif status in {408, 421, 423, 425, 429} or status >= 500:
            assert isinstance(outcome, Later)
        else:
            assert isinstance(outcome, Refused)


def test_dates_in_retry_after() -> None:
    headers = {"retry-after": "Tue, 14 Nov 2023 22:14:20 GMT"}
    assert by_status(Answer(status=503, at=START, headers=headers)) == Later("HTTP 503", 60.0)
    assert by_status(Answer(status=503, headers={"retry-after": "soon"})) == Later("HTTP 503", None)
