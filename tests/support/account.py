"""Who runs the tests: a root daemon must be told as whom its engines run."""

from __future__ import annotations

import os
import pwd

ME = pwd.getpwuid(os.geteuid()).pw_name
AS_ME = f'user = "{ME}"'
"""The line of an ``[[engine]]`` with a ``command``."""
