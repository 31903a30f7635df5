"""Who sits at this terminal, as incidents name them."""

from __future__ import annotations

import os
import pwd


def me() -> str | None:
    """Return the name of the user, None for one without. The daemon adds the uid, which it knows from the kernel."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return None
