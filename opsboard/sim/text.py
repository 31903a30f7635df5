"""Text without a model: four bytes are a token, and the same prompt always gets the same answer."""

from __future__ import annotations

import random
from collections.abc import Iterable
from hashlib import blake2b

import msgspec

TOKEN_BYTES = 4
_SYLLABLES = ("ka", "lo", "mi", "ne", "ro", "sa", "ti", "vu", "be", "da", "fo", "gu", "ha", "ji", "pe", "zo")
WORDS = tuple(f" {a}{b}"[:TOKEN_BYTES] for a in _SYLLABLES for b in _SYLLABLES)
"""What tokens say: four bytes each, so that an answer sent back in a next prompt counts the same."""
_MEDIAN_LOG, _SPREAD = 4.8, 0.7


class Prompt(msgspec.Struct, frozen=True):
    """A prompt as the engine sees it: its length in tokens, the names of its full blocks, the seed of its answer."""

    tokens: int
    hashes: tuple[int, ...]
    seed: int


def text_bytes(text: str) -> bytes:
    """Return the bytes that stand for a prompt given as text."""
    return text.encode("utf-8", "surrogatepass")


def ids_bytes(ids: Iterable[int]) -> bytes:
    """Return the bytes that stand for a prompt given as token ids."""
    return b"".join((token & 0xFFFFFFFF).to_bytes(TOKEN_BYTES, "big") for token in ids)


def token_ids(data: bytes) -> list[int]:
    """Return the token ids of a prompt's bytes."""
    return [int.from_bytes(data[at : at + TOKEN_BYTES], "big") % 32_000 for at in range(0, len(data), TOKEN_BYTES)]


def read_prompt(data: bytes, block_size: int) -> Prompt:
    """Count a prompt's tokens and name its full blocks; a name covers the block and all before it."""
    size = block_size * TOKEN_BYTES
    hashes: list[int] = []
    so_far = b""
    for at in range(0, len(data) - size + 1, size):
        so_far = blake2b(so_far + data[at : at + size], digest_size=7).digest()
        hashes.append(int.from_bytes(so_far, "big"))
    tail = blake2b(so_far + data[len(hashes) * size :], digest_size=7).digest()
    return Prompt(-(-len(data) // TOKEN_BYTES), tuple(hashes), int.from_bytes(tail, "big"))


def natural_length(seed: int) -> int:
    """Return after how many tokens the answer to a prompt ends by itself: lognormal, median about 120."""
    return max(1, int(random.Random(seed).lognormvariate(_MEDIAN_LOG, _SPREAD)))


def word(seed: int, index: int) -> str:
    """Return token ``index`` of the answer to the prompt with ``seed``."""
    mixed = (seed + index * 0x9E3779B97F4A7C15) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    return WORDS[mixed >> 56]
