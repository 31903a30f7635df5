"""What can be typed after ``:``: the verbs of the command line, and those of the screen. Pure: parse and complete."""

from __future__ import annotations

from collections.abc import Sequence

from opsboard.core.errors import UsageError
from opsboard.core.model import Record
from opsboard.tui.columns import COLUMNS

ACTIONS = ("start", "stop", "restart", "drain", "undrain", "sleep", "wake")
_NOW = ("restart", "drain", "sleep")
_WITH_ENGINE = (*ACTIONS, "open", "logs")
_ALONE = ("events", "incidents", "help", "pause", "dump", "quit")
VERBS = (*_WITH_ENGINE, "sort", "filter", "incident", *_ALONE)
_SHORT = {"q": "quit", "q!": "quit", "h": "help", "o": "open"}
_DIGITS = 12
SORTS = tuple(column.key for column in COLUMNS if column.key != "trend")


class Command(Record, frozen=True, kw_only=True):
    """A command that makes sense; ``now`` as on the command line.

    ``argument`` is an engine, a column, a filter, or an incident's number.
    """

    verb: str
    argument: str = ""
    reverse: bool = False
    now: bool = False


def parse(text: str, engines: Sequence[str]) -> Command:
    """Return the command in ``text``; ``engine stop NAME`` is taken as ``stop NAME``.

    Raises UsageError, whose hint says what is possible.
    """
    words = text.split()
    if words and words[0] == "engine":
        words = words[1:]
    if not words:
        raise UsageError("nothing to do", hint=" ".join(VERBS))
    verb, *rest = words
    verb = _SHORT.get(verb, verb)
    if verb not in VERBS:
        raise UsageError(f"no command {verb!r}", hint=" ".join(VERBS))
    if verb == "filter":
        return Command(verb=verb, argument=" ".join(rest))
    if verb in _WITH_ENGINE:
        return Command(verb=verb, argument=_engine(verb, rest, engines), now=_now(verb, rest[1:]))
    if verb == "sort":
        return _sort(rest)
    if verb == "incident":
        if not rest or not rest[0].lstrip("#").isdecimal() or len(rest[0]) > _DIGITS:
            raise UsageError("incident: which number?", hint="incident 7")
        return Command(verb=verb, argument=rest[0].lstrip("#"))
    return Command(verb=verb)


def _engine(verb: str, rest: Sequence[str], engines: Sequence[str]) -> str:
    if not rest:
        raise UsageError(f"{verb}: which engine?", hint=" ".join(engines))
    if rest[0] not in engines:
        raise UsageError(f"{verb}: no engine {rest[0]!r}", hint=" ".join(engines))
    return rest[0]


def _now(verb: str, rest: Sequence[str]) -> bool:
    """Return whether ``now`` follows the engine. Raises UsageError for any other word."""
    unknown = [word for word in rest if word.removeprefix("--") != "now" or verb not in _NOW]
    if unknown:
        raise UsageError(f"{verb}: what is {unknown[0]!r}?", hint="now" if verb in _NOW else f"{verb} NAME")
    return bool(rest)


def _sort(rest: Sequence[str]) -> Command:
    if not rest or rest[0] == "none":
        return Command(verb="sort")
    if rest[0] not in SORTS:
        raise UsageError(f"sort: no column {rest[0]!r}", hint=" ".join(SORTS))
    return Command(verb="sort", argument=rest[0], reverse="reverse" in rest[1:])


def choices(text: str, engines: Sequence[str]) -> tuple[str, ...]:
    """Return the words that can stand at the end of ``text``."""
    words = text.removeprefix("engine ").split(" ")
    if len(words) == 1:
        return tuple(verb for verb in VERBS if verb.startswith(words[0]))
    last = words[-1]
    if len(words) == 2 and words[0] in _WITH_ENGINE:
        return tuple(name for name in engines if name.startswith(last))
    if len(words) == 3 and words[0] in _NOW:
        return tuple(word for word in ("now",) if word.startswith(last))
    if len(words) == 2 and words[0] == "sort":
        return tuple(name for name in SORTS if name.startswith(last))
    if len(words) == 3 and words[0] == "sort":
        return tuple(word for word in ("reverse",) if word.startswith(last))
    return ()


def _common(words: Sequence[str]) -> str:
    """Return the longest beginning that all words share."""
    first, last = min(words), max(words)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:same]


def completed(text: str, engines: Sequence[str]) -> str:
    """Return ``text`` with its last word grown as far as all choices agree."""
    possible = choices(text, engines)
    if not possible:
        return text
    head = text[: len(text) - len(text.rsplit(" ", 1)[-1])]
    return head + (possible[0] + " " if len(possible) == 1 else _common(possible))
