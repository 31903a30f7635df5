"""What holds of every notifier, whoever wrote it: a new one is covered by being there."""

from __future__ import annotations

import email
import email.policy
import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from msgspec.structs import replace

from alerts.notifier import Answer, Http, Later, Mail, Notifier, Refused, Request, Run, Sent
from opsboard.config.load import load
from opsboard.core.deliveries import Delivery, Fact
from opsboard.core.registry import notifiers
from opsboard.core.secret import Secret
from tests.support.messages import ACKED, LEAK, OVER, delivery, told

DOCS = Path(__file__).parents[2] / "docs" / "notifiers"
SECRET = "s3cr3t-0123456789abcdef0123456789abcdef"
EXAMPLES: dict[str, dict[str, Any]] = {
    "alertmanager": {"url": "http://127.0.0.1:9093/am", "username": "opsboard", "password": SECRET},
    "command": {"run": ["/usr/local/bin/tell", "--loud"]},
    "email": {
        "host": "mail.example.com",
        "sender": "opsboard@example.com",
        "to": ["ops@example.com"],
        "username": "opsboard",
        "password": SECRET,
    },
    "discord": {"url": f"https://discord.com/api/webhooks/1/{SECRET}"},
    "ntfy": {"topic": "ops-7f3a", "server": "https://ntfy.example.com", "token": f"tk_{SECRET}"},
    "pagerduty": {"routing_key": SECRET, "region": "eu"},
    "slack": {"bot_token": f"xoxb-{SECRET}", "to": "#llm-ops"},
    "slack_webhook": {"url": f"https://hooks.slack.com/services/{SECRET}"},
    "teams": {"url": f"https://prod.logic.example.com/{SECRET}"},
    "webhook": {"url": f"https://hooks.example.com/{SECRET}", "secret": f"whsec_{SECRET}"},
}
"""The keys of a channel of each kind, with every secret that it may hold."""
HOSTILE = (
    "\x1b]52;c;aGk=\x07 \x9b31m <!channel> @everyone @here <@U123> [x](javascript:x) `rm -rf` *b* _i_ ~s~ <b>&amp; "
    "\u202egnp.exe \r\nInjected: yes \x00 \U0001f600 \ud800 " + "A" * 1_000_000
)
STEPS = [
    told(),
    told(LEAK, "update", news="ann: looking"),
    told(ACKED, "acknowledge"),
    told(OVER, "resolve"),
    told(test=True),
    told(replace(LEAK, subject="host", evidence={}, actions=()), model=None, engine=None, runbook=None, spark=None),
    told(replace(LEAK, summary=HOSTILE, subject="engine/a", evidence={HOSTILE[:99]: HOSTILE})),
]
KINDS = sorted(notifiers().found)


@pytest.fixture(params=KINDS)
def notifier(request: pytest.FixtureRequest) -> Notifier:
    found: Notifier = notifiers().found[request.param]
    return found


def params(notifier: Notifier) -> Any:
    hints = get_type_hints(notifier.params)
    values = {
        name: Secret(value) if Secret in {hints[name], *get_args(hints[name])} else value
        for name, value in EXAMPLES[notifier.kind].items()
    }
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return notifier.params(**values)


def rendered(notifier: Notifier, one: Delivery) -> list[Request]:
    return list(notifier.render(params(notifier), one))


def deliveries() -> list[Delivery]:
    firsts = [delivery(one) for one in STEPS]
    later = [delivery(one, seq=3, told=True, before="ref-1") for one in STEPS]
    return firsts + later


def test_nothing_is_broken() -> None:
    assert not notifiers().broken
    assert set(EXAMPLES) == set(KINDS), "an example of each kind is needed here"


def test_it_has_a_page_of_documentation(notifier: Notifier) -> None:
    text = (DOCS / f"{notifier.kind}.md").read_text()
    assert f'kind = "{notifier.kind}"' in text
    for field in msgspec.structs.fields(notifier.params):
        assert f"`{field.name.removesuffix('_s')}" in text, f"{field.name} is not explained"


def test_its_keys_can_be_written(notifier: Notifier, tmp_path: Path) -> None:
    keys = "".join(f"{name} = {json.dumps(value)}\n" for name, value in EXAMPLES[notifier.kind].items())
    path = tmp_path / "opsboard.toml"
    path.write_text(f'[[channel]]\nname = "x"\nkind = "{notifier.kind}"\n{keys}')
    assert load(path, notifiers=notifiers().found).config.channel[0].name == "x"


def test_the_first_word_and_the_end_are_told(notifier: Notifier) -> None:
    assert rendered(notifier, delivery())
    assert rendered(notifier, delivery(told(OVER, "resolve"), seq=2, told=True, before="ref-1"))


def test_secrets_are_where_nobody_looks(notifier: Notifier) -> None:
    for one in deliveries():
        for request in rendered(notifier, one):
            assert SECRET not in repr(request).replace("\\", ""), "a request can be logged"


def test_what_people_need_is_in_it(notifier: Notifier) -> None:
    text = "".join(_text(request) for request in rendered(notifier, delivery()))
    for part in ("214 KV blocks", "gpu-a", "opsboard incident show 42"):
        assert part in text


def test_hostile_text_arrives_harmless(notifier: Notifier) -> None:
    for one in deliveries():
        for request in rendered(notifier, one):
            text = _text(request)
            assert not {char for char in text if char in "\x1b\x9b\x00\x07\u202e\ud800"}
            assert len(text.encode()) < 100_000


def test_what_is_long_is_cut(notifier: Notifier) -> None:
    long = told(
        facts=tuple(Fact(name=f"fact {n}", text="x" * 500) for n in range(200)),
        actions=tuple("y" * 500 for _ in range(200)),
        commands=tuple("z" * 500 for _ in range(200)),
        summary="s" * 5000,
        news="n" * 5000,
    )
    for request in rendered(notifier, delivery(long)):
        assert len(_text(request).encode()) < 100_000


def test_every_answer_means_something(notifier: Notifier) -> None:
    own, by_exit = params(notifier), not isinstance(rendered(notifier, delivery())[0], Http)
    for status in (None, *range(100, 600)):
        for body in (b"", b"ok", b'{"ok":false,"error":"x"}', b"\xff\x00", b"[" * 5000, b'{"ok":1e999}'):
            answer = Answer(status=status, body=body, headers={"retry-after": "7"}, error=None if status else "no")
            outcome = notifier.classify(own, answer)
            assert isinstance(outcome, Sent | Later | Refused)
            if by_exit:
                continue
            if status in {None, 429, 500, 502, 503, 504}:
                assert isinstance(outcome, Later), "it may work in a while"
            elif status in {400, 401, 403}:
                assert isinstance(outcome, Refused), "trying again cannot help"
            if status == 429:
                assert isinstance(outcome, Later)
                assert outcome.after_s == 7.0


def test_the_same_message_is_the_same_request(notifier: Notifier) -> None:
    one = delivery()
    assert [_text(request) for request in rendered(notifier, one)] == [
        _text(request) for request in rendered(notifier, one)
    ]


def _text(request: Request) -> str:
    if isinstance(request, Run):
        return request.stdin.decode()
    if isinstance(request, Mail):
        parts = email.message_from_bytes(request.data, policy=email.policy.default).walk()
        return "".join(part.get_content() for part in parts if not part.is_multipart())
    text = request.body.decode()
    try:
        return json.dumps(json.loads(text), ensure_ascii=False)
    except ValueError:
        return text
