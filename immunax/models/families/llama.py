"""Llama 2 (arXiv:2307.09288) and 3 (arXiv:2407.21783), and what is built like them, such as SmolLM2 (arXiv:2502.02737)."""

import numpy as np

from immunax.models.config import DecoderConfig
from immunax.models.families.family import Family, Gguf


def _halves(name: str, value: np.ndarray, config: DecoderConfig) -> np.ndarray:
    """Reorders the rows ``[H * head_dim, ...]`` of each query and key head from neighbouring rotary pairs to two halves.

    llama.cpp rotates neighbouring pairs of dimensions in this architecture, where Hugging Face rotates the two halves.
    """
    module = name.split(".")[-2]
    if module not in ("attn_q", "attn_k"):
        return value
    n_heads = config.n_heads if module == "attn_q" else config.n_kv_heads
    pairs = value.reshape(n_heads, -1, 2, *value.shape[1:])
    return pairs.swapaxes(1, 2).reshape(value.shape)


LLAMA = Family(
    "llama",
    "LlamaForCausalLM",
    implied=("num_key_value_heads", "head_dim"),
    gguf=Gguf("llama", restore=_halves),
)
