"""`[[channel]]` and `[[alert_route]]`: what they accept, and one clear sentence for everything they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import pytest
from msgspec import Meta, Struct

from opsboard.config.channels import channel_settings
from opsboard.config.explain import documented_keys, print_toml
from opsboard.config.load import load
from opsboard.config.whole import config_type
from opsboard.core.errors import ConfigError
from opsboard.core.secret import Secret


class Chat(Struct, frozen=True, kw_only=True):
    token: Annotated[Secret, Meta(description="a token")]
    to: str
    pause_s: float = 5.0

    def __post_init__(self) -> None:
        if not self.to.startswith("#"):
            raise ValueError(f"`to`: expected a channel such as #ops, found {self.to!r}")


class Pager(Struct, frozen=True, kw_only=True):
    token: Annotated[Secret, Meta(description="a token")]


class Mail(Struct, frozen=True, kw_only=True):
    to: Annotated[tuple[str, ...], Meta(description="addresses")]


class Fake(NamedTuple):
    kind: str
    params: type[Struct]


KNOWN = {"chat": Fake("chat", Chat), "pager": Fake("pager", Pager), "mail": Fake("mail", Mail)}
GOOD = '[[channel]]\nname = "ops"\nkind = "chat"\ntoken = "t0p"\nto = "#ops"\npause = "2s"\n'


def write(path: Path, text: str) -> Path:
    (path / "opsboard.toml").write_text(text)
    return path / "opsboard.toml"


def test_a_channel_has_the_keys_of_its_kind(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k3y\n")
    text = GOOD + '[[channel]]\nname = "oncall"\nkind = "pager"\ntoken_file = "key"\n'
    text += '[[alert_route]]\nseverity = "page"\nchannels = ["oncall"]\n[[alert_route]]\nchannels = ["ops"]\n'
    loaded = load(write(tmp_path, text), notifiers=KNOWN)
    ops, oncall = channel_settings(loaded.path, loaded.config, KNOWN)
    assert (ops.name, ops.kind, ops.params) == ("ops", "chat", Chat(token=Secret("t0p"), to="#ops", pause_s=2.0))
    assert oncall.params == Pager(token=Secret("k3y"))
    assert [route.severity for route in loaded.config.alert_route] == ["page", None]
    printed = print_toml(loaded.config)
    assert "t0p" not in printed
    assert "k3y" not in printed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace('"chat"', '"chatt"'), r"nothing tells by 'chatt'"),
        (GOOD.replace('to = "#ops"', ""), r"`channel\[0\]`: a channel of kind 'chat' needs `to`"),
        (GOOD.replace("#ops", "ops"), r"`to`: expected a channel such as #ops, found 'ops'"),
        (GOOD.replace('"chat"', '"pager"'), r"`to` is no key of kind 'pager'|`pause` is no key of kind 'pager'"),
        (GOOD + GOOD, r"there is a channel 'ops' already"),
        (GOOD + '[[alert_route]]\nchannels = ["op"]\n', r"`alert_route\[0\].channels`: there is no channel 'op'"),
        (GOOD + 'color = "red"\n', r"unknown key `channel\[0\].color`"),
        (GOOD.replace('"2s"', "2"), r"`channel\[0\].pause`"),
        (GOOD + '[[alert_route]]\nseverity = "loud"\nchannels = ["ops"]\n', r"`alert_route\[0\].severity`"),
        (GOOD.replace('"#ops"', '["#ops"]'), r"`to` of a channel of kind 'chat': expected a string"),
        ('[[channel]]\nname = "m"\nkind = "mail"\nto = "x"\n', r"`to` of a channel of kind 'mail': expected a list"),
        ("[channel]\nname = 'ops'\n", r"`channel`"),
    ],
)
def test_what_makes_no_sense_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(write(tmp_path, text), notifiers=KNOWN)


def test_every_key_is_documented() -> None:
    keys = {doc.key: doc for doc in documented_keys(config_type({}, KNOWN)) if doc.section == "[[channel]]"}
    assert list(keys) == ["name", "kind", "token", "to", "pause"]
    assert keys["token"].secret
