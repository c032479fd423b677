"""Inputs that a stranger might send: a good file, changed in one to four places."""

import copy
import json
import random
import struct
from collections.abc import Callable
from typing import Any

Mutation = Callable[[random.Random, bytes], bytes]

_DEEP = "@deep@"
_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    3,
    2**31,
    2**63,
    10**9,
    10**12,
    -(10**12),
    10**30,
    0.5,
    1e308,
    1e-320,
    "",
    "x",
    "a\nerror: b\x1b[2J",
    "\x00",
    "\ud800",
    "é\u202e",
    "x" * 100_000,
    "../../../../etc/passwd",
    "/dev/zero",
    "/etc/passwd",
    "canary.Payload",
    "canary--canary.Payload",
    "os.system",
    "numpy.load",
    "${oc.env:HOME}",
    "{{ 1 / 0 }}",
    "{% for i in range(99999) %}{{ i }}{% endfor %}",
    [],
    {},
    [[]],
    {"": {}},
    ["x"],
    [1, "x", None],
    {"a": 1},
    {"__type": "AddedToken", "content": "x"},
    {"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAABhAGVlZWVlZWVlAA=="},
    {"type": "Replace", "pattern": {"String": "a"}, "content": "aa" * 100},
    list(range(2000)),
    _DEEP,
)
_NAMES = (
    "_target_",
    "auto_map",
    "chat_template",
    "extra_special_tokens",
    "fast_tokenizer_files",
    "normalizer",
    "quantization_config",
    "split_special_tokens",
    "tokenizer_file",
    "transformers_weights",
)
"""Settings that lead a library elsewhere."""
_TEXTS = (
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"9" * 5000,
    b"[" * 5000,
    b'{"a":' * 3000,
    b"\\ud800",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x00",
    b"\r",
    b'"',
    b",",
    b"&a [*a, *a]",
    b"!!python/object/apply:os.system [id]",
    b"!!binary x",
    b"<<: x",
    b"2001-01-01",
    b"? {}: 1",
    b"import canary",
)
_NUMBERS = (0, 1, 2, 8, 9, 255, 2**15, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1)


def raw(rng: random.Random, data: bytes) -> bytes:
    """Bytes changed, left out, repeated, or made a number that is a size elsewhere."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at, kind = rng.randrange(len(out) + 1), rng.randrange(7)
        end = at + rng.choice((1, 4, 8, 64, 1024))
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at:end] = b""
        elif kind == 2:
            out[at:at] = out[at:end] * rng.choice((1, 2, 50))
        elif kind == 3:
            form = rng.choice(("<I", "<Q", ">I", "<H"))
            number = rng.choice(_NUMBERS) & (2 ** (8 * struct.calcsize(form)) - 1)
            out[at : at + struct.calcsize(form)] = struct.pack(form, number)
        elif kind == 4:
            out[at:at] = rng.choice(_TEXTS)
        elif kind == 5:
            out[at:end] = rng.randbytes(end - at)
        else:
            del out[at:]
    return bytes(out)


def document(rng: random.Random, data: bytes) -> bytes:
    """JSON with other values, keys that are gone, renamed or there twice, and depths; now and then its bytes changed."""
    if rng.random() < 0.25:
        return raw(rng, data)
    return written(rng, altered(rng, json.loads(data)))


def altered(rng: random.Random, value: Any) -> Any:
    """A plain value changed in one to three places."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _altered_once(rng, value)
    return value


def written(rng: random.Random, value: Any) -> bytes:
    """A plain value as JSON, with what JSON has no words for."""
    text = json.dumps(value)
    deep = rng.choice((70, 900, 20_000))
    text = text.replace(f'"{_DEEP}"', "[" * deep + "]" * deep)
    if rng.random() < 0.1:
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(_TEXTS).decode("latin-1") + text[at:]
    if rng.random() < 0.05 and text.startswith("{") and ":" in text:
        text = "{" + text[1:].split(",")[0].rstrip("}") + "," + text[1:]
    return text.encode()


def _altered_once(rng: random.Random, value: Any) -> Any:
    places = list(_places(value, ()))
    place = rng.choice(places)
    if not place:
        return _strange(rng) if rng.random() < 0.2 else value
    parent = value
    for name in place[:-1]:
        parent = parent[name]
    kind = rng.random()
    if kind < 0.6:
        parent[place[-1]] = _strange(rng)
    elif kind < 0.75:
        del parent[place[-1]]
    elif kind < 0.85:
        other = value
        for name in rng.choice(places):
            other = other[name]
        parent[place[-1]] = json.loads(json.dumps(other))
    elif kind < 0.92:
        parent[place[-1]] = [parent[place[-1]]]
    elif isinstance(parent, dict):
        name = rng.choice((*filter(lambda each: isinstance(each, str), _VALUES), *_NAMES))
        parent[name] = rng.choice((parent.pop(place[-1]), _strange(rng)))
    else:
        parent += copy.deepcopy(parent)
    return value


def _strange(rng: random.Random) -> Any:
    """A value of its own: one that another input changed would make this one another, too."""
    return copy.deepcopy(rng.choice(_VALUES))


def _places(value: Any, at: tuple) -> Any:
    yield at
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    # A vocabulary would be all that is ever changed.
    for name, child in list(children)[:60]:
        yield from _places(child, (*at, name))


def lines(rng: random.Random, data: bytes) -> bytes:
    """JSON, one a line, of which one is changed."""
    if rng.random() < 0.3:
        return raw(rng, data)
    rows = data.splitlines()
    at = rng.randrange(len(rows))
    rows[at] = document(rng, rows[at])
    return b"\n".join(rows) + b"\n"


def safetensors(rng: random.Random, data: bytes) -> bytes:
    """A header that claims other things than the file holds."""
    length = int.from_bytes(data[:8], "little")
    if rng.random() < 0.3:
        return raw(rng, data[: 8 + length]) + data[8 + length :]
    header = document(rng, data[8 : 8 + length])
    size = len(header) if rng.random() < 0.9 else rng.choice(_NUMBERS)
    return size.to_bytes(8, "little") + header + data[8 + length :]


def gguf(rng: random.Random, data: bytes) -> bytes:
    """Counts, lengths and kinds in the header changed."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        header = min(len(out) - 8, 6000)
        at = rng.choice((4, 8, 16, *[rng.randrange(header) for _ in range(8)]))
        form = rng.choice(("<I", "<Q"))
        number = rng.choice((*_NUMBERS, rng.randrange(64))) & (2 ** (8 * struct.calcsize(form)) - 1)
        if rng.random() < 0.6:
            out[at : at + struct.calcsize(form)] = struct.pack(form, number)
        else:
            out[at] = rng.randrange(256)
    return raw(rng, bytes(out)) if rng.random() < 0.3 else bytes(out)
