"""What every detector keeps, over the registry: a page that tells its parameters, and calm while nothing is known."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from alerts.base import Detector
from opsboard.config.detectors import shared
from opsboard.config.explain import documented_keys
from opsboard.config.whole import config_type
from opsboard.core.model import EngineReading, Outcome
from opsboard.core.registry import detectors
from tests.support.watched import Watched, failed

DOCS = Path(__file__).parents[2] / "docs/detectors"
every = pytest.mark.parametrize("detector", detectors().found.values(), ids=list(detectors().found))


@every
def test_every_parameter_can_be_set_and_its_page_explains_it(detector: Detector) -> None:
    text = (DOCS / f"{detector.name}.md").read_text()
    assert text.startswith(f"# {detector.name}\n")
    keys = [key for key in documented_keys(config_type({detector.name: detector})) if "[detector." in key.section]
    own = len(msgspec.structs.fields(detector.params)) - len(shared(detector.params))
    assert len(keys) == 2 + own, "enabled, severity, and all of them"
    for key in keys:
        assert key.help
        assert f"| `{key.key}` | `{key.default}` |" in text


@every
def test_a_page_that_tells_nothing_is_no_claim(detector: Detector) -> None:
    engine = Watched(detector)
    for reading in (EngineReading(engine="a", outcome=Outcome.NO_DATA), failed("page")):
        assert engine.read_for(400, reading) is None
    assert engine.asked == []
