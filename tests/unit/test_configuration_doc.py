"""The tables of docs/configuration.md and of the detectors' pages are what the schema says."""

from __future__ import annotations

from tools.configuration_doc import pages


def test_the_tables_are_fresh() -> None:
    for path, text in pages():
        assert path.read_text() == text, f"{path.name}: run tools/configuration_doc.py"
