"""Compression of one column of a chunk: bit-exact for every float64, 1 to 3 bytes a sample on most of what is recorded.

A column is tried in a few transformed forms and the smallest one is kept: this happens once in a quarter of an hour a
series, so time is cheap and bytes are not. Layout: one byte of kind, one of parameter, then the payload (little-endian,
raw DEFLATE).

- constant: the value itself.
- whole: integers (also decimals such as 61.5, scaled by a power of ten) as 0th, 1st or 2nd differences in the narrowest
  width.
- words: float64 or (where exact) float32, plain or XORed with the one before.
- index: at most 256 different values, and which one each sample is.

Wider integers and words are byte-shuffled, as Blosc does, so that bytes of equal weight stand together. Layouts and
sizes were compared on recorded series: see docs/store.md.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from operator import mul, sub, truediv, xor

CONSTANT, WHOLE, WORDS, INDEX = range(4)
_WIDTHS = ((1, "b", 1 << 7), (2, "h", 1 << 15), (4, "i", 1 << 31), (8, "q", 1 << 63))
_LIMIT = 1 << 53
"""Beyond it a float64 cannot hold every integer."""
SCALES = (0, 1, 2, 3, 4, 6, 7, 9)
"""Powers of ten that instruments round to."""
_TYPECODES = {1: "b", 2: "h", 4: "i", 8: "q"}


def _deflate(data: bytes) -> bytes:
    return zlib.compress(data, 9, wbits=-15)


def _shuffle(data: bytes, width: int) -> bytes:
    return data if width == 1 else b"".join(data[i::width] for i in range(width))


def _unshuffle(data: bytes, width: int) -> bytes:
    if width == 1:
        return data
    count = len(data) // width
    out = bytearray(len(data))
    for i in range(width):
        out[i::width] = data[i * count : (i + 1) * count]
    return bytes(out)


def _narrow(numbers: Sequence[int]) -> tuple[int, bytes]:
    """The narrowest width in bytes that holds them all, and the packed bytes. Raises OverflowError beyond 64 bits."""
    low, high = (min(numbers), max(numbers)) if numbers else (0, 0)
    top = max(high, ~low)
    for width, typecode, limit in _WIDTHS:
        if top < limit:
            return width, array(typecode, numbers).tobytes()
    raise OverflowError(top)


def encode_whole(numbers: Sequence[int], scale: int = 0) -> bytes:
    """Pack integers, with the index of their scale. Raises OverflowError beyond 64 bits.

    The first value of a difference stands before the payload, so that one large number does not widen all the others.
    """
    packed = [_pack(list(numbers), [], scale)]
    form = list(numbers)
    heads: list[int] = []
    while form and len(heads) < 2:
        heads.append(form[0])
        form = list(map(sub, form[1:], form))
        with contextlib.suppress(OverflowError, struct.error):  # too far apart for 64 bits
            packed.append(_pack(form, heads, scale))
    return min(packed, key=len)


def _pack(form: list[int], heads: list[int], scale: int) -> bytes:
    width, data = _narrow(form)
    parameter = (len(heads) << 6) | (scale << 3) | (width.bit_length() - 1)
    head = struct.pack(f"<{len(heads)}q", *heads)
    return bytes((WHOLE, parameter)) + head + _deflate(_shuffle(data, width))


def decode_whole(data: bytes) -> tuple[list[int], int]:
    """Undo ``encode_whole``: the integers and the index of their scale."""
    parameter = data[1]
    order, scale, width = parameter >> 6, (parameter >> 3) & 7, 1 << (parameter & 7)
    heads = struct.unpack_from(f"<{order}q", data, 2)
    packed = array(_TYPECODES[width])
    packed.frombytes(_unshuffle(zlib.decompress(data[2 + 8 * order :], wbits=-15), width))
    numbers: Iterable[int] = packed
    for head in reversed(heads):
        numbers = accumulate(numbers, initial=head)
    return list(numbers), scale


def _scaled(values: array[float]) -> tuple[int, list[int]] | None:
    """The first power of ten that turns all values into integers and back: its index, the integers."""
    for index, scale in enumerate(SCALES):
        factor = 10.0**scale
        try:
            if not all(map(_exact, values[:8], [factor] * 8)):
                continue
            numbers = list(map(round, map(mul, values, [factor] * len(values))))
        except (ValueError, OverflowError):  # not finite
            return None
        if max(numbers) >= _LIMIT or min(numbers) <= -_LIMIT:
            return None
        if array("d", map(truediv, numbers, [factor] * len(numbers))).tobytes() == values.tobytes():
            return index, numbers
    return None


def _exact(value: float, factor: float) -> bool:
    return round(value * factor) / factor == value


def _words(values: array[float]) -> Iterator[bytes]:
    narrow = array("f", values)  # what is too large becomes infinite, and differs
    if array("d", narrow).tobytes() == values.tobytes():
        data, width = narrow.tobytes(), 4
    else:
        data, width = values.tobytes(), 8
    words = array("I" if width == 4 else "Q")
    words.frombytes(data)
    crossed = array(words.typecode, [words[0], *map(xor, words[1:], words)]).tobytes()
    yield bytes((WORDS, width)) + _deflate(_shuffle(data, width))
    yield bytes((WORDS, width | 16)) + _deflate(_shuffle(crossed, width))


def _indexed(values: array[float]) -> Iterator[bytes]:
    words = array("Q")
    words.frombytes(values.tobytes())
    table = {word: index for index, word in enumerate(dict.fromkeys(words))}
    if len(table) <= 256 and len(table) * 2 <= len(words):
        index = bytes(table[word] for word in words)
        yield bytes((INDEX, len(table) - 1)) + array("Q", table).tobytes() + _deflate(index)


def encode(values: array[float]) -> bytes:
    """Compress float64 values (``array('d')``); NaN payloads, infinities and -0.0 survive."""
    if not values:
        return b""
    raw = values.tobytes()
    if raw == raw[:8] * len(values):
        return bytes((CONSTANT, 0)) + raw[:8]
    scaled = _scaled(values)
    candidates = [] if scaled is None else [encode_whole(scaled[1], scaled[0])]
    candidates.extend(_indexed(values))
    if scaled is None:
        candidates.extend(_words(values))
    return min(candidates, key=len)


def decode(data: bytes, count: int) -> array[float]:
    """Undo ``encode`` of ``count`` values. Raises ValueError or zlib.error when the bytes are not what was written."""
    if not data:
        return array("d")
    kind, parameter = data[0], data[1]
    values = array("d")
    if kind == CONSTANT:
        values.frombytes(data[2:10] * count)
    elif kind == WHOLE:
        numbers, scale = decode_whole(data)
        factor = 10.0 ** SCALES[scale]
        values = array("d", map(truediv, numbers, [factor] * len(numbers)) if scale else numbers)
    elif kind == WORDS:
        values = _decode_words(data, parameter)
    elif kind == INDEX:
        table = array("Q")
        table.frombytes(data[2 : 2 + 8 * (parameter + 1)])
        index = zlib.decompress(data[2 + 8 * len(table) :], wbits=-15)
        values.frombytes(array("Q", map(table.__getitem__, index)).tobytes())
    else:
        raise ValueError(f"unknown column kind {kind}")
    if len(values) != count:
        raise ValueError(f"column of {len(values)} values where {count} were written")
    return values


def _decode_words(data: bytes, parameter: int) -> array[float]:
    width = parameter & 15
    words = array("I" if width == 4 else "Q")
    words.frombytes(_unshuffle(zlib.decompress(data[2:], wbits=-15), width))
    if parameter & 16:
        words = array(words.typecode, accumulate(words, xor))
    floats = array("f" if width == 4 else "d")
    floats.frombytes(words.tobytes())
    return floats if width == 8 else array("d", floats)
