"""`opsboard` that is killed at the first word of a policy to supervision, or that waits shortly after such an end.

``python -m tests.support.mortal_daemon before|after|impatient ...``: with the rest of the words as the command line.
The product needs no hook for it.
"""

from __future__ import annotations

import os
import signal
import sys

from opsboard.cli.main import main
from opsboard.supervise import supervisor

OBSERVE_S = 1.0


def die_at_renew(*, after: bool) -> None:
    """Be killed when a restart by ourselves is asked for: before anything is done, or as soon as it was begun."""
    renew = supervisor.Supervisor.renew

    async def dying(self: supervisor.Supervisor, name: str, reason: str) -> None:
        if after:
            await renew(self, name, reason)
        os.kill(os.getpid(), signal.SIGKILL)

    supervisor.Supervisor.renew = dying  # type: ignore[method-assign]


if __name__ == "__main__":
    how = sys.argv.pop(1)
    if how == "impatient":
        vars(supervisor)["OBSERVE_S"] = OBSERVE_S
    else:
        die_at_renew(after=how == "after")
    main()
