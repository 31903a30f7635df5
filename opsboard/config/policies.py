"""`[[policy]]`: which are in force, whether they make sense, and what they say in words."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from opsboard.config.schema import Config, Policy
from opsboard.config.units import Seconds, format_seconds
from opsboard.core.errors import ConfigError

DEFAULTS = (
    Policy(
        name="leaks",
        on=("kv_leak", "memory_leak", "gpu_memory_leak"),
        do=("drain", "restart"),
        after=Seconds(600),
        eta=Seconds(7200),
    ),
)
"""In force for each detector that no `[[policy]]` of the file names.

A leak that more than one kind of evidence proves and that ends the engine within two hours ends it in the worst moment:
a drained restart now, while another engine serves, is what a person on call would do. Nothing else is acted on.
"""
SUPERVISED = frozenset({"stall", "engine_down"})
"""What supervision answers by itself (`restart` of the engine, docs/supervision.md)."""
NOT_BUILT = frozenset({"reroute"})
"""Words of `do` that are understood and skipped: opsboard routes no requests yet."""
_MIN_COOLDOWN_S = 60.0
_MAX_S = 30 * 86400.0
_NAMED = 4


def detectors_of(policy: Policy) -> tuple[str, ...]:
    """Return the detectors that a policy is for."""
    return (policy.on,) if isinstance(policy.on, str) else policy.on


def in_force(config: Config) -> tuple[Policy, ...]:
    """Return all policies that count, named, in order: those of the file, then the defaults that it leaves room for."""
    own = tuple(replace(policy, name=name) for policy, name in zip(config.policy, _names(config.policy), strict=True))
    named = {detector for policy in config.policy for detector in detectors_of(policy)}
    left = ((policy, tuple(one for one in detectors_of(policy) if one not in named)) for policy in DEFAULTS)
    return own + tuple(replace(policy, on=on) for policy, on in left if on)


def _names(policies: Sequence[Policy]) -> list[str]:
    """Name those without a name after their detectors; what would be twice gets a number."""
    names: list[str] = []
    taken = {policy.name for policy in policies} | {policy.name for policy in DEFAULTS}
    for policy in policies:
        base = policy.name or "+".join(detectors_of(policy))
        name, number = base, 1
        while policy.name is None and name in taken:
            number += 1
            name = f"{base}-{number}"
        taken.add(name)
        names.append(name)
    return names


def check_policies(path: Path, config: Config, detectors: Collection[str]) -> None:
    """Refuse what names nothing that there is, or makes no sense. ``detectors`` are those known; empty means any.

    Raises ConfigError.
    """
    for index, policy in enumerate(config.policy):
        where = f"policy[{index}]"
        _check_detectors(path, where, policy, detectors)
        _known(path, f"{where}.engines", policy.engines, [engine.name for engine in config.engine], "engine")
        _known(path, f"{where}.routes", policy.routes, [route.model for route in config.route], "route")
        if policy.name is not None and (not policy.name or not policy.name.isprintable()):
            raise ConfigError(f"{path}: `{where}.name`: expected a name, found {policy.name!r}")
        if policy.name is not None and policy.name in {one.name for one in (*config.policy[:index], *DEFAULTS)}:
            raise ConfigError(f"{path}: `{where}.name`: {policy.name!r} is the name of another policy")
        if len(set(policy.do)) != len(policy.do):
            raise ConfigError(f"{path}: `{where}.do`: names something twice, found {list(policy.do)}")
        if not _MIN_COOLDOWN_S <= policy.cooldown <= _MAX_S:
            raise ConfigError(f"{path}: `{where}.cooldown`: expected 1m to 30d, found {policy.cooldown!r}")
        if not 0 < policy.window <= _MAX_S:
            raise ConfigError(
                f"{path}: `{where}.window`: expected more than 0 and at most 30d, found {policy.window!r}"
            )


def _check_detectors(path: Path, where: str, policy: Policy, detectors: Collection[str]) -> None:
    names = detectors_of(policy)
    if not names:
        raise ConfigError(f"{path}: `{where}.on`: expected names of detectors, found none")
    for name in names:
        if name in SUPERVISED and policy.do:
            raise ConfigError(
                f"{path}: `{where}.on`: supervision itself answers {name!r}",
                hint="the engine's `restart` says whether; `do = []` is all that a policy may say about it",
            )
        _known(path, f"{where}.on", (name,), detectors or names, "detector")


def _known(path: Path, where: str, given: Sequence[str] | None, known: Collection[str], what: str) -> None:
    for name in given or ():
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(known)) or 'none'}"
        raise ConfigError(f"{path}: `{where}`: no {what} is called {name!r}", hint=hint)
    if given is not None and not given:
        raise ConfigError(f"{path}: `{where}`: expected names, found none", hint="leave it out to mean all")


def in_words(config: Config) -> Iterator[str]:
    """Yield a line for each policy in force: what it does, when, what holds it back, and whom it can never be for."""
    own = len(config.policy)
    for index, policy in enumerate(in_force(config)):
        yield f"policy {policy.name}{'' if index < own else ' (default)'}: {_sentence(policy)}"
        skipped = [word for word in policy.do if word in NOT_BUILT]
        if skipped:
            yield f"policy {policy.name}: {', '.join(skipped)} is skipped: opsboard routes no requests yet"
        never = _never_of(policy, config)
        if policy.do and never:
            whom = "any engine here" if len(never) == len(config.engine) else ", ".join(never)
            whys = "; ".join(f"{name} {why}" for name, why in list(never.items())[:_NAMED])
            more = "; ..." if len(never) > _NAMED else ""
            yield f"policy {policy.name}: never acts on {whom}: {whys}{more}"


def _never_of(policy: Policy, config: Config) -> dict[str, str]:
    """Return the engines that a policy will never act on as the file is, and why; not those it does not name."""
    found: dict[str, str] = {}
    for engine in config.engine:
        routes = [route for route in config.route if engine.name in route.targets]
        if policy.engines is not None and engine.name not in policy.engines:
            continue
        if policy.routes is not None and not any(route.model in policy.routes for route in routes):
            continue
        alone = [route.model for route in routes if len(route.targets) == 1]
        if not engine.begins_by:
            found[engine.name] = "is observed: opsboard cannot restart it"
        elif engine.restarted == "never":
            found[engine.name] = 'has `restart = "never"`'
        elif alone:
            found[engine.name] = f"is the only target of route {alone[0]}"
        elif not routes and not policy.alone:
            found[engine.name] = "is of no route, so that nobody is known to stand in for it"
    return found


def _sentence(policy: Policy) -> str:
    what = f"{'a confirmed ' if policy.confirmed else ''}{' or '.join(detectors_of(policy))}"
    loud = f" of at least severity {policy.severity}" if policy.severity != "note" else ""
    of = f" of {' or '.join(policy.engines)}" if policy.engines else ""
    on = f" on route {' or '.join(policy.routes)}" if policy.routes else ""
    if not policy.do:
        return f"{what}{loud}{of}{on} is only told"
    ends = f", and less than {format_seconds(policy.eta)} is left," if policy.eta is not None else ","
    do = " and ".join(word for word in policy.do if word not in NOT_BUILT) or "nothing is done yet"
    others = "another engine of its route serves" + (" or it is of no route" if policy.alone else "")
    often = f"at most {policy.at_most} times within {format_seconds(policy.window)}"
    dry = "; dry run: only told" if policy.dry_run else ""
    return (
        f"when {what}{loud}{of}{on} has stood for {format_seconds(policy.after)}{ends} {do}, if {others}; {often}, "
        f"{policy.at_once} of a route at once, {format_seconds(policy.cooldown)} between two on an engine{dry}"
    )
