"""The golden answer: what is kept, what is compared, and what a difference means."""

from __future__ import annotations

import stat
from hashlib import sha256
from pathlib import Path

import pytest

from opsboard.core.model import CanaryOutcome, CanaryReading
from opsboard.supervise.golden import Proof, accept, prove
from tests.support.in_loop import in_loop


class Engine:
    """Gives the answers it was told, the last one for ever."""

    def __init__(self, *answers: str | CanaryOutcome) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self) -> CanaryReading:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, CanaryOutcome):
            return CanaryReading(engine="a", outcome=answer, seconds=1.0, error=f"was {answer}")
        return CanaryReading(
            engine="a",
            outcome=CanaryOutcome.OK,
            seconds=0.25,
            output=answer,
            output_sha256=sha256(answer.encode()).hexdigest(),
        )


async def proven(place: Path, engine: Engine, command: str = "c", version: str | None = "0.11") -> Proof:
    return await prove(place, engine, command=command, version=version)


@in_loop
async def test_the_first_answer_is_kept_and_compared(tmp_path: Path) -> None:
    assert (await proven(tmp_path, Engine("blue"))).text == "its answer is kept as the golden one"
    assert stat.S_IMODE((tmp_path / "golden.json").stat().st_mode) == 0o600
    again = await proven(tmp_path, Engine("blue"))
    assert (again.text, again.doubt, again.failed) == ("its answer is the golden one (0.2 s)", False, False)


@in_loop
async def test_an_answer_that_differs_is_asked_again_and_then_doubted(tmp_path: Path) -> None:
    await proven(tmp_path, Engine("blue"))
    once = Engine("red", "blue")
    assert not (await proven(tmp_path, once)).doubt
    assert once.asked == 2
    always = Engine("\x1b[31mred")
    drift = await proven(tmp_path, always)
    assert (drift.doubt, always.asked) == (True, 3)
    assert drift.text.startswith("its output differs from the golden one: “")
    assert drift.text.endswith("red” instead of “blue”")
    assert "\x1b" not in drift.text
    assert (await proven(tmp_path, Engine("\x1b[31mred"))).doubt, "it stays a doubt until a person says otherwise"
    assert accept(tmp_path)
    assert not (await proven(tmp_path, Engine("\x1b[31mred"))).doubt
    assert not accept(tmp_path), "there is nothing to accept"


@pytest.mark.parametrize(("command", "version"), [("other", "0.11"), ("c", "0.12")])
@in_loop
async def test_another_command_or_version_has_another_answer(tmp_path: Path, command: str, version: str) -> None:
    await proven(tmp_path, Engine("blue"))
    assert not (await proven(tmp_path, Engine("red"), command, version)).doubt
    assert (await proven(tmp_path, Engine("blue"), command, version)).doubt


@in_loop
async def test_a_version_that_nobody_knows_is_no_other_version(tmp_path: Path) -> None:
    await proven(tmp_path, Engine("blue"), version=None)
    assert (await proven(tmp_path, Engine("red"))).doubt


@pytest.mark.parametrize(
    ("outcome", "failed"),
    [
        (CanaryOutcome.TIMEOUT, True),
        (CanaryOutcome.REFUSED, True),
        (CanaryOutcome.SATURATED, False),
        (CanaryOutcome.ASLEEP, False),
        (CanaryOutcome.UNABLE, False),
    ],
)
@in_loop
async def test_no_answer(tmp_path: Path, outcome: CanaryOutcome, failed: bool) -> None:
    proof = await proven(tmp_path, Engine(outcome))
    assert (proof.failed, proof.doubt, proof.asked) == (failed, False, failed)
    assert f"was {outcome}" in proof.text
    assert not (tmp_path / "golden.json").exists()


@in_loop
async def test_an_answer_that_is_golden_again_leaves_nothing_to_accept(tmp_path: Path) -> None:
    await proven(tmp_path, Engine("blue"))
    assert (await proven(tmp_path, Engine("red"))).doubt
    assert not (await proven(tmp_path, Engine("blue"))).doubt
    assert not accept(tmp_path)
    assert not (await proven(tmp_path, Engine("blue"))).doubt
