"""A word with a shim over its socket: one line of JSON there, one back, within a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from opsboard.core.errors import SuperviseError
from opsboard.core.text import sanitise

DEADLINE_S = 2.0
REPLY_BYTES = 1 << 20


async def ask(socket: str, operation: str, deadline_s: float = DEADLINE_S, **arguments: Any) -> dict[str, Any]:
    """Return the shim's reply. Raises SuperviseError when it does not answer, or says no."""
    try:
        async with asyncio.timeout(deadline_s):
            reader, writer = await asyncio.open_unix_connection(socket, limit=REPLY_BYTES)
            try:
                writer.write(json.dumps({"op": operation, **arguments}).encode() + b"\n")
                await writer.drain()
                reply = json.loads(await reader.readline())
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, ValueError, TimeoutError) as error:
        raise SuperviseError(f"{socket}: the shim does not answer: {type(error).__name__}", permanent=False) from error
    if not isinstance(reply, dict) or not reply.get("ok"):
        said = reply.get("error") if isinstance(reply, dict) else reply
        raise SuperviseError(f"{socket}: the shim refuses {operation}: {sanitise(str(said))}")
    return reply
