"""docs/configuration.md is what the schema says."""

from __future__ import annotations

from tools.configuration_doc import DOC, written


def test_the_tables_are_fresh() -> None:
    assert DOC.read_text() == written(DOC.read_text()), "run tools/configuration_doc.py"
