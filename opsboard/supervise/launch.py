"""A launch: what is to run, in which environment, as whom; and the shim that will be its parent."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import pwd
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from opsboard.core.errors import SuperviseError
from opsboard.core.model import Record
from opsboard.core.secret import Secret
from opsboard.core.text import sanitise
from opsboard.supervise import as_user, bundle, ports
from opsboard.supervise.manners import Manners
from opsboard.supervise.processes import TAG
from opsboard.supervise.shim_socket import PATH_BYTES

log = logging.getLogger("opsboard.supervise")

SHIM = Path(__file__).with_name("shim.py")
READY_S = 10.0
"""What a look at all sockets, an answer about an account and a small file may take."""
START_S = 15.0
"""Deadline for the shim's answer: 0.05 s, more on a busy host."""
INHERITED = (
    *("PATH", "LANG", "LANGUAGE", "TZ", "TMPDIR", "HOME", "USER", "LOGNAME", "SHELL", "VIRTUAL_ENV", "LD_LIBRARY_PATH"),
    *("CUDA_HOME", "CUDA_PATH", "XDG_CACHE_HOME", "HF_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
"""What an engine gets of the daemon's environment, with ``LC_*``. Nothing else: tokens stay where they are."""
REHEARSAL = "rehearsal.json"
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ROOT = 0


class RunsAs(NamedTuple):
    """Whom a program runs as, all None for the daemon's own user."""

    uid: int | None
    gid: int | None
    groups: list[int] | None


class LaunchSpec(Record, frozen=True, kw_only=True):
    """One supervised engine as configured. Seconds, bytes; ``gpus`` are uuids or numbers, None leaves all visible."""

    name: str
    command: tuple[str, ...]
    """What runs; with another ``runner`` than "shim" and "systemd" what makes it run."""
    url: str
    env: Mapping[str, str | Secret] = {}
    inherits: bool = True
    """Whether a few of the daemon's variables come before ``env``; False: ``env`` is all there is."""
    manners: Manners | None = None
    """umask, priority, cores and limits; None is the daemon's."""
    cwd: str | None = None
    """Working directory; None is the daemon's."""
    user: str | None = None
    runner: Literal["shim", "systemd", "command", "restart"] = "shim"
    """Its next life begins so; "restart": it is observed, and ``command`` restarts it."""
    stop_command: tuple[str, ...] = ()
    status_command: tuple[str, ...] = ()
    logs_command: tuple[str, ...] = ()
    gpus: tuple[str, ...] | None = None
    warning: str | None = None
    """What its timeline is to tell at every start."""
    autostart: bool = False
    ready_timeout_s: float = 900.0
    stop_timeout_s: float = 30.0
    restart: Literal["on-failure", "always", "never"] = "on-failure"
    """When it is started again by itself: after ends nobody asked for, after all but an operator's, not at all."""
    drain_timeout_s: float = 60.0
    """What requests under way may take before a restart ends the process all the same."""
    log_bytes: int = 50_000_000
    """A log is rotated when it has passed this size ..."""
    log_files: int = 5
    """... and so many older ones are kept."""

    @property
    def wanted(self) -> bool:
        """True when it shall run though no operator has said so."""
        return self.autostart or (self.runner == "restart" and self.restart != "never")


class Launched(Record, frozen=True, kw_only=True):
    """A life that has begun. ``started`` is Unix seconds; ``log_offset`` the byte of the log where it begins."""

    instance: str
    life: int
    pid: int
    start_ticks: int | None
    started: float
    log_offset: int


def fingerprint(command: Sequence[str]) -> str:
    """Return what tells two commands apart; a record may keep it where the arguments themselves hold secrets."""
    return hashlib.sha256("\0".join(command).encode("utf-8", "surrogateescape")).hexdigest()


def socket_path(directory: Path, runtime_dir: Path) -> Path:
    """Return where the shim of a bundle listens: a short name, socket paths have 107 bytes. Raises SuperviseError."""
    path = runtime_dir / f"shim-{hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:10]}.sock"
    if len(os.fsencode(path)) > PATH_BYTES:
        raise SuperviseError(
            f"{path}: a socket path may have {PATH_BYTES} bytes", hint="use a shorter runtime directory"
        )
    return path


def environment(spec: LaunchSpec, instance: str, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the engine's whole environment: a few of ``inherited``, its GPUs, its own, its mark.

    Raises:
        SuperviseError: no such user, or ``env`` and ``gpus`` contradict each other.
    """
    env: dict[str, str] = {}
    if spec.inherits:
        env = {name: value for name, value in inherited.items() if name in INHERITED or name.startswith("LC_")}
        env.setdefault("PATH", _DEFAULT_PATH)
    if spec.inherits and spec.user is not None:
        account = _account(spec.user)
        env |= {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}
    own = {name: value.reveal() if isinstance(value, Secret) else value for name, value in spec.env.items()}
    if spec.gpus is not None:
        visible = ",".join(spec.gpus)
        if own.get("CUDA_VISIBLE_DEVICES", visible) != visible:
            found = own["CUDA_VISIBLE_DEVICES"]
            raise SuperviseError(
                f"engine {spec.name}: env sets CUDA_VISIBLE_DEVICES={found}, but gpus means {visible}",
                hint="keep one of the two",
            )
        env["CUDA_VISIBLE_DEVICES"] = visible
    return env | own | {TAG: instance}


async def launch(
    spec: LaunchSpec,
    directory: Path,
    runtime_dir: Path,
    *,
    instance: str,
    life: int,
    inherited: Mapping[str, str] = os.environ,
) -> Launched:
    """Start ``spec`` under a new shim. The caller knows that nothing of the last life runs; the shim looks again.

    ``instance`` is the unique id of the life and ``life`` its number.

    Raises:
        NoRoom: the port is taken.
        SuperviseError: nothing was started, and why.
    """
    try:
        async with asyncio.timeout(READY_S):
            await asyncio.to_thread(ports.check, spec.url)
            record = partial(_record, spec, directory, runtime_dir, instance=instance, life=life, inherited=inherited)
            await asyncio.to_thread(_write, directory, runtime_dir, record)
    except TimeoutError:
        text = f"no answer within {READY_S:g} s about its port, its user or {directory}"
        raise SuperviseError(text, permanent=False) from None
    try:
        reply = await _start_shim(directory)
    finally:
        _remove(directory, bundle.LAUNCH)
    if not reply.get("ok"):
        permanent = not reply.get("passing")
        raise SuperviseError(sanitise(str(reply.get("error", "the shim said nothing"))), permanent=permanent)
    await asyncio.to_thread(_keep, directory, reply)
    process = reply["process"]
    return Launched(
        instance=reply["instance"],
        life=life,
        pid=process["pid"],
        start_ticks=process["start_ticks"],
        started=reply["started"],
        log_offset=reply["log_offset"],
    )


def _write(directory: Path, runtime_dir: Path, record: Callable[[], Mapping[str, Any]]) -> None:
    launch_record = record()
    try:
        for folder in (directory.parent, directory, runtime_dir):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        bundle.write(str(directory), bundle.LAUNCH, launch_record)
    except OSError as error:
        raise SuperviseError(f"{directory}: cannot be written: {error.strerror}", permanent=False) from error


def _keep(directory: Path, reply: Mapping[str, Any]) -> None:
    """Write down again who runs, where somebody has removed that: what is not written down runs for ever."""
    try:
        if bundle.read(str(directory), bundle.IDENTITY) is None:
            log.warning("%s was removed while an engine began", directory)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            identity = {name: value for name, value in reply.items() if name not in {"ok", "shim_pid"}}
            bundle.write(str(directory), bundle.IDENTITY, identity, sync=True)
    except OSError as error:
        log.warning("%s: it cannot be seen what is written there: %s", directory, error)


def rehearse(
    spec: LaunchSpec, directory: Path, runtime_dir: Path, *, inherited: Mapping[str, str] = os.environ
) -> None:
    """Find out whether ``spec`` could be started now, before the life that runs is ended for it. Blocks shortly.

    Raises:
        SuperviseError: it could not, and why.
    """
    record = _record(spec, directory, runtime_dir, instance="", life=0, inherited=inherited)
    program_of(spec, record["env"])
    rehearse_writing(directory, record)


def program_of(spec: LaunchSpec, env: Mapping[str, str]) -> str:
    """Return the path of what ``spec`` runs in the environment ``env``. Raises SuperviseError: it cannot, and why."""
    if spec.cwd is not None and not os.access(spec.cwd, os.X_OK):
        raise SuperviseError(f"its directory {spec.cwd} is not there or cannot be entered", hint="correct its `cwd`")
    files = as_user.found(spec.command[0], spec.cwd, env.get("PATH", os.defpath))
    if not files:
        raise SuperviseError(f"{spec.command[0]} cannot be found or executed", hint="correct its `command`")
    uid, gid, groups = runs_as(spec)
    if spec.user is not None and uid is not None and gid is not None:
        account = as_user.Account(spec.user, uid, gid, groups or ())
        if (why := as_user.refused(files, account)) is not None:
            hint = "correct `command` or `user`, or the rights of the file and of the directories above it"
            raise SuperviseError(why, hint=hint)
    return str(files[0])


def rehearse_writing(directory: Path, record: object) -> None:
    """Raise SuperviseError when the bundle cannot take what a launch writes into it."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        bundle.write(str(directory), REHEARSAL, record)
    except OSError as error:
        raise SuperviseError(f"{directory}: cannot be written: {error.strerror}", permanent=False) from error
    finally:
        _remove(directory, REHEARSAL)


def call_off(directory: Path) -> None:
    """Remove what a daemon that was killed had written down to start, or to rehearse: there are secrets in it."""
    for name in (bundle.LAUNCH, bundle.ENVIRONMENT, REHEARSAL):
        _remove(directory, name)


def _remove(directory: Path, name: str) -> None:
    """Remove a launch record: a shim that has not taken it by now starts nothing."""
    for one in (name, f"{name}.new"):
        try:
            bundle.remove(str(directory), one)
        except OSError as error:
            log.warning("%s/%s stays there: %s", directory, one, error.strerror)


def _record(
    spec: LaunchSpec, directory: Path, runtime_dir: Path, *, instance: str, life: int, inherited: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "protocol": bundle.PROTOCOL,
        "engine": spec.name,
        "instance": instance,
        "life": life,
        "argv": list(spec.command),
        "argv_sha256": fingerprint(spec.command),
        "env": environment(spec, instance, inherited),
        "cwd": spec.cwd,
        "manners": spec.manners and spec.manners.record(),
        **runs_as(spec)._asdict(),
        "url": spec.url,
        "socket": str(socket_path(directory, runtime_dir)),
        "stop_timeout_s": spec.stop_timeout_s,
        "log_bytes": spec.log_bytes,
        "log_files": spec.log_files,
    }


def runs_as(spec: LaunchSpec) -> RunsAs:
    """Return whom to change to. Raises SuperviseError: no such user, or the daemon may not become that one."""
    own = RunsAs(None, None, None)
    if spec.user is None:
        return own
    account = _account(spec.user)
    if os.geteuid() != _ROOT:
        if account.pw_uid == os.geteuid():
            return own
        raise SuperviseError(
            f"engine {spec.name}: cannot run as user {spec.user}: the daemon is not root",
            hint="run the daemon as root, or drop `user`",
        )
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    return RunsAs(account.pw_uid, account.pw_gid, groups)


def _account(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise SuperviseError(f"no such user: {user}", hint="create it, or correct `user`") from None


async def _start_shim(directory: Path) -> dict[str, Any]:
    """Run the shim and return its one line. What we start forks and ends at once, so the shim is nobody's child."""
    errors = os.open(directory / bundle.SHIM_LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-S", "-X", "utf8", str(SHIM), str(directory)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env={},
            start_new_session=True,
        )
    except OSError as error:
        raise SuperviseError(f"cannot start a shim: {error.strerror or error}", permanent=False) from error
    finally:
        os.close(errors)
    try:
        async with asyncio.timeout(START_S):
            line, _ = await process.communicate()  # the shim lets go of the pipe when it has said its line
    except TimeoutError:
        raise SuperviseError(f"the shim did not answer within {START_S:g} s", permanent=False) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            if process.returncode is None:
                process.kill()
    try:
        reply = json.loads(line)
    except ValueError:
        reply = None
    if not isinstance(reply, dict):
        last = (directory / bundle.SHIM_LOG).read_text(errors="replace").strip().rpartition("\n")[2]
        # A shim without a word was killed: that says nothing about the next one.
        raise SuperviseError(f"the shim did not start: {sanitise(last) or 'no word from it'}", permanent=bool(last))
    return reply
