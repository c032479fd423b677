"""Tries a ``tokenizer.json``; imported in a child process alone (:mod:`.confined`).

The library that reads it is not Python: what it cannot do ends the process, by a panic or for want of memory.
"""

import base64
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from immunax.runtime.untrusted.files import read_text

_BYTES = 64 << 20
"""Of the file; the largest vocabularies that are published take half of it."""
_ADDED = 1 << 20
"""Bytes of the tokens that are looked for before a text is cut; the library makes a table of them a thousand times as large."""
_GROWTH = 64
"""How many times as long as a text its normalized form may be; known ones write a space as three bytes."""
_PROBES = ("", "".join(map(chr, range(32, 127))), "  \n\t\r\n " * 40, "a" * 500, "7" * 500, "Ünïcødé 漢字 🙂 " * 20)


def answer(request: dict[str, Any]) -> Iterator[bytes]:
    """Nothing, once the file ``path``, or the ``text`` of one, was read and used."""
    text = request["text"] if "text" in request else read_text(Path(request["path"]), _BYTES)
    said = json.loads(text)
    added = sum(len(str(each.get("content")).encode("utf-8", "replace")) for each in said.get("added_tokens") or ())
    if added > _ADDED:
        raise ValueError(f"its added tokens take {added} bytes, more than {_ADDED}")
    growth = _growth(said.get("normalizer"))
    if growth > _GROWTH:
        raise ValueError(f"its normalizer makes texts {growth:.3g} times as long")
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for probe in _PROBES:
        ids = tokenizer.encode(probe).ids
        tokenizer.decode(ids)
    tokenizer.get_vocab()
    yield b""


def _growth(node: Any) -> float:
    """The product of what every replacement may do."""
    if isinstance(node, list):
        return math.prod(map(_growth, node))
    if not isinstance(node, dict):
        return 1
    if node.get("type") == "Precompiled":
        return _longest_of(node.get("precompiled_charsmap"))
    replaced = node.get("content") if node.get("type") == "Replace" else node.get("prepend")
    own = max(1, len(replaced)) if isinstance(replaced, str) else 1
    return own * math.prod(map(_growth, node.values()))


def _longest_of(charsmap: Any) -> int:
    """The longest text that a table of SentencePiece writes for a character, in bytes.

    It is the length of a trie in four bytes, the trie, and the texts, each with a zero behind it (Kudo & Richardson 2018).
    """
    raw = base64.b64decode(charsmap or "", validate=True)
    texts = raw[4 + int.from_bytes(raw[:4], "little") :]
    return max(1, *map(len, texts.split(b"\0")))
