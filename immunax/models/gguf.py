"""GGUF files (llama.cpp's format): configuration and dequantized weights.

The tree is assembled by the same code as from safetensors, from a table with other names. Quantized blocks are expanded
to float32; what llama.cpp's converter does to the tensors of a family is undone by what that family's file says.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gguf import dequantize
from jax.sharding import Mesh

from immunax.models import gguf_header, hf, rotary
from immunax.models.config import DecoderConfig, RopeScaling, check_heads
from immunax.models.families import BY_ARCHITECTURE
from immunax.models.families.fields import Fields
from immunax.models.finite import finite
from immunax.models.gguf_header import Tensor
from immunax.models.speech import is_token_id
from immunax.runtime.errors import UserError, shown
from immunax.runtime.lfs import refuse_pointer

_FREQUENCIES = "rope_freqs.weight"
_PART = re.compile(r"(.+)-\d{5}-of-(\d{5})\.gguf")
"""How llama.cpp names the parts of a split file."""
_LLAMA3_BAND = RopeScaling("llama3", factor=1.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192)


@dataclass(frozen=True)
class File:
    """An open GGUF file.

    Attributes:
      path: the file.
      metadata: its key-value pairs.
      tensors: its tensors by GGUF name; their data stay on disk.
      parts: every file that it is split into, in order; itself alone where it is whole.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    parts: tuple[Path, ...]


def open_file(path: Path) -> File:
    """Opens a GGUF file, with the parts beside it where llama.cpp has split it.

    Args:
      path: the file, or any of its parts.

    Returns:
      Its metadata, which the first part has, and the tensors of all.

    Raises:
      UserError: a file is no GGUF, or is damaged, cut short or missing.
    """
    parts = _parts(path)
    metadata, tensors = _open(parts[0])
    count = metadata.get("split.count", 1)
    if count != len(parts) and count != 0:
        raise UserError(
            f"{path}: is one of {shown(count)} parts, but its name does not say which; expected NAME-00001-of-NNNNN.gguf."
        )
    for part in parts[1:]:
        for name, tensor in _open(part)[1].items():
            if name in tensors:
                raise UserError(f"{part}: tensor {name!r} is in an earlier part too; download the parts again.")
            tensors[name] = tensor
    return File(parts[0], metadata, tensors, parts)


def _open(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    refuse_pointer(path)
    return gguf_header.read(path)


def _parts(path: Path) -> tuple[Path, ...]:
    named = _PART.fullmatch(path.name)
    if named is None:
        return (path,)
    parts = []
    for number in range(1, int(named[2]) + 1):
        part = path.with_name(f"{named[1]}-{number:05d}-of-{named[2]}.gguf")
        if not part.is_file():
            raise UserError(f"{path}: part {part.name} is not beside it; copy or download all {int(named[2])} parts.")
        parts.append(part)
    if not parts:
        raise UserError(f"{path}: its name says that it is one of 0 parts; rename it.")
    return tuple(parts)


def parse_config(file: File) -> DecoderConfig:
    """Reads the decoder's shape from the metadata.

    Args:
      file: an open file.

    Returns:
      The decoder.

    Raises:
      UserError: the architecture or one of its variants is not supported, or metadata or tensors are missing.
    """
    architecture = _architecture(file)
    family, fields = BY_ARCHITECTURE[architecture], Fields(file.metadata, str(file.path), f"{architecture}.")
    d_model, n_heads = fields.count("embedding_length"), fields.count("attention.head_count")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise UserError(f"{file.path}: tensor 'token_embd.weight' is missing; expected a whole language model.")
    shared = {
        "vocab_size": embedding.shape[0],
        "d_model": d_model,
        "d_ff": fields.count("feed_forward_length"),
        "n_layers": fields.layers("block_count"),
        "n_heads": n_heads,
        "n_kv_heads": fields.count("attention.head_count_kv", n_heads),
        "head_dim": fields.count("attention.key_length", d_model // n_heads),
        "max_positions": fields.count("context_length"),
        "rope_theta": _decimal(fields, "rope.freq_base", 10000.0),
        "norm_eps": _decimal(fields, "attention.layer_norm_rms_epsilon"),
        "tie_embeddings": "output.weight" not in file.tensors,
    }
    config = DecoderConfig(family.model_type, **{**shared, **family.fixed, **family.gguf.read(fields)})
    check_heads(config, fields.where)
    _refuse_variants(fields, config)
    config = replace(config, rope_scaling=_rope_scaling(file, fields, config))
    table = family.gguf_tensors(config)
    hf.check_sizes(config, table, file.tensors, lambda name, shape: _place(file, name, shape), str(file.path))
    unknown = set(file.tensors) - hf.names(config, table) - {_FREQUENCIES}
    if unknown:
        raise UserError(
            f"{file.path}: tensor {min(unknown)!r} has no place in a {family.model_type} decoder; this variant is not supported."
        )
    return config


def _architecture(file: File) -> str:
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in BY_ARCHITECTURE:
        raise UserError(
            f"{file.path}: architecture {shown(name)} is not supported; supported are {', '.join(BY_ARCHITECTURE)}."
        )
    return name


def _decimal(fields: Fields, name: str, default: float | None = None) -> float:
    # Metadata are float32; the shortest decimal that names one is what the author wrote (1e-05, not 9.99…e-06).
    given = fields.positive(name, default)
    return Fields({name: float(str(np.float32(given)))}, fields.where).positive(name)


def _refuse_variants(fields: Fields, config: DecoderConfig) -> None:
    if fields.get("expert_count"):
        raise UserError(f"{fields.where}: {fields.prefix}expert_count is set; mixtures of experts are not supported.")
    if fields.get("attention.sliding_window") and config.sliding_window is None:
        raise UserError(
            f"{fields.where}: {fields.prefix}attention.sliding_window is set; this architecture's windows are not supported."
        )
    scaling = fields.get("rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise UserError(
            f"{fields.where}: rotary scaling {shown(scaling)} is not supported; supported are none, linear, llama3."
        )
    rotated = fields.count("rope.dimension_count", config.head_dim)
    if rotated != config.head_dim:
        raise UserError(
            f"{fields.where}: rotates {rotated} of {config.head_dim} dimensions of a head; only all of them is supported."
        )


def _rope_scaling(file: File, fields: Fields, config: DecoderConfig) -> RopeScaling | None:
    if fields.get("rope.scaling.type") == "linear":
        return RopeScaling("linear", fields.positive("rope.scaling.factor"))
    divisors = file.tensors.get(_FREQUENCIES)
    if divisors is None:
        return None
    # The file has the divisors of the frequencies, not the rule; every published model uses one band, so only the
    # factor is open: it is the divisor of the slowest frequency.
    stored = np.asarray(divisors.data, np.float32)
    if not (np.isfinite(stored) & (stored > 0)).all():
        raise UserError(f"{file.path}: {_FREQUENCIES} has values that divide nothing; copy or download it again.")
    scaling = replace(_LLAMA3_BAND, factor=float(stored.max()))
    expected = rotary.frequencies(config) / rotary.frequencies(replace(config, rope_scaling=scaling))
    if stored.shape != expected.shape or not np.allclose(stored, expected, rtol=1e-3):
        raise UserError(f"{file.path}: {_FREQUENCIES} is not Llama 3's rotary scaling; other rules are not supported.")
    return scaling


def load_params(file: File, config: DecoderConfig, devices: Mesh | None = None, dtype: str = "float32") -> dict:
    """Dequantizes the weights, one tensor at a time.

    Args:
      file: an open file.
      config: what :func:`parse_config` gave for it.
      devices, dtype: as :func:`immunax.models.hf.assemble`.

    Returns:
      Nested dict of JAX arrays.

    Raises:
      UserError: a tensor is missing, has another shape or a quantization that is not supported.
    """

    family = BY_ARCHITECTURE[_architecture(file)]

    def read(name: str, shape: tuple[int, ...]) -> np.ndarray:
        return family.gguf.restore(name, finite(_read(file, name, shape), name, str(file.path)), config)

    return hf.assemble(config, family.gguf_tensors(config), read, devices, dtype)


def _place(file: File, name: str, shape: tuple[int, ...]) -> Tensor:
    tensor = file.tensors.get(name)
    if tensor is None:
        raise UserError(
            f"{file.path}: tensor {name!r} is missing; the file is not a whole {file.metadata['general.architecture']}."
        )
    if tensor.shape != shape:
        raise UserError(f"{file.path}: tensor {name!r} has shape {list(tensor.shape)}, the metadata say {list(shape)}.")
    return tensor


def _read(file: File, name: str, shape: tuple[int, ...]) -> np.ndarray:
    tensor = _place(file, name, shape)
    try:
        return dequantize(tensor.data, tensor.kind)
    except NotImplementedError as error:
        raise UserError(f"{file.path}: quantization {tensor.kind.name} of {name!r} is not supported.") from error


def token_ids(file: File) -> dict[str, int]:
    """The beginning, end and padding token ids that the metadata have, under their Hugging Face names.

    Raises:
      UserError: one is no id.
    """
    keys = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}
    found = {name: file.metadata.get(f"tokenizer.ggml.{key}") for name, key in keys.items()}
    for name, value in found.items():
        if value is not None and not is_token_id(value):
            raise UserError(f"{file.path}: {name} is {shown(value)}; expected a token's id.")
    return {name: value for name, value in found.items() if value is not None}
