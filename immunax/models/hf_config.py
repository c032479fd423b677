"""Hugging Face's ``config.json``, to and from :class:`~immunax.models.config.DecoderConfig`.

What all families share is here; :mod:`immunax.models.families` says what each has of its own. A field that changes what
the model computes and that the decoder does not have is refused by name: a model that loads and quietly computes
something else would be worse than one that does not load.
"""

from collections.abc import Mapping
from typing import Any

from immunax.models.config import DecoderConfig, RopeScaling, check_heads
from immunax.models.families import FAMILIES, Family
from immunax.models.families.fields import Fields
from immunax.runtime.errors import UserError, nearest, shown

ROPE_TYPES = ("default", "linear", "llama3")
_ALLOWED = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "partial_rotary_factor": (1.0,),
}
_REFUSED = {
    "quantization_config": "load an unquantized checkpoint (float32, bfloat16, float16)",
    "transformers_weights": "delete it: weights are in model.safetensors, or where model.safetensors.index.json says",
}
"""Fields that no value of is supported, and what to do."""


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
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        hint = nearest(shown(model_type), FAMILIES)
        raise UserError(f"{where}: model_type {shown(model_type)} is not supported; supported are {known}.{hint}")
    refuse_own_code(raw, where, f"a plain {model_type}")
    family, fields = FAMILIES[model_type], Fields(raw, where)
    _refuse_variants(fields, family)
    n_heads, d_model = fields.count("num_attention_heads"), fields.count("hidden_size")
    implied = {"num_key_value_heads": n_heads, "head_dim": d_model // n_heads}
    implied = {name: implied[name] for name in family.implied}
    shared = {
        "vocab_size": fields.count("vocab_size"),
        "d_model": d_model,
        "d_ff": fields.count("intermediate_size"),
        "n_layers": fields.layers("num_hidden_layers"),
        "n_heads": n_heads,
        "n_kv_heads": fields.count("num_key_value_heads", implied.get("num_key_value_heads")),
        "head_dim": fields.count("head_dim", implied.get("head_dim")),
        "max_positions": fields.count("max_position_embeddings"),
        "rope_theta": _rope_theta(fields),
        "rope_scaling": _rope_scaling(fields),
        "norm_eps": fields.positive("rms_norm_eps", 1e-6),
        "tie_embeddings": fields.flag("tie_word_embeddings", False),
    }
    config = DecoderConfig(model_type, **{**shared, **family.fixed, **family.read(fields)})
    check_heads(config, where)
    return config


def refuse_own_code(raw: Mapping[str, Any], where: str, plain: str) -> None:
    """Refuses a configuration that names code of its own.

    Args:
      raw: a file of a model's folder.
      where: its path.
      plain: what is loaded in place of what that code makes.

    Raises:
      UserError: there is an ``auto_map``.
    """
    own = raw.get("auto_map")
    if own:
        named = next(iter(own.values())) if isinstance(own, Mapping) else own
        raise UserError(
            f"{where}: auto_map names code of the model's own ({str(named)[:80]}), which is never run; "
            f"if it computes what {plain} does, delete auto_map from the file."
        )


def _refuse_variants(fields: Fields, family: Family) -> None:
    declared = fields.get("architectures") or [family.architecture]
    if not isinstance(declared, list) or family.architecture not in declared:
        named = shown(declared[0] if isinstance(declared, list) else declared).strip("'")
        raise UserError(
            f"{fields.where}: architecture {named} is not supported; for {family.model_type}, {family.architecture} is."
        )
    for name, allowed in {**dict.fromkeys(_REFUSED, ()), **_ALLOWED, **family.allowed}.items():
        given = fields.get(name)
        if given is None or given in allowed:
            continue
        fix = f"only {allowed[0]!r} is" if allowed else _REFUSED[name]
        given = given.get("quant_method", "quantized") if isinstance(given, dict) else given
        raise UserError(f"{fields.where}: {name} {shown(given)} is not supported; {fix}.")


def _rope(fields: Fields) -> Fields:
    # transformers 5 writes rope_parameters (theta inside); before, rope_scaling stood beside rope_theta.
    new, old = fields.get("rope_parameters"), fields.get("rope_scaling")
    if new and old and _described(new, fields) != _described(old, fields):
        raise UserError(
            f"{fields.where}: rope_parameters and rope_scaling differ, and versions of transformers take one or the other; "
            "delete the wrong one."
        )
    rope = new or old or {}
    if not isinstance(rope, Mapping) or any(isinstance(value, Mapping) for value in rope.values()):
        raise UserError(
            f"{fields.where}: rotary parameters {shown(rope)} are not supported: expected one set for all layers."
        )
    return Fields(rope, fields.where)


def _described(rope: Any, fields: Fields) -> dict[str, Any]:
    """Rotary parameters without what only one of the two forms has to say."""
    if not isinstance(rope, Mapping):
        return {"": rope}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    rest = {name: value for name, value in rope.items() if name not in ("type", "rope_type") and value is not None}
    return {"rope_theta": fields.get("rope_theta"), **rest, "rope_type": kind}


def _rope_theta(fields: Fields) -> float:
    rope = _rope(fields)
    return (rope if rope.get("rope_theta") is not None else fields).positive("rope_theta", 10000.0)


def _rope_scaling(fields: Fields) -> RopeScaling | None:
    rope = _rope(fields)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in ROPE_TYPES:
        raise UserError(
            f"{rope.where}: rotary scaling {shown(kind)} is not supported; supported are {', '.join(ROPE_TYPES)}."
        )
    partial = rope.get("partial_rotary_factor")
    if partial not in (None, 1.0):
        raise UserError(f"{rope.where}: partial_rotary_factor {shown(partial)} is not supported; only 1.0 is.")
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling("linear", rope.positive("factor"))
    return RopeScaling(
        "llama3",
        rope.positive("factor"),
        rope.positive("low_freq_factor"),
        rope.positive("high_freq_factor"),
        rope.count("original_max_position_embeddings"),
    )


def portable(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A ``config.json`` whose rotary parameters both ``transformers`` 4 and 5 find.

    Args:
      raw: its content, of one set of rotary parameters.

    Returns:
      The content, where version 5 wrote it with the fields of version 4 added: that one knows no ``rope_parameters``, and would
      compute another model without a word.
    """
    rope = raw.get("rope_parameters")
    if not rope:
        return dict(raw)
    scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
    plain = scaling.get("rope_type", "default") == "default"
    older = {
        "rope_theta": rope.get("rope_theta", raw.get("rope_theta", 10000.0)),
        "rope_scaling": None if plain else scaling,
    }
    return {**raw, **older}


def build_config(config: DecoderConfig, token_ids: Mapping[str, int]) -> dict:
    """Writes a ``config.json`` for a decoder that came without one.

    Args:
      config: the decoder.
      token_ids: ``bos_token_id``, ``eos_token_id``, ``pad_token_id``, those that exist.

    Returns:
      Its content, which ``transformers`` 4 and 5 both read.
    """
    family = FAMILIES[config.family]
    return {
        "architectures": [family.architecture],
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
        **family.write(config),
    }


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
