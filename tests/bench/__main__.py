"""``python -m tests.bench [SUBJECT...] [--write]``: measure the budgets, print the table, write docs/benchmarks.md."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import os
import platform
import sys
from pathlib import Path

from opsboard.core.version import __version__
from tests.bench import Row

SUBJECTS = ("parse", "store", "daemon", "telling", "backtest", "supervise", "tui", "cli")
DOC = Path(__file__).parents[2] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- table: made by `make bench` -->\n", "<!-- end of table -->\n"


def machine() -> str:
    """Say what this was measured on."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return f"{os.cpu_count()} cores ({names[0] if names else platform.machine()}), Python {platform.python_version()}"


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| what | must reach | measured | |", "|---|---|---|---|"]
    lines += [f"| {row.what} | {row.budget} | {row.measured} | {'holds' if row.ok else '**MISSED**'} |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, print, write; exit 1 when a budget is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"some of {', '.join(SUBJECTS)}; default: all")
    parser.add_argument("--write", action="store_true", help="write the table into docs/benchmarks.md")
    options = parser.parse_args()
    rows: list[Row] = []
    for subject in options.subjects or SUBJECTS:
        print(f"measuring {subject} ...", file=sys.stderr, flush=True)
        rows += importlib.import_module(f"tests.bench.{subject}").run()
    text = table(rows)
    print(text)
    if options.write:
        head, _, rest = DOC.read_text().partition(BEGIN)
        when = dt.datetime.now(tz=dt.UTC).date().isoformat()
        said = f"\n`make bench`, opsboard {__version__}, {when}, {machine()}.\n\n"
        DOC.write_text(head + BEGIN + said + text + "\n" + END + rest.partition(END)[2])
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
