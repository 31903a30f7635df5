"""What systemd reads in the file is what was to be handed over, or it is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsboard.core.errors import SuperviseError
from opsboard.supervise.runners.environment_file import quoted
from tests.support.fake_systemd import env_file

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
VALUES = st.text(st.one_of(st.sampled_from("\"\\`$'#;= \t\n%{}"), st.characters(exclude_categories=["Cs", "Cc", "Cn"])))


@settings(max_examples=50)
@given(st.dictionaries(NAMES, VALUES))
def test_what_is_read_is_what_was_written(env: dict[str, str]) -> None:
    assert env_file(quoted(env)) == env


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("A", "a\rb"),
        ("A", "\x1b[0m"),
        ("A", "\x7f"),
        ("A", "\udc80"),
        ("A", "\ufffe"),
        ("BASH_FUNC_x%%", "1"),
        ("", "1"),
    ],
)
def test_what_systemd_would_drop_is_refused_and_no_value_is_told(name: str, value: str) -> None:
    with pytest.raises(SuperviseError, match="cannot be handed over by systemd") as refused:
        quoted({"GOOD": "hush", name: value + "hush"})
    assert "hush" not in str(refused.value)
