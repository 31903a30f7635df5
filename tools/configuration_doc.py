"""Write the tables of docs/configuration.md from the schema: ``.venv/bin/python tools/configuration_doc.py``."""

from __future__ import annotations

import itertools
from pathlib import Path

from opsboard.config import schema
from opsboard.config.explain import documented_keys

DOC = Path(__file__).parent.parent / "docs" / "configuration.md"
BEGIN, END = "<!-- keys: made by tools/configuration_doc.py -->\n", "<!-- end of keys -->\n"


def tables() -> str:
    """Return one Markdown table a section."""
    out: list[str] = []
    for section, keys in itertools.groupby(documented_keys(), key=lambda doc: doc.section):
        about = (getattr(schema, section.strip("[]").capitalize()).__doc__ or "").strip().partition(": ")[2]
        out += [
            f"### `{section}`",
            "",
            about[:1].upper() + about[1:],
            "",
            "| key | default | meaning |",
            "|---|---|---|",
        ]
        for doc in keys:
            name = f"`{doc.key}`" + (f", `{doc.key}_file`, `{doc.key}_env`" if doc.secret else "")
            default = f"`{doc.default}`" if doc.default not in {"", "required"} else doc.default
            out.append(f"| {name} | {default} | {doc.help} |")
        out.append("")
    return "\n".join(out)


def written(text: str) -> str:
    """Return ``text`` with the tables between the markers made anew."""
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + "\n" + tables() + END + rest.partition(END)[2]


if __name__ == "__main__":
    DOC.write_text(written(DOC.read_text()))
