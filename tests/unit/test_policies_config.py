"""`[[policy]]` in the file: what is in force, what is refused, and what it says in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from opsboard.config.explain import explain
from opsboard.config.load import load
from opsboard.config.policies import DEFAULTS, detectors_of, in_force, in_words
from opsboard.core.errors import ConfigError
from opsboard.core.registry import detectors

if TYPE_CHECKING:
    from pathlib import Path

    from opsboard.config.load import Loaded

ENGINES = """
[[engine]]
name = "a"
url = "http://127.0.0.1:1"
[[engine]]
name = "b"
url = "http://127.0.0.1:2"
[[route]]
model = "chat"
targets = ["a", "b"]
"""


def read(tmp_path: Path, *policies: str) -> Loaded:
    path = tmp_path / "opsboard.toml"
    path.write_text(ENGINES + "".join(f"[[policy]]\n{policy}\n" for policy in policies))
    return load(path, detectors=detectors().found)


def test_without_any_the_default_is_in_force_and_a_file_takes_its_detectors(tmp_path: Path) -> None:
    assert in_force(read(tmp_path).config) == DEFAULTS
    own = 'on = "kv_leak"\ndo = ["reroute", "drain", "restart"]'
    first, second = in_force(read(tmp_path, own).config)
    assert (first.name, detectors_of(first), first.do) == ("kv_leak", ("kv_leak",), ("reroute", "drain", "restart"))
    assert (second.name, detectors_of(second)) == ("leaks", ("memory_leak", "gpu_memory_leak"))
    off = read(tmp_path, 'on = ["kv_leak", "memory_leak", "gpu_memory_leak"]\ndo = []')
    assert [one.do for one in in_force(off.config)] == [()]
    named = 'name = "kv_leak-2"\non = "kv_leak"\ndo = []'
    names = [one.name for one in in_force(read(tmp_path, own, own, named, own).config)]
    assert names == ["kv_leak", "kv_leak-3", "kv_leak-2", "kv_leak-4", "leaks"]


@pytest.mark.parametrize(
    ("policy", "said", "hint"),
    [
        ('on = "kv_leek"\ndo = []', "`policy[0].on`: no detector is called 'kv_leek'", "did you mean 'kv_leak'?"),
        ("on = []\ndo = []", "`policy[0].on`: expected names of detectors, found none", None),
        ('on = "stall"\ndo = ["restart"]', "supervision itself answers 'stall'", "`do = []` is all"),
        ('on = "kv_leak"\ndo = ["reboot"]', "`policy[0].do[0]`: expected one of reroute, drain, restart", None),
        ('on = "kv_leak"\ndo = ["drain", "drain"]', "names something twice", None),
        ('on = "kv_leak"\ndo = []\nengines = ["c"]', "`policy[0].engines`: no engine is called 'c'", "there are: a, b"),
        ('on = "kv_leak"\ndo = []\nroutes = ["chta"]', "no route is called 'chta'", "did you mean 'chat'?"),
        ('on = "kv_leak"\ndo = []\nroutes = []', "`policy[0].routes`: expected names, found none", "leave it out"),
        ('on = "kv_leak"\ndo = []\nname = "leaks"', "'leaks' is the name of another policy", None),
        ('on = "kv_leak"\ndo = []\nname = ""', "`policy[0].name`: expected a name", None),
        ('on = "kv_leak"\ndo = []\ncooldown = "59s"', "`policy[0].cooldown`: expected 1m to 30d, found 59s", None),
        ('on = "kv_leak"\ndo = []\nwindow = "31d"', "`policy[0].window`: expected more than 0 and at most 30d", None),
        ('on = "kv_leak"\ndo = []\nat_once = 0', "`policy[0].at_once`: expected a whole number >= 1, found 0", None),
        ('on = "kv_leak"', "`policy[0]` needs `do`", None),
        ('on = "kv_leak"\ndo = []\nafer = "1s"', "unknown key `policy[0].afer`", "did you mean `after`?"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, policy: str, said: str, hint: str | None) -> None:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, policy)
    assert said in refused.value.message
    assert (hint or "") in (refused.value.hint or "")


def test_stall_may_be_named_where_nothing_is_done(tmp_path: Path) -> None:
    assert in_force(read(tmp_path, 'on = ["stall", "engine_down"]\ndo = []').config)[0].do == ()


def test_whom_a_policy_can_never_be_for_is_said(tmp_path: Path) -> None:
    engines = "".join(
        f'[[engine]]\nname = "{name}"\nuser = "root"\ncommand = ["x", "--port", "{port}"]\n{more}\n'
        for name, port, more in (("a", 1, ""), ("b", 2, ""), ("c", 3, 'restart = "never"'), ("d", 4, ""), ("e", 5, ""))
    )
    routes = '[[route]]\nmodel = "two"\ntargets = ["a", "b"]\n[[route]]\nmodel = "one"\ntargets = ["d"]\n'
    path = tmp_path / "opsboard.toml"
    path.write_text(engines + routes)
    _, never = in_words(load(path).config)
    assert never == (
        'policy leaks: never acts on c, d, e: c has `restart = "never"`; d is the only target of route one; '
        "e is of no route, so that nobody is known to stand in for it"
    )
    loner = '[[policy]]\non = ["kv_leak", "memory_leak", "gpu_memory_leak"]\ndo = ["restart"]\nengines = ["e"]\n'
    path.write_text(engines + routes + loner)
    assert list(in_words(load(path).config))[1].startswith(
        "policy kv_leak+memory_leak+gpu_memory_leak: never acts on e:"
    )
    path.write_text(engines + routes + loner + "alone = true\n")
    assert len(list(in_words(load(path).config))) == 1


def test_policies_are_said_in_words_and_explained(tmp_path: Path) -> None:
    loaded = read(
        tmp_path,
        'on = "kv_leak"\ndo = ["reroute", "restart"]\nengines = ["a"]\nroutes = ["chat"]\nseverity = "page"\n'
        'confirmed = false\nafter = "90s"\neta = "2h"\ncooldown = "1h"\nat_most = 3\nalone = true\ndry_run = true',
        'on = ["memory_leak", "gpu_memory_leak"]\ndo = []',
    )
    assert list(in_words(loaded.config)) == [
        (
            "policy kv_leak: when kv_leak of at least severity page of a on route chat has stood for 90s, and less "
            "than 2h is left, restart, if another engine of its route serves or it is of no route; at most 3 times "
            "within 1d, 1 of a route at once, 1h between two on an engine; dry run: only told"
        ),
        "policy kv_leak: reroute is skipped: opsboard routes no requests yet",
        "policy kv_leak: never acts on a: a is observed: opsboard cannot restart it",
        "policy memory_leak+gpu_memory_leak: a confirmed memory_leak or gpu_memory_leak is only told",
    ]
    default, never = in_words(read(tmp_path).config)
    assert default.startswith("policy leaks (default): when a confirmed kv_leak or memory_leak or gpu_memory_leak has")
    assert never.startswith("policy leaks: never acts on any engine here: a is observed")
    lines = {line.key: line for line in explain(loaded, "policy.kv_leak.")}
    assert (lines["policy[0].after"].value, lines["policy[0].at_once"].origin) == ('"90s"', "default")
