"""What ids spell: text rebuilt from the vocabulary, by rules that are known here.

A tokenizer's file describes a decoder of its own, which can make any answer out of any other. It is never run: it has to be one
of the known ones of its kind, and the kind is seen by how the tokenizer cuts text.

* *bytes* (GPT-2, Llama 3, Qwen, SmolLM2): characters stand for bytes (Radford et al. 2019), all tokens together for UTF-8.
* *pieces* (Llama 2, Mistral, Gemma): "▁" is a space, ``<0x0A>`` a byte (Kudo & Richardson 2018, arXiv:1808.06226).
* *words* (:func:`~immunax.models.word_level.word_level`): a token is a word, with a space before it where English has one.

Special tokens are left out of what a model says where they look like markers, ``<...>`` or ``[...]``. One that reads like text is
text, whatever the file calls it: else a word that a judge looks for could be hidden by calling it special.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

from immunax.runtime.errors import UserError, shown

BYTES, PIECES, WORDS = "bytes", "pieces", "words"
_SPACE = "▁"
_MARKER = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]")
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_TIGHT = (
    *((f" {mark}", mark) for mark in ".?!,"),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    *((f" {end}", end) for end in ("'s", "'ve", "'re")),
)
"""How a word with its space is written otherwise, one rule after the other."""

_BREAKS = "\t\n\v\f\r\x85"
"""Of the control characters those that are white space."""

_REPLACED = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
_PARTS = [_REPLACED, {"type": "ByteFallback"}, {"type": "Fuse"}]
_STRIPPED = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
_WORDS = {"type": "WordPiece", "prefix": "##", "cleanup": True}


@dataclass(frozen=True)
class Spelling:
    """How the tokens of one vocabulary spell text.

    Attributes:
      kind: :data:`BYTES`, :data:`PIECES` or :data:`WORDS`.
      fallback: of pieces, whether ``<0x0A>`` is a byte.
      first: of pieces, what a text loses at its start: ``space``, one; ``token``, all spaces of its first token; or nothing.
    """

    kind: str
    fallback: bool = False
    first: str = ""

    def text(self, tokens: Sequence[str], added: frozenset[str] = frozenset()) -> str:
        """What tokens spell.

        Args:
          tokens: of the vocabulary.
          added: those of a vocabulary of bytes that stand for their own text.
        """
        if self.kind == WORDS:
            return "".join(map(_word, range(len(tokens)), tokens))
        if self.kind == PIECES:
            return self._pieces(tokens)
        return "".join("".join(run) if own else _from_bytes(run) for own, run in groupby(tokens, added.__contains__))

    def _pieces(self, tokens: Sequence[str]) -> str:
        spaced = [token.replace(_SPACE, " ") for token in tokens]
        if self.first == "token" and tokens:
            spaced[0] = tokens[0].replace(_SPACE, "")
        text = "".join(_fallen_back(spaced) if self.fallback else spaced)
        return text.removeprefix(" ") if self.first == "space" else text


@dataclass(frozen=True, eq=False)
class Speller:
    """What a tokenizer's ids spell.

    Attributes:
      spelling: of its kind.
      name: of the tokenizer, for messages.
      backend: its vocabulary; ``id_to_token`` is all that is asked.
      added: tokens that were added to the vocabulary.
      silent: special ones that look like markers.
    """

    spelling: Spelling
    name: str
    backend: Any
    added: frozenset[str]
    silent: frozenset[str]

    def said(self, ids: Iterable[int]) -> str:
        """What a model says with some ids, without markers; an id without a token says nothing."""
        return self.spelling.text([token for token in self._tokens(ids) if token not in self.silent], self.added)

    def spelled(self, ids: Iterable[int]) -> str:
        """What ids spell, markers and all."""
        return self.spelling.text(list(self._tokens(ids)), self.added)

    def check(self, texts: Sequence[str], ids: Sequence[Sequence[int]]) -> None:
        """Refuses a tokenizer that gives a model other texts to read than it was given.

        Args:
          texts: N.
          ids: what it makes of each, without what it puts around every text.

        Raises:
          UserError: ids spell another text, see :func:`same`.
        """
        for place, (text, row) in enumerate(zip(texts, ids, strict=True)):
            found = self.spelled(row)
            if found != text and not same(found, text):
                raise UserError(
                    f"tokenizer {self.name!r} gives the model another text to read than text {place} of {len(texts)}: it does "
                    "not know a word of it, or changes one; use the model's original tokenizer, or leave such texts out."
                )

    def _tokens(self, ids: Iterable[int]) -> Iterator[str]:
        return (token for token in map(self.backend.id_to_token, ids) if token is not None)


def speller(tokenizer: Any) -> Speller:
    """What a tokenizer's ids spell.

    Args:
      tokenizer: a fast one.

    Raises:
      UserError: as :func:`spelling_of`.
    """
    added = tokenizer.added_tokens_decoder
    special = {str(token) for token in added.values() if token.special} | set(tokenizer.all_special_tokens)
    names = frozenset(map(str, added.values()))
    silent = frozenset(filter(is_marker, special))
    return Speller(spelling_of(tokenizer), tokenizer.name_or_path, tokenizer.backend_tokenizer, names, silent)


def knows(tokenizer: Any, text: str) -> bool:
    """Whether a tokenizer's ids spell a text; raises as :func:`spelling_of`."""
    return same(speller(tokenizer).spelled(tokenizer(text, add_special_tokens=False)["input_ids"]), text)


def spelling_of(tokenizer: Any) -> Spelling:
    """How a tokenizer's vocabulary spells text.

    Args:
      tokenizer: a fast one.

    Raises:
      UserError: it is of no known kind, or its file describes another decoder than that kind has.
    """
    backend = tokenizer.backend_tokenizer
    cut, written, decoder = map(_described, (backend.pre_tokenizer, backend.normalizer, backend.decoder))
    steps = decoder.get("decoders", [decoder]) if decoder else []
    kind = type(backend.model).__name__
    if kind == "BPE" and _mentions(cut, "ByteLevel"):
        found = _bytes(steps)
    elif kind in ("BPE", "Unigram") and _mentions([cut, written], _SPACE):
        found = _pieces(steps)
    elif kind == "WordLevel":
        found = Spelling(WORDS) if steps == [_WORDS] else None
    else:
        raise UserError(
            f"tokenizer {tokenizer.name_or_path!r}: a {kind} of a kind whose answers cannot be read; expected byte-level BPE, "
            f"pieces with {_SPACE!r} for a space, or whole words."
        )
    if found is None:
        raise UserError(
            f"tokenizer {tokenizer.name_or_path!r}: its decoder {shown(decoder)} is not one that such a vocabulary has, and "
            "could make any answer of another; restore the decoder of the original tokenizer.json."
        )
    return found


def same(read: str, given: str) -> bool:
    """Whether a text that is read says what was given: the same words and punctuation, accents composed (NFC).

    White space counts between two words alone. Control characters may be lost, which published vocabularies lack, and none added.
    """
    (words, hidden), (expected, allowed) = map(_words, (read, given))
    return words == expected and hidden <= allowed


def is_marker(token: str) -> bool:
    """Whether a token looks like a marker, ``<|end|>`` or ``[INST]``, and not like a word of an answer or a byte of one."""
    return _MARKER.fullmatch(token) is not None and not _BYTE.fullmatch(token)


def _words(text: str) -> tuple[list[str], Counter]:
    """Words and marks of punctuation in order, and how often each character that nobody sees is there."""
    composed = unicodedata.normalize("NFC", text)
    hidden = Counter(each for each in composed if unicodedata.category(each)[0] == "C" and each not in _BREAKS)
    seen = composed.translate({ord(each): None for each in hidden})
    return re.findall(r"\w+|[^\w\s]", seen), hidden


def _described(part: Any) -> Any:
    """A part of a tokenizer as its file has it; None where there is none."""
    return None if part is None else json.loads(part.__getstate__())


def _mentions(node: Any, value: str) -> bool:
    if isinstance(node, dict):
        node = list(node.values())
    return any(_mentions(each, value) for each in node) if isinstance(node, list) else node == value


def _bytes(steps: list) -> Spelling | None:
    return Spelling(BYTES) if [each.get("type") for each in steps] == ["ByteLevel"] else None


def _pieces(steps: list) -> Spelling | None:
    if steps in (_PARTS, [*_PARTS, _STRIPPED]):
        return Spelling(PIECES, True, "space" if _STRIPPED in steps else "")
    if len(steps) == 1 and (steps[0].get("type"), steps[0].get("replacement")) == ("Metaspace", _SPACE):
        return Spelling(PIECES, False, "" if steps[0].get("prepend_scheme") == "never" else "token")
    return None


@cache
def _byte_of() -> dict[str, int]:
    """The byte that a character of a byte-level vocabulary stands for: printable ones for their own, others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


def _from_bytes(tokens: Iterable[str]) -> str:
    table = _byte_of()
    # A token with a character that stands for no byte is its own text.
    parts = (bytes(map(table.__getitem__, each)) if table.keys() >= set(each) else each.encode() for each in tokens)
    return b"".join(parts).decode("utf-8", "replace")


def _fallen_back(tokens: Sequence[str]) -> Iterator[str]:
    """Runs of byte tokens as text; where that is no UTF-8, a mark for each byte."""
    for is_byte, run in groupby(map(_parsed, tokens), lambda each: isinstance(each, int)):
        if not is_byte:
            yield from run
            continue
        raw = bytes(run)
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError:
            yield "\N{REPLACEMENT CHARACTER}" * len(raw)


def _parsed(token: str) -> Any:
    found = _BYTE.fullmatch(token)
    return int(found[1], 16) if found else token


def _word(place: int, token: str) -> str:
    text = token.removeprefix("##") if place and token.startswith("##") else f" {token}" if place else token
    for spaced, tight in _TIGHT:
        text = text.replace(spaced, tight)
    return text
