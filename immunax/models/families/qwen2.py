"""Qwen2 (arXiv:2407.10671) and Qwen2.5 (arXiv:2412.15115): biases on queries, keys and values."""

from collections.abc import Mapping

from immunax.models.config import DecoderConfig
from immunax.models.families.family import Family, Gguf
from immunax.models.families.fields import Fields
from immunax.models.families.windows import layer_types, read_layers


def read_window(fields: Fields) -> Mapping:
    """Qwen's window, which the layers from ``max_window_layers`` on have, if it is used."""
    if not fields.flag("use_sliding_window", False) or fields.get("sliding_window") is None:
        return {}
    # The first layer may be number 0, which is no count.
    first = 0 if fields.get("max_window_layers") == 0 else fields.count("max_window_layers", 28)
    return read_layers(fields, [layer >= first for layer in range(fields.layers("num_hidden_layers"))])


def write_window(config: DecoderConfig) -> Mapping:
    """The inverse of :func:`read_window`."""
    if config.sliding_window is None:
        return {}
    kinds = layer_types(config)
    return {
        "use_sliding_window": True,
        "sliding_window": config.sliding_window,
        "max_window_layers": kinds.index("sliding_attention"),
        "layer_types": kinds,
    }


QWEN2 = Family(
    "qwen2",
    "Qwen2ForCausalLM",
    fixed={"qkv_bias": True},
    read=read_window,
    write=write_window,
    gguf=Gguf("qwen2"),
)
