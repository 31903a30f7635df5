"""A string that never shows itself: not in reprs, logs, tracebacks or ``config print``."""

from __future__ import annotations

import re
from collections.abc import Iterable

_OPTION = re.compile(r"--?([\w-]+[-_])?(api[-_]?key|token|secret|password|passwd|credentials?)", re.IGNORECASE)
"""Options whose values are secrets (vLLM: --api-key, --hf-token); --max-num-batched-tokens and --tokenizer are not."""


class Secret:
    """A secret value. ``reveal()`` is the only way to the text."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Keep ``value``."""
        self._value = value

    def reveal(self) -> str:
        """Return the text, for the one call that needs it."""
        return self._value

    def __repr__(self) -> str:
        """Hide the text."""
        return "***"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        """Two secrets are equal when their texts are."""
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        """Hash the text."""
        return hash(self._value)


def without_secrets(command: Iterable[str]) -> tuple[str, ...]:
    """Return a command line fit to be shown: what follows an option that takes secrets is hidden."""
    shown: list[str] = []
    hides = False
    for word in command:
        option, equals, _ = word.partition("=")
        secret = _OPTION.fullmatch(option) is not None
        if secret and equals:
            shown.append(f"{option}=***")
        else:
            shown.append("***" if hides and not word.startswith("-") else word)
        hides = (secret and not equals) or (hides and not word.startswith("-"))  # --api-key takes several
    return tuple(shown)
