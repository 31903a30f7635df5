"""The small parts of the simulated engine: what it counts, what it says, how it reads requests, options and faults."""

from __future__ import annotations

import json

import msgspec
import pytest

from collectors.phases import PHASES, PhaseTracker
from opsboard.core.errors import NotFound, UsageError
from opsboard.sim import openai, text
from opsboard.sim.families import bounds
from opsboard.sim.faults import CATALOGUE, Faults, parse
from opsboard.sim.logs import StatsLine
from opsboard.sim.metrics import EngineMetrics
from opsboard.sim.model import EngineModel, Finished, FirstToken, Request, Shape, Stats, StepResult
from opsboard.sim.options import SimOptions, check
from opsboard.sim.pipe import Abort, Add, Frames, Stepped, ToCore, decode_from_core, decode_to_core, frame
from opsboard.sim.profiles import PROFILES, profile_named
from opsboard.sim.startup import CORE, FATAL, script

SHAPE = Shape()


def metrics() -> EngineMetrics:
    return EngineMetrics(bounds((0, 32, 0), 2048), 16)


# -- what is counted


def test_latencies_come_from_the_clock_that_vllm_takes_them_from() -> None:
    counted = metrics()
    counted.arrived(1, 10.0, 40, 3)
    first = FirstToken(1, 10.1, 10.3, 40, 16)
    counted.stepped(StepResult(10.3, 10.5, (1,), (first,), (), Stats(1, 0, 0.1)), 10.51)
    counted.stepped(StepResult(10.5, 10.6, (1,), (), (), Stats(1, 0, 0.1)), 10.61)
    counted.stepped(StepResult(10.6, 10.8, (1,), (), (Finished(1, "stop", 0),), Stats(0, 0, 0.0)), 10.81)
    totals = {name: histogram.total for name, histogram in counted.histograms.items()}
    expected = {"ttft": 0.51, "itl": 0.3, "tpot": 0.15, "e2e": 0.81, "queue": 0.2, "prefill": 0.2, "decode": 0.3}
    expected |= {"inference": 0.5, "output_len": 3, "prompt_len": 40, "computed_len": 24, "iteration": 24 + 3}
    assert {name: totals[name] for name in expected} == pytest.approx(expected)
    assert sum(counted.histograms["itl"].counts) == 2
    assert sum(counted.histograms["iteration"].counts) == 3
    assert counted.values["finished_stop"] == 1
    assert (counted.values["prompt_tokens"], counted.values["prompt_cached"]) == (40, 16)


def test_a_request_whose_client_left_is_counted_nowhere_but_in_its_tokens() -> None:
    counted = metrics()
    counted.arrived(1, 0.0, 4, 9)
    counted.stepped(StepResult(0.0, 0.1, (1,), (FirstToken(1, 0.0, 0.0, 4, 0),), (), Stats(1, 0, 0.1)), 0.1)
    counted.forget(1)
    counted.stepped(StepResult(0.1, 0.2, (1,), (), (Finished(1, "stop", 0),), Stats(0, 0, 0.0)), 0.2)
    assert counted.values["finished_stop"] == 0
    assert sum(counted.histograms["e2e"].counts) == 0
    assert counted.values["generation_tokens"] == 2


def test_stale_gauges_keep_their_value_while_counters_go_on() -> None:
    counted = metrics()
    counted.scheduler(Stats(3, 2, 0.5))
    counted.stale = True
    counted.scheduler(Stats(0, 0, 0.0, preemptions=4))
    assert (counted.values["running"], counted.values["kv_usage"], counted.values["preemptions"]) == (3, 0.5, 4)


def test_a_bound_belongs_to_its_bucket() -> None:
    histogram = metrics().histograms["queue"]
    for value in (0.3, 0.300001, 10_000.0):
        histogram.observe(value)
    assert (histogram.counts[0], histogram.counts[1], histogram.counts[-1]) == (1, 1, 1)


# -- what is said


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_the_lines_of_a_start_lead_through_the_phases_to_the_door(profile: str) -> None:
    tracker = PhaseTracker()
    seen = []
    lines = list(script(check(SimOptions(profile=profile)), "http://127.0.0.1:8000"))
    for line in lines:
        change = tracker.feed(line.text)
        if change is not None:
            seen.append(change.phase)
    reached = set(seen)
    expected = set(PHASES) - {"start", "ready"}
    if profile_named(profile).version < (0, 7, 0):
        expected -= {"compile", "graphs"}
    assert reached == expected
    assert [line.at for line in lines] == sorted(line.at for line in lines)
    assert tracker.reason is None


def test_a_fatal_start_is_understood() -> None:
    tracker = PhaseTracker()
    for line in FATAL.split("\n"):
        tracker.feed(line)
    assert tracker.reason is not None
    assert "No available memory for the cache blocks" in tracker.reason


def test_every_core_line_has_its_time_inside_the_start() -> None:
    lines = [line for line in script(check(SimOptions()), "") if line.role == CORE]
    assert all(0.0 < line.at < 1.0 for line in lines)


def test_the_stats_line_is_vllms_and_silent_when_idle() -> None:
    counted = metrics()
    stats = StatsLine(profile_named("vllm-0.32"), counted)
    assert stats.next(10.0) is None
    counted.scheduler(Stats(2, 1, 0.25, prefix_queries=40, prefix_hits=10))
    counted.values["generation_tokens"] += 500
    assert stats.next(10.0) == (
        "Engine 000: Avg prompt throughput: 0.0 tokens/s, Avg generation throughput: 50.0 tokens/s, Running: 2 reqs, "
        "Waiting: 1 reqs, GPU KV cache usage: 25.0%, Prefix cache hit rate: 25.0%"
    )
    assert stats.next(10.0) is not None, "one more, when it has become idle"
    assert stats.next(10.0) is None


# -- text and requests


def test_the_same_prompt_gets_the_same_answer_and_every_token_is_four_bytes() -> None:
    one, other = (text.read_prompt(text.text_bytes(words), 16) for words in ("hello there", "hello thera"))
    assert [text.word(one.seed, index) for index in range(9)] == [text.word(one.seed, index) for index in range(9)]
    assert one.seed != other.seed
    assert {len(word) for word in text.WORDS} == {text.TOKEN_BYTES}
    assert text.read_prompt(b"x" * 9, 16).tokens == 3


def test_block_names_cover_everything_before_them() -> None:
    size = 4 * text.TOKEN_BYTES
    one = text.read_prompt(b"a" * size + b"b" * size + b"c", 4)
    two = text.read_prompt(b"a" * size + b"b" * size + b"d", 4)
    three = text.read_prompt(b"x" * size + b"b" * size + b"c", 4)
    assert one.hashes == two.hashes
    assert len(one.hashes) == 2
    assert not set(one.hashes) & set(three.hashes)


def read(body: object, *, chat: bool = False) -> openai.Call:
    return openai.read(msgspec.json.encode(body), "m", SHAPE, chat=chat)


def test_lengths_follow_max_tokens_eos_and_the_context() -> None:
    assert read({"prompt": "hi"}).max_tokens == 16
    call = read({"prompt": "hi", "max_tokens": 5000})
    assert (call.sized.finish, call.sized.output_tokens < 5000) == ("stop", True)
    call = read({"prompt": "hi", "max_tokens": 5000, "ignore_eos": True})
    assert (call.sized.finish, call.sized.output_tokens) == ("length", 5000)
    chat = read({"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}, chat=True)
    assert chat.max_tokens == SHAPE.max_model_len - chat.sized.prompt_tokens


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"prompt": ""}, 400),
        ({}, 400),
        ({"prompt": ["a", "b"]}, 400),
        ({"prompt": "a", "model": "other"}, 404),
        ({"prompt": "a", "n": 2}, 400),
        ({"prompt": "a", "max_tokens": 0}, 400),
        ({"prompt": "a", "max_tokens": 8192}, 400),
        ({"prompt": "a" * 40_000}, 400),
        ({"prompt": [[1]]}, 400),
        ([], 400),
    ],
)
def test_impossible_requests_are_refused_in_vllms_words(body: object, status: int) -> None:
    with pytest.raises(openai.Refusal) as refused:
        read(body)
    assert refused.value.status == status
    assert json.loads(refused.value.body)["error"]["code"] == status


def test_chunks_are_json_and_join_to_the_whole() -> None:
    call = read({"prompt": [1, 2, 3], "max_tokens": 6, "ignore_eos": True, "stream": True, "return_token_ids": True})
    writer = openai.Writer(call, "cmpl-1", 5, "m", "f")
    stream = writer.opening() + writer.chunk(0, 2, None) + writer.chunk(2, 6, "length") + writer.closing(6)
    events = [line.removeprefix("data: ") for line in stream.decode().split("\n\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event)["choices"][0] for event in events[:-1]]
    whole = json.loads(writer.whole(6, "length"))
    assert "".join(chunk["text"] for chunk in chunks) == whole["choices"][0]["text"]
    assert [chunk["finish_reason"] for chunk in chunks] == [None, "length"]
    assert whole["usage"] == {"prompt_tokens": 3, "total_tokens": 9, "completion_tokens": 6}
    assert whole["choices"][0]["prompt_token_ids"] == [1, 2, 3]
    assert [one for chunk in chunks for one in chunk["token_ids"]] == whole["choices"][0]["token_ids"]


# -- options, faults, the pipe


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (SimOptions(blocks=10), "fewer than one request"),
        (SimOptions(profile="vllm-9"), "no profile"),
        (SimOptions(faults=("leak=x",)), "not a number"),
        (SimOptions(faults=("leak=-1",)), "from 0 up"),
        (SimOptions(port=70_000), "no port"),
        (SimOptions(step_ms=0), "step-ms"),
        (SimOptions(max_num_seqs=0), "max-num-seqs"),
    ],
)
def test_impossible_options_are_named(options: SimOptions, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check(options)


def test_faults_are_known_by_name_and_have_a_default_value() -> None:
    faults = parse(["leak", "slow_step=2.5"])
    assert faults.as_dict() == {"leak": CATALOGUE["leak"].default, "slow_step": 2.5}
    with pytest.raises(NotFound, match="no fault 'leek'"):
        Faults().set("leek")
    faults.clear("leak")
    assert "leak" not in faults
    assert faults.value("slow_step", 1.0) == 2.5


def test_messages_survive_the_pipe_in_any_pieces() -> None:
    model = EngineModel(SHAPE)
    model.add(Request(1, 20, (7,), 2, "stop", 3), 0.5)
    sent: list[ToCore] = [Add(Request(1, 20, (7,), 2, "stop", 3), 0.5), Abort(9)]
    data = b"".join(map(frame, sent))
    frames = Frames()
    got = [decode_to_core(body) for at in range(len(data)) for body in frames.feed(data[at : at + 1])]
    assert got == sent
    stepped = Stepped(model.step(1.0))
    assert [decode_from_core(body) for body in Frames().feed(frame(stepped))] == [stepped]
