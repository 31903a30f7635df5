"""docs/store.md: its queries run, its tables are there."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from opsboard.store import views
from opsboard.store.migrations import SERIES, STATE, migrate

DOC = (Path(__file__).parents[2] / "docs/store.md").read_text()
QUERIES = re.findall(r"```sql\n(.*?)```", DOC, re.DOTALL)


@pytest.fixture
def everything() -> sqlite3.Connection:
    """Both schemas in one place."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, SERIES + STATE)
    views.refresh(connection)
    return connection


@pytest.mark.parametrize("query", QUERIES)
def test_documented_queries_run(everything: sqlite3.Connection, query: str) -> None:
    everything.execute(query).fetchall()
    everything.close()


def test_every_view_and_every_column_of_state_is_documented(everything: sqlite3.Connection) -> None:
    for name in views.definitions():
        assert f"`{name}`" in DOC
    lines = {match[1]: match[0] for match in re.finditer(r"^\| `(\w+)` \| .*$", DOC, re.MULTILINE)}
    for name in re.findall(r"CREATE TABLE (\w+)", "".join(STATE)):
        for column in everything.execute(f"PRAGMA table_info({name})"):
            assert f"`{column[1]}`" in lines[name]
    everything.close()
