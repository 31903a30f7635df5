"""What a reload cannot change: places and rights that are taken once, when the daemon begins."""

from __future__ import annotations

from opsboard.config.schema import Config
from opsboard.core.errors import Conflict


def refuse_fixed(old: Config, new: Config) -> None:
    """Raise Conflict when the new configuration changes what only a restart of the daemon can change."""
    changed = [
        f"[{section}] {key}"
        for section, key in (
            ("host", "name"),
            ("host", "state_dir"),
            ("control", "socket"),
            ("control", "read_group"),
            ("control", "operate_group"),
        )
        if getattr(getattr(old, section), key) != getattr(getattr(new, section), key)
    ]
    if changed:
        raise Conflict(
            f"{', '.join(changed)} cannot change while the daemon runs",
            hint="restart it: `systemctl restart opsboard` touches no engine",
        )
