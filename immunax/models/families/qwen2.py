"""Qwen2 (arXiv:2407.10671) and Qwen2.5 (arXiv:2412.15115): biases on queries, keys and values."""

from collections.abc import Mapping

from immunax.models.config import DecoderConfig
from immunax.models.families.family import Family, Gguf
from immunax.models.families.fields import Fields
from immunax.runtime.errors import UserError


def read_window(fields: Fields) -> Mapping:
    """Qwen's window, which all layers have or none.

    Raises:
      UserError: some layers have it.
    """
    if not fields.get("use_sliding_window", False) or fields.get("sliding_window") is None:
        return {}
    first = fields.get("max_window_layers", 28)
    windowed = [kind == "sliding_attention" for kind in fields.get("layer_types") or []]
    windowed = windowed or [layer >= first for layer in range(fields.count("num_hidden_layers"))]
    if any(windowed) and not all(windowed):
        raise UserError(
            f"{fields.where}: a sliding window in some layers only is not supported; all or no layers may have one."
        )
    return {"sliding_window": fields.count("sliding_window")} if all(windowed) else {}


def write_window(config: DecoderConfig) -> Mapping:
    """The inverse of :func:`read_window`."""
    if config.sliding_window is None:
        return {}
    return {"use_sliding_window": True, "sliding_window": config.sliding_window, "max_window_layers": 0}


QWEN2 = Family(
    "qwen2",
    "Qwen2ForCausalLM",
    fixed={"qkv_bias": True},
    read=read_window,
    write=write_window,
    gguf=Gguf("qwen2"),
)
