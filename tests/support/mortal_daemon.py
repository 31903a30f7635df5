"""`opsboard` that is killed in a restart that a policy decided on, or that waits shortly after such an end.

``python -m tests.support.mortal_daemon before|after|ended|impatient ...``: the rest of the words is the command line.
The product needs no hook for it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from opsboard.cli.main import main
from opsboard.supervise import keeper, supervisor

OBSERVE_S = 1.0


def die_at_renew(*, after: bool) -> None:
    """Be killed when a restart by ourselves is asked for: before anything is done, or as soon as it was begun."""
    renew = supervisor.Supervisor.renew

    async def dying(self: supervisor.Supervisor, name: str, reason: str) -> None:
        if after:
            await renew(self, name, reason)
        os.kill(os.getpid(), signal.SIGKILL)

    supervisor.Supervisor.renew = dying  # type: ignore[method-assign]


def die_at_the_end() -> None:
    """Be killed when an old life is over, and the new one has not begun."""
    end = vars(keeper)["end"]

    async def dying(*arguments: Any, **named: Any) -> None:
        await end(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    vars(keeper)["end"] = dying


if __name__ == "__main__":
    how = sys.argv.pop(1)
    if how == "impatient":
        vars(supervisor)["OBSERVE_S"] = OBSERVE_S
    elif how == "ended":
        die_at_the_end()
    else:
        die_at_renew(after=how == "after")
    main()
