"""The tokenizer of a GGUF file, rebuilt as a Hugging Face tokenizer.

A GGUF file has the vocabulary and the merges of byte-level BPE (Sennrich et al. 2016, arXiv:1508.07909; Radford et al.
2019), but only the *name* of the rule that cuts text into words before any merge. A wrong rule still gives plausible
tokens, so a name that is not known is refused.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.pre_tokenizers import PreTokenizer
from transformers import PreTrainedTokenizerFast

from immunax.models.speech import is_token_id
from immunax.runtime.errors import UserError, nearest, shown
from immunax.runtime.untrusted.tokenizers import check_text

_CONTROL, _USER_DEFINED = 3, 4
_NAMED = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The cut of Llama 3 and Qwen2, which differ in how many digits stay together."""


def _gpt2() -> PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _smollm() -> PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


def _words(digits: str) -> PreTokenizer:
    cut = pre_tokenizers.Split(Regex(_WORDS % digits), behavior="isolated")
    return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


PRE_TOKENIZERS: dict[str, Callable[[], PreTokenizer]] = {
    "gpt-2": _gpt2,
    "smollm": _smollm,
    "llama-bpe": lambda: _words("{1,3}"),
    "qwen2": lambda: _words(""),
}
"""``tokenizer.ggml.pre`` to the rule it names."""


def from_gguf(metadata: Mapping[str, Any], path: Path) -> PreTrainedTokenizerFast:
    """Builds the tokenizer that the metadata describe.

    Args:
      metadata: the file's key-value pairs.
      path: the file, for messages.

    Returns:
      The tokenizer, with special tokens and chat template.

    Raises:
      UserError: it is not byte-level BPE, its pre-tokenizer is not known, or parts of it are missing.
    """
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if kind != "gpt2":
        raise UserError(
            f"{path}: tokenizer {shown(kind)} is not supported; only byte-level BPE ('gpt2') is, use safetensors instead."
        )
    if not isinstance(pre, str) or pre not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS)
        raise UserError(
            f"{path}: pre-tokenizer {shown(pre)} is not supported; supported are {known}.{nearest(shown(pre), PRE_TOKENIZERS)}"
        )
    template = metadata.get("tokenizer.chat_template")
    if not isinstance(template, str | None):
        raise UserError(f"{path}: metadata tokenizer.chat_template is {shown(template)}; expected text.")
    tokens = _need(metadata, "tokens", str, path)
    backend = _backend(metadata, tokens, pre, path)
    named = {}
    for name, key in _NAMED.items():
        number = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if number is not None:
            named[name] = _token(tokens, number, path)
    if metadata.get("tokenizer.ggml.add_bos_token", pre == "llama-bpe") and "bos_token" in named:
        bos = named["bos_token"]
        # In a template white space parts its pieces, "$" begins the name of a text and ":" that of a type.
        if not bos or bos.startswith("$") or ":" in bos or any(map(str.isspace, bos)):
            raise UserError(f"{path}: its first token {shown(bos)} is no marker; expected one such as <s>.")
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokens.index(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        chat_template=template,
        **named,
    )


def _need(metadata: Mapping[str, Any], name: str, kind: type, path: Path) -> list:
    value = metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(value, list) or not value or not all(isinstance(each, kind) for each in value):
        raise UserError(
            f"{path}: metadata tokenizer.ggml.{name} is missing or of another kind; expected a file with its tokenizer inside."
        )
    return value


def _token(tokens: list[str], number: Any, path: Path) -> str:
    if not is_token_id(number) or number >= len(tokens):
        raise UserError(f"{path}: special token id {shown(number)} is outside the vocabulary of {len(tokens)} tokens.")
    return tokens[number]


def _backend(metadata: Mapping[str, Any], tokens: list[str], pre: str, path: Path) -> Tokenizer:
    types = _need(metadata, "token_type", int, path)
    merges = [merge.split(" ", 1) for merge in _need(metadata, "merges", str, path)]
    # Llama 3 takes a whole word that is in the vocabulary before it tries any merge.
    rules = Tokenizer(models.BPE(vocab={}, merges=[], ignore_merges=pre == "llama-bpe"))
    if pre == "qwen2":
        rules.normalizer = normalizers.NFC()
    rules.pre_tokenizer = PRE_TOKENIZERS[pre]()
    rules.decoder = decoders.ByteLevel()
    said = json.loads(rules.to_str())
    said["model"] |= {"vocab": {token: number for number, token in enumerate(tokens)}, "merges": merges}
    kinds = list(zip(tokens, types, strict=False))
    said["added_tokens"] = [
        _added(said["model"]["vocab"][token], token, special=which == _CONTROL)
        for which in (_CONTROL, _USER_DEFINED)
        for token, kind in kinds
        if kind == which
    ]
    text = json.dumps(said)
    try:
        # The library that reads it is not Python: a stranger's vocabulary goes where it can do no harm first.
        check_text(text)
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(
            f"{path}: vocabulary and merges do not fit together ({error}); download the file again."
        ) from error


def _added(number: int, token: str, special: bool) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": token, **plain, "special": special}
