"""What the configuration file may hold.

Each field's description is its documentation (docs/configuration.md is made from it).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from opsboard.config.units import Bytes, Seconds
from opsboard.core.incidents import Urgency
from opsboard.core.quiet import quiet
from opsboard.core.secret import Secret


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all sections: unknown keys are errors."""


class Host(Section, frozen=True, kw_only=True):
    """`[host]`: this machine."""

    name: Annotated[str | None, Meta(description="name on the board; default: the hostname")] = None
    state_dir: Annotated[
        str | None, Meta(description="where state.db, series.db and the engines' bundles lie; default: see below")
    ] = None


class Collect(Section, frozen=True, kw_only=True):
    """`[collect]`: how often and how patiently engines, GPUs and the host are read."""

    interval: Annotated[Seconds, Meta(description="time between two readings of a target; 200ms to 10s")] = Seconds(1)
    timeout: Annotated[Seconds, Meta(description="deadline of one scrape")] = Seconds(3)


class Store(Section, frozen=True, kw_only=True):
    """`[store]`: how long numbers are kept. `max_bytes` always wins: raw samples go first, then rollups."""

    raw: Annotated[Seconds, Meta(description="age of raw samples")] = Seconds(48 * 3600)
    minute: Annotated[Seconds, Meta(description="age of 1 minute rollups")] = Seconds(30 * 86400)
    hour: Annotated[Seconds, Meta(description="age of 1 hour rollups")] = Seconds(2 * 31536000)
    max_bytes: Annotated[Bytes, Meta(description="size that series.db may reach")] = Bytes(4 * 2**30)


class Control(Section, frozen=True, kw_only=True):
    """`[control]`: the control socket. Without groups only the daemon's own user and root may connect."""

    socket: Annotated[str | None, Meta(description="path of the control socket; default: see below")] = None
    read_group: Annotated[str | None, Meta(description="Unix group whose members may read")] = None
    operate_group: Annotated[str | None, Meta(description="Unix group whose members may read and operate")] = None


class Exporter(Section, frozen=True, kw_only=True):
    """`[exporter]`: Prometheus metrics of the board. No section, no exporter."""

    listen: Annotated[str, Meta(description="HOST:PORT of `/metrics`; loopback unless you mean it")] = "127.0.0.1:9464"


class Engine(Section, frozen=True, kw_only=True):
    """`[[engine]]`: one inference server. With `command` or `start_command` it is supervised, else it is observed."""

    name: Annotated[str, Meta(description="name on the board: letters, digits, `.`, `_`, `-`, at most 64")]
    kind: Annotated[
        str | None, Meta(description="engine kind, e.g. `vllm`; default: recognised from its metrics page")
    ] = None
    command: Annotated[tuple[str, ...] | None, Meta(description="argv of the server; no shell ever sees it")] = None
    runner: Annotated[
        Literal["shim", "systemd", "command"],
        Meta(
            description="what runs it: `shim`, a process of opsboard's; `systemd`, as a transient unit; `command`, "
            "your own `start_command`, `stop_command` and `status_command`"
        ),
    ] = "shim"
    start_command: Annotated[
        tuple[str, ...] | None,
        Meta(description='with `runner = "command"`: starts it and ends, e.g. `["docker", "start", "vllm"]`'),
    ] = None
    stop_command: Annotated[
        tuple[str, ...] | None,
        Meta(description='with `runner = "command"`: stops it, e.g. `["docker", "stop", "--time", "30", "vllm"]`'),
    ] = None
    status_command: Annotated[
        tuple[str, ...] | None,
        Meta(
            description='with `runner = "command"`: ends with 0 when it runs; a pid in its first line names the main '
            'process, 0 says that it does not run, e.g. `["docker", "inspect", "-f", "{{.State.Pid}}", "vllm"]`'
        ),
    ] = None
    logs_command: Annotated[
        tuple[str, ...] | None,
        Meta(
            description='with `runner = "command"`: prints its output and goes on; `{since}` becomes Unix seconds, '
            'e.g. `["docker", "logs", "-f", "--since", "{since}", "vllm"]`; default: it has no log'
        ),
    ] = None
    url: Annotated[
        str | None, Meta(description="where it answers; default for a command: its `--port` on 127.0.0.1, else 8000")
    ] = None
    api_key: Annotated[
        Secret | None, Meta(description="API key of the server; a supervised vLLM gets it as VLLM_API_KEY")
    ] = None
    gpus: Annotated[
        tuple[int, ...] | None,
        Meta(
            description="GPUs by NVML order; becomes CUDA_VISIBLE_DEVICES by UUID, or by number with a warning on the "
            "timeline when the driver does not answer"
        ),
    ] = None
    env: Annotated[dict[str, str], Meta(description="environment added for the engine")] = {}
    user: Annotated[
        str | None,
        Meta(description="Unix user to run as; with a root daemon every `command` needs one, be it `root`"),
    ] = None
    autostart: Annotated[bool, Meta(description="start with the daemon, unless an operator stopped it")] = False
    restart_command: Annotated[
        tuple[str, ...] | None,
        Meta(
            description="of an observed engine: what `opsboard engine restart` runs, e.g. "
            '`["systemctl", "restart", "vllm"]`; drained before, proven to be a new life afterwards'
        ),
    ] = None
    restart: Annotated[
        Literal["on-failure", "always", "never"] | None,
        Meta(
            description="when opsboard restarts it by itself: `on-failure` after every end that nobody asked for, "
            "whatever its exit code, and when it hangs; `always` after ends that others asked for, too; `never`; "
            "default: `on-failure`, of an observed engine `never`"
        ),
    ] = None
    ready_timeout: Annotated[Seconds, Meta(description="time a start may take until the engine serves")] = Seconds(900)
    drain_timeout: Annotated[
        Seconds, Meta(description="time that requests under way get before a restart; `0s` drains not at all")
    ] = Seconds(60)
    stop_timeout: Annotated[Seconds, Meta(description="time between TERM and KILL")] = Seconds(30)
    max_age: Annotated[
        Seconds | None,
        Meta(
            description="age at which it is restarted, at least 1h: drained, in the quietest ten minutes of the second "
            "half of it, and only while another target of its route serves; default: never"
        ),
    ] = None
    standby: Annotated[
        bool,
        Meta(
            description="keep it asleep: put to sleep after every start, or stopped where it cannot sleep, until "
            "`opsboard engine wake`"
        ),
    ] = False

    canary: Annotated[
        bool | None,
        Meta(
            description="whether detectors may ask it for one token when they doubt it; default: only a supervised one "
            "is asked"
        ),
    ] = None

    @property
    def may_be_asked(self) -> bool:
        """True when opsboard may send it requests of its own."""
        return self.supervised if self.canary is None else self.canary

    @property
    def supervised(self) -> bool:
        """True when opsboard starts and stops this engine."""
        return self.command is not None or self.start_command is not None

    @property
    def restarted(self) -> Literal["on-failure", "always", "never"]:
        """When opsboard restarts it by itself."""
        return self.restart or ("on-failure" if self.supervised else "never")

    @property
    def begins_by(self) -> tuple[str, ...]:
        """What begins a life of it; empty where opsboard begins none."""
        return self.command or self.start_command or self.restart_command or ()


class Route(Section, frozen=True, kw_only=True):
    """`[[route]]`: engines that stand in for each other. Its last healthy one is not taken out without `--now`."""

    model: Annotated[str, Meta(description="what clients ask for")]
    targets: Annotated[tuple[str, ...], Meta(description="names of the engines that serve it")]


class Slo(Section, frozen=True, kw_only=True):
    """`[slo]`: what every engine owes its clients. What is not set is not judged (docs/detectors/slo_burn.md)."""

    ttft_p95: Annotated[Seconds | None, Meta(description="95 % of the first tokens come within this")] = None
    itl_p95: Annotated[Seconds | None, Meta(description="95 % of the gaps between two tokens are no longer")] = None
    e2e_p95: Annotated[Seconds | None, Meta(description="95 % of the requests are answered within this")] = None
    availability: Annotated[
        float | None, Meta(description="percent of the requests that do not fail, such as `99.9`")
    ] = None
    period: Annotated[
        Seconds, Meta(description="time in which a budget of what may be late or fail may be spent; 1d to 90d")
    ] = Seconds(30 * 86400)


class Policy(Section, frozen=True, kw_only=True):
    """`[[policy]]`: what opsboard may do by itself about a finding (docs/policies.md). The first that names one counts.

    Without any, those of docs/policies.md are in force; `opsboard config check` says each in words.
    """

    on: Annotated[
        str | tuple[str, ...], Meta(description='detectors whose incidents it is for: `"kv_leak"` or several')
    ]
    do: Annotated[
        tuple[Literal["reroute", "drain", "restart"], ...],
        Meta(
            description="in this order: `drain` takes the engine out of service, `restart` drains and restarts it, "
            "`reroute` is skipped until opsboard routes requests; `[]` only tells"
        ),
    ]
    name: Annotated[str | None, Meta(description="what it is called; default: after `on`")] = None
    engines: Annotated[tuple[str, ...] | None, Meta(description="only for these engines; default: all")] = None
    routes: Annotated[
        tuple[str, ...] | None, Meta(description="only for engines of these routes, by `model`; default: all")
    ] = None
    severity: Annotated[Urgency, Meta(description="the incident is at least so loud")] = "note"
    confirmed: Annotated[bool, Meta(description="only when more than one kind of evidence speaks for it")] = True
    after: Annotated[Seconds, Meta(description="it has stood for so long")] = Seconds(60)
    eta: Annotated[
        Seconds | None,
        Meta(description="what is leaking lasts less than this at its pace; default: whatever it lasts, known or not"),
    ] = None
    cooldown: Annotated[Seconds, Meta(description="no policy has acted on the engine for so long; 1m to 30d")] = (
        Seconds(6 * 3600)
    )
    at_most: Annotated[int, Meta(description="so often within `window`, all engines together", ge=1)] = 2
    window: Annotated[Seconds, Meta(description="the time in which `at_most` counts; at most 30d")] = Seconds(86400)
    at_once: Annotated[
        int, Meta(description="engines of a route that are out of service at once, this one and broken ones too", ge=1)
    ] = 1
    alone: Annotated[
        bool,
        Meta(
            description="also for an engine of no route, for which nobody is known to stand in; the last that serves a "
            "route is left in any case"
        ),
    ] = False
    dry_run: Annotated[bool, Meta(description="only tell what would be done, and when")] = False


class Channel(Section, frozen=True, kw_only=True):
    """`[[channel]]`: somebody or something that is told of incidents. What else it needs follows from its kind."""

    name: Annotated[str, Meta(description="what routes and people call it")]
    kind: Annotated[str, Meta(description="the service, e.g. `slack`; a page each in docs/notifiers")]


class AlertRoute(Section, frozen=True, kw_only=True):
    """`[[alert_route]]`: which incidents go to which channels. Without any, pages and tickets go to all of them."""

    channels: Annotated[tuple[str, ...], Meta(description="names of channels")]
    severity: Annotated[
        Urgency | tuple[Urgency, ...] | None, Meta(description="`page`, `ticket` or `note`, or several; default: all")
    ] = None
    detector: Annotated[
        tuple[str, ...], Meta(description="only of these detectors; `*` and `?` stand for anything")
    ] = ()
    engine: Annotated[tuple[str, ...], Meta(description="only of these engines; `*` and `?` as above")] = ()
    escalate_after: Annotated[
        Seconds | None, Meta(description="nobody has acknowledged it for so long: `escalate_to` hears of it, too")
    ] = None
    escalate_to: Annotated[tuple[str, ...], Meta(description="names of channels")] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for what makes no sense together."""
        if (self.escalate_after is None) == bool(self.escalate_to):
            raise ValueError("`escalate_after` and `escalate_to` belong together")


class Alerts(Section, frozen=True, kw_only=True):
    """`[alerts]`: what every message says, and how often and when people are told."""

    runbook: Annotated[
        str | None, Meta(description="a link that goes with each message; `{detector}` becomes the detector's name")
    ] = None
    ssh: Annotated[
        str | None, Meta(description="what people write after `ssh` to get to this host; default: its name")
    ] = None
    repeat: Annotated[
        Seconds, Meta(description="a page that nobody acknowledges is told again so often; `0s`: never")
    ] = Seconds(3600)
    mending: Annotated[
        Seconds,
        Meta(description="an engine that opsboard restarts by itself is a note for so long, then a page; `0s`: a page"),
    ] = Seconds(300)
    group_wait: Annotated[
        Seconds,
        Meta(
            description="tickets and notes wait so long for others, where people read them together; `0s`: each alone"
        ),
    ] = Seconds(30)
    quiet_hours: Annotated[
        tuple[str, ...],
        Meta(description='when tickets and notes wait: `"22:00-07:00"`, `"mon-fri 19:00-08:00"`, `"sat-sun"`'),
    ] = ()
    time_zone: Annotated[
        str | None, Meta(description="of the quiet hours, e.g. `Europe/Berlin`; default: the host's")
    ] = None

    def __post_init__(self) -> None:
        """Raise ValueError for quiet hours that are none."""
        quiet(self.quiet_hours, self.time_zone)


class Heartbeat(Section, frozen=True, kw_only=True):
    """`[heartbeat]`: a dead man's switch. It hears from opsboard as long as what is seen would also be told."""

    url: Annotated[Secret, Meta(description="where to post, e.g. a check of healthchecks.io; it is never shown")]
    every: Annotated[Seconds, Meta(description="how often; 10s to 1h")] = Seconds(60)
    fail: Annotated[
        bool, Meta(description="say what is wrong at once, at `/fail` below the address, as healthchecks.io knows it")
    ] = False


class Mqtt(Section, frozen=True, kw_only=True):
    """`[mqtt]`: what is true now, and what happens, for an MQTT 5 broker (docs/mqtt.md). No section, no MQTT."""

    url: Annotated[
        str,
        Meta(description="`mqtts://HOST` with TLS (port 8883), or `mqtt://HOST` without (1883); `:PORT` may follow"),
    ]
    username: Annotated[str | None, Meta(description="as whom; default: nobody")] = None
    password: Annotated[Secret | None, Meta(description="and the password of that user")] = None
    ca: Annotated[
        str | None, Meta(description="PEM file of who signed the broker's certificate; default: whom the system trusts")
    ] = None
    cert: Annotated[str | None, Meta(description="PEM file of our own certificate, where the broker wants one")] = None
    key: Annotated[str | None, Meta(description="PEM file of its key; default: it is in `cert`")] = None
    prefix: Annotated[str, Meta(description="topics begin with `PREFIX/v1/ID`")] = "opsboard"
    id: Annotated[
        str | None, Meta(description="this host in topics, and the client id; default: its name on the board")
    ] = None
    home_assistant: Annotated[bool, Meta(description="let Home Assistant discover the host, engines and GPUs")] = False
    discovery_prefix: Annotated[str, Meta(description="where Home Assistant listens for that")] = "homeassistant"
    command_key: Annotated[
        Secret | None,
        Meta(
            description="who signs with it may restart, drain and undrain engines: at least 32 characters, e.g. of "
            "`openssl rand -hex 32`; default: no commands are taken"
        ),
    ] = None


class Detectors(Section, frozen=True, kw_only=True):
    """`[detector.NAME]`: one section a detector that exists (:mod:`opsboard.config.detectors` makes them)."""


class Config(Section, frozen=True, kw_only=True):
    """The whole file."""

    host: Host = Host()
    collect: Collect = Collect()
    store: Store = Store()
    control: Control = Control()
    exporter: Exporter | None = None
    engine: tuple[Engine, ...] = ()
    route: tuple[Route, ...] = ()
    slo: Slo = Slo()
    policy: tuple[Policy, ...] = ()
    channel: tuple[Channel, ...] = ()
    alert_route: tuple[AlertRoute, ...] = ()
    alerts: Alerts = Alerts()
    heartbeat: Heartbeat | None = None
    mqtt: Mqtt | None = None
    detector: Detectors = Detectors()
