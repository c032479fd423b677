"""A Hugging Face folder, in and out.

What is read is checked first: one set of weights, sizes that ``config.json`` claims against those that the files have,
every token's row in the embedding, every value finite. What is written loads in ``transformers`` 4.57 and 5 unchanged, and
an export in the dtype that the checkpoint came in repeats its tensors bit for bit.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerFast

from immunax.models import families, hf, hf_config, peft, same_files, weights
from immunax.models.config import DecoderConfig
from immunax.models.deciding import TEMPLATES, decides, holds_weights
from immunax.models.lora import plain
from immunax.runtime import atomic, digest, together
from immunax.runtime.errors import UserError, shown
from immunax.runtime.leader import is_leader
from immunax.runtime.lfs import refuse_pointer
from immunax.runtime.untrusted import templates, tokenizers
from immunax.runtime.untrusted.files import check_plain, read_text

CONFIG, GENERATION = "config.json", "generation_config.json"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
TEXT_FILES = (CONFIG, GENERATION, *TOKENIZER, weights.INDEX)
_TEMPLATES = f"{TEMPLATES}/*.jinja"
# Not every *.safetensors: Mistral's repositories hold the same weights twice, once under the name consolidated.
BROUGHT = (*TEXT_FILES, _TEMPLATES, peft.CONFIG, peft.WEIGHTS)
"""What is fetched of a folder in a bucket, where weights are read in place, as patterns."""
DOWNLOADED = (*BROUGHT, "model*.safetensors")
"""What is fetched of a repository."""

_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
LONGEST_TOKEN = 4096
"""Characters of a token; published vocabularies have some of a few hundred, of white space."""
_NAMED_TOKENS = ("extra_special_tokens", "model_specific_special_tokens")
"""Settings that give further special tokens by name, each of which ``transformers`` makes an attribute of the tokenizer."""
_OF_THE_SESSION = ("backend", "is_local", "local_files_only")
"""What ``transformers`` 5 writes of how a tokenizer was loaded, not of the tokenizer."""


@dataclass(frozen=True)
class Checkpoint:
    """A model in memory, with all that an export of it needs.

    Attributes:
      config: shape and variant.
      params: nested dict of JAX arrays.
      tokenizer: with its chat template.
      hf_config: the original ``config.json``.
      dtype: of the files; a mixture counts as the dtype that holds all of it exactly.
      digests: SHA-256 of every file read, by name.
      generation_config: the original ``generation_config.json``, empty if there was none.
    """

    config: DecoderConfig
    params: Any
    tokenizer: PreTrainedTokenizerFast
    hf_config: Mapping[str, Any]
    dtype: str
    digests: Mapping[str, str]
    generation_config: Mapping[str, Any] = field(default_factory=dict)


def read(folder: Path, devices: Mesh | None = None, dtype: str = "float32") -> Checkpoint:
    """Reads a folder, leaf by leaf to where each is to lie.

    Args:
      folder: with configuration, tokenizer and safetensors.
      devices: the mesh that its weights are split over; None is the default device.
      dtype: of its weights in memory.

    Returns:
      The checkpoint.

    Raises:
      UserError: something of it is missing, damaged, of another size than ``config.json`` says, not finite, there twice, or of a
        kind that is not supported.
    """
    check_whole(folder)
    raw = weights.read_json(folder / CONFIG)
    config = hf_config.parse_config(raw, str(folder / CONFIG))
    shards = _with_tied_head(weights.find(folder), config)
    table = families.tensors(config)
    hf.check_sizes(config, table, shards.entries, lambda name, shape: shards.place(name, shape), str(folder / CONFIG))
    _check_names(shards, config)
    loaded = read_tokenizer(folder)
    check_vocabulary(loaded, config, folder)
    present = [name for name in TEXT_FILES if (folder / name).is_file()]
    return Checkpoint(
        config=config,
        params=hf.assemble(config, table, shards.read_finite, devices, dtype),
        tokenizer=loaded,
        hf_config=raw,
        dtype=shards.dtype,
        digests=digests(folder, [*present, *shards.files]),
        generation_config=weights.read_json(folder / GENERATION) if GENERATION in present else {},
    )


def digests(folder: Path, names: list[str]) -> dict[str, str]:
    """SHA-256 of the named files and of the folder's further chat templates, by name; see :func:`same_files.digested`."""
    templates = [path.relative_to(folder).as_posix() for path in folder.glob(_TEMPLATES)]
    every = sorted({*names, *templates})
    return same_files.digested(folder, lambda: every, lambda: {name: digest.of_file(folder / name) for name in every})


def check_whole(folder: Path) -> None:
    """Refuses a folder that is not one whole model.

    Args:
      folder: that a user named.

    Raises:
      UserError: what a model is loaded from is no plain file or link to one, it has no ``config.json``, or an adapter lies
        beside the weights.
    """
    check_files(folder)
    if not (folder / CONFIG).is_file():
        inner = [*folder.glob("snapshots/*/" + CONFIG), *folder.glob("*/" + CONFIG)]
        inner += folder.glob("models--*/snapshots/*/" + CONFIG)
        if inner:
            newest = max(inner, key=lambda path: path.lstat().st_mtime).parent
            raise UserError(f"{folder}: no model but a folder of some; give one of them, such as {newest}.")
    elif (folder / peft.CONFIG).is_file():
        raise UserError(
            f"{folder}: has both {CONFIG} and {peft.CONFIG}, so transformers would put the adapter on another base; "
            "keep one of the two in the folder."
        )


def check_files(folder: Path) -> None:
    """Refuses a folder that could load what has no digest.

    Args:
      folder: of a model or of adapters.

    Raises:
      UserError: what is loaded from it is a device, a FIFO or a link to nothing, or lies in a linked folder; or what exports
        carry on, as settings and templates, lies elsewhere.
    """
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and path.is_dir() and (decides(path.name) or path.name.lower() == TEMPLATES):
            raise UserError(f"{path}: a link to a folder, whose files have no digest; put a copy in its place.")
        if path.name.lower() == TEMPLATES and path.is_dir():
            for each in digest.plain_files(path):
                check_own(each, folder)
        elif decides(path.name) and not path.is_dir():
            check_plain(path)
            if not holds_weights(path.name):
                check_own(path, folder)


def check_own(path: Path, folder: Path) -> None:
    """Refuses a link out of the folder: what it leads to may be private, and would stand in every export.

    Args:
      path: of a file in the folder.
      folder: which may be a link itself, or a snapshot of the Hub.

    Raises:
      UserError: it is one.
    """
    whole, root = path.resolve(), folder.resolve()
    # A snapshot of the Hub is links to blobs/ two folders above it, one file by its digest each.
    if not whole.is_relative_to(root) and whole.parent != root.parent.parent / "blobs":
        raise UserError(f"{path}: a link to a file outside the folder, {whole}; put a copy in its place.")


def _with_tied_head(shards: weights.Shards, config: DecoderConfig) -> weights.Shards:
    """A tied model may have kept its one matrix under the head's name alone."""
    if not config.tie_embeddings or _EMBEDDING in shards.entries or _HEAD not in shards.entries:
        return shards
    entries = dict(shards.entries)
    entries[_EMBEDDING] = entries.pop(_HEAD)
    return replace(shards, entries=entries)


def _check_names(shards: weights.Shards, config: DecoderConfig) -> None:
    # Old Llama files carry the rotary frequencies, which follow from the configuration.
    extra = {name for name in shards.entries if not name.endswith("rotary_emb.inv_freq")}
    extra -= hf.names(config, families.tensors(config))
    if config.tie_embeddings and _HEAD in extra:
        shape = (config.vocab_size, config.d_model)
        if not np.array_equal(shards.read(_HEAD, shape), shards.read(_EMBEDDING, shape)):
            raise UserError(
                f"{shards.directory}: {_HEAD} differs from {_EMBEDDING}, but config.json says tie_word_embeddings."
            )
        extra.remove(_HEAD)
    if extra:
        raise UserError(
            f"{shards.directory}: tensor {min(extra)!r} has no place in a {config.family} decoder; the variant is not supported."
        )


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a folder.

    Raises:
      UserError: there is none, it cannot be read, or its settings name code of its own.
    """
    if not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"{folder}: no tokenizer.json; expected a fast tokenizer, save one with transformers' save_pretrained."
        )
    refuse_pointer(folder / "tokenizer.json")
    for name in TOKENIZER:
        if name.endswith(".json") and name != "tokenizer.json" and (folder / name).is_file():
            _check_settings(folder / name)
    for path in [folder / "chat_template.jinja", *folder.glob(_TEMPLATES)]:
        if path.is_file():
            read_text(path, templates.LONGEST)
    try:
        tokenizers.check(folder / "tokenizer.json")
        return _tried(PreTrainedTokenizerFast.from_pretrained(folder))
    except Exception as error:  # tokenizers raises bare Exceptions
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{folder}: the tokenizer cannot be read ({reason}); copy or download it again.") from error


def _tried(loaded: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A tokenizer that was used once: what a setting of another type breaks, it breaks where its file can be named."""
    ids = loaded("a cat")["input_ids"]
    loaded.decode(ids, skip_special_tokens=True)
    loaded.convert_ids_to_tokens([*loaded.added_tokens_decoder, *loaded.all_special_ids])
    templates_by_name = (
        loaded.chat_template if isinstance(loaded.chat_template, dict) else {"": loaded.chat_template or ""}
    )
    named = [*templates_by_name.values(), *loaded.special_tokens_map.values()]
    if not all(isinstance(each, str) for each in named):
        raise ValueError("a template or a special token in its settings is no text")
    return loaded


def _check_settings(path: Path) -> None:
    """Refuses settings that lead the library to code or to files that nothing else here looks at, or that overwrite its own."""
    settings = weights.read_json(path)
    hf_config.refuse_own_code(settings, str(path), "tokenizer.json")
    if settings.get("fast_tokenizer_files"):
        raise UserError(
            f"{path}: fast_tokenizer_files names other files for other versions of transformers; delete it, and keep the right "
            "one as tokenizer.json."
        )
    for name in (each for group in _NAMED_TOKENS if isinstance(settings.get(group), dict) for each in settings[group]):
        if not name.endswith("_token"):
            raise UserError(
                f"{path}: the name {shown(name)} of a special token would be one of the tokenizer's settings; call it NAME_token."
            )


def check_vocabulary(loaded: PreTrainedTokenizerFast, config: DecoderConfig, path: Path) -> None:
    """Refuses a tokenizer with an id that the embedding has no row for, or with a token that is no piece of text.

    JAX clamps an index that is out of bounds, so such a token would silently read another one's embedding.

    Raises:
      UserError: there is one.
    """
    longest = max(loaded.get_vocab(), key=len, default="")
    if len(longest) > LONGEST_TOKEN:
        raise UserError(
            f"{path}: token {longest[:20]!r}… has {len(longest)} characters, more than {LONGEST_TOKEN}, and answers would have "
            "no bound; use the model's own tokenizer."
        )
    named = {number: f"token {token!r}" for token, number in loaded.get_vocab().items()}
    # What is put around every text has ids of its own in tokenizer.json, which the vocabulary need not know.
    around = dict.fromkeys(loaded("")["input_ids"], "the token put around every text")
    number, token = max((around | named).items(), default=(0, ""))
    if number >= config.vocab_size:
        raise UserError(
            f"{path}: {token} has id {number}, but the embedding has {config.vocab_size} rows; "
            "use the model's own tokenizer, or enlarge the embedding."
        )


def export(
    directory: Path | str,
    checkpoint: Checkpoint,
    params: Any,
    dtype: str = "float32",
    max_shard_bytes: int = weights.MAX_SHARD_BYTES,
) -> None:
    """Writes a Hugging Face folder, whole or not at all.

    Args:
      directory: the folder to make; an earlier export there is replaced.
      checkpoint: where the model came from: its configuration and tokenizer are written again.
      params: the weights to write, plain or adapted (adapters are merged).
      dtype: ``float32``, ``bfloat16`` or ``float16``.
      max_shard_bytes: weights beyond this go to more files.

    Raises:
      UserError: the folder holds something else, the dtype is unknown or too narrow, or the disk refuses.
    """
    weights.check_dtype(dtype)
    atomic.check_replaceable(Path(directory), CONFIG)
    with together.directory(directory) as folder:
        tensors = hf.split(checkpoint.config, families.tensors(checkpoint.config), plain(params))
        weights.write_shards(folder, tensors, dtype, max_shard_bytes)
        if not is_leader():
            return
        key = "torch_dtype" if "torch_dtype" in checkpoint.hf_config else "dtype"
        weights.write_json(folder / CONFIG, {**hf_config.portable(checkpoint.hf_config), key: dtype})
        if checkpoint.generation_config:
            weights.write_json(folder / GENERATION, checkpoint.generation_config)
        _write_tokenizer(folder, checkpoint.tokenizer)


def _write_tokenizer(folder: Path, made: PreTrainedTokenizerFast) -> None:
    try:
        made.save_pretrained(folder)
    except Exception as error:  # tokenizers has one type for all errors, and names the system's in its text only
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), str(error)) from error
    path = folder / "tokenizer_config.json"
    weights.write_json(path, _portable_settings(weights.read_json(path)))


def _portable_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``tokenizer_config.json`` as both ``transformers`` 4 and 5 read it."""
    # transformers 5 writes a class name that transformers 4 does not know; both know this one.
    kept = {name: value for name, value in settings.items() if name not in _OF_THE_SESSION}
    kept["tokenizer_class"] = "PreTrainedTokenizerFast"
    # transformers 4 takes extra_special_tokens for a mapping and fails on a list; under this name both take a list.
    if isinstance(kept.get("extra_special_tokens"), list):
        kept["additional_special_tokens"] = kept.pop("extra_special_tokens")
    return kept
