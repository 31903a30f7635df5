"""What `[mqtt]` must be: a broker's address, topics that can be published to, certificates that can be read."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from opsboard.config.schema import Mqtt
from opsboard.core.errors import ConfigError

PORTS = {"mqtts": 8883, "mqtt": 1883}
KEY_CHARS = 32
"""Of a key that stands between a broker and a restart."""


def check_mqtt(path: Path, mqtt: Mqtt | None) -> None:
    """Refuse what has the right type and makes no sense. Raises ConfigError."""
    if mqtt is None:
        return
    broker_place(path, mqtt)
    for key in ("prefix", "id", "discovery_prefix"):
        text = getattr(mqtt, key)
        if text is not None and not _publishable(text, levels=key != "id"):
            raise ConfigError(
                f"{path}: `mqtt.{key}`: expected part of a topic, without `+`, `#` or `$`, found {text!r}"
            )
    if mqtt.password is not None and mqtt.username is None:
        raise ConfigError(f"{path}: `mqtt.password` needs `username`")
    if mqtt.key is not None and mqtt.cert is None:
        raise ConfigError(f"{path}: `mqtt.key` needs `cert`")
    if mqtt.command_key is not None and len(mqtt.command_key.reveal()) < KEY_CHARS:
        raise ConfigError(
            f"{path}: `mqtt.command_key`: expected at least {KEY_CHARS} characters", hint="openssl rand -hex 32"
        )
    for key in ("ca", "cert", "key"):
        name = getattr(mqtt, key)
        if name is None:
            continue
        if mqtt.url.startswith("mqtt://"):
            raise ConfigError(f"{path}: `mqtt.{key}` is for TLS, and `mqtt.url` has none", hint="write mqtts://")
        if not os.access(path.parent / name, os.R_OK):
            raise ConfigError(f"{path}: `mqtt.{key}`: {path.parent / name} cannot be read")


def broker_place(path: Path | None, mqtt: Mqtt) -> tuple[str, int, bool]:
    """Return the broker's host and port, and whether TLS is spoken. Raises ConfigError."""
    where = "" if path is None else f"{path}: "
    try:
        parts = urlsplit(mqtt.url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError(f"{where}`mqtt.url`: expected mqtts://HOST or mqtts://HOST:PORT")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{where}`mqtt.url`: a user and a password have keys of their own")
    return parts.hostname, port or PORTS[parts.scheme], parts.scheme == "mqtts"


def _publishable(text: str, *, levels: bool) -> bool:
    parts = text.split("/") if levels else [text]
    return all(part and part.isprintable() and not set(part) & set("+#/") for part in parts) and text[0] != "$"
