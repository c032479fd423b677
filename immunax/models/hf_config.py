"""Hugging Face's ``config.json``, to and from :class:`~immunax.models.config.DecoderConfig`.

A field that changes what the model computes and that the decoder does not have is refused by name: a model that loads
and quietly computes something else would be worse than one that does not load.
"""

from collections.abc import Mapping
from typing import Any

from immunax.models.config import DecoderConfig, RopeScaling
from immunax.runtime.errors import UserError, nearest

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""``model_type`` to the class that ``transformers`` builds for it."""

ROPE_TYPES = ("default", "linear", "llama3")


def parse_config(raw: Mapping[str, Any], where: str) -> DecoderConfig:
    """Reads a ``config.json``.

    Args:
      raw: its content.
      where: the file's name, for messages.

    Returns:
      The decoder.

    Raises:
      UserError: the architecture or one of its variants is not supported, or a field is missing or malformed.
    """
    family = raw.get("model_type")
    if family not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        hint = nearest(str(family), ARCHITECTURES)
        raise UserError(f"{where}: model_type {family!r} is not supported; supported are {known}.{hint}")
    _refuse_variants(raw, family, where)
    n_heads, d_model = _count(raw, "num_attention_heads", where), _count(raw, "hidden_size", where)
    implied = None if family == "qwen3" else d_model // n_heads
    config = DecoderConfig(
        family,
        vocab_size=_count(raw, "vocab_size", where),
        d_model=d_model,
        d_ff=_count(raw, "intermediate_size", where),
        n_layers=_count(raw, "num_hidden_layers", where),
        n_heads=n_heads,
        n_kv_heads=_count(raw, "num_key_value_heads", where, n_heads if family == "llama" else None),
        head_dim=_count(raw, "head_dim", where, implied),
        max_positions=_count(raw, "max_position_embeddings", where),
        rope_theta=_rope_theta(raw, where),
        rope_scaling=_rope_scaling(raw, where),
        norm_eps=_positive(raw, "rms_norm_eps", where, 1e-6),
        tie_embeddings=bool(raw.get("tie_word_embeddings", False)),
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        sliding_window=_sliding_window(raw, family, where),
    )
    if config.n_heads % config.n_kv_heads or config.head_dim % 2:
        raise UserError(
            f"{where}: {config.n_heads} heads, {config.n_kv_heads} key/value heads, head_dim {config.head_dim}: "
            "expected key/value heads that divide the heads and an even head_dim."
        )
    return config


def _refuse_variants(raw: Mapping[str, Any], family: str, where: str) -> None:
    declared = raw.get("architectures") or [ARCHITECTURES[family]]
    if ARCHITECTURES[family] not in declared:
        raise UserError(
            f"{where}: architecture {declared[0]} is not supported; for {family}, {ARCHITECTURES[family]} is."
        )
    required = {
        "hidden_act": ("silu", "swish"),
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "partial_rotary_factor": (1.0,),
        "quantization_config": (),
    }
    for name, allowed in required.items():
        if raw.get(name) is not None and raw[name] not in allowed:
            fix = (
                f"only {allowed[0]!r} is" if allowed else "load an unquantized checkpoint (float32, bfloat16, float16)"
            )
            given = raw[name] if not isinstance(raw[name], dict) else raw[name].get("quant_method", "quantized")
            raise UserError(f"{where}: {name} {given!r} is not supported; {fix}.")


def _count(raw: Mapping[str, Any], name: str, where: str, default: int | None = None) -> int:
    value = raw.get(name)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{where}: {name} is {value!r}: expected a positive whole number.")
    return value


def _positive(raw: Mapping[str, Any], name: str, where: str, default: float | None = None) -> float:
    value = raw.get(name)
    value = default if value is None else value
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
        raise UserError(f"{where}: {name} is {value!r}: expected a positive number.")
    return float(value)


def _rope(raw: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    # transformers 5 writes rope_parameters (theta inside); before, rope_scaling stood beside rope_theta.
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(rope, Mapping) or any(isinstance(value, Mapping) for value in rope.values()):
        raise UserError(f"{where}: rotary parameters {rope!r} are not supported: expected one set for all layers.")
    return rope


def _rope_theta(raw: Mapping[str, Any], where: str) -> float:
    rope = _rope(raw, where)
    return _positive(rope if rope.get("rope_theta") is not None else raw, "rope_theta", where, 10000.0)


def _rope_scaling(raw: Mapping[str, Any], where: str) -> RopeScaling | None:
    rope = _rope(raw, where)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ROPE_TYPES:
        raise UserError(f"{where}: rotary scaling {kind!r} is not supported; supported are {', '.join(ROPE_TYPES)}.")
    if rope.get("partial_rotary_factor") not in (None, 1.0):
        raise UserError(
            f"{where}: partial_rotary_factor {rope['partial_rotary_factor']!r} is not supported; only 1.0 is."
        )
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling("linear", _positive(rope, "factor", where))
    return RopeScaling(
        "llama3",
        _positive(rope, "factor", where),
        _positive(rope, "low_freq_factor", where),
        _positive(rope, "high_freq_factor", where),
        _count(rope, "original_max_position_embeddings", where),
    )


def _sliding_window(raw: Mapping[str, Any], family: str, where: str) -> int | None:
    if family == "llama":
        return None
    if family == "mistral":
        # Absent means the class's default, which is Mistral 7B v0.1's; null means none.
        window = raw.get("sliding_window", 4096)
        return None if window is None else _count({"sliding_window": window}, "sliding_window", where)
    if not raw.get("use_sliding_window", False) or raw.get("sliding_window") is None:
        return None
    first = raw.get("max_window_layers", 28)
    windowed = [kind == "sliding_attention" for kind in raw.get("layer_types") or []]
    windowed = windowed or [layer >= first for layer in range(_count(raw, "num_hidden_layers", where))]
    if any(windowed) and not all(windowed):
        raise UserError(
            f"{where}: a sliding window in some layers only is not supported; all or no layers may have one."
        )
    return _count(raw, "sliding_window", where) if all(windowed) else None


def build_config(config: DecoderConfig, token_ids: Mapping[str, int]) -> dict:
    """Writes a ``config.json`` for a decoder that came without one.

    Args:
      config: the decoder.
      token_ids: ``bos_token_id``, ``eos_token_id``, ``pad_token_id``, those that exist.

    Returns:
      Its content, which ``transformers`` 4 and 5 both read.
    """
    raw = {
        "architectures": [ARCHITECTURES[config.family]],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "rope_theta": config.rope_theta,
        "rope_scaling": _scaling_dict(config.rope_scaling),
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        **token_ids,
    }
    if config.family == "mistral":
        raw["sliding_window"] = config.sliding_window
    elif config.sliding_window is not None:
        raw |= {"use_sliding_window": True, "sliding_window": config.sliding_window, "max_window_layers": 0}
    return raw


def _scaling_dict(scaling: RopeScaling | None) -> dict | None:
    if scaling is None:
        return None
    if scaling.kind == "linear":
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_positions,
    }
