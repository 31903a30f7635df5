"""Command lines are shown without the secrets in them."""

from __future__ import annotations

import pytest

from opsboard.config.explain import print_toml
from opsboard.config.schema import Config, Engine
from opsboard.core.secret import without_secrets
from opsboard.daemon.specs import engine_specs, launch_specs


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("vllm serve m --api-key k1 k2 --port 8001", "vllm serve m --api-key *** *** --port 8001"),
        ("vllm serve m --api-key=k1 --hf-token hf_x", "vllm serve m --api-key=*** --hf-token ***"),
        ("serve --api_key k --password p", "serve --api_key *** --password ***"),
        (
            "vllm serve m --max-num-batched-tokens 8192 --tokenizer t --ssl-keyfile f -tp 2",
            "vllm serve m --max-num-batched-tokens 8192 --tokenizer t --ssl-keyfile f -tp 2",
        ),
        ("serve --token", "serve --token"),
    ],
)
def test_what_follows_a_secret_option_is_hidden(command: str, shown: str) -> None:
    assert " ".join(without_secrets(command.split())) == shown


def test_a_key_in_a_command_is_not_shown_but_reaches_the_engine() -> None:
    command = ("vllm", "serve", "m", "--api-key", "sk-hush")
    config = Config(engine=(Engine(name="a", command=command, url="http://127.0.0.1:1"),))
    assert engine_specs(config)[0].command == ("vllm", "serve", "m", "--api-key", "***")
    assert "sk-hush" not in print_toml(config)
    assert launch_specs(config, None)[0].command == command
