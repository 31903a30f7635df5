"""From readings to samples, events and states: pure, no clock, no socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from opsboard.core.clock import ManualClock, Now
from opsboard.core.model import (
    EngineReading,
    EngineState,
    EngineView,
    GpuProcess,
    GpuReading,
    GpuView,
    Histogram,
    HostReading,
    HostView,
    LifeView,
    Outcome,
    ProcessReading,
    ProcessView,
    Severity,
    Transition,
)
from opsboard.daemon.pipeline import Effects, EngineSpec, PipelineState, SelfReading, feed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opsboard.daemon.pipeline import Reading

OBSERVED = EngineSpec(name="a", url="http://127.0.0.1:8001")
SUPERVISED = EngineSpec(name="a", url="http://127.0.0.1:8001", supervised=True, command=("serve",))


class Line:
    """A pipeline, a clock, and all that came out of it."""

    def __init__(self, *specs: EngineSpec) -> None:
        self.clock = ManualClock()
        self.state = PipelineState("gpu-a", specs)

    def feed(self, *readings: Reading, after: float = 1.0) -> Effects:
        effects = Effects()
        self.clock.advance(after)
        for reading in readings:
            effects = feed(self.state, reading, self.clock.now())
        return effects

    def engine_state(self) -> EngineState | None:
        return self.state.engines["a"].state


def ok(
    tokens: float = 0.0, *, start: float | None = None, asleep: bool | None = None, **gauges: float
) -> EngineReading:
    view = EngineView(
        kind="vllm",
        model="llama",
        process_start=start,
        asleep=asleep,
        counters={"generation_tokens": tokens, "prompt_tokens": 2 * tokens},
        histograms={"ttft": Histogram(bounds=(0.1, 1.0, float("inf")), counts=(tokens, tokens, tokens), total=tokens)},
        **gauges,  # type: ignore[arg-type]
    )
    return EngineReading(engine="a", outcome=Outcome.OK, view=view, duration_s=0.01)


def failed(error: str = "connection refused") -> EngineReading:
    return EngineReading(engine="a", outcome=Outcome.FAILED, error=error, duration_s=0.02)


def life(state: EngineState, since: float, started: float | None = 1.0, message: str | None = None) -> LifeView:
    return LifeView(engine="a", state=state, since=since, supervised=True, started=started, message=message, pid=7)


def values(effects: Effects) -> dict[str, float]:
    return {sample.series.rpartition("/")[2]: sample.value for sample in effects.samples}


def said(effects: Effects) -> list[tuple[str, Severity, str]]:
    return [(event.kind, event.severity, event.text) for event in effects.events if event.kind != "incident"]


def test_known_fields_become_samples_and_unknown_ones_do_not() -> None:
    line = Line(OBSERVED)
    assert values(line.feed(ok(10, running=3))) == {
        "up": 1.0, "scrape_s": 0.01, "running": 3.0, "generation_tokens": 10.0, "prompt_tokens": 20.0,
    }  # fmt: skip
    after = values(line.feed(ok(60), after=5.0))
    assert after["generation_tokens_per_s"] == pytest.approx(10.0)
    assert after["prompt_tokens_per_s"] == pytest.approx(20.0)
    assert after["ttft_p95_s"] == pytest.approx(0.095)
    assert "running" not in after
    assert "itl_p95_s" not in after


def test_computed_values_are_kept_at_four_digits_and_read_ones_as_they_were() -> None:
    line = Line(OBSERVED)
    line.feed(ok(1_000_003.0, kv_usage=0.123456789))
    found = values(line.feed(ok(1_000_103.0, kv_usage=0.987654321), after=7.0))
    assert found["generation_tokens_per_s"] == 14.29
    assert found["generation_tokens"] == 1_000_103.0
    assert found["kv_usage"] == 0.987654321
    figures = line.state.engines["a"].figures
    assert figures.generation_tokens_per_s == pytest.approx(100 / 7)  # the board shows all of it
    host = HostReading(outcome=Outcome.OK, host=HostView(cpu_ratio=1 / 3, load1=1.23456, disk_free_bytes=123_456_789))
    assert values(line.feed(host)) == {"cpu_ratio": 0.3333, "load1": 1.23456, "disk_free_bytes": 123_456_789.0}


def test_an_observed_engine_is_what_its_page_says() -> None:
    line = Line(OBSERVED)
    assert line.engine_state() is None
    assert said(line.feed(ok())) == []
    assert line.engine_state() is EngineState.READY
    down = line.feed(failed())
    assert said(down) == [("unreachable", Severity.WARNING, "ready → unreachable: connection refused")]
    assert values(down) == {"up": 0.0, "scrape_s": 0.02}
    assert said(line.feed(failed())) == []
    assert said(line.feed(ok())) == [("ready", Severity.INFO, "unreachable → ready")]
    assert said(line.feed(ok(asleep=True))) == [("asleep", Severity.INFO, "ready → asleep")]


def test_an_engine_that_is_down_at_the_start_is_told() -> None:
    assert said(Line(OBSERVED).feed(failed())) == [
        ("unreachable", Severity.WARNING, "found unreachable: connection refused")
    ]


def test_a_page_without_engine_series() -> None:
    nothing = EngineReading(engine="a", outcome=Outcome.NO_DATA, error="no engine series on the page")
    line = Line(OBSERVED)
    line.feed(nothing)
    assert line.engine_state() is EngineState.UNREACHABLE
    known = Line(EngineSpec(name="a", kind="vllm", url="http://127.0.0.1:8001"))
    known.feed(nothing)
    assert known.engine_state() is EngineState.READY
    assert known.state.engines["a"].message == "no engine series on the page"


def test_the_last_good_view_is_kept_and_ages() -> None:
    line = Line(OBSERVED)
    line.feed(ok(running=3))
    line.feed(failed(), after=10.0)
    track = line.state.engines["a"]
    assert track.age_s(line.clock.now()) == pytest.approx(10.0)
    view = track.fresh_view(line.clock.now())
    assert view is not None
    assert view.running == 3
    assert track.fresh_view(line.clock.advance(300.0)) is None


def test_a_counter_reset_is_a_restart_and_never_a_negative_rate() -> None:
    line = Line(OBSERVED)
    for n in range(30):
        line.feed(ok(1000.0 + 10 * n))
    track = line.state.engines["a"]
    assert track.figures.generation_tokens_per_s == pytest.approx(10.0)
    effects = line.feed(ok(5.0))
    assert said(effects)[0][0] == "restarted"
    assert track.restarted
    assert track.restarts == 1
    assert track.figures.generation_tokens_per_s is None
    for n in range(5):
        assert all(value >= 0 for value in values(line.feed(ok(5.0 + 20 * (n + 1)))).values())
    assert track.figures.generation_tokens_per_s == pytest.approx(20.0)
    assert not track.restarted
    assert track.restarts == 1


def test_a_new_process_is_a_restart_even_when_its_counters_are_higher() -> None:
    line = Line(OBSERVED)
    line.feed(ok(5.0, start=100.0), ok(6.0, start=100.5))
    assert line.state.engines["a"].restarts == 0
    effects = line.feed(ok(5000.0, start=900.0), after=60.0)
    assert line.state.engines["a"].restarts == 1
    assert "generation_tokens_per_s" not in values(effects)


def test_a_supervised_engine_is_what_supervision_says() -> None:
    line = Line(SUPERVISED)
    t = line.clock.now().wall
    assert said(line.feed(life(EngineState.STOPPED, t, None))) == []
    assert said(line.feed(life(EngineState.STARTING, t + 2))) == [("starting", Severity.INFO, "stopped → starting")]
    line.feed(life(EngineState.READY, t + 3))
    assert line.engine_state() is EngineState.READY
    line.feed(ok(5))
    line.feed(failed())
    assert line.engine_state() is EngineState.UNREACHABLE
    line.feed(ok(6, asleep=True))
    assert line.engine_state() is EngineState.ASLEEP
    line.feed(life(EngineState.STOPPING, t + 9))
    line.feed(failed())
    assert line.engine_state() is EngineState.STOPPING
    crashed = line.feed(life(EngineState.FAILED, t + 12, message="exited by itself with code 1"))
    assert said(crashed) == [("failed", Severity.ERROR, "stopping → failed: exited by itself with code 1")]
    assert line.state.engines["a"].state_since == t + 12


@pytest.mark.parametrize("state", [EngineState.STOPPED, EngineState.PARKED, EngineState.READY])
def test_what_lasts_has_lasted_since_an_earlier_daemon_wrote_it_down(state: EngineState) -> None:
    line = Line(SUPERVISED)
    t = line.clock.now().wall
    line.state.recall([Transition(t=t - 500, engine="a", state=state), Transition(t=t, engine="gone", state=state)])
    line.feed(life(state, t))
    track = line.state.engines["a"]
    assert track.state_since == (t if state is EngineState.READY else t - 500), "one that is ready may be another life"
    line.feed(life(EngineState.STARTING, t + 1), life(state, t + 2))
    assert track.state_since == t + 2


def test_what_a_person_can_do_follows_what_is_said() -> None:
    line = Line(SUPERVISED)
    parked = msgspec.structs.replace(life(EngineState.PARKED, 1.0, message="bad flag"), hint="start it")
    assert said(line.feed(life(EngineState.READY, 0.0), parked))[-1][2] == "ready → parked: bad flag; start it"
    assert line.state.engines["a"].hint == "start it"


def test_who_does_not_answer_is_told_for_that_and_not_for_an_older_note() -> None:
    line = Line(SUPERVISED)
    line.feed(life(EngineState.READY, since=1_000_000.0, message="its shim is gone"))
    line.feed(ok(), after=1.0)
    ((_, _, text),) = said(line.feed(failed(), after=1.0))
    assert text == "ready → unreachable: connection refused; its shim is gone"


def test_a_scrape_of_before_the_engine_was_ready_proves_nothing() -> None:
    line = Line(SUPERVISED)
    line.feed(life(EngineState.STARTING, line.clock.now().wall))
    line.feed(failed())
    line.feed(life(EngineState.READY, line.clock.now().wall + 1))
    assert line.engine_state() is EngineState.READY


def test_a_new_life_forgets_the_old_ones_numbers() -> None:
    line = Line(SUPERVISED)
    line.feed(life(EngineState.READY, 0.0, started=10.0))
    line.feed(ok(5, running=3), ProcessReading(engine="a", outcome=Outcome.OK, processes=(process(1),)))
    line.feed(life(EngineState.STOPPED, 1.0, started=10.0))
    track = line.state.engines["a"]
    assert track.fresh_view(line.clock.now()) is None
    assert track.processes == ()
    line.feed(life(EngineState.READY, 2.0, started=20.0))
    assert "generation_tokens_per_s" not in values(line.feed(ok(9)))
    assert track.restarts == 0


def births(effects: Effects) -> dict[str, float]:
    return {sample.series.rpartition("/")[2]: sample.value for sample in effects.births}


def test_what_a_new_life_counted_before_it_was_first_read_is_not_lost() -> None:
    zeros = {"generation_tokens": 0.0, "prompt_tokens": 0.0}
    line = Line(SUPERVISED)
    t = line.clock.now().wall
    line.feed(life(EngineState.STARTING, t))
    line.feed(life(EngineState.READY, t + 1))
    assert births(line.feed(failed())) == {}
    assert births(line.feed(ok(40))) == zeros
    assert births(line.feed(ok(50))) == {}
    line.feed(life(EngineState.STARTING, t + 9, started=2.0))
    line.feed(life(EngineState.READY, t + 10, started=2.0))
    assert births(line.feed(ok(50))) == zeros, "the same count, of another life"


def test_a_life_that_was_found_running_did_not_begin_at_its_first_reading() -> None:
    line = Line(SUPERVISED)
    line.feed(life(EngineState.READY, line.clock.now().wall))
    assert births(line.feed(ok(1000))) == {}


def test_an_engine_out_of_service_is_asleep_when_it_says_so() -> None:
    line = Line(SUPERVISED)
    line.feed(life(EngineState.READY, 0.0), ok())
    line.feed(life(EngineState.DRAINING, line.clock.now().wall + 1))
    assert line.engine_state() is EngineState.DRAINING
    assert said(line.feed(ok(asleep=True))) == [
        ("asleep", Severity.INFO, "draining → asleep: `opsboard engine wake a` brings it back")
    ]
    track = line.state.engines["a"]
    track.rest(standby=True, slept=True, wake_s=2.14)
    assert track.message == "`opsboard engine wake a` brings it back (the last time in 2.1 s)"
    restarts = msgspec.structs.replace(life(EngineState.DRAINING, line.clock.now().wall), until=9.0)
    line.feed(restarts, ok(asleep=True))
    assert line.engine_state() is EngineState.DRAINING, "it drains for a restart"


def test_where_the_page_does_not_tell_what_was_done_counts() -> None:
    line = Line(SUPERVISED)
    line.feed(life(EngineState.DRAINING, 0.0), ok())
    assert line.engine_state() is EngineState.DRAINING
    line.state.engines["a"].rest(standby=False, slept=True, wake_s=None)
    line.feed(ok())
    assert line.engine_state() is EngineState.ASLEEP
    line.feed(ok(asleep=False))
    assert line.engine_state() is EngineState.DRAINING
    line.feed(ok())
    line.feed(failed())
    assert line.engine_state() is EngineState.DRAINING, "what does not answer is not known to sleep"


def test_an_observed_process_that_began_anew_has_counted_from_zero() -> None:
    line = Line(OBSERVED)
    assert births(line.feed(ok(1000, start=100.0))) == {}
    assert births(line.feed(ok(2000, start=200.0))) == {"generation_tokens": 0.0, "prompt_tokens": 0.0}


def test_the_processes_of_an_engine_that_starts_stay_while_its_progress_is_told() -> None:
    line = Line(SUPERVISED)
    line.feed(life(EngineState.STARTING, 0.0, started=10.0))
    line.feed(ProcessReading(engine="a", outcome=Outcome.OK, processes=(process(1),)))
    track = line.state.engines["a"]
    for phase in ("load", "profile"):
        line.feed(msgspec.structs.replace(life(EngineState.STARTING, 0.0, started=10.0), phase=phase))
        assert track.processes == (process(1),)
    line.feed(life(EngineState.STARTING, 5.0, started=20.0))
    assert track.processes == ()
    line.feed(ProcessReading(engine="a", outcome=Outcome.OK, processes=(process(2),)))
    line.feed(life(EngineState.FAILED, 6.0, started=20.0))
    assert track.processes == ()


def process(pid: int, role: str = "engine_core", rss: int | None = 100, anon: int | None = 60) -> ProcessView:
    return ProcessView(pid=pid, started=0.0, name="x", role=role, rss_bytes=rss, rss_anon_bytes=anon)


def test_processes_are_summed_by_role() -> None:
    line = Line(OBSERVED)
    members = (process(1), process(2), process(3, role="api_server", rss=7, anon=None))
    effects = line.feed(ProcessReading(engine="a", outcome=Outcome.OK, processes=members))
    assert {sample.series: sample.value for sample in effects.samples} == {
        "engine/a/rss_bytes": 207.0,
        "process/a:engine_core/rss_bytes": 200.0,
        "process/a:engine_core/rss_anon_bytes": 120.0,
        "process/a:api_server/rss_bytes": 7.0,
    }
    line.feed(ProcessReading(engine="a", outcome=Outcome.NO_DATA, error="gone"))
    assert line.state.engines["a"].processes == ()


def gpu(**fields: object) -> GpuView:
    return GpuView(**{"index": 0, "uuid": "GPU-1", "memory_used_bytes": 5, **fields})  # type: ignore[arg-type]


def gpus(*views: GpuView) -> GpuReading:
    return GpuReading(outcome=Outcome.OK, gpus=views)


def test_gpu_memory_is_joined_to_engines_by_their_processes() -> None:
    line = Line(OBSERVED)
    line.feed(ProcessReading(engine="a", outcome=Outcome.OK, processes=(process(11), process(12))))
    held = (GpuProcess(pid=11, memory_bytes=30), GpuProcess(pid=99, memory_bytes=1000))
    more = (GpuProcess(pid=12, memory_bytes=12),)
    effects = line.feed(gpus(gpu(processes=held), gpu(index=1, uuid="GPU-2", processes=more)))
    assert line.state.engines["a"].gpu_memory_bytes == 42
    assert "engine/a/gpu_memory_bytes" in {sample.series for sample in effects.samples}
    assert line.state.gpus is not None
    assert [p.engine for p in line.state.gpus.gpus[0].processes] == ["a", None]
    line.feed(gpus(gpu(processes=(GpuProcess(pid=11, memory_bytes=None),))))
    assert line.state.engines["a"].gpu_memory_bytes is None


def test_a_lost_gpu_is_told_once_and_so_is_its_return() -> None:
    line = Line()
    assert said(line.feed(gpus(gpu()))) == []
    lost = line.feed(gpus(gpu(lost=True, memory_used_bytes=None)))
    assert [kind for kind, _, _ in said(lost)] == ["lost"]
    assert list(lost.samples) == []
    assert said(line.feed(gpus(gpu(lost=True)))) == []
    assert [kind for kind, _, _ in said(line.feed(gpus(gpu())))] == ["back"]
    assert [kind for kind, _, _ in said(line.feed(gpus()))] == ["lost"]


def test_an_xid_is_told_once_and_survives_a_silent_driver() -> None:
    line = Line()
    line.feed(gpus(gpu()))
    seen = gpus(gpu(xid=79, xid_time=5.0))
    assert said(line.feed(seen)) == [("xid", Severity.ERROR, "GPU 0: Xid 79")]
    hangs = GpuReading(outcome=Outcome.FAILED, error="driver does not answer since 12:00")
    assert said(line.feed(hangs)) == [("gpu_driver", Severity.ERROR, "driver does not answer since 12:00")]
    assert line.state.gpus is not None
    assert line.state.gpus.gpus[0].memory_used_bytes is None
    assert said(line.feed(hangs)) == []
    assert [kind for kind, _, _ in said(line.feed(seen))] == ["gpu_driver"]
    assert said(line.feed(gpus(gpu(xid=79, xid_time=9.0)))) == [("xid", Severity.ERROR, "GPU 0: Xid 79")]


def test_no_driver_is_no_event() -> None:
    line = Line()
    assert said(line.feed(GpuReading(outcome=Outcome.NO_DATA, error="no NVIDIA driver on this machine"))) == []


def test_host_and_self() -> None:
    line = Line()
    effects = line.feed(HostReading(outcome=Outcome.OK, host=HostView(cpu_ratio=0.5, cpu_count=8, load1=None)))
    assert {sample.series: sample.value for sample in effects.samples} == {"host/gpu-a/cpu_ratio": 0.5}
    assert line.state.system is not None
    assert line.feed(HostReading(outcome=Outcome.FAILED, error="no /proc")) == Effects()
    assert line.state.system is None
    assert values(line.feed(SelfReading(cpu_ratio=0.01, rss_bytes=50))) == {
        "daemon_cpu_ratio": 0.01,
        "daemon_rss_bytes": 50.0,
    }


@pytest.mark.parametrize(
    "reading",
    [failed(), ProcessReading(engine="a", outcome=Outcome.OK), life(EngineState.READY, 0.0)],
    ids=lambda reading: type(reading).__name__,
)
def test_a_reading_of_a_stranger_is_nothing(reading: Reading) -> None:
    assert Line().feed(reading) == Effects()


def test_a_new_configuration_keeps_what_is_known_of_unchanged_engines() -> None:
    def names(specs: Iterable[str]) -> list[EngineSpec]:
        return [EngineSpec(name=name, url=f"http://127.0.0.1/{name}") for name in specs]

    state = PipelineState("h", names("ab"))
    kept = state.engines["b"]
    state.configure([EngineSpec(name="a", url="http://elsewhere"), *names("bc")])
    assert list(state.engines) == ["a", "b", "c"]
    assert state.engines["b"] is kept
    assert state.engines["a"].url == "http://elsewhere"


def test_a_supervised_engine_with_a_new_address_still_lives() -> None:
    state = PipelineState("h", [EngineSpec(name="a", url="http://127.0.0.1:1", supervised=True)])
    feed(state, life(EngineState.FAILED, 5.0, message="not ready"), ManualClock().now())
    state.configure([EngineSpec(name="a", url="http://127.0.0.1:2", supervised=True)])
    track = state.engines["a"]
    assert (track.url, track.state, track.message) == ("http://127.0.0.1:2", EngineState.FAILED, "not ready")
    assert track.life is not None
    assert track.life.pid == 7


def test_a_life_is_found_where_it_listens_and_the_next_one_where_it_is_configured() -> None:
    old, new = "http://127.0.0.1:1", "http://127.0.0.1:2"
    line = Line(EngineSpec(name="a", kind="vllm", url=old, supervised=True))
    line.feed(msgspec.structs.replace(life(EngineState.READY, 0.0), url=old), ok())
    track = line.state.engines["a"]
    line.state.configure([EngineSpec(name="a", kind="vllm", url=new, supervised=True)])
    assert line.state.engines["a"] is track
    assert (track.url, track.view) == (old, ok().view)
    line.feed(life(EngineState.STOPPED, 5.0, started=None))
    assert track.url == new


def test_a_clock_that_is_set_back_hides_nothing() -> None:
    line = Line(SUPERVISED)
    line.feed(life(EngineState.READY, 10_000.0), after=10_000.0)
    feed(line.state, failed(), Now(wall=6400.0, mono=line.clock.now().mono + 1.0))
    assert line.engine_state() is EngineState.UNREACHABLE
