"""Tests against a real vLLM: `make test-real`. One server is shared by the tests that do not break it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.real.vllm_env import Installation, NoRealVllm, RealVllm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Measured = Callable[[str], None]

HERE = Path(__file__).parent
TIMEOUT_S = 600


_FIGURES = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.real)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_S))
    # The shared server lives until the end: those with one of their own come first, so that only one runs at a time.
    items.sort(key=lambda item: "shared_vllm" in getattr(item, "fixturenames", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if figures := config.stash.get(_FIGURES, []):
        terminalreporter.section("measured on a real vLLM")
        for line in figures:
            terminalreporter.write_line(line)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Return what notes a line for the end of the run; docs/real-vllm.md is made from them."""
    figures = request.config.stash.setdefault(_FIGURES, [])
    return lambda line: figures.append(f"{request.node.name}: {line}")


@pytest.fixture(scope="session")
def full() -> bool:
    """Return whether to run with full counts (`make test-real-all`)."""
    return bool(os.environ.get("OPSBOARD_REAL_FULL"))


@pytest.fixture(scope="session")
def installation() -> Installation:
    try:
        return Installation.from_environment(os.environ)
    except NoRealVllm as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def shared_vllm(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVllm]:
    with RealVllm(installation, tmp_path_factory.mktemp("vllm")) as server:
        yield server
