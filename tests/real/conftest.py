"""Tests against a real vLLM: `make test-real`. One server is shared by the tests that do not break it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.real.vllm_env import Installation, NoRealVllm, RealVllm

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
TIMEOUT_S = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.real)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_S))


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
