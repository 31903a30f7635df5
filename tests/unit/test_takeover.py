"""What is said of a process that somebody started by hand: can it be started again, and if not, why not?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from opsboard.core.errors import SuperviseError
from opsboard.core.secret import Secret
from opsboard.supervise.launch import environment
from opsboard.supervise.takeover.reproduction import Reproduction, api_key, judge, to_launch
from opsboard.supervise.takeover.seen import Account, Ancestor, FileId
from tests.support.seen_process import ALICE, DAEMON, ENGINE, LOGIN, MANNERS, NAMESPACES, daemon_of, engine

if TYPE_CHECKING:
    from opsboard.supervise.takeover.gap import Gap
    from opsboard.supervise.takeover.seen import Seen

BOX = "0123456789ab" + "c" * 52
OTHER_MOUNTS = NAMESPACES | {"mnt": "mnt:[2]"}


def gaps(seen: Seen, ours: Seen = DAEMON) -> dict[str, Gap]:
    return {gap.what: gap for gap in judge(seen, ours).cannot}


def only(seen: Seen, what: str, ours: Seen = DAEMON) -> Gap:
    """Return the one gap that a change has made."""
    new = [gap for gap in judge(seen, ours).cannot if gap not in judge(ENGINE, ours).cannot]
    assert [gap.what for gap in new] == [what]
    return new[0]


def test_an_engine_in_a_terminal_can_be_started_again_and_only_its_output_goes_elsewhere() -> None:
    found = judge(ENGINE, DAEMON)
    assert found.fatal == ()
    assert [gap.text for gap in found.cannot] == [
        "output: it writes to the terminal /dev/pts/3; the copy writes to engine.log"
    ]
    assert found.dropped == ("SSH_TTY",)
    spec = to_launch(found, "chat", "http://127.0.0.1:8000", stop_timeout_s=60.0)
    assert spec.command == ENGINE.argv
    assert (spec.cwd, spec.user, spec.stop_timeout_s, spec.manners) == ("/home/alice", "alice", 60.0, MANNERS)
    assert spec.env == {"PATH": Secret("/venv/bin:/bin"), "HF_TOKEN": Secret("hush")}


def test_a_copy_gets_nothing_of_the_daemons_environment() -> None:
    spec = to_launch(judge(ENGINE, daemon_of(ALICE, 1000)), "chat", "http://127.0.0.1:8000")
    env = environment(spec, "id", {"LD_LIBRARY_PATH": "/daemon", "LC_ALL": "C", "HOME": "/daemon"})
    assert env == {"PATH": "/venv/bin:/bin", "HF_TOKEN": "hush", "OPSBOARD_INSTANCE": "id"}
    assert spec.user is None


def test_no_secret_shows() -> None:
    found = judge(ENGINE, DAEMON)
    assert "hush" not in repr(ENGINE.environ)
    assert "hush" not in repr(found)
    assert "hush" not in str(found.cannot + found.warnings)
    assert found.shown[-2:] == ("--api-key", "***")


# --- the program


@pytest.mark.parametrize(
    ("changes", "what", "why"),
    [
        ({"argv": ("VLLM::APIServer", "", "")}, "arguments", "the process renamed itself to “VLLM::APIServer”"),
        ({"argv": ()}, "arguments", "the process has wiped them"),
        ({"argv": ("./vllm", "serve")}, "program", "./vllm cannot be found or executed any more"),
    ],
)
def test_arguments_that_are_gone(changes: dict[str, object], what: str, why: str) -> None:
    gap = only(engine(program=None, program_id=None, **changes), what)
    assert gap.fatal
    assert why in gap.why
    assert gap.hint == "write the engine's `command` into the configuration"


def test_a_name_that_leads_to_another_program() -> None:
    gap = only(engine(program="/bin/other", program_id=FileId(1, 5)), "program")
    assert gap.why == "/venv/bin/python leads to /bin/other, but the process runs /usr/bin/python3.11"


def test_an_upgrade_while_it_ran_is_a_warning() -> None:
    found = judge(engine(exe="/usr/bin/python3.11 (deleted)", program_id=FileId(1, 78)), DAEMON)
    assert found.fatal == ()
    assert found.warnings[0] == "/usr/bin/python3.11 was replaced since it began: the copy runs the new one"


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("python", "-"), "it was read from the standard input"),
        (("vllm", "serve", "--config", "/dev/fd/63"), "/dev/fd/63 is a file that only its starter had open"),
        (("python", "-c", "from multiprocessing.resource_tracker import main;main(5)"), "it is a child of a Python"),
        (("python", "-c", "from multiprocessing.spawn import spawn_main; ..."), "it is a child of a Python process"),
    ],
)
def test_programs_that_nobody_has_a_second_time(argv: tuple[str, ...], why: str) -> None:
    found = judge(engine(argv=argv), DAEMON)
    assert [gap.why for gap in found.fatal if gap.why.startswith(why)]


def test_a_script_and_a_directory_that_are_gone() -> None:
    assert only(engine(missing=("serve.py",)), "program").why == "serve.py is gone"
    assert only(engine(cwd="/old (deleted)"), "directory").why == "its working directory /old is gone"


def test_outputs() -> None:
    assert "output" not in gaps(engine(fds={0: "/dev/null", 1: "/dev/null", 2: "/dev/null"}))
    piped = gaps(engine(fds={0: "pipe:[1]", 1: "pipe:[2]", 2: "/var/log/vllm.log"}))
    assert piped["input"].why == "it may read from a pipe to another process; the copy reads nothing"
    assert piped["output"].why.startswith("it writes to a pipe to another process and /var/log/vllm.log;")
    assert not any(gap.fatal for gap in piped.values())
    assert judge(engine(fds={2: "/var/log/vllm.log"}), DAEMON).output == "/var/log/vllm.log"
    assert judge(ENGINE, DAEMON).output is None


# --- the environment


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        (None, "it may not be read"),
        ("\0" * 400, "wrote its title over it"),
        ("IServer\0\0\0", "wrote its title over it"),
        ("PATH=/bin\0no variable\0", "wrote its title over it"),
    ],
)
def test_an_environment_that_is_gone(environ: str | None, why: str) -> None:
    gap = only(engine(environ=None if environ is None else Secret(environ)), "environment")
    assert gap.fatal
    assert why in gap.why


def test_an_empty_environment_is_one() -> None:
    assert judge(engine(environ=Secret("")), DAEMON).env == {}
    assert "environment" not in gaps(engine(environ=Secret("")))


def test_what_belongs_to_an_old_session_is_dropped() -> None:
    stale = "DISPLAY TERM TMUX SSH_CONNECTION XDG_SESSION_ID XDG_RUNTIME_DIR INVOCATION_ID OPSBOARD_INSTANCE _ SUDO_UID"
    fresh = "PATH HOME TERMINUS VLLM_USE_V1 PWD XDG_CACHE_HOME LC_ALL SSHX OPSBOARD_INSTANCES BASH_FUNC_module%%"
    environ = "".join(f"{name}=x\0" for name in (stale + " " + fresh).split())
    found = judge(engine(environ=Secret(environ)), DAEMON)
    assert set(found.dropped) == set(stale.split())
    assert set(found.env) == set(fresh.split())


def test_handed_over_sockets_and_preloaded_libraries() -> None:
    found = judge(engine(environ=Secret("LISTEN_FDS=2\0LISTEN_PID=4242\0LD_PRELOAD=/x.so\0")), DAEMON)
    assert [gap.what for gap in found.fatal] == ["sockets"]
    assert found.warnings[0] == "LD_PRELOAD is kept: the copy loads the same libraries into itself"


@pytest.mark.parametrize(
    ("variables", "gpus"),
    [
        ("", None),
        ("CUDA_VISIBLE_DEVICES=GPU-1,GPU-2\0", ("GPU-1", "GPU-2")),
        ("CUDA_VISIBLE_DEVICES=0,1\0", None),
        ("CUDA_VISIBLE_DEVICES=0,1\0CUDA_DEVICE_ORDER=PCI_BUS_ID\0", ("0", "1")),
    ],
)
def test_gpus_are_named_only_when_they_are_certain(variables: str, gpus: tuple[str, ...] | None) -> None:
    spec = to_launch(judge(engine(environ=Secret(variables)), daemon_of(ALICE, 1000)), "a", "http://127.0.0.1:1")
    assert spec.gpus == gpus
    environment(spec, "id", {})  # gpus and env agree


@pytest.mark.parametrize(
    ("argv", "environ", "key"),
    [
        (("vllm", "serve", "--api-key", "a", "b"), "VLLM_API_KEY=c\0", "a"),
        (("vllm", "serve", "--api-key=a"), "", "a"),
        (("vllm", "serve"), "VLLM_API_KEY=c\0", "c"),
        (("vllm", "serve", "--api-key"), "", None),
        (("vllm", "serve"), "VLLM_API_KEY=\0", None),
    ],
)
def test_the_key_that_clients_need(argv: tuple[str, ...], environ: str, key: str | None) -> None:
    found = api_key(judge(engine(argv=argv, environ=Secret(environ)), DAEMON))
    assert found == (None if key is None else Secret(key))


# --- who else has a say


@pytest.mark.parametrize(
    ("cgroup", "engine_name", "hint"),
    [
        (f"/system.slice/docker-{BOX}.scope", "Docker", "it is restarted with: docker restart 0123456789ab"),
        (f"/docker/{BOX}", "Docker", "it is restarted with: docker restart 0123456789ab"),
        (
            f"/machine.slice/libpod-{BOX}.scope/container",
            "Podman",
            "it is restarted with: podman restart 0123456789ab",
        ),
        (f"/kubepods.slice/kubepods-pod1.slice/cri-containerd-{BOX}.scope", "Kubernetes", "let Kubernetes restart it"),
    ],
)
def test_containers(cgroup: str, engine_name: str, hint: str) -> None:
    gap = only(engine(cgroups=(cgroup,), namespaces=OTHER_MOUNTS), "container")
    assert gap.fatal
    assert gap.why.startswith(f"it runs in the {engine_name} container 0123456789ab,")
    assert gap.hint is not None
    assert gap.hint.startswith(hint)
    with pytest.raises(SuperviseError, match="engine a \\(pid 4242\\) cannot be reproduced: container: it runs"):
        to_launch(judge(engine(cgroups=(cgroup,), namespaces=OTHER_MOUNTS), DAEMON), "a", "http://127.0.0.1:1")


def test_a_daemon_in_the_same_container_sees_none() -> None:
    place = (f"/docker/{BOX}",)
    assert "container" not in gaps(engine(cgroups=place), msgspec.structs.replace(DAEMON, cgroups=place))


@pytest.mark.parametrize(
    ("cgroup", "hint"),
    [
        ("/system.slice/vllm.service", "it is restarted with: systemctl restart vllm.service"),
        (
            "/system.slice/system-vllm.slice/vllm@a.service",
            "it is restarted with: systemctl restart vllm@a.service",
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/vllm.service",
            "it is restarted with: systemctl --user --machine alice@ restart vllm.service",
        ),
    ],
)
def test_units(cgroup: str, hint: str) -> None:
    gap = only(engine(cgroups=(cgroup,)), "systemd unit")
    assert gap.fatal
    assert gap.hint == hint


@pytest.mark.parametrize(
    "cgroup",
    [
        "/",
        "/user.slice/user-1000.slice/session-4.scope",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/run-r1.scope",
        "/system.slice/cron.service",
        "/system.slice/opsboard.service",
    ],
)
def test_cgroups_that_are_no_unit_of_its_own(cgroup: str) -> None:
    assert judge(engine(cgroups=(cgroup,)), DAEMON).fatal == ()


def test_worlds_of_their_own() -> None:
    gap = only(engine(namespaces=OTHER_MOUNTS | {"net": "net:[2]"}), "namespaces")
    assert gap.why.startswith("it lives in a world of its own (file systems, network)")
    assert gap.fatal
    assert not only(engine(namespaces=NAMESPACES | {"ipc": "ipc:[2]"}), "namespaces").fatal
    assert only(engine(root="/srv/jail"), "root directory").fatal


def shell(*argv: str, script: str) -> Ancestor:
    return Ancestor(pid=300, name="bash", argv=("bash", *argv), script=script)


@pytest.mark.parametrize(
    ("parent", "why"),
    [
        (
            Ancestor(pid=300, name="supervisord", argv=("/usr/bin/python3", "/usr/bin/supervisord")),
            "supervisord (pid 300)",
        ),
        (Ancestor(pid=300, name="python3", argv=("python3", "/usr/bin/supervisord")), "python3 (pid 300)"),
        (Ancestor(pid=300, name="runsv", argv=("runsv", "vllm")), "runsv (pid 300)"),
        (Ancestor(pid=300, name="node", argv=("PM2 v5.3.0: God Daemon",)), "node (pid 300)"),
        (Ancestor(pid=300, name="opsboard-shim", argv=("python", "-I")), "opsboard-shim (pid 300)"),
        (Ancestor(pid=300, name="slurmstepd", argv=("slurmstepd: [1.0]",)), "it is part of a job of Slurm (pid 300)"),
        (shell("run.sh", script="set -e\nwhile true; do vllm serve; done"), "bash run.sh (pid 300) runs a script with"),
        (shell("-c", "until vllm; do :; done", script="until vllm; do :; done"), "bash (pid 300) runs a script with"),
    ],
)
def test_parents_that_would_start_it_again(parent: Ancestor, why: str) -> None:
    uv = Ancestor(pid=301, name="uv", argv=("uv", "run", "vllm"))
    for chain in ((parent,), (uv, parent), (parent, LOGIN)):
        gap = only(engine(ancestors=chain), "parent")
        assert gap.fatal
        assert gap.why.startswith(why)


def test_parents_that_would_not() -> None:
    looping = shell("outer.sh", script="while true; do sleep 1; done")
    supervisor = Ancestor(pid=200, name="supervisord", argv=("supervisord",))
    python = Ancestor(pid=301, name="python3", argv=("python3", "test.py"))
    for chain in ((LOGIN, supervisor), (LOGIN, looping), (python, looping), (shell("run.sh", script="vllm serve"),)):
        assert judge(engine(ancestors=chain), DAEMON).fatal == ()


# --- rights and manners


def test_users_without_a_name_and_several_at_once() -> None:
    assert only(engine(account=None, uids=(4711,) * 4), "user").why == "uid 4711 has no name here"
    assert only(engine(uids=(1000, 0, 0, 0)), "user").why == "it runs with the rights of several users (set-user-ID)"


def test_a_daemon_that_is_not_root_starts_only_its_own() -> None:
    bob = Account(name="bob", gid=1001, groups=(1001,))
    found = gaps(ENGINE, daemon_of(bob, 1001))
    assert found["user"].why == "it runs as alice, and the daemon is not root"
    assert found["user"].fatal
    own = gaps(ENGINE, daemon_of(msgspec.structs.replace(ALICE, groups=(1000,)), 1000))
    assert own["groups"].why.startswith("the copy is not in the groups 44,")
    assert not own["groups"].fatal


def test_rights_that_a_copy_lacks() -> None:
    had = dict(ENGINE.status) | {"CapEff": "0000000000800000"}
    assert only(engine(status=had), "capabilities").why.startswith("it has capabilities (CapEff 800000)")
    watched = judge(engine(status=dict(ENGINE.status) | {"Seccomp": "2", "TracerPid": "77"}), DAEMON).warnings
    assert watched[:2] == (
        "it has a seccomp filter; the copy has none of that",
        "pid 77 traces it (a debugger or a profiler)",
    )


def test_only_root_may_raise_limits() -> None:
    more = MANNERS._replace(nice=-5, oom_score_adj=-500, limits={"RLIMIT_NOFILE": (65535, 1 << 20)})
    assert not {"limit nofile", "priority", "OOM score"} & gaps(engine(manners=more)).keys()
    found = gaps(engine(manners=more), daemon_of(ALICE, 1000))
    assert found["limit nofile"].why == "it was 1048576, and 65535 was in use; the daemon may give 4096"
    assert {"priority", "OOM score"} <= found.keys()
    assert not any(gap.fatal for gap in found.values())


def test_all_reasons_are_told_at_once() -> None:
    found = judge(engine(environ=None, cwd=None), DAEMON)
    with pytest.raises(SuperviseError, match="environment: it may not be read") as told:
        to_launch(found, "a", "http://127.0.0.1:1")
    assert "directory: " in told.value.message
    assert told.value.hint == "run the daemon as root or as the engine's user"


def test_foreign_text_is_harmless() -> None:
    nasty = "\x1b]52;c;aGk=\x07\u202e"
    found: Reproduction = judge(
        engine(
            argv=(nasty,), program=None, cwd=f"{nasty} (deleted)", cgroups=(f"/{nasty}.service",), fds={1: f"/{nasty}"}
        ),
        DAEMON,
    )
    said = "".join([*(f"{gap.text}{gap.hint}" for gap in found.cannot), *found.warnings, *found.shown])
    assert "\x1b" not in said
    assert "\u202e" not in said
