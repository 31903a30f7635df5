"""What vLLM's processes are, by their titles and command lines, and how one is put to sleep."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from collectors.base import Sleep

_TITLE = re.compile(r"\S*::(EngineCor|Worker|A[Pp][Ii]Server|DPCoordin)")
_TITLE_ROLES = {"EngineCor": "engine_core", "Worker": "worker", "DPCoordin": "dp_coordinator"}


def process_role(name: str, argv: Sequence[str]) -> str | None:
    """Return the role of a process; None when it is none of vLLM's.

    Children rename themselves ``VLLM::EngineCore_DP0`` (another prefix by VLLM_PROCESS_NAME_PREFIX), of which ``name``
    holds 15 characters; without setproctitle they look like any Python and are ``other``.
    """
    title = _TITLE.match(argv[0] if argv else "") or _TITLE.match(name)
    if title:
        return _TITLE_ROLES.get(title[1], "api_server")
    if any("multiprocessing.resource_tracker" in word for word in argv):
        return "resource_tracker"
    if any("multiprocessing.spawn" in word or "multiprocessing.forkserver" in word for word in argv):
        return "other"
    return "api_server" if _serves(argv) else None


def _serves(argv: Sequence[str]) -> bool:
    words = list(argv)
    if words and PurePath(words[0]).name.startswith("python"):
        words.pop(0)
        while words and words[0].startswith("-") and words[0] != "-m":
            words.pop(0)
    if words[:1] == ["-m"]:
        return words[1:2] != [] and words[1].startswith("vllm.entrypoints.")
    script = PurePath(words[0]) if words else PurePath()
    if script.name == "vllm":
        return "serve" in words[1:2]
    return script.parts[-4:-1] == ("vllm", "entrypoints", "openai") or script.parts[-3:-1] == ("vllm", "entrypoints")


def _lacks(command: Sequence[str]) -> str | None:
    """Return what ``command`` needs to sleep; without it vLLM says that it sleeps and gives no memory back.

    Only with it do weights come from the allocator that can put them away (``ModelConfig.enable_sleep_mode``).
    """
    options = {word.partition("=")[0].replace("_", "-") for word in command}  # vLLM takes underscores, too
    told = bool(options & {"--config", "--enable-sleep-mode"})
    return None if told or not _serves(command) else "its command has no --enable-sleep-mode"


# Only with VLLM_SERVER_DEV_MODE=1. Both questions go through the engine's busy loop (vllm/v1/engine/core_client.py).
SLEEP_MODE = Sleep(
    questions=(("/is_sleeping", "is_sleeping"), ("/is_paused", "is_paused")),
    sleep_path="/sleep?level={level}&mode=wait",
    wake_path="/wake_up",
    lacks=_lacks,
    hint="vLLM sleeps when it runs with --enable-sleep-mode and, in its environment, VLLM_SERVER_DEV_MODE=1; these "
    "endpoints ask for no key, so let it listen on 127.0.0.1 only",
)
