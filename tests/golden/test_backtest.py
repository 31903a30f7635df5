"""What `opsboard backtest --json` says of a recorded hang.

After a wanted change write the file anew with ``python -m tests.golden.test_backtest`` and read the difference.
"""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from opsboard.cli.backtest import backtest
from opsboard.cli.main import Options

TESTS = Path(__file__).parents[1]
HANG = TESTS / "fixtures/recordings/hang-4.jsonl.xz"
GOLDEN = TESTS / "golden/backtest/hang-4.jsonl"


def said() -> str:
    """Return what is printed, without the place of the checkout."""
    ran = CliRunner().invoke(backtest, ["--json", str(HANG)], obj=Options(None, None, None), catch_exceptions=False)
    assert ran.exit_code == 0
    return ran.stdout.replace(str(HANG.parent), ".")


def test_a_hang_is_found_as_it_was() -> None:
    assert [json.loads(line) for line in said().splitlines()] == [
        json.loads(line) for line in GOLDEN.read_text().splitlines()
    ]


def test_the_hang_is_found_in_time() -> None:
    labels = {one["kind"]: one["t"] for one in json.loads(HANG.with_name("hang-4.labels.json").read_text())["labels"]}
    opened, closed, _ = (json.loads(line) for line in GOLDEN.read_text().splitlines())
    assert (opened["detector"], opened["state"], closed["state"]) == ("stall", "open", "closed")
    assert 0 < opened["t"] - labels["fault"] <= 15
    assert 0 < closed["t"] - labels["end"] <= 1.5


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(said())
