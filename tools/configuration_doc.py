"""Write the tables of docs/configuration.md and docs/detectors/ from the schema: run it with the project's Python."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from opsboard.config.explain import KeyDoc, documented_keys
from opsboard.config.whole import config_type
from opsboard.core.registry import detectors, notifiers

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- keys: made by tools/configuration_doc.py -->\n", "<!-- end of keys -->\n"


def pages() -> Iterator[tuple[Path, str]]:
    """Yield every page that holds tables, with its text as it has to be."""
    keys = list(documented_keys(config_type(detectors().found, notifiers().found)))
    yield _page(DOCS / "configuration.md", keys)
    for name in detectors().found:
        yield _page(DOCS / "detectors" / f"{name}.md", [key for key in keys if key.section == f"[detector.{name}]"])


def _page(path: Path, keys: Iterable[KeyDoc]) -> tuple[Path, str]:
    head, _, rest = path.read_text().partition(BEGIN)
    return path, head + BEGIN + "\n" + _tables(keys) + END + rest.partition(END)[2]


def _tables(keys: Iterable[KeyDoc]) -> str:
    """Return one Markdown table a section."""
    out: list[str] = []
    for section, docs in itertools.groupby(keys, key=lambda doc: doc.section):
        rows = list(docs)
        out += [f"### `{section}`", "", rows[0].about, "", "| key | default | meaning |", "|---|---|---|"]
        for doc in rows:
            name = f"`{doc.key}`" + (f", `{doc.key}_file`, `{doc.key}_env`" if doc.secret else "")
            default = f"`{doc.default}`" if doc.default not in {"", "required"} else doc.default
            out.append(f"| {name} | {default} | {doc.help} |")
        out.append("")
    return "\n".join(out)


if __name__ == "__main__":
    for path, text in pages():
        path.write_text(text)
