"""The simulated engine's 0.32 page and manners, held against a live vLLM."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.real.vllm_env import SERVED_NAME, RealVllm
from tests.support.sim_process import SimProcess, simulated

PROMPT = list(range(4, 44))
TOKENS = 8


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimProcess]:
    options = ("--model", SERVED_NAME, "--max-model-len", "2048", "--step-ms", "2")
    with simulated(tmp_path_factory.mktemp("sim"), *options) as engine:
        yield engine


@pytest.fixture(scope="module")
def pages(shared_vllm: RealVllm, sim: SimProcess) -> tuple[str, str]:
    """Return both pages, after the same traffic at least once."""
    shared_vllm.complete(PROMPT, TOKENS)
    sim.complete(PROMPT, TOKENS, ignore_eos=True)
    return shared_vllm.metrics(), sim.page()


def families(page: str) -> dict[str, str]:
    return {family.name: family.type for family in text_string_to_metric_families(page)}


def label_sets(page: str) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    """Return every series; of information only the label names, of what depends on the traffic only the name."""
    found = set()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = sorted(sample.labels.items())
            if sample.name in {"vllm:cache_config_info", "python_info"}:
                labels = [(name, "") for name, _ in labels]
            if "handler" in sample.labels:
                labels = [(name, "" if name in {"handler", "method", "status"} else value) for name, value in labels]
            found.add((sample.name, tuple(labels)))
    return found


def test_families_and_types_are_the_same(pages: tuple[str, str]) -> None:
    assert families(pages[1]) == families(pages[0])


def test_series_are_the_same_label_by_label(pages: tuple[str, str]) -> None:
    assert label_sets(pages[1]) == label_sets(pages[0])


def test_help_and_type_lines_are_the_same_in_the_same_order(pages: tuple[str, str]) -> None:
    real, ours = ([line for line in page.splitlines() if line.startswith("#")] for page in pages)
    assert ours == real


def exchange(port: int, method: str, path: str, body: object) -> tuple[int, object]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"content-type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        return response.status, json.loads(answer) if answer else None
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/health", None),
        ("POST", "/ping", None),
        ("GET", "/version", None),
        ("GET", "/load", None),
        ("GET", "/nope", None),
        ("GET", "/v1/completions", None),
        ("POST", "/v1/completions", {"model": "other", "prompt": "x"}),
        ("POST", "/v1/completions", {"model": SERVED_NAME, "prompt": ""}),
    ],
)
def test_plain_answers_are_the_same(
    shared_vllm: RealVllm, sim: SimProcess, method: str, path: str, body: object
) -> None:
    assert exchange(sim.port, method, path, body) == exchange(shared_vllm.port, method, path, body)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chat", [False, True])
def test_replies_have_no_field_that_the_real_ones_lack(
    shared_vllm: RealVllm, sim: SimProcess, chat: bool, stream: bool
) -> None:
    body: dict[str, object] = {"model": SERVED_NAME, "max_tokens": 3, "temperature": 0, "ignore_eos": True}
    body |= {"messages": [{"role": "user", "content": "hello"}]} if chat else {"prompt": "hello"}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    path = "/v1/chat/completions" if chat else "/v1/completions"
    ours, real = (shapes(port, path, body) for port in (sim.port, shared_vllm.port))
    assert len(ours) == len(real)
    for mine, theirs in zip(ours, real, strict=True):
        assert mine - theirs == set()


def shapes(port: int, path: str, body: object) -> list[set[str]]:
    """Return the paths of all fields of each event of a reply (or of the whole reply)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        text = response.read().decode()
        assert response.status == 200, text
    finally:
        connection.close()
    if not text.startswith("data: "):
        return [set(fields(json.loads(text)))]
    events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    return [set(fields(json.loads(event))) for event in events[:-1]]


def fields(value: object, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield f"{path}.{name}"
            yield from fields(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from fields(inner, f"{path}[]")


def test_log_lines_look_the_same(shared_vllm: RealVllm, sim: SimProcess) -> None:
    real, ours = (shared_vllm.log.read_text(errors="replace"), sim.text() + sim.errors.read_text())
    line = re.compile(
        r"^\((?:APIServer|EngineCore) pid=\d+\) INFO \d\d-\d\d \d\d:\d\d:\d\d \[\w+\.py:\d+\] ", re.MULTILINE
    )
    for text in (real, ours):
        assert line.search(text)
    for words in (
        *("Resolved architecture: ", "Initializing a V1 LLM engine (v0.32.0) with config: ", "Starting to load model "),
        *("rank 0 in world size 1 is assigned as ", "Loading weights took ", "KV cache size: ", "Supported tasks: "),
        *("init engine (profile, create kv cache, warmup model) took ", "Starting vLLM server on http://"),
        *("Available routes are:", "Application startup complete."),
    ):
        assert words in real
        assert words in ours


def test_processes_have_the_same_names(shared_vllm: RealVllm, sim: SimProcess) -> None:
    real = {Path(f"/proc/{process.pid}/comm").read_text().strip() for process in shared_vllm.processes()}
    assert Path(f"/proc/{sim.core.pid}/comm").read_text().strip() in real
