"""What tests of real processes share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.house import House


@pytest.fixture
def house() -> Iterator[House]:
    """Daemons of this test alone; what still runs when it ends is killed."""
    house = House(Path(os.environ["XDG_RUNTIME_DIR"]))
    yield house
    for daemon in house.daemons:
        daemon.kill()
        daemon.wait()
