"""The OpenAI API of vLLM: requests read and checked, replies written, errors in its words. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from opsboard.sim.model import Request, Shape
from opsboard.sim.text import ids_bytes, natural_length, read_prompt, text_bytes, token_ids, word

_DEFAULT_MAX_TOKENS = 16
_DRIFT = 0x5DEECE66D


class Refusal(Exception):
    """A request that vLLM would refuse: HTTP ``status`` and the body of the reply."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": status}})


class _Part(msgspec.Struct):
    text: str = ""


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class Body(msgspec.Struct):
    """What is read of a completion or chat request; everything else is accepted and has no effect."""

    model: str | None = None
    prompt: str | list[int | str] | None = None
    messages: list[_Message] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    min_tokens: int = 0
    n: int = 1
    ignore_eos: bool = False
    stream: bool = False
    stream_options: _StreamOptions | None = None
    return_token_ids: bool = False


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A checked request: what the scheduler gets, and what the reply needs."""

    sized: Request
    max_tokens: int
    chat: bool
    stream: bool
    usage_in_stream: bool
    prompt_token_ids: Sequence[int] | None


def read(data: bytes, model: str, shape: Shape, *, chat: bool, drift: bool = False) -> Call:
    """Read and check a request; with ``drift`` its answer is that of another model. Raises Refusal."""
    body = decode(data)
    if body.model is not None and body.model != model:
        raise Refusal(
            404, "NotFoundError", f"The model `{body.model}` does not exist. Valid aliases: {model}.", "model"
        )
    if body.n != 1:
        raise Refusal(400, "BadRequestError", "This simulated engine serves n=1 only. (parameter=n)", "n")
    raw = _chat_bytes(body) if chat else _prompt_bytes(body)
    prompt = read_prompt(raw, shape.block_size)
    room = shape.max_model_len - prompt.tokens
    asked = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    if asked is not None and asked < 1:
        raise Refusal(400, "BadRequestError", f"max_tokens must be at least 1, got {asked}.", "max_tokens")
    if room < 1 or (asked or 0) > room:
        raise Refusal(
            400,
            "BadRequestError",
            f"This model's maximum context length is {shape.max_model_len} tokens. However, you requested "
            f"{asked or 1} output tokens and your prompt contains {prompt.tokens} input tokens.",
            "input_tokens",
        )
    most = asked if asked is not None else (room if chat else min(_DEFAULT_MAX_TOKENS, room))
    natural = most + 1 if body.ignore_eos else max(natural_length(prompt.seed), body.min_tokens)
    output, finish = (natural, "stop") if natural <= most else (most, "length")
    return Call(
        sized=Request(0, prompt.tokens, prompt.hashes, output, finish, prompt.seed ^ (_DRIFT if drift else 0)),
        max_tokens=most,
        chat=chat,
        stream=body.stream,
        usage_in_stream=body.stream_options is not None and body.stream_options.include_usage,
        prompt_token_ids=token_ids(raw) if body.return_token_ids else None,
    )


def decode(data: bytes) -> Body:
    """Read a JSON body. Raises Refusal."""
    try:
        return msgspec.json.decode(data, type=Body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, "Bad Request", f"1 validation error:\n  {error}", "body") from error


def _prompt_bytes(body: Body) -> bytes:
    prompt = body.prompt
    texts = [one for one in prompt if isinstance(one, str)] if isinstance(prompt, list) else []
    if texts:
        if not isinstance(prompt, list) or len(prompt) > 1:
            raise Refusal(400, "BadRequestError", "This simulated engine serves one prompt a request.", "prompt")
        prompt = texts[0]
    if not prompt:
        message = "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)"
        raise Refusal(400, "BadRequestError", message, "prompt")
    if isinstance(prompt, str):
        return text_bytes(prompt)
    return ids_bytes([one for one in prompt if isinstance(one, int)])


def _chat_bytes(body: Body) -> bytes:
    if not body.messages:
        raise Refusal(
            400, "BadRequestError", "messages must be provided and non-empty. (parameter=messages)", "messages"
        )
    said = []
    for message in body.messages:
        content = message.content or ""
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        said.append(f"<|im_start|>{message.role}\n{text}<|im_end|>\n")
    return text_bytes("".join(said) + "<|im_start|>assistant\n")


class Writer:
    """Writes the reply to one call: ``name`` is its id, ``created`` Unix seconds."""

    def __init__(self, call: Call, name: str, created: int, model: str, fingerprint: str) -> None:
        """Put together what every piece of the reply begins with."""
        self._call = call
        self._fingerprint = fingerprint
        kind = "chat.completion" if call.chat else "text_completion"
        self._base = {"id": name, "object": kind, "created": created, "model": model}
        if call.chat and call.stream:
            self._base["object"] = "chat.completion.chunk"
        self._piece = self._template()

    def text(self, begin: int, end: int) -> str:
        """Return the answer's tokens from ``begin`` up to ``end``."""
        seed = self._call.sized.seed
        return "".join(word(seed, index) for index in range(begin, end))

    def whole(self, tokens: int, finish: str) -> bytes:
        """Return the reply that is not streamed."""
        text = self.text(0, tokens)
        rest: dict[str, object] = {"logprobs": None, "finish_reason": finish, "stop_reason": None}
        if self._call.prompt_token_ids is not None:
            rest |= {"token_ids": token_ids(text.encode()), "prompt_token_ids": self._call.prompt_token_ids}
        said = {"message": {"role": "assistant", "content": text}} if self._call.chat else {"text": text}
        reply = {**self._base, "choices": [{"index": 0, **said, **rest}], "system_fingerprint": self._fingerprint}
        return msgspec.json.encode({**reply, "usage": self._usage(tokens)})

    def opening(self) -> bytes:
        """Return the first chunk of a stream, empty for completions."""
        if not self._call.chat:
            return b""
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        ids = self._call.prompt_token_ids
        return event(msgspec.json.encode({**self._base, "choices": [choice], "prompt_token_ids": ids}))

    def chunk(self, begin: int, end: int, finish: str | None) -> bytes:
        """Return the chunk with the tokens from ``begin`` up to ``end``; ``finish`` belongs to the last one."""
        text = self.text(begin, end)
        ids = msgspec.json.encode(token_ids(text.encode())) if self._call.prompt_token_ids is not None else b"null"
        before, between = self._piece
        reason = b"null" if finish is None else b'"%s"' % finish.encode()
        # A chat says why it stopped only where it does.
        stop = b"" if self._call.chat and finish is None else b',"stop_reason":null'
        return before + text.encode() + between + reason + stop + b',"token_ids":%s}]}\n\n' % ids

    def closing(self, tokens: int) -> bytes:
        """Return the end of a stream, with the usage where it was asked for."""
        done = event(b"[DONE]")
        if not self._call.usage_in_stream:
            return done
        return event(msgspec.json.encode({**self._base, "choices": [], "usage": self._usage(tokens)})) + done

    def _usage(self, tokens: int) -> dict[str, int]:
        prompt = self._call.sized.prompt_tokens
        return {"prompt_tokens": prompt, "total_tokens": prompt + tokens, "completion_tokens": tokens}

    def _template(self) -> tuple[bytes, bytes]:
        """Return what stands before the text, and between it and the reason; words need no escaping."""
        head = msgspec.json.encode(self._base)[:-1]
        said = b'"delta":{"content":"' if self._call.chat else b'"text":"'
        close = b'"}' if self._call.chat else b'"'
        before = b"data: " + head + b',"choices":[{"index":0,' + said
        return before, close + b',"logprobs":null,"finish_reason":'


def event(data: bytes) -> bytes:
    """Return one server-sent event."""
    return b"data: " + data + b"\n\n"


def models(name: str, created: int, max_model_len: int) -> dict[str, object]:
    """Return the body of ``/v1/models``."""
    card = {"id": name, "object": "model", "created": created, "owned_by": "vllm", "root": name, "parent": None}
    return {"object": "list", "data": [{**card, "max_model_len": max_model_len}]}


DEAD = Refusal(
    500,
    "InternalServerError",
    "EngineCore encountered an issue. See stack trace (above) for the root cause.",
)
"""What every request gets once EngineCore is gone."""
