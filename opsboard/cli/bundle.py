"""The file that ``doctor --bundle`` writes: findings, redacted configuration, status.

No logs, no environment values.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from opsboard.cli.common import client, loaded
from opsboard.core.errors import OpsboardError, UsageError

if TYPE_CHECKING:
    from opsboard.cli.doctor import Finding
    from opsboard.cli.main import Options


def write(path: Path, options: Options, findings: Sequence[Finding]) -> None:
    """Write a .tar.gz readable by its owner only. Raises UsageError when it cannot be written."""
    try:
        path.touch(mode=0o600)
        with tarfile.open(path, "w:gz") as archive:
            for name, text in _parts(options, findings):
                data = text.encode()
                entry = tarfile.TarInfo(f"opsboard-bundle/{name}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def _parts(options: Options, findings: Sequence[Finding]) -> Iterator[tuple[str, str]]:
    from opsboard.config.explain import print_toml

    yield "doctor.jsonl", "".join(msgspec.json.encode(finding).decode() + "\n" for finding in findings)
    try:
        yield "opsboard.toml", print_toml(loaded(options).config)
    except OpsboardError as error:
        yield "config-error.txt", error.message + "\n"
    try:
        status = client(options, timeout=3.0).status()
    except OpsboardError as error:
        yield "status-error.txt", error.message + "\n"
    else:
        yield "status.json", msgspec.json.format(msgspec.json.encode(status)).decode() + "\n"
