"""The completions request of the OpenAI API, as engines serve it: greedy, always as long as asked. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from collectors.base import Tokens

SEED = 0


class _Choice(msgspec.Struct):
    text: str


class _Answer(msgspec.Struct):
    choices: list[_Choice]


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


def body(model: str, prompt: str, tokens: int) -> bytes:
    """Return the request for ``tokens`` tokens after ``prompt``.

    ``ignore_eos`` is vLLM's and SGLang's: without it an answer that begins with the end is no token at all.
    """
    return msgspec.json.encode(
        {
            "model": model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "seed": SEED,
            "n": 1,
            "ignore_eos": True,
            "stream": False,
        }
    )


def text(answer: bytes) -> str:
    """Return what was generated. Raises ValueError for what is no answer."""
    try:
        return msgspec.json.decode(answer, type=_Answer).choices[0].text
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError) as error:
        raise ValueError(f"not an answer of the completions API: {error}") from error


def models(answer: bytes) -> Sequence[str]:
    """Return the served models. Raises ValueError."""
    try:
        return [model.id for model in msgspec.json.decode(answer, type=_Models).data]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a list of models: {error}") from error


COMPLETIONS = Tokens(path="/v1/completions", body=body, text=text, models_path="/v1/models", models=models)
