"""Alertmanager: pushes alerts as Prometheus does, so that the routing, silences and receivers of a site go on to work.

Source: github.com/prometheus/alertmanager api/v2/openapi.yaml (postAlerts). An alert that is not sent again is over at
its ``endsAt``: that is some resends ahead, or it would flap (github.com/grafana/grafana/issues/38648).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from alerts.answers import by_status
from alerts.message import bounded
from alerts.notifier import Http, Notifier, Rate, Request
from alerts.notifiers.webhook import alert, stamp
from opsboard.core.deliveries import Delivery
from opsboard.core.model import Record
from opsboard.core.secret import Secret

RESEND_S = 60.0
AHEAD_S = 5 * RESEND_S
"""So long an alert stands when opsboard is gone."""


class Params(Record, frozen=True, kw_only=True):
    """What one Alertmanager needs."""

    url: Annotated[
        Secret, Meta(description="its address, e.g. `http://alertmanager:9093`, with its path prefix if any")
    ]
    username: Annotated[str | None, Meta(description="who logs in; default: nobody")] = None
    password: Annotated[Secret | None, Meta(description="with which password")] = None
    token: Annotated[Secret | None, Meta(description="bearer token; default: none")] = None

    def __post_init__(self) -> None:
        """Check what can be checked. Raises ValueError."""
        if (self.username is None) is not (self.password is None):
            raise ValueError("`username` and `password` belong together")
        if self.token is not None and self.password is not None:
            raise ValueError("`token` and `password`: expected one of them")


def render(params: Params, delivery: Delivery) -> Sequence[Request]:
    """Return the alert as it is now: firing for a while from now on, or over."""
    message = bounded(delivery.message)
    one = alert(message)
    ends = message.resolved if message.resolved is not None else delivery.at + AHEAD_S
    # An alert is its labels: what may change while it fires would make another one of it.
    labels = {name: value for name, value in one["labels"].items() if value and name != "model"} | {"job": "opsboard"}
    pushed = {
        "labels": labels,
        "annotations": {name: value for name, value in one["annotations"].items() if name != "news"},
        "startsAt": stamp(min(message.since, ends)),
        "endsAt": stamp(ends),
    }
    body = json.dumps([pushed], ensure_ascii=False, separators=(",", ":")).encode()
    address = params.url.reveal().rstrip("/") + "/api/v2/alerts"
    return [
        Http(
            url=Secret(address), body=body, headers={"Content-Type": "application/json"}, secret_headers=_login(params)
        )
    ]


def _login(params: Params) -> dict[str, Secret]:
    if params.token is not None:
        return {"Authorization": Secret(f"Bearer {params.token.reveal()}")}
    if params.username is not None and params.password is not None:
        pair = f"{params.username}:{params.password.reveal()}".encode()
        return {"Authorization": Secret(f"Basic {base64.b64encode(pair).decode()}")}
    return {}


NOTIFIER = Notifier(
    kind="alertmanager",
    summary="pushes alerts to an Alertmanager, as Prometheus does",
    params=Params,
    render=render,
    classify=lambda _params, answer: by_status(answer),
    rate=Rate(every_s=0.1, burst=100),
    resend_s=RESEND_S,
    edits=True,
)
