"""Gemma 2 (arXiv:2408.00118): soft caps, norms before and after each block, a window in every other layer."""

from collections.abc import Mapping

import numpy as np

from immunax.models.config import DecoderConfig
from immunax.models.families.family import Family, Gguf
from immunax.models.families.fields import Fields
from immunax.models.families.windows import layer_types, read_layers

_ACTIVATION = "gelu_pytorch_tanh"
_LAYERS_OF_27B = 46


def _read(fields: Fields) -> Mapping:
    layers = range(fields.layers("num_hidden_layers"))
    window = fields.count_or_none("sliding_window", 4096)
    given = Fields({**fields.raw, "sliding_window": window}, fields.where)
    return {
        "tie_embeddings": fields.flag("tie_word_embeddings", True),
        "query_pre_attn_scalar": fields.count("query_pre_attn_scalar", 256),
        "attention_cap": fields.positive_or_none("attn_logit_softcapping", 50.0),
        "logit_cap": fields.positive_or_none("final_logit_softcapping", 30.0),
        **({} if window is None else read_layers(given, [layer % 2 == 0 for layer in layers])),
    }


def _write(config: DecoderConfig) -> Mapping:
    return {
        "hidden_act": _ACTIVATION,
        "hidden_activation": _ACTIVATION,
        "query_pre_attn_scalar": config.query_pre_attn_scalar or config.head_dim,
        "attn_logit_softcapping": config.attention_cap,
        "final_logit_softcapping": config.logit_cap,
        "sliding_window": config.sliding_window,
        "layer_types": layer_types(config),
    }


def _read_gguf(metadata: Fields) -> Mapping:
    # Neither the scalar nor the layers are in the metadata: llama.cpp knows the one by the size, the others by heart.
    width, heads = metadata.count("embedding_length"), metadata.count("attention.head_count")
    largest = metadata.layers("block_count") == _LAYERS_OF_27B
    return {
        "query_pre_attn_scalar": width // heads if largest else metadata.count("attention.key_length"),
        "attention_cap": metadata.positive("attn_logit_softcapping", 50.0),
        "logit_cap": metadata.positive("final_logit_softcapping", 30.0),
        "sliding_window": metadata.count("attention.sliding_window", 4096),
        "windowed": (True, False),
    }


def _without_offset(name: str, value: np.ndarray, config: DecoderConfig) -> np.ndarray:
    """The converter adds the 1 to the scales of norms."""
    return value - config.norm_offset if name.endswith("_norm.weight") else value


GEMMA2 = Family(
    "gemma2",
    "Gemma2ForCausalLM",
    fixed={"post_norm": True, "norm_offset": 1.0, "activation": "gelu_tanh", "scale_embeddings": True},
    implied=(),
    allowed={
        "hidden_act": (_ACTIVATION,),
        "hidden_activation": (_ACTIVATION,),
        "use_bidirectional_attention": (False,),
    },
    read=_read,
    write=_write,
    modules={
        "attention_output_norm": "post_attention_layernorm",
        "post_attention_layernorm": "pre_feedforward_layernorm",
        "mlp_output_norm": "post_feedforward_layernorm",
    },
    gguf=Gguf("gemma2", _read_gguf, _without_offset),
)
