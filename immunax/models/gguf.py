"""GGUF files (llama.cpp's format): configuration and dequantized weights.

A file's tensors are read through their Hugging Face names, so that the tree is assembled by the same code as from
safetensors. Two things differ from Hugging Face besides names. Quantized blocks are expanded to float32. In files of
the ``llama`` architecture the rows of every query and key head are reordered, because llama.cpp rotates neighbouring
pairs of dimensions where Hugging Face rotates the two halves; that is undone here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, dequantize

from immunax.models import hf, rotary
from immunax.models.config import DecoderConfig, RopeScaling
from immunax.runtime.errors import UserError

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""``general.architecture`` of the files that can be read; Mistral's files say ``llama``."""

_GLOBAL = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_MODULES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")
_FREQUENCIES = "rope_freqs.weight"
_LLAMA3_BAND = RopeScaling("llama3", factor=1.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192)


@dataclass(frozen=True)
class File:
    """An open GGUF file.

    Attributes:
      path: the file.
      metadata: its key-value pairs.
      tensors: its tensors by GGUF name; quantized data stay on disk.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Any]


def open_file(path: Path) -> File:
    """Opens a GGUF file.

    Args:
      path: the file.

    Returns:
      Its metadata and tensors.

    Raises:
      UserError: the file is no GGUF, or is damaged or cut short.
    """
    try:
        reader = GGUFReader(path)
        metadata = {key: field.contents() for key, field in reader.fields.items()}
        return File(path, metadata, {tensor.name: tensor for tensor in reader.tensors})
    except (ValueError, KeyError, IndexError, OverflowError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: not a readable GGUF file ({reason}); copy or download it again.") from error


def parse_config(file: File) -> DecoderConfig:
    """Reads the decoder's shape from the metadata.

    Args:
      file: an open file.

    Returns:
      The decoder.

    Raises:
      UserError: the architecture or one of its variants is not supported, or metadata or tensors are missing.
    """
    family = file.metadata.get("general.architecture")
    if family not in ARCHITECTURES:
        raise UserError(
            f"{file.path}: architecture {family!r} is not supported; supported are {', '.join(ARCHITECTURES)}."
        )
    _refuse_variants(file, family)
    d_model, n_heads = _need(file, "embedding_length", int), _need(file, "attention.head_count", int)
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise UserError(f"{file.path}: tensor 'token_embd.weight' is missing; expected a whole language model.")
    config = DecoderConfig(
        family,
        vocab_size=int(embedding.shape[1]),
        d_model=d_model,
        d_ff=_need(file, "feed_forward_length", int),
        n_layers=_need(file, "block_count", int),
        n_heads=n_heads,
        n_kv_heads=_need(file, "attention.head_count_kv", int, n_heads),
        head_dim=_need(file, "attention.key_length", int, d_model // n_heads),
        max_positions=_need(file, "context_length", int),
        rope_theta=_decimal(_need(file, "rope.freq_base", float, 10000.0)),
        norm_eps=_decimal(_need(file, "attention.layer_norm_rms_epsilon", float)),
        tie_embeddings="output.weight" not in file.tensors,
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
    )
    config = replace(config, rope_scaling=_rope_scaling(file, config))
    unknown = set(file.tensors) - {_translate(name) for name in hf.names(config)} - {_FREQUENCIES}
    if unknown:
        raise UserError(
            f"{file.path}: tensor {min(unknown)!r} has no place in a {family} decoder; this variant is not supported."
        )
    return config


def _decimal(value: float) -> float:
    # Metadata are float32; the shortest decimal that names one is what the author wrote (1e-05, not 9.99…e-06).
    return float(str(np.float32(value)))


def _need(file: File, name: str, kind: type, default: Any = None) -> Any:
    key = f"{file.metadata['general.architecture']}.{name}"
    value = file.metadata.get(key, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
        raise UserError(f"{file.path}: metadata {key} is {value!r}: expected one positive number.")
    return kind(value)


def _refuse_variants(file: File, family: str) -> None:
    for name in ("expert_count", "attention.sliding_window"):
        if file.metadata.get(f"{family}.{name}"):
            raise UserError(
                f"{file.path}: {family}.{name} is set; mixtures of experts and sliding windows are not supported."
            )
    scaling = file.metadata.get(f"{family}.rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise UserError(
            f"{file.path}: rotary scaling {scaling!r} is not supported; supported are none, linear, llama3."
        )
    rotated, head = (file.metadata.get(f"{family}.{key}") for key in ("rope.dimension_count", "attention.key_length"))
    if rotated is not None and head is not None and rotated != head:
        raise UserError(
            f"{file.path}: rotates {rotated} of {head} dimensions of a head; only all of them is supported."
        )


def _rope_scaling(file: File, config: DecoderConfig) -> RopeScaling | None:
    if file.metadata.get(f"{config.family}.rope.scaling.type") == "linear":
        return RopeScaling("linear", _need(file, "rope.scaling.factor", float))
    divisors = file.tensors.get(_FREQUENCIES)
    if divisors is None:
        return None
    # The file has the divisors of the frequencies, not the rule; every published model uses one band, so only the
    # factor is open: it is the divisor of the slowest frequency.
    stored = np.asarray(divisors.data, np.float32)
    scaling = replace(_LLAMA3_BAND, factor=float(stored.max()))
    expected = rotary.frequencies(config) / rotary.frequencies(replace(config, rope_scaling=scaling))
    if stored.shape != expected.shape or not np.allclose(stored, expected, rtol=1e-3):
        raise UserError(f"{file.path}: {_FREQUENCIES} is not Llama 3's rotary scaling; other rules are not supported.")
    return scaling


def _translate(name: str) -> str:
    layered = _LAYER.fullmatch(name)
    if layered is None:
        return _GLOBAL[name]
    layer, module, kind = layered.groups()
    return f"blk.{layer}.{_MODULES[module]}.{kind}"


def load_params(file: File, config: DecoderConfig) -> dict:
    """Dequantizes the weights, one tensor at a time.

    Args:
      file: an open file.
      config: what :func:`parse_config` gave for it.

    Returns:
      Nested dict of float32 numpy arrays.

    Raises:
      UserError: a tensor is missing, has another shape or a quantization that is not supported.
    """

    def read(name: str, shape: tuple[int, ...]) -> np.ndarray:
        value = _read(file, _translate(name), shape)
        if config.family == "llama" and ".q_proj." in name:
            return _halves(value, config.n_heads)
        return _halves(value, config.n_kv_heads) if config.family == "llama" and ".k_proj." in name else value

    return hf.assemble(config, hf.table(config), read)


def _read(file: File, name: str, shape: tuple[int, ...]) -> np.ndarray:
    tensor = file.tensors.get(name)
    if tensor is None:
        raise UserError(
            f"{file.path}: tensor {name!r} is missing; the file is not a whole {file.metadata['general.architecture']}."
        )
    found = tuple(int(size) for size in reversed(tensor.shape))
    if found != shape:
        raise UserError(f"{file.path}: tensor {name!r} has shape {list(found)}, the metadata say {list(shape)}.")
    try:
        return dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        raise UserError(f"{file.path}: quantization {tensor.tensor_type.name} of {name!r} is not supported.") from error


def _halves(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """Reorders the rows ``[H * head_dim, ...]`` of each head from neighbouring rotary pairs to two halves."""
    pairs = rows.reshape(n_heads, -1, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def token_ids(file: File) -> dict[str, int]:
    """The beginning, end and padding token ids that the metadata have, under their Hugging Face names."""
    keys = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}
    found = {name: file.metadata.get(f"tokenizer.ggml.{key}") for name, key in keys.items()}
    return {name: int(value) for name, value in found.items() if value is not None}
