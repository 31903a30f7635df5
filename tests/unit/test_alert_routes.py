"""Routes of a configuration in words, what they leave out, and who would hear of an incident."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from alerts.routes import gaps, in_words
from opsboard.cli.main import main
from opsboard.config.load import load
from opsboard.config.schema import Config
from opsboard.core.registry import detectors, notifiers

if TYPE_CHECKING:
    from pathlib import Path

CHANNELS = "".join(
    f'[[channel]]\nname = "{name}"\nkind = "webhook"\nurl = "http://127.0.0.1:1/"\n' for name in ("oncall", "chat")
)
ENGINE = '[[engine]]\nname = "llama-a"\nurl = "http://127.0.0.1:8001"\n'
ROUTES = """[[alert_route]]
severity = "page"
channels = ["oncall"]
escalate_after = "10m"
escalate_to = ["chat"]
[[alert_route]]
severity = ["ticket", "note"]
detector = ["kv_*"]
engine = ["llama-*"]
channels = ["chat"]
"""
LOUD = {"stall": "page", "kv_leak": "ticket", "engine_down": "page"}


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "opsboard.toml"
    path.write_text(text)
    return path


def read(tmp_path: Path, text: str) -> Config:
    return load(config(tmp_path, text), detectors=detectors().found, notifiers=notifiers().found).config


def test_routes_in_words(tmp_path: Path) -> None:
    quiet = '[alerts]\nquiet_hours = ["22:00-07:00"]\ntime_zone = "Europe/Berlin"\n'
    assert list(in_words(read(tmp_path, CHANNELS + ROUTES + quiet))) == [
        "channels: oncall (webhook), chat (webhook)",
        "pages go to oncall; to chat, too, when nobody has acknowledged it for 10m",
        "tickets and notes of kv_* on llama-* go to chat",
        "tickets and notes wait during 22:00-07:00 (Europe/Berlin); pages never do",
    ]
    assert list(in_words(read(tmp_path, CHANNELS)))[1:] == ["pages and tickets go to oncall, chat"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["nobody is told of incidents: there is no [[channel]]"]),
        (CHANNELS + ROUTES + ENGINE, []),
        (CHANNELS + ENGINE, []),
        (
            CHANNELS + '[[alert_route]]\ndetector = ["stall"]\nchannels = ["chat"]\n' + ENGINE,
            [
                "no [[alert_route]] leads to oncall: it hears only of pages that another channel cannot tell",
                "a page goes to nobody: engine_down of llama-a",
                "a page that is of no engine goes to nobody",
            ],
        ),
    ],
    ids=["none", "all", "default", "half"],
)
def test_what_nobody_would_hear_of(tmp_path: Path, text: str, said: list[str]) -> None:
    assert list(gaps(read(tmp_path, text), LOUD)) == said  # type: ignore[arg-type]  # those are severities


def test_who_would_hear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, nowhere = config(tmp_path, CHANNELS + ROUTES), str(tmp_path / "none.sock")

    def route(*words: str) -> int:
        with pytest.raises(SystemExit) as caught:
            main(["--config", str(path), "--socket", nowhere, "alerts", "route", *words])
        return int(caught.value.code or 0)

    assert route("stall", "--engine", "llama-a") == 0
    assert route("latency", "--engine", "llama-a", "--severity", "note") == 1
    assert route("kv_lek") == 2
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "a page of stall on llama-a:",
        "  goes to oncall (alert_route 1)",
        "  and to chat when nobody has acknowledged it for 10m",
        "a note of latency on llama-a:",
        "  goes to nobody: no route takes it; it shows on the board",
    ]
    assert "did you mean 'kv_leak'?" in said.err
    assert route("kv_leak", "--engine", "llama-a", "--severity", "ticket", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["channels"], told["routes"], told["waits"]) == (["chat"], [2], None)
