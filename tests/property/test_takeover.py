"""What is kept of an engine comes back as it was; what the kernel lists is read whole."""

from __future__ import annotations

import os
import resource
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsboard.core.errors import SuperviseError
from opsboard.core.secret import Secret
from opsboard.supervise import bundle
from opsboard.supervise.manners import LIMITS, Manners, parse, parse_limits
from opsboard.supervise.takeover.gap import Gap
from opsboard.supervise.takeover.kept import FILE, Kept, everything, forget, keep, kept
from opsboard.supervise.takeover.reproduction import Reproduction
from opsboard.supervise.takeover.variables import parse as parse_environment

WORDS = st.binary(max_size=30).map(lambda data: os.fsdecode(data.replace(b"\0", b"")))
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True)
LIMIT = st.one_of(st.just(resource.RLIM_INFINITY), st.integers(0, 1 << 62))
MANNERS = st.builds(
    Manners,
    umask=st.none() | st.integers(0, 0o777),
    nice=st.none() | st.integers(-20, 19),
    affinity=st.none() | st.lists(st.integers(0, 1023), max_size=5).map(tuple),
    oom_score_adj=st.none() | st.integers(-1000, 1000),
    limits=st.dictionaries(st.sampled_from(sorted(LIMITS.values())), st.tuples(LIMIT, LIMIT), max_size=4),
)
REPRODUCTIONS = st.builds(
    Reproduction,
    pid=st.integers(1, 1 << 22),
    start_ticks=st.integers(0, 1 << 63),
    boot_id=st.uuids().map(str),
    argv=st.lists(WORDS, max_size=6).map(tuple),
    cwd=st.none() | WORDS,
    exe=st.none() | WORDS,
    env=st.dictionaries(NAMES, WORDS.map(Secret), max_size=6),
    user=st.none() | NAMES,
    uid=st.none() | st.integers(0, 1 << 32),
    gid=st.none() | st.integers(0, 1 << 32),
    groups=st.lists(st.integers(0, 1 << 32), max_size=4).map(tuple),
    manners=MANNERS,
    output=st.none() | WORDS,
    cannot=st.lists(st.builds(Gap, what=NAMES, why=NAMES, hint=st.none() | NAMES, fatal=st.booleans())).map(tuple),
    warnings=st.lists(NAMES, max_size=3).map(tuple),
    dropped=st.lists(NAMES, max_size=3).map(tuple),
)


@given(st.builds(Kept, url=NAMES, reproduction=REPRODUCTIONS))
def test_what_is_kept_comes_back(known: Kept) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder, "engines", "chat")
        assert kept(directory) is None
        keep(known, directory)
        assert kept(directory) == known
        assert everything(directory.parent) == ({"chat": known}, [])
        assert stat.S_IMODE((directory / FILE).stat().st_mode) == 0o600
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert [path.name for path in directory.iterdir()] == [FILE]
        forget(directory)
        assert kept(directory) is None


@given(MANNERS)
def test_manners_reach_the_shim(manners: Manners) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bundle.write(folder, bundle.LAUNCH, {"manners": manners.record()})
        record = bundle.read(folder, bundle.LAUNCH)
        assert record is not None
        assert parse(record["manners"]) == manners


@given(st.dictionaries(st.sampled_from(sorted(LIMITS)), st.tuples(LIMIT, LIMIT)))
def test_limits_are_read_as_the_kernel_prints_them(limits: dict[str, tuple[int, int]]) -> None:
    def shown(value: int) -> str:
        return "unlimited" if value == resource.RLIM_INFINITY else str(value)

    # fs/proc/base.c, proc_pid_limits: "%-25s %-20s %-20s %-10s\n"
    lines = [f"{name:<25} {shown(soft):<20} {shown(hard):<20} {'bytes':<10}\n" for name, (soft, hard) in limits.items()]
    text = "".join(["Limit                     Soft Limit           Hard Limit           Units     \n", *lines])
    assert parse_limits(text) == {LIMITS[name]: pair for name, pair in limits.items()}


@given(st.dictionaries(NAMES, WORDS))
def test_an_environment_is_read_as_it_was_given(env: dict[str, str]) -> None:
    assert parse_environment("".join(f"{name}={value}\0" for name, value in env.items())) == env


@given(st.dictionaries(NAMES, WORDS, min_size=1), st.integers(1, 40))
def test_an_environment_that_was_wiped_is_never_taken_for_one(env: dict[str, str], wiped: int) -> None:
    text = "".join(f"{name}={value}\0" for name, value in env.items())
    assert parse_environment("\0" * min(wiped, len(text)) + text[wiped:]) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "pid": "x"}'])
def test_damage_is_told(tmp_path: Path, content: str) -> None:
    path = tmp_path / "chat" / FILE
    path.parent.mkdir()
    path.touch(mode=0o600)
    path.write_text(content)
    with pytest.raises(SuperviseError, match="is damaged"):
        kept(path.parent)
    found, errors = everything(tmp_path)
    assert not found
    assert [error.hint for error in errors] == ["remove it and take the engine over again"]


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o602])
def test_a_file_that_others_may_touch_is_not_believed(tmp_path: Path, mode: int) -> None:
    path = tmp_path / FILE
    path.write_text("{}")
    path.chmod(mode)
    with pytest.raises(SuperviseError, match="could have been written or read by others"):
        kept(tmp_path)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SuperviseError, match="could have been written or read by others"):
        kept(tmp_path)
