"""What somebody may have meant who named an engine that is not there."""

from __future__ import annotations

from collections.abc import Iterable

from opsboard.core.errors import NotFound
from opsboard.core.text import sanitise

NAMES_SHOWN = 12


def no_engine(name: str, known: Iterable[str]) -> NotFound:
    """Return the error for ``name``, with the nearest of the ``known`` names, or all of them where none is near."""
    import difflib  # noqa: PLC0415  only who mistypes pays for it

    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    listed = ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
    hint = f"did you mean {near[0]!r}?" if near else f"engines here: {listed or 'none'}"
    return NotFound(f"no engine is called {sanitise(name, 80)!r}", hint=hint)
